"""What an extraction will take: time, space, machines and money, from a timed sample of the user's own images."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from featurebank.backbones.request import Request
from featurebank.bank.bank import Bank
from featurebank.bank.spec import FeatureSpec
from featurebank.errors import BankError, ImageError
from featurebank.extraction.ledger import Ledger
from featurebank.extraction.pipeline import AHEAD, Compute
from featurebank.images.reading import Progress, read_ahead, worker_count
from featurebank.images.views import count_views

if TYPE_CHECKING:
    from featurebank.backbones.engine import Engine
    from featurebank.images.sources import Source

SAMPLE = 128
"""Images that are timed."""
DIGEST_BYTES = 32
SAMPLE_BYTES = 100
"""Bytes of a sample's row beside its path: digest, size, times, status, a label of one word."""
_ITEM_BYTES = {"float16": 2, "float32": 4}


@dataclass(frozen=True)
class Estimate:
    """What an extraction will take on machines like this one.

    Attributes
    ----------
    images : int
        How many images are to be embedded; what the bank has already costs nothing.
    samples : int
        How many images the source has.
    timed, failed : int
        How many images were timed, and how many of those drawn could not be read.
    images_per_second : float
        Of one device, reading and decoding beside it included; loading and exporting the network left out.
    engine : str
        What computed, on which device.
    row_bytes : int
        What one image takes in the bank, all feature sets together.
    hours : float
        On one device.
    gigabytes : float
        In the bank, 1e9 bytes each.
    deadline_hours : float or None
        As asked for.
    devices : int or None
        How many such devices finish by the deadline.
    price_per_hour : float or None
        Of one device, as asked for.
    cost, cost_per_million : float or None
        In the price's currency, for these images and for a million.
    """

    images: int
    samples: int
    timed: int
    failed: int
    images_per_second: float
    engine: str
    row_bytes: int
    hours: float
    gigabytes: float
    deadline_hours: float | None = None
    devices: int | None = None
    price_per_hour: float | None = None
    cost: float | None = None
    cost_per_million: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that ``featurebank extract --estimate --json`` prints."""
        return asdict(self)


def plan(
    images: int,
    images_per_second: float,
    row_bytes: int,
    *,
    deadline_hours: float | None = None,
    price_per_hour: float | None = None,
) -> dict[str, Any]:
    """Return what a number of images takes; the README's section on sizing is this arithmetic.

    Parameters
    ----------
    images : int
    images_per_second : float
        Of one device.
    row_bytes : int
        Of one image in the bank, see `row_bytes_of`.
    deadline_hours, price_per_hour : float, optional
        See `Estimate`.

    Returns
    -------
    dict
        ``hours, gigabytes, devices, cost, cost_per_million``; None for what was not asked.

    Raises
    ------
    BankError
        When the speed, the deadline or the price cannot be.

    Examples
    --------
    >>> found = plan(10_000_000, 150, 2592, deadline_hours=24, price_per_hour=0.5)
    >>> round(found["hours"], 1), round(found["gigabytes"], 1), found["devices"], round(found["cost_per_million"], 2)
    (18.5, 25.9, 1, 0.93)
    """
    if not images_per_second > 0 or (deadline_hours is not None and not deadline_hours > 0):
        raise BankError(f"{images_per_second} images/s, {deadline_hours} hours; expected numbers above 0")
    if price_per_hour is not None and not (price_per_hour >= 0 and math.isfinite(price_per_hour)):
        raise BankError(f"a price of {price_per_hour} an hour; expected a number from 0 up")
    hours = images / images_per_second / 3600
    return {
        "hours": hours,
        "gigabytes": images * row_bytes / 1e9,
        "devices": None if deadline_hours is None else max(1, math.ceil(hours / deadline_hours - 1e-9)),
        "cost": None if price_per_hour is None else hours * price_per_hour,
        "cost_per_million": None if price_per_hour is None else 1e6 / images_per_second / 3600 * price_per_hour,
    }


def row_bytes_of(specs: Sequence[FeatureSpec], widths: Sequence[int]) -> int:
    """Return the bytes that one image's rows take in a bank: its digest and values in each feature set.

    Examples
    --------
    >>> from featurebank.bank.spec import imported_spec
    >>> row_bytes_of([imported_spec("net/penultimate", {}, "vector", "float16")], [1280])
    2592
    """
    return sum(
        DIGEST_BYTES + count_views(spec.views) * width * _ITEM_BYTES[spec.store]
        for spec, width in zip(specs, widths, strict=True)
    )


def estimate(
    source: Source,
    bank: str | os.PathLike[str],
    request: Request,
    compute: Compute | None = None,
    *,
    deadline_hours: float | None = None,
    price_per_hour: float | None = None,
    sample: int = SAMPLE,
    progress: Progress | None = None,
) -> Estimate:
    """Time a sample of a source's images, from all over it, and say what all of them will take.

    Nothing is written to the bank, which need not exist. (A network that is run by ONNX Runtime is exported to the
    user's cache as `extract` would do it.)

    Parameters
    ----------
    source : Source
        From `featurebank.scan`.
    bank : path-like
        Where the rows would go; what it has already is not counted.
    request : Request
        The backbone and layers.
    compute : Compute, optional
    deadline_hours : float, optional
        Hours within which all is to be done.
    price_per_hour : float, optional
        Of one such device.
    sample : int, default 128
        Images to time; a batch more warms up.
    progress : callable, optional
        Called with (images done, images in all).

    Raises
    ------
    BankError
        When no image can be read, or a number cannot be.
    """
    plan(0, 1.0, 0, deadline_hours=deadline_hours, price_per_hour=price_per_hour)  # refused before anything is timed
    compute = compute or Compute()
    pending, specs = _pending(source, bank, request)
    engine = _open(request, specs, compute, len(pending))
    speed, timed, failed, outputs = _time(source, pending, request, engine, specs[0].views, compute, sample, progress)
    widths = [int(np.prod(output.shape[2:], dtype=int)) for output in outputs]
    paths = sum(len(source.paths[position]) for position in pending) / max(1, len(pending))
    row_bytes = row_bytes_of(specs, widths) + SAMPLE_BYTES + round(paths)
    found = plan(len(pending), speed, row_bytes, deadline_hours=deadline_hours, price_per_hour=price_per_hour)
    return Estimate(
        images=len(pending),
        samples=len(source.paths),
        timed=timed,
        failed=failed,
        images_per_second=speed,
        engine=f"{engine.engine} on {engine.device} in batches of {engine.batch_size}",
        row_bytes=row_bytes,
        deadline_hours=deadline_hours,
        price_per_hour=price_per_hour,
        **found,
    )


def _pending(source: Source, bank: str | os.PathLike[str], request: Request) -> tuple[list[int], list[FeatureSpec]]:
    """Return the samples that are to be embedded, and the feature sets."""
    if os.path.isfile(os.path.join(bank, "bank.json")):
        opened = Bank(bank)
        specs = request.specs(opened)
        return Ledger(source, opened, specs, verify=False).pending(), specs
    return list(range(len(source.paths))), request.specs()


def _open(request: Request, specs: Sequence[FeatureSpec], compute: Compute, images: int) -> Engine:
    from featurebank.backbones.engine import Engine

    return Engine(
        request.load(),
        specs,
        device=compute.device,
        engine=compute.engine,
        batch_size=compute.batch_size,
        images=images,
    )


def _time(
    source: Source,
    pending: Sequence[int],
    request: Request,
    engine: Engine,
    views: str,
    compute: Compute,
    sample: int,
    progress: Progress | None,
) -> tuple[float, int, int, list[Any]]:
    """Return images a second, how many were timed and how many failed, and one batch's rows."""
    backbone, warm = request.load(), engine.images_at_once
    count = min(len(pending), sample + warm)
    drawn = [pending[i] for i in np.unique(np.linspace(0, len(pending) - 1, count, dtype=int))] if pending else []
    failed = 0

    def prepare(position: int) -> list[Any] | None:
        try:
            digest, decode = source.read(position)
            return list(backbone.prepare_views(decode(**backbone.opening), views, digest))
        except ImageError:
            return None

    outputs: list[Any] = []
    timed, started = 0, time.perf_counter()
    workers = worker_count(compute.workers)
    found = read_ahead(prepare, drawn, workers=workers, most=max(workers, AHEAD * warm))
    for number, batch in enumerate(_batches(found, warm)):
        read = [prepared for prepared in batch if prepared is not None]
        failed += len(batch) - len(read)
        if read:
            outputs = engine.embed_views(view for prepared in read for view in prepared)
        if number == 0 and len(drawn) > warm:  # the first batch pays for what a long run pays once
            started = time.perf_counter()
        else:
            timed += len(read)
        if progress is not None:
            progress(min(len(drawn), (number + 1) * warm), len(drawn))
    seconds = time.perf_counter() - started
    if not timed or not outputs:
        what = "nothing is left to embed" if not pending else f"none of {len(drawn)} images could be read"
        raise BankError(f"{what}; expected images to time: run extract without --estimate")
    return timed / seconds, timed, failed, outputs


def _batches(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    return iter(lambda: list(islice(items, size)), [])
