"""What an extraction would do: what it would reuse, what compute, and the time and space that takes."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, islice, repeat, takewhile
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featurebank.backbones.request import Request
from featurebank.bank.bank import Bank
from featurebank.bank.spec import FeatureSpec
from featurebank.errors import BankError, counted
from featurebank.extraction.pipeline import Compute
from featurebank.extraction.pixel_range import settle_source
from featurebank.extraction.preparing import Preparer
from featurebank.extraction.tracker import Tracker
from featurebank.images.reading import Progress
from featurebank.images.views import count_views

if TYPE_CHECKING:
    from featurebank.backbones.engine import Engine
    from featurebank.backbones.exported.engine import ExportedEngine
    from featurebank.images.sources import Source

SAMPLE = 128
"""Images that are timed."""
DIGEST_BYTES = 32
SAMPLE_BYTES = 100
"""Bytes of a sample's row beside its path: digest, size, times, status, a label of one word."""


# --- reused or computed ------------------------------------------------------------------------------------


def explain(source: Source, bank: Bank | None, request: Request) -> dict[str, Any]:
    """Say what `extract` would find in a bank; nothing is embedded or written. A new bank's range is measured.

    Parameters
    ----------
    source : Source
        From `featurebank.scan`.
    bank : Bank or None
        None where there is no bank yet: all samples are new.
    request : Request
        The backbone and layers; the network is loaded only for a request that the bank has not seen.

    Returns
    -------
    dict
        ``samples``, ``unchanged`` (file as the bank knows it), ``changed``, ``new``; and for each feature set its
        ``name``, ``fingerprint``, ``hits`` and ``misses`` among the unchanged samples, and, where the bank has no such
        set, the ``nearest`` one and the fields of the spec in which it ``differs`` ([there, asked for]).
    """
    request, source, _ = settle_source(request, source, bank)
    specs = request.specs(bank)
    if bank is None:
        sets = [{"name": each.name, "fingerprint": each.fingerprint, "hits": 0, "misses": 0} for each in specs]
        count = len(source.paths)
        return {"samples": count, "unchanged": 0, "changed": 0, "new": count, "feature_sets": sets}
    tracker = Tracker(source, bank, specs, verify=False)
    known = int((tracker.before >= 0).sum())
    same = tracker.unchanged()
    others = [each.spec for each in bank.feature_sets]
    return {
        "samples": len(source.paths),
        "unchanged": len(same),
        "changed": known - len(same),
        "new": len(source.paths) - known,
        "feature_sets": [_explain_set(tracker, spec, same, others) for spec in specs],
    }


def _explain_set(tracker: Tracker, spec: FeatureSpec, same: list[bytes], others: list[FeatureSpec]) -> dict[str, Any]:
    misses = sum(spec in lacking for lacking in tracker.lacking(same))
    facts = {"name": spec.name, "fingerprint": spec.fingerprint, "hits": len(same) - misses, "misses": misses}
    if spec in others or not others:
        return facts
    near = min(others, key=lambda other: (other.backbone != spec.backbone, len(differences(other, spec))))
    return {**facts, "nearest": f"{near.name}@{near.fingerprint[:8]}", "differs": differences(near, spec)}


def differences(there: FeatureSpec, asked: FeatureSpec) -> dict[str, list[Any]]:
    """Return the fields in which two specs differ, each as [there, asked for].

    Examples
    --------
    >>> spec = FeatureSpec("net", "", "00", "fc", "vector", 0, "none", {}, 1, "none", "fp32", "float16")
    >>> from dataclasses import replace
    >>> differences(spec, replace(spec, store="float32"))
    {'store': ['float16', 'float32']}
    """
    first, second = there.to_dict(), asked.to_dict()
    return {name: [first[name], second[name]] for name in first if first[name] != second[name]}


# --- time and space ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Estimate:
    """What an extraction will take on a machine like this one.

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

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that ``featurebank extract --estimate --json`` prints."""
        return asdict(self)


def row_bytes_of(specs: Sequence[FeatureSpec], widths: Sequence[int]) -> int:
    """Return the bytes that one image's rows take in a bank: its digest and values in each feature set.

    Examples
    --------
    >>> from featurebank.bank.spec import imported_spec
    >>> row_bytes_of([imported_spec("net/penultimate", {}, "vector", "float16")], [1280])
    2592
    """
    return sum(
        DIGEST_BYTES + count_views(spec.views) * width * np.dtype(spec.store).itemsize
        for spec, width in zip(specs, widths, strict=True)
    )


def estimate(
    source: Source,
    bank: str | os.PathLike[str],
    request: Request,
    compute: Compute | None = None,
    *,
    sample: int = SAMPLE,
    progress: Progress | None = None,
) -> Estimate:
    """Time a sample of a source's images, from all over it, and say what all of them will take.

    Nothing is written to the bank, which need not exist. (A network that is tracker by ONNX Runtime is exported to the
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
    sample : int, default 128
        Images to time, where there are so many: in whole batches, after one that warms up.
    progress : callable, optional
        Called with (images done, images in all).

    Raises
    ------
    BankError
        When no image can be read, or none is left to embed.
    """
    compute = compute or Compute()
    opened = Bank(bank) if os.path.isfile(os.path.join(bank, "bank.json")) else None
    request, source, _ = settle_source(request, source, opened)
    pending, specs = _pending(source, opened, request)
    engine = compute.open(request.known_by(specs[0]), specs, images=len(pending))
    speed, timed, failed, outputs = _time(source, pending, engine, compute, sample, progress)
    widths = [int(np.prod(output.shape[2:], dtype=int)) for output in outputs]
    paths = sum(len(source.paths[position]) for position in pending) / max(1, len(pending))
    row_bytes = row_bytes_of(specs, widths) + SAMPLE_BYTES + round(paths)
    return Estimate(
        images=len(pending),
        samples=len(source.paths),
        timed=timed,
        failed=failed,
        images_per_second=speed,
        engine=str(engine),
        row_bytes=row_bytes,
        hours=len(pending) / speed / 3600,
        gigabytes=len(pending) * row_bytes / 1e9,
    )


def _pending(source: Source, bank: Bank | None, request: Request) -> tuple[list[int], list[FeatureSpec]]:
    """Return the samples that are to be embedded, and the feature sets."""
    specs = request.specs(bank)
    if bank is not None:
        return Tracker(source, bank, specs, verify=False).pending(), specs
    return list(range(len(source.paths))), specs


def _time(
    source: Source,
    pending: Sequence[int],
    engine: Engine | ExportedEngine,
    compute: Compute,
    sample: int,
    progress: Progress | None,
) -> tuple[float, int, int, list[NDArray[np.float32]]]:
    """Return images a second, how many were timed and how many failed, and one batch's rows."""
    backbone, views, size = engine.backbone, engine.specs[0].views, engine.images_at_once
    count = min(len(pending), size * (1 + math.ceil(sample / size)))
    drawn = [pending[i] for i in np.unique(np.linspace(0, len(pending) - 1, count, dtype=int))] if pending else []
    failed = 0
    preparer = Preparer(source, lambda: [(backbone, views)], batch=lambda: size, workers=compute.workers)

    def readable() -> Iterator[Sequence[Any]]:
        nonlocal failed
        with preparer as prepare:
            for done, item in enumerate(prepare(drawn), 1):
                failed += bool(item.error)
                if progress is not None:
                    progress(done, len(drawn))
                if not item.error:
                    yield item.views[0]

    outputs: list[NDArray[np.float32]] = []
    timed, seconds, started = 0, 0.0, time.perf_counter()
    for number, batch in enumerate(_batches(readable(), len(drawn) % size or size, size)):
        if timed and len(batch) < size:  # images that cannot be read left it short, and it would be filled up
            continue
        outputs = engine.embed_views(view for prepared in batch for view in prepared)
        if number == 0 and len(drawn) > size:  # the first batch pays for what a long run pays once
            started = time.perf_counter()
        else:
            timed, seconds = timed + len(batch), time.perf_counter() - started
    if not timed:
        what = "nothing is left to embed" if not pending else f"none of {counted(len(drawn), 'image')} could be read"
        raise BankError(f"{what}; expected images to time: run extract without --estimate")
    return timed / seconds, timed, failed, outputs


def _batches(items: Iterator[Any], first: int, size: int) -> Iterator[list[Any]]:
    """Cut items into batches of a size, after a first one of another size.

    Examples
    --------
    >>> list(_batches(iter("abcdef"), 1, 3))
    [['a'], ['b', 'c', 'd'], ['e', 'f']]
    """
    return takewhile(bool, (list(islice(items, each)) for each in chain([first], repeat(size))))
