"""What a predictor costs: each of its backbones embeds every new image, in so many seconds, measured."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from featurebank.backbones.keeping import keep
from featurebank.bank.images import source_of
from featurebank.bank.samples import SampleTable
from featurebank.errors import ImageError
from featurebank.predictor.embedding import CPU_BATCH, Item

if TYPE_CHECKING:
    from featurebank.predictor.predictor import Predictor

MEASURED = 4
"""Batches that are timed, after one that warms the networks."""


def measure_cost(predictor: Predictor, table: SampleTable) -> dict[str, Any]:
    """Measure how long a predictor takes for an image, reading and decoding included.

    The images go the way of `Predictor.predict_table`: some are read ahead. Networks that can be exported are, before
    any image is timed, since a predictor runs the exported ones.

    Parameters
    ----------
    predictor : Predictor
    table : SampleTable
        Samples of a bank whose files are still there; about 64 of them are timed, evenly spread.

    Returns
    -------
    dict
        ``seconds_an_image`` (by the clock, of the median batch, where the networks are loaded), ``images`` that were
        timed, ``backbones``, the names of those that embed each image, and the ``engine`` of each.

    Raises
    ------
    ImageError
        When none of the files can be read.
    """
    files = table.take(table.rows["root"].to_numpy() != "")
    if not len(files):
        raise ImageError("the images of this bank were in memory, so that none can be read again to time it")
    wanted = np.unique(np.linspace(0, len(files) - 1, (MEASURED + 1) * CPU_BATCH).astype(np.int64))
    source = source_of(files.take(wanted))
    items: list[Any] = list(islice(cycle(Item(source, row) for row in range(len(wanted))), (MEASURED + 1) * CPU_BATCH))
    for network in predictor.networks():
        keep(network)
    predictor.predict_columns(items[:CPU_BATCH])
    marks = [(0, time.perf_counter())]

    def mark(done: int, _: int) -> None:
        marks.append((done, time.perf_counter()))

    errors = predictor.predict_columns(items[CPU_BATCH:], mark)["error"]
    answered = time.perf_counter()
    is_read = [not error for error in errors]
    if not any(is_read):
        raise ImageError(errors[0])
    answering = (answered - marks[-1][1]) / sum(is_read)
    return {
        "seconds_an_image": pace(marks, is_read) + answering,
        "images": sum(is_read),
        "backbones": predictor.backbone_names,
        "engine": predictor.engine_names,
    }


def pace(marks: Sequence[tuple[int, float]], is_read: Sequence[bool]) -> float:
    """Return the seconds an image of the median batch, the first left out where there are more.

    Parameters
    ----------
    marks : sequence of (int, float)
        How many images were done when, the start among them.
    is_read : sequence of bool
        Whether each image could be read: others take no time.

    Examples
    --------
    >>> pace([(0, 10.0), (2, 19.0), (4, 20.0), (6, 21.5)], [True, True, True, True, True, False])
    1.0
    """
    done, when = zip(*marks, strict=True)
    images = np.diff(np.append(0, np.cumsum(is_read))[list(done)])
    found = (np.diff(when) / np.maximum(images, 1))[images > 0]
    return float(np.median(found[1:] if len(found) > 1 else found))
