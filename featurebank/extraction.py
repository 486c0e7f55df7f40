"""extract(): images -> backbone -> bank; incremental, resumable, with an error ledger."""

from __future__ import annotations

import os
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featurebank import samples
from featurebank.backbones import as_backbone, backbone_request
from featurebank.bank import Bank, describe_set, newest_stamp
from featurebank.errors import BankError, ImageError, one_line
from featurebank.features import as_keys
from featurebank.samples import FAILED, GONE, NO_DIGEST, OK, SampleTable
from featurebank.sources import Source, scan
from featurebank.spec import FeatureSpec

if TYPE_CHECKING:
    from featurebank.backbones import Backbone
    from featurebank.engine import Engine

STORES = ("float16", "float32")
SEGMENT_ROWS = 4096
SEGMENT_BYTES = 256 << 20
SEGMENT_SECONDS = 30.0

Progress = Callable[[int, int], None]


@dataclass
class ExtractReport:
    """What one run of `extract` did.

    Attributes
    ----------
    samples, embedded, reused, failed : int
        ``samples == embedded + reused + failed``; `embedded` went through the network, or share their content
        with one that did in this run.
    gone : int
        Samples marked gone because the whole source no longer has them.
    failures : list of dict
        ``path`` and ``error`` of each unreadable image.
    ignored : dict of str to int
        Files left out because their suffix is not that of an image, by suffix.
    feature_sets : list of dict
        Name, fingerprint, rows, shape and dtype of each feature set asked for.
    seconds : float
        Wall time of the run.
    """

    samples: int = 0
    embedded: int = 0
    reused: int = 0
    failed: int = 0
    gone: int = 0
    failures: list[dict[str, str]] = field(default_factory=list)
    ignored: dict[str, int] = field(default_factory=dict)
    feature_sets: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def images_per_second(self) -> float:
        """Embedded images a second of wall time."""
        return self.embedded / self.seconds if self.seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that ``featurebank extract --json`` prints."""
        return {**self.__dict__, "images_per_second": self.images_per_second}


def extract(
    source: Any,
    bank: str | os.PathLike[str] | Bank,
    *,
    backbone: Any = "efficientnet_lite0",
    layers: str | Sequence[str] = "penultimate",
    weights: str = "DEFAULT",
    size: int | None = None,
    store: str = "float16",
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
        Images a forward pass.
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
        ask(backbone, layers, weights=weights, size=size, store=store),
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


# --- what is asked for -------------------------------------------------------------------------------------


@dataclass
class Ask:
    """A backbone and layers that are asked for; the backbone is loaded only when it is needed.

    Parameters
    ----------
    backbone : str, Backbone or torch.nn.Module
    layers : list of str
    weights : str
    size : int or None
    store : str
    """

    backbone: Any
    layers: list[str]
    weights: str
    size: int | None
    store: str
    _loaded: Backbone | None = None

    def load(self) -> Backbone:
        """Return the backbone, loading it the first time."""
        if self._loaded is None:
            self._loaded = as_backbone(self.backbone, self.weights, self.size)
        return self._loaded

    def specs(self, bank: Bank) -> list[FeatureSpec]:
        """Return the feature spec of each layer, from the bank's earlier requests where it has them."""
        known = [self._known(bank, layer) for layer in self.layers]
        specs = [
            spec or self.load().spec(layer, store=self.store) for spec, layer in zip(known, self.layers, strict=True)
        ]
        return list(dict.fromkeys(specs))

    def register(self, bank: Bank) -> None:
        """Make the feature sets' folders and keep the requests beside them."""
        for layer in self.layers:
            if self._known(bank, layer) is None:
                bank.add_spec(self.load().spec(layer, store=self.store), self._request(layer))

    def _known(self, bank: Bank, layer: str) -> FeatureSpec | None:
        request = self._request(layer)
        return None if request is None else bank.find_spec(request)

    def _request(self, layer: str) -> dict[str, Any] | None:
        if not isinstance(self.backbone, str):
            return None
        request = backbone_request(self.backbone, self.weights, self.size)
        return {**request, "layer": layer, "store": self.store, "views": "none", "precision": "fp32"}


def ask(
    backbone: Any,
    layers: str | Sequence[str],
    *,
    weights: str = "DEFAULT",
    size: int | None = None,
    store: str = "float16",
) -> Ask:
    """Check what is asked for and return it.

    Raises
    ------
    BankError
        When there is no layer, or `store` is unknown.
    """
    names = [layers] if isinstance(layers, str) else list(layers)
    if not names:
        raise BankError("no layer is asked for; expected at least one, e.g. penultimate")
    if store not in STORES:
        raise BankError(f"store {store!r}; expected one of {', '.join(STORES)}")
    return Ask(backbone, names, weights, size, store)


# --- one run -----------------------------------------------------------------------------------------------


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
    specs = wanted.specs(bank)
    wanted.register(bank)
    run = _Run(source, bank, specs, verify)
    pending = run.pending()
    writer = _Writer(bank, run)
    embedder = _Embedder(wanted, specs, device, batch_size)
    try:
        for done in embedder.embed(run, pending, writer, workers):
            if progress is not None:
                progress(done, len(pending))
    finally:
        writer.flush()
    run.finish()
    report = run.report()
    report.feature_sets = [describe_set(bank.feature_set_of(spec)) for spec in specs]
    report.seconds = time.perf_counter() - started
    return report


class _Run:
    """What one run knows: the source, the table before it, and what became of each sample."""

    def __init__(self, source: Source, bank: Bank, specs: Sequence[FeatureSpec], verify: bool):
        self.source = source
        self.bank = bank
        self.verify = verify
        count = len(source.paths)
        self.table = bank.table
        positions = self.table.positions()
        self.before = np.array([positions.get((source.name, path), -1) for path in source.paths], np.int64)
        self.digests: list[bytes] = [NO_DIGEST] * count
        self.errors: list[str] = [""] * count
        self.done = np.zeros(count, bool)
        self.embedded = np.zeros(count, bool)
        self.committed = np.zeros(count, bool)
        self.origins = samples.origins(source.columns)
        self._sets = [bank.feature_set_of(spec) for spec in specs]

    def has(self, digests: Sequence[bytes]) -> NDArray[np.bool_]:
        """Say which contents every feature set asked for has a row of, shape (n,)."""
        keys = as_keys(digests)
        return np.logical_and.reduce([each.find(keys) >= 0 for each in self._sets])

    def pending(self) -> list[int]:
        """Return the samples to read; those whose file is unchanged and embedded are settled here."""
        rows = self.table.rows
        known = np.flatnonzero(self.before >= 0)
        old = rows.iloc[self.before[known]]
        same = (old["size"].to_numpy() == self.source.sizes[known]) & (
            old["mtime_ns"].to_numpy() == self.source.mtimes[known]
        )
        same &= (self.source.get_image is None) and not self.verify
        present = self.has(list(old["digest"])) if len(old) else np.zeros(0, bool)
        for position, keep, here, digest, error in zip(
            known, same, present, old["digest"], old["error"], strict=True
        ):
            undecodable = error and digest != NO_DIGEST  # a file that could not even be read is tried again
            if keep and (undecodable or (here and not error)):
                self.settle(position, digest, error)
        return [int(position) for position in np.flatnonzero(~self.done)]

    def settle(self, position: int, digest: bytes, error: str, *, embedded: bool = False) -> None:
        """Record what became of a sample."""
        self.digests[position], self.errors[position] = digest, error
        self.done[position], self.embedded[position] = True, embedded

    def updates(self) -> tuple[SampleTable, int]:
        """Return the rows that differ from the bank's table as it is now, and that table's newest stamp."""
        table = self.bank.table
        positions = table.positions()
        which = np.flatnonzero(self.done & ~self.committed)
        before = np.array([positions.get((self.source.name, self.source.paths[i]), -1) for i in which], np.int64)
        old = table.take(np.maximum(before, 0)) if len(table) else None
        fresh = self._rows(which)
        columns = self.source.columns.iloc[which].reset_index(drop=True)
        changed = np.ones(len(which), bool)
        if old is not None:
            same_origin = (before >= 0) & (old.rows["origin"].to_numpy() == self.origins[which])
            columns = _merge_columns(old.columns, columns, before >= 0, same_origin)
            changed = (before < 0) | _row_differs(old.rows, fresh)
        return SampleTable(fresh, columns).take(changed), newest_stamp(table)

    def _rows(self, which: NDArray[np.int64]) -> pd.DataFrame:
        errors = [self.errors[i] for i in which]
        return samples.make_table(
            {
                "source": [self.source.name] * len(which),
                "root": [self.source.root] * len(which),
                "path": [self.source.paths[i] for i in which],
                "digest": [self.digests[i] for i in which],
                "size": self.source.sizes[which],
                "mtime_ns": self.source.mtimes[which],
                "status": [FAILED if error else OK for error in errors],
                "error": errors,
                "origin": self.origins[which],
                "stamp": np.zeros(len(which), np.uint64),
            },
            pd.DataFrame(index=range(len(which))),
        ).rows

    def commit_samples(self) -> None:
        """Write what became of the samples so far, under the bank's lock."""
        with self.bank.locked():
            table, newest = self.updates()
            self.bank.add_samples(table, newest=newest)
            self.committed |= self.done

    def finish(self) -> None:
        """Write the last rows, and mark what is gone from a source that was listed whole."""
        self.commit_samples()
        if self.gone.any():
            with self.bank.locked():
                table = self.bank.table
                mask = self._gone_in(table)
                gone = table.take(mask)
                rows = gone.rows.assign(status=np.uint8(GONE))
                self.bank.add_samples(SampleTable(rows, gone.columns), newest=newest_stamp(table))

    @property
    def gone(self) -> NDArray[np.bool_]:
        """Rows of the table before this run that the whole source no longer has, shape (rows,)."""
        return self._gone_in(self.table)

    def _gone_in(self, table: SampleTable) -> NDArray[np.bool_]:
        if not self.source.whole:
            return np.zeros(len(table), bool)
        here = set(self.source.paths)
        rows = table.rows
        return np.array(
            [
                source == self.source.name and path not in here and status != GONE
                for source, path, status in zip(rows["source"], rows["path"], rows["status"], strict=True)
            ],
            bool,
        )

    def report(self) -> ExtractReport:
        """Count what became of the samples."""
        failures = [
            {"path": samples.path_text(path), "error": error}
            for path, error in zip(self.source.paths, self.errors, strict=True)
            if error
        ]
        embedded, failed, count = int(self.embedded.sum()), len(failures), len(self.source.paths)
        return ExtractReport(
            samples=count,
            embedded=embedded,
            reused=count - embedded - failed,
            failed=failed,
            gone=int(self.gone.sum()),
            failures=failures,
            ignored=self.source.ignored,
        )


def _merge_columns(
    old: pd.DataFrame, new: pd.DataFrame, known: NDArray[np.bool_], same_origin: NDArray[np.bool_]
) -> pd.DataFrame:
    """Lay the source's columns over the bank's, except where the source said the same before (a label corrected
    since then stays corrected)."""
    kept = pd.DataFrame({name: old[name].where(known) for name in old.columns}, index=old.index)
    given = new.copy()
    for name in given.columns:
        if name in kept:
            given[name] = given[name].mask(same_origin & kept[name].notna().to_numpy())
    return samples.overlay(kept, given)


def _row_differs(old: pd.DataFrame, new: pd.DataFrame) -> NDArray[np.bool_]:
    names = [name for name in samples.FIELDS if name != "stamp"]
    return np.logical_or.reduce([old[name].to_numpy() != new[name].to_numpy() for name in names])


class _Writer:
    """Collects rows and writes them as segments, features before the samples that point at them."""

    def __init__(self, bank: Bank, run: _Run):
        self.bank = bank
        self.run = run
        self._rows: dict[FeatureSpec, list[NDArray[np.float32]]] = {}
        self._digests: list[bytes] = []
        self._positions: list[int] = []
        self._bytes = 0
        self._since = time.monotonic()

    def add(
        self, specs: Sequence[FeatureSpec], positions: list[int], digests: list[bytes], outputs: list[NDArray[np.float32]]
    ) -> None:
        """Take the embeddings of one batch, each of shape (n, …)."""
        for spec, output in zip(specs, outputs, strict=True):
            self._rows.setdefault(spec, []).append(output[:, None])  # one view: (n, 1, …)
            self._bytes = max(self._bytes, sum(rows.nbytes for rows in self._rows[spec]))
        self._digests += digests
        self._positions += positions
        late = time.monotonic() - self._since > SEGMENT_SECONDS
        if len(self._digests) >= SEGMENT_ROWS or self._bytes >= SEGMENT_BYTES or late:
            self.flush()

    def flush(self) -> None:
        """Write what has been collected."""
        for spec, batches in self._rows.items():
            self.bank.add_features(spec, self._digests, np.concatenate(batches))
        for position, digest in zip(self._positions, self._digests, strict=True):
            self.run.settle(position, digest, "", embedded=True)
        if self._positions:
            self.run.commit_samples()
        self._rows, self._digests, self._positions, self._bytes = {}, [], [], 0
        self._since = time.monotonic()


@dataclass
class _Prepared:
    """One sample that was read: its digest, and its prepared image unless its content is already embedded."""

    position: int
    digest: bytes
    image: Any = None
    error: str = ""


class _Embedder:
    """Reads, decodes and embeds the pending samples; the network is loaded when the first one needs it."""

    def __init__(self, wanted: Ask, specs: Sequence[FeatureSpec], device: str, batch_size: int):
        self.wanted = wanted
        self.specs = list(specs)
        self.device = device
        self.batch_size = batch_size
        self._engine: Engine | None = None

    def embed(self, run: _Run, pending: list[int], writer: _Writer, workers: int | None) -> Iterator[int]:
        """Settle every pending sample; yield how many are done after each step."""
        if not pending:
            return
        self.wanted.load()
        batch: list[_Prepared] = []
        seen: dict[bytes, list[int]] = {}
        for done, item in enumerate(self._read_all(run, pending, workers), 1):
            if item.error or item.image is None:
                run.settle(item.position, item.digest, item.error)
            elif item.digest in seen:
                seen[item.digest].append(item.position)
            else:
                seen[item.digest] = []
                batch.append(item)
            if len(batch) == self.batch_size:
                self._flush(batch, writer)
                batch = []
            yield done
        if batch:
            self._flush(batch, writer)
        for digest, positions in seen.items():
            for position in positions:
                run.settle(position, digest, "", embedded=True)
        yield len(pending)

    def _flush(self, batch: list[_Prepared], writer: _Writer) -> None:
        if self._engine is None:
            from featurebank.engine import Engine

            self._engine = Engine(self.wanted.load(), self.specs, device=self.device, pad_to=self.batch_size)
        outputs = self._engine([item.image for item in batch])
        writer.add(self.specs, [item.position for item in batch], [item.digest for item in batch], outputs)

    def _read_all(self, run: _Run, pending: list[int], workers: int | None) -> Iterator[_Prepared]:
        """Read and prepare in threads, in order, with a bounded number in flight."""
        backbone = self.wanted.load()

        def read(position: int) -> _Prepared:
            return _read_one(run, backbone, position)

        with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
            waiting: deque[Future[_Prepared]] = deque()
            positions = iter(pending)
            try:
                waiting.extend(pool.submit(read, position) for position in islice(positions, 4 * self.batch_size))
                while waiting:
                    yield waiting.popleft().result()
                    waiting.extend(pool.submit(read, position) for position in islice(positions, 1))
            finally:
                for future in waiting:
                    future.cancel()


def _read_one(run: _Run, backbone: Backbone, position: int) -> _Prepared:
    digest = NO_DIGEST
    try:
        digest, decode = run.source.read(position)
        if run.has([digest])[0]:
            return _Prepared(position, digest)
        return _Prepared(position, digest, backbone.prepare(decode()))
    except ImageError as error:
        return _Prepared(position, digest, error=one_line(error))
