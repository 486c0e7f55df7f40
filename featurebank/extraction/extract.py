"""extract(): images -> backbone -> bank; incremental, resumable, with an error tracker."""

from __future__ import annotations

import itertools
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from featurebank.backbones.request import Request
from featurebank.bank.bank import Bank, BankLike
from featurebank.bank.request import describe_set
from featurebank.bank.upkeep import set_damaged_features_aside, set_damaged_tables_aside
from featurebank.errors import BankError, ImageError, near_names
from featurebank.extraction.naming import about_replaced, tell_apart
from featurebank.extraction.pipeline import Compute, Pipeline
from featurebank.extraction.pixel_range import settle_source
from featurebank.extraction.several import SharedPipeline, alike, requests_for
from featurebank.extraction.tracker import Embed, ExtractReport, Tracker
from featurebank.images.pixels import PixelRules
from featurebank.images.progress import shown
from featurebank.images.reading import Progress
from featurebank.images.scanning import scan

if TYPE_CHECKING:
    from torch import nn

    from featurebank.backbones.base import Backbone
    from featurebank.images.sources import Source

BACKENDS = ("local", "ray")


def extract(
    source: Any,
    bank: BankLike,
    *,
    backbone: str | Backbone | nn.Module | Sequence[str | Backbone | nn.Module] = "efficientnet_lite0",
    layers: str | Sequence[str] = "penultimate",
    weights: str = "DEFAULT",
    size: int | None = None,
    store: str = "float16",
    views: str = "none",
    precision: str = "fp32",
    decoder: str = "pil",
    range: str | tuple[float, float] = "auto",
    pages: str | None = None,
    channels: str | Sequence[int] | None = None,
    framing: str | None = None,
    root: str | Path | None = None,
    path_column: str | None = None,
    separator: str | None = None,
    encoding: str | None = None,
    labels_as: str = "auto",
    ids: Sequence[str] | None = None,
    columns: Mapping[str, Sequence[Any]] | pd.DataFrame | None = None,
    name: str | None = None,
    device: str = "auto",
    engine: str = "auto",
    batch_size: int | None = None,
    workers: int | None = None,
    backend: str = "local",
    ray_address: str | None = None,
    verify: bool = False,
    strict: bool = False,
    progress: Progress | None = None,
) -> Bank:
    """Embed the images of a source that the bank does not have yet, and return the bank.

    A run that is interrupted keeps every finished segment; the next one goes on with what is missing.

    Parameters
    ----------
    source : path, table, sequence or Dataset
        A folder of images or of class folders, a CSV, Parquet or JSON Lines manifest, Parquet with images inside, tar
        shards, a DataFrame, dict or list of paths or images, or a Dataset; see `featurebank.scan`.
    bank : path-like or Bank
        The bank; made when it does not exist.
    backbone : str, Backbone or torch.nn.Module, default "efficientnet_lite0"
        See `featurebank.load_backbone` and `featurebank.Backbone.from_module`. With several, images are read and
        decoded once for all of them.
    layers : str or sequence of str, default "penultimate"
        ``LAYER[:POOL]``, all computed in one forward pass; ``BACKBONE/LAYER[:POOL]`` is of one of several backbones.
    weights : str, default "DEFAULT"
        ``DEFAULT``, a weight enum's name, a checkpoint file, or ``random:SEED``.
    size : int, optional
        Input size in pixels, in place of the weights' own.
    store : str, default "float16"
        Stored dtype, ``"float16"`` or ``"float32"``.
    views : str, default "none"
        What is embedded of each image beside itself: ``"hflip"`` (mirrored), ``"flips"`` (mirrored, upside down,
        both), ``"dihedral"`` (all 8 flips and quarter turns), or ``"augment:K"`` (K - 1 random changes, always the
        same for the same content: crop, small turn and shift, mirroring, colours). `Bank.load` averages them, or
        returns the ``"first"``, the image itself, or ``"all"``.
    precision : str, default "fp32"
        Dtype that the network computes in: ``"bf16"`` or ``"fp16"`` is faster on hardware that has it and gives other
        embeddings, in a feature set of their own.
    decoder : str, default "pil"
        ``"tensor"`` resizes faster, ``"reduced"`` decodes large JPEG files faster, ``"nvjpeg"`` has a CUDA GPU decode
        and resize JPEG files; each gives slightly other embeddings, in a feature set of their own. See
        `featurebank.backbones.Preprocessing`.
    range : str or tuple of float, default "auto"
        What is black and white in images of more than 8 bits: ``"full"`` (0 and 65535), ``"LOW..HIGH"`` or (LOW, HIGH).
        ``"auto"`` keeps the range that the bank has, and measures it over the source for a new one
        (`featurebank.images.ranges.measure_range`); integers that use all of 16 bits have the full one.
    pages : str, optional
        Of a stack of pages: ``"first"``, or the ``"mean"`` or ``"max"`` over them; ``"each"`` makes a sample of each,
        with the column ``stack``. By default the first, with a warning.
    channels : str or sequence of int, optional
        ``"0,1,2"``, one to three channels that are seen as grey, red and green, or red, green and blue; or ``"mean"``.
    framing : str, optional
        Which part of an image the network is given: ``"crop"`` (the default: the middle, as the weights were tested;
        what lies at the border is never seen), ``"squash"`` (the whole image without its proportions), ``"pad"`` (the
        whole image with a margin in the mean colour), or ``"tiles"`` (overlapping pieces of the whole image, whose
        features are averaged: four forward passes for a square image, more for a longer one). By default a fine-tuned
        predictor's file keeps what it was trained with.
    root : path, optional
        Folder that a manifest's paths start from, or where a source's files are now.
    path_column : str, optional
        The manifest's column of paths (default ``"path"``).
    separator, encoding : str, optional
        Of a manifest of text; by default found.
    labels_as : str, default "auto"
        What a manifest's columns of text become: ``"auto"`` makes numbers where that loses nothing, ``"text"`` never,
        ``"numbers"`` also where it does.
    ids : sequence of str, optional
        Names of images in memory.
    columns : mapping or DataFrame, optional
        Columns for a list or Dataset.
    name : str, optional
        Name of images in memory. Without it they are known by what they are (a Dataset's class, for instance), and
        another name is found where the bank has other images under that one.
    device : str, default "auto"
        ``auto``, ``cpu``, ``cuda`` or ``mps``.
    engine : str, default "auto"
        ``eager``, ``compile`` (TorchInductor), ``onnx`` (ONNX Runtime), or ``auto``, which takes ONNX Runtime for
        float32 on a CPU where it is installed. None differs from plain float32 PyTorch by more than 1e-4.
    batch_size : int, optional
        Images a forward pass; each view of an image counts as one. By default as many as memory allows.
    workers : int, optional
        Threads that read and decode; by default one a core.
    backend : str, default "local"
        ``"ray"`` deals the images out to the GPUs or cores of a Ray cluster, whose workers write into the bank
        themselves: it and the images lie under the same path on all machines, or on object storage. What a lost worker
        was at is done again.
    ray_address : str, optional
        ``HOST:PORT`` of a running Ray cluster, or ``"auto"``; by default one is started on this machine.
    verify : bool, default False
        Read and hash files again even when size and modification time are unchanged.
    strict : bool, default False
        Raise at the end when an image could not be read, and not only when none could.
    progress : callable, optional
        Called with (images done, images in all).

    Returns
    -------
    Bank

    Raises
    ------
    FeatureBankError
        A child of it says what was found, what was expected and what to do.

    Warns
    -----
    UserWarning
        When images could not be read (``bank.samples`` lists them with the reason), when damaged files were set aside,
        and whatever else a reader of the embeddings should know.

    See Also
    --------
    FeatureExtractor : The same inside a scikit-learn pipeline.
    fit : Learn from what was embedded.
    scan : List a source without reading an image.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> pixels = np.random.default_rng(0).integers(0, 255, (3, 40, 40, 3), dtype="uint8")
    >>> folder = tempfile.mkdtemp()
    >>> bank = extract(list(pixels), folder + "/a.bank", ids=["a", "b", "c"], weights="random:0")
    >>> bank.load("efficientnet_lite0/penultimate").shape
    (3, 1280)
    """
    table: dict[str, Any] = {"separator": separator, "encoding": encoding, "labels_as": labels_as}
    found = scan(source, root=root, path_column=path_column, ids=ids, columns=columns, name=name, **table)
    opened = bank if isinstance(bank, Bank) else Bank.create(bank)
    if found.get_image is not None and name is None:
        if ids is None:
            found = tell_apart(found, opened)
        elif replaced := about_replaced(found, opened):
            warnings.warn(replaced, stacklevel=2)
    asked: dict[str, Any] = {"weights": weights, "size": size, "store": store, "views": views, "precision": precision}
    asked |= {"decoder": decoder, "pixels": PixelRules.parse(range, pages, channels), "framing": framing}
    backbones = list(backbone) if isinstance(backbone, list | tuple) else [backbone]
    report = run_extraction(
        found,
        opened,
        requests_for(backbones, layers, **asked),
        Compute(device, engine, batch_size, workers, backend, ray_address),
        verify=verify,
        progress=shown(progress, "extract"),
    )
    for line in [*report.repaired, *report.warnings]:
        warnings.warn(line, stacklevel=2)
    if report.failed and (strict or report.failed == report.samples):
        raise ImageError(report.about_failures())
    if report.failed:
        warnings.warn(report.about_failures(), stacklevel=2)
    return Bank.of(bank)


def run_extraction(
    source: Source,
    bank: Bank,
    request: Request | Sequence[Request],
    compute: Compute | None = None,
    *,
    verify: bool = False,
    progress: Progress | None = None,
) -> ExtractReport:
    """Embed what is missing and bring the sample table up to date; see `extract`.

    Raises
    ------
    BankError
        When the batch size or the number of workers is below 1, or the backend is unknown.
    """
    started = time.perf_counter()
    compute, requests = compute or Compute(), [request] if isinstance(request, Request) else list(request)
    if len(requests) > 1 and compute.backend == "ray":
        raise BankError("several backbones on a Ray cluster; expected one: extract with one after the other")
    for each in requests:
        _check(source, each, compute)
    requests[0], source, said = settle_source(requests[0], source, bank)
    requests = alike(requests)
    damaged = set_damaged_tables_aside(bank)
    with _backend(requests, compute) as (asked, embed):
        specs = [spec for each in asked for spec in each.specs(bank)]
        damaged += set_damaged_features_aside(bank, specs)
        for each in asked:
            each.register(bank)
        tracker = Tracker(source, bank, specs, verify)
        report = ExtractReport(repaired=damaged)
        embed(tracker, progress, report)
    tracker.finish()
    bank.keep_named_options(source.name, source.named_options)
    tracker.warnings += tracker.about_missing_sources()
    tracker.fill(report)
    report.notes = [*report.notes, said] if said else report.notes
    report.feature_sets = [describe_set(bank, bank.feature_set_of(spec)) for spec in specs]
    report.seconds = time.perf_counter() - started
    return report


def _check(source: Source, request: Request, compute: Compute) -> None:
    """Refuse what can never be had even when nothing is left to compute; what is always there costs nothing."""
    sizes = [size for size in (compute.batch_size, compute.workers) if size is not None]
    if any(size < 1 for size in sizes):
        raise BankError(f"batch size {compute.batch_size} and {compute.workers} workers; expected at least 1 of each")
    if compute.backend not in BACKENDS:
        raise BankError(f"no backend {compute.backend!r}; {near_names(compute.backend, BACKENDS)}")
    if compute.backend == "ray":
        from featurebank.extraction.ray.driver import check

        check(source, compute)
    else:
        compute.check(request)


@contextmanager
def _backend(requests: list[Request], compute: Compute) -> Iterator[tuple[list[Request], Embed]]:
    """Return a context in which what is asked for can be looked up and embedded."""
    if compute.backend == "ray":
        from featurebank.extraction.ray.driver import on_ray

        with on_ray(requests[0], compute) as (asked, embed):
            yield [asked], embed
        return
    yield requests, partial(_embed, requests, compute)


def _embed(
    requests: list[Request], compute: Compute, tracker: Tracker, progress: Progress | None, report: ExtractReport
) -> None:
    """Embed the pending samples, and note in the report how."""
    pending = tracker.pending()
    done = itertools.count(1)

    def advance() -> None:
        count = next(done)
        if progress is not None:
            progress(count, len(pending))

    if len(requests) == 1:
        pipeline = Pipeline(requests[0], tracker, compute, advance)
    else:
        own = [each.specs(tracker.bank) for each in requests]
        pipeline = SharedPipeline(requests, tracker, own, compute, advance)
    pipeline.run(pending)
    tracker.warnings += pipeline.warnings
    report.engines, report.drift = pipeline.engines, [each.to_dict() for each in pipeline.drift]
    report.unseen, report.readers = pipeline.unseen.share, pipeline.readers
