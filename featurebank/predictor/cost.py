"""What a predictor costs: each of its backbones embeds every new image, in so many seconds, measured."""

from __future__ import annotations

import time
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from featurebank.bank.images import source_of
from featurebank.bank.samples import SampleTable
from featurebank.errors import ImageError
from featurebank.predictor.embedding import CPU_BATCH, Item

if TYPE_CHECKING:
    from featurebank.predictor.predictor import Predictor

MEASURED = 4
"""Batches that are timed, after one that loads and warms the networks."""


def measure_cost(predictor: Predictor, table: SampleTable) -> dict[str, Any]:
    """Measure how long a predictor takes for an image, reading and decoding included.

    Parameters
    ----------
    predictor : Predictor
    table : SampleTable
        Samples of a bank whose files are still there; about 64 of them are looked at, evenly spread.

    Returns
    -------
    dict
        ``seconds_an_image`` (of the median batch of 16, where the networks are loaded), ``images`` that were timed,
        ``backbones``, the names of those that embed each image, and the ``engine`` of each.

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
    items = list(islice(cycle(Item(source, row) for row in range(len(wanted))), (MEASURED + 1) * CPU_BATCH))
    seconds = []
    for start in range(0, len(items), CPU_BATCH):
        started = time.perf_counter()
        parts, errors, _ = predictor.embed_some(items[start : start + CPU_BATCH])
        if all(errors):
            raise ImageError(errors[0])
        if not any(errors):
            for each in predictor.tasks.values():
                each.answers(predictor.seen_by(each.features, parts), np.ones(len(errors), bool))
            seconds.append(time.perf_counter() - started)
    timed = seconds[1:] or seconds
    if not timed:
        raise ImageError("no sixteen images in a row could be read to time it")
    return {
        "seconds_an_image": float(np.median(timed)) / CPU_BATCH,
        "images": len(timed) * CPU_BATCH,
        "backbones": predictor.backbone_names,
        "engine": predictor.engine_names,
    }
