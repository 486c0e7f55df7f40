"""extract(): images -> backbone -> bank; incremental, resumable, with an error ledger."""

from __future__ import annotations

import os
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featurebank.bank import Bank, describe_set
from featurebank.errors import BankError, ImageError, one_line
from featurebank.features import as_keys, to_stored
from featurebank.ledger import ExtractReport, Ledger
from featurebank.maintenance import set_damaged_features_aside, set_damaged_tables_aside
from featurebank.request import Ask, ask
from featurebank.samples import NO_DIGEST
from featurebank.sources import scan
from featurebank.spec import FeatureSpec
from featurebank.views import count_views, share_batches

if TYPE_CHECKING:
    from featurebank.backbones import Backbone
    from featurebank.engine import Engine
    from featurebank.sources import Source

SEGMENT_ROWS = 4096
SEGMENT_BYTES = 256 << 20
SEGMENT_SECONDS = 30.0
AGREEMENT_SAMPLES = 4
AGREEMENT = 5e-3
"""Largest relative difference between old and new rows of one image: ten times the rounding to float16."""

Progress = Callable[[int, int], None]


def extract(
    source: Any,
    bank: str | os.PathLike[str] | Bank,
    *,
    backbone: Any = "efficientnet_lite0",
    layers: str | Sequence[str] = "penultimate",
    weights: str = "DEFAULT",
    size: int | None = None,
    store: str = "float16",
    views: str = "none",
    root: str | Path | None = None,
    path_column: str | None = None,
    ids: Sequence[str] | None = None,
    columns: Mapping[str, Sequence[Any]] | pd.DataFrame | None = None,
    device: str = "auto",
    batch_size: int = 32,
    workers: int | None = None,
    verify: bool = False,
    strict: bool = False,
    progress: Progress | None = None,
) -> Bank:
    """Embed the images of a source that the bank does not have yet, and return the bank.

    A run that is interrupted keeps every finished segment; the next one goes on with what is missing.

    Parameters
    ----------
    source : path, sequence or torch Dataset
        A folder of images or of class folders, a CSV or Parquet manifest, a list of paths, PIL images or uint8
        arrays (with `ids`), or a Dataset.
    bank : path-like or Bank
        The bank; made when it does not exist.
    backbone : str, Backbone or torch.nn.Module, default "efficientnet_lite0"
        See `featurebank.load_backbone` and `featurebank.Backbone.from_module`.
    layers : str or sequence of str, default "penultimate"
        ``LAYER[:POOL]``, all computed in one forward pass.
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
    root : path, optional
        Folder that a manifest's paths start from, or where a source's files are now.
    path_column : str, optional
        The manifest's column of paths (default ``"path"``).
    ids : sequence of str, optional
        Names of images in memory.
    columns : mapping or DataFrame, optional
        Columns for a list or Dataset.
    device : str, default "auto"
        ``auto``, ``cpu``, ``cuda`` or ``mps``.
    batch_size : int, default 32
        Images a forward pass; each view of an image counts as one.
    workers : int, optional
        Threads that read and decode; by default one a core.
    verify : bool, default False
        Read and hash files again even when size and modification time are unchanged.
    strict : bool, default False
        Raise at the end when an image could not be read.
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
        When images could not be read; ``bank.samples`` lists them with the reason.

    Examples
    --------
    >>> import tempfile
    >>> pixels = np.random.default_rng(0).integers(0, 255, (3, 40, 40, 3), dtype="uint8")
    >>> folder = tempfile.mkdtemp()
    >>> bank = extract(list(pixels), folder + "/a.bank", ids=["a", "b", "c"], weights="random:0")
    >>> bank.load("efficientnet_lite0/penultimate").shape
    (3, 1280)
    """
    found = scan(source, root=root, path_column=path_column, ids=ids, columns=columns)
    report = run_extraction(
        found,
        Bank.create(bank) if not isinstance(bank, Bank) else bank,
        ask(backbone, layers, weights=weights, size=size, store=store, views=views),
        device=device,
        batch_size=batch_size,
        workers=workers,
        verify=verify,
        progress=progress,
    )
    if report.failed:
        message = f"{report.failed} of {report.samples} images could not be read; first: {report.failures[0]}"
        if strict:
            raise ImageError(message)
        warnings.warn(message, stacklevel=2)
    return bank if isinstance(bank, Bank) else Bank(bank)


def run_extraction(
    source: Source,
    bank: Bank,
    wanted: Ask,
    *,
    device: str = "auto",
    batch_size: int = 32,
    workers: int | None = None,
    verify: bool = False,
    progress: Progress | None = None,
) -> ExtractReport:
    """Embed what is missing and bring the sample table up to date; see `extract`.

    Raises
    ------
    BankError
        When the batch size or the number of workers is below 1.
    """
    if batch_size < 1 or (workers is not None and workers < 1):
        raise BankError(f"batch size {batch_size} and {workers} workers; expected at least 1 of each")
    started = time.perf_counter()
    _check_device(device)
    damaged = set_damaged_tables_aside(bank)
    specs = wanted.specs(bank)
    damaged += set_damaged_features_aside(bank, specs)
    wanted.register(bank)
    ledger = Ledger(source, bank, specs, verify)
    pending = ledger.pending()
    if pending:
        _embed(wanted.load(), ledger, pending, device, batch_size, workers, progress)
    ledger.finish()
    ledger.warnings += ledger.about_missing_sources()
    report = ledger.report()
    report.feature_sets = [describe_set(bank.feature_set_of(spec)) for spec in specs]
    report.repaired = damaged
    report.seconds = time.perf_counter() - started
    return report


def _check_device(device: str) -> None:
    """Refuse a device that is not there even when nothing is left to compute; what is always there costs nothing."""
    if device not in ("auto", "cpu"):
        from featurebank.engine import choose_device

        choose_device(device)


def _embed(
    backbone: Backbone,
    ledger: Ledger,
    pending: list[int],
    device: str,
    batch_size: int,
    workers: int | None,
    progress: Progress | None,
) -> None:
    """Embed the pending samples; whatever ends it, what was computed is written."""
    writer = _Writer(ledger.bank, ledger)
    embedder = _Embedder(backbone, ledger, writer, device, batch_size)
    ledger.warnings += embedder.disagreement()
    try:
        for done in embedder.embed(pending, workers):
            if progress is not None:
                progress(done, len(pending))
    finally:
        writer.flush()


class _Writer:
    """Collects rows and writes them as segments, features before the samples that point at them."""

    def __init__(self, bank: Bank, ledger: Ledger):
        self.bank = bank
        self.ledger = ledger
        self._rows: dict[FeatureSpec, tuple[list[bytes], list[NDArray[Any]]]] = {}
        self._settled: list[tuple[int, bytes]] = []
        self._made_by: dict[str, str] = {}
        self._since = time.monotonic()

    def add(
        self, spec: FeatureSpec, digests: list[bytes], output: NDArray[np.float32], made_by: dict[str, str]
    ) -> None:
        """Take rows of one feature set, shape (n, views, …)."""
        self._made_by = made_by
        keys, batches = self._rows.setdefault(spec, ([], []))
        batches.append(to_stored(output, spec))
        keys += digests

    def settle(self, items: Sequence[_Prepared]) -> None:
        """Take samples whose rows have all been added; write when there is enough."""
        self._settled += [(item.position, item.digest) for item in items]
        size = max(sum(batch.nbytes for batch in batches) for _, batches in self._rows.values())
        late = time.monotonic() - self._since > SEGMENT_SECONDS
        if len(self._settled) >= SEGMENT_ROWS or size >= SEGMENT_BYTES or late:
            self.flush()

    def flush(self) -> None:
        """Write what has been collected."""
        for spec, (digests, batches) in self._rows.items():
            self.bank.add_features(spec, digests, np.concatenate(batches), self._made_by)
        for position, digest in self._settled:
            self.ledger.settle(position, digest, "", embedded=True)
        if self._settled:
            self.ledger.commit_samples()
        self._rows, self._settled = {}, []
        self._since = time.monotonic()


@dataclass
class _Prepared:
    """One sample that was read: its digest, the feature sets that lack it, and its prepared views if any does."""

    position: int
    digest: bytes
    lacking: tuple[FeatureSpec, ...] = ()
    views: list[Any] = field(default_factory=list)
    error: str = ""


class _Embedder:
    """Reads, decodes and embeds the pending samples; the network runs only as deep as they need."""

    def __init__(self, backbone: Backbone, ledger: Ledger, writer: _Writer, device: str, batch_size: int):
        self.backbone = backbone
        self.ledger = ledger
        self.writer = writer
        self.device = device
        self.views = ledger.specs[0].views  # one for all that is asked for at once
        self.count = count_views(self.views)
        self.images_at_once, self.views_at_once = share_batches(self.count, batch_size)
        self._engines: dict[tuple[FeatureSpec, ...], Engine] = {}

    def embed(self, pending: list[int], workers: int | None) -> Iterator[int]:
        """Settle every pending sample; yield how many are done after each step."""
        batch: list[_Prepared] = []
        repeats: dict[bytes, list[int]] = {}
        for done, item in enumerate(self._read_all(pending, workers), 1):
            if not item.lacking:
                self.ledger.settle(item.position, item.digest, item.error)
            elif item.digest in repeats:
                repeats[item.digest].append(item.position)
            else:
                repeats[item.digest] = []
                batch.append(item)
            if len(batch) == self.images_at_once:
                self._run(batch)
                batch = []
            yield done
        if batch:
            self._run(batch)
        for digest, positions in repeats.items():
            for position in positions:
                self.ledger.settle(position, digest, "", embedded=True)

    def disagreement(self) -> list[str]:
        """Embed a few images that the bank already has again, and say so where the rows no longer agree."""
        old = [int(i) for i in np.flatnonzero(self.ledger.done) if not self.ledger.errors[i]][:AGREEMENT_SAMPLES]
        read = [item for item in map(self._read_again, old) if item is not None]
        if not read:
            return []
        outputs = self._compute(tuple(self.ledger.specs), [views for _, views in read])
        keys = as_keys([digest for digest, _ in read])
        pairs = zip(self.ledger.specs, outputs, strict=True)
        return [line for spec, output in pairs for line in _compare(self.ledger.bank, spec, keys, output)]

    def _read_again(self, position: int) -> tuple[bytes, list[Any]] | None:
        try:
            digest, decode = self.ledger.source.read(position)
            return digest, self._prepare(decode(), digest)
        except ImageError:  # it was readable once; what it is now, the next run over it says
            return None

    def _run(self, batch: list[_Prepared]) -> None:
        specs = tuple(spec for spec in self.ledger.specs if any(spec in item.lacking for item in batch))
        outputs = self._compute(specs, [item.views for item in batch])
        made_by = self._engine(specs).made_by
        for spec, output in zip(specs, outputs, strict=True):
            rows = [row for row, item in enumerate(batch) if spec in item.lacking]
            self.writer.add(spec, [batch[row].digest for row in rows], output[rows], made_by)
        self.writer.settle(batch)

    def _prepare(self, image: Any, digest: bytes) -> list[Any]:
        return list(self.backbone.prepare_views(image, self.views, digest))

    def _compute(self, specs: tuple[FeatureSpec, ...], images: list[list[Any]]) -> list[NDArray[np.float32]]:
        """Embed the prepared views of images: an array (n, views, …) for each spec."""
        return self._engine(specs).embed_views(chain.from_iterable(images), self.count, self.views_at_once)

    def _engine(self, specs: tuple[FeatureSpec, ...]) -> Engine:
        if specs not in self._engines:
            from featurebank.engine import Engine

            self._engines[specs] = Engine(self.backbone, specs, device=self.device, pad_to=self.views_at_once)
        return self._engines[specs]

    def _read_all(self, pending: list[int], workers: int | None) -> Iterator[_Prepared]:
        """Read and prepare in threads, in order, with a bounded number in flight."""
        threads = workers or os.cpu_count() or 1
        ahead = max(4 * self.images_at_once, threads)
        with ThreadPoolExecutor(threads) as pool:
            waiting: deque[Future[_Prepared]] = deque()
            positions = iter(pending)
            try:
                waiting.extend(pool.submit(self._read, position) for position in islice(positions, ahead))
                while waiting:
                    yield waiting.popleft().result()
                    waiting.extend(pool.submit(self._read, position) for position in islice(positions, 1))
            finally:
                for future in waiting:
                    future.cancel()

    def _read(self, position: int) -> _Prepared:
        digest = NO_DIGEST
        try:
            digest, decode = self.ledger.source.read(position)
            lacking = self.ledger.lacking(digest)
            return _Prepared(position, digest, lacking, self._prepare(decode(), digest) if lacking else [])
        except ImageError as error:
            return _Prepared(position, digest, error=one_line(error))


def _compare(bank: Bank, spec: FeatureSpec, keys: NDArray[np.bytes_], output: NDArray[np.float32]) -> list[str]:
    """Return a warning when stored rows and rows computed now differ by more than rounding."""
    each = bank.feature_set_of(spec)
    there = each.find(keys) >= 0
    if not there.any():
        return []
    new = output[there].reshape(int(there.sum()), -1)
    old = each.read(keys[there], "all").reshape(new.shape)
    largest = float((np.linalg.norm(new - old, axis=1) / np.maximum(np.linalg.norm(old, axis=1), 1e-12)).max())
    if largest <= AGREEMENT:
        return []
    return [
        f"rows of {spec.name} computed now differ from stored ones by {largest:.1e} (relative; expected below "
        f"{AGREEMENT:g}): libraries or the device changed; extract into a new bank to have rows of one kind"
    ]
