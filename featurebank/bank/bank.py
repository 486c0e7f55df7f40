"""The bank: a folder of feature segments and sample segments that many processes may fill at once."""

from __future__ import annotations

import json
import operator
import os
import stat
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featurebank import __version__
from featurebank.bank import features, samples, segment
from featurebank.bank.features import FeatureSet, as_keys, check_views
from featurebank.bank.matrix import BankMatrix, Part, matrix_of
from featurebank.bank.repair import missing_rows, near_path
from featurebank.bank.samples import SampleTable
from featurebank.bank.segment import Segment
from featurebank.bank.spec import FeatureSpec, canonical_json, digest_of, resolve_name, unique_names
from featurebank.errors import BankError, ColumnError, CorruptError, StorageError
from featurebank.images.columns import kind_of, overlay, tidy
from featurebank.storage import files as storage
from featurebank.storage.files import Place
from featurebank.storage.objects import ObjectPath

FORMAT = "featurebank"
VERSION = 1
_MAX_JSON = 1 << 20
ROWS_AT_ONCE = 8192
GRACE = 3600.0
"""Seconds that a superseded file stays for those who still read it."""


class Bank:
    """A folder of embeddings and samples.

    Parameters
    ----------
    path : path-like or str
        A ``NAME.bank`` folder, or its address on object storage (``s3://bucket/NAME.bank``, ``gs://…``).

    Raises
    ------
    BankError
        When there is no bank at `path`, or it was written by a newer version.
    StorageError
        When the store of an address does not answer, or the library for it is not installed.

    Examples
    --------
    >>> import tempfile
    >>> bank = Bank.create(tempfile.mkdtemp() + "/photos.bank")
    >>> len(bank.samples), bank.feature_sets
    (0, [])
    """

    def __init__(self, path: str | os.PathLike[str] | ObjectPath):
        self.path = storage.place(path)
        self._made: dict[str, tuple[tuple[Segment, ...], Any]] = {}
        file = self.path / "bank.json"
        if not file.is_file():
            found = "exists but is no bank" if self.path.exists() else "does not exist"
            raise BankError(f"{str(self.path)!r} {found}; expected a folder made by `featurebank extract`")
        facts = _read_json(file)
        if not isinstance(facts, dict) or facts.get("format") != FORMAT:
            raise BankError(f"{str(file)!r} does not describe a bank; expected format {FORMAT!r}")
        if facts.get("version") != VERSION:
            raise BankError(
                f"{str(self.path)!r} is a bank of version {facts.get('version')}; this reads {VERSION}: upgrade"
            )

    @classmethod
    def create(cls, path: str | os.PathLike[str] | ObjectPath) -> Bank:
        """Open the bank at `path`, making an empty one where there is none.

        Raises
        ------
        BankError
            When `path` is something else already.
        StorageError
            When it cannot be made.
        """
        folder = storage.place(path)
        if not (folder / "bank.json").exists():
            if folder.exists() and not _is_blank(folder):
                raise BankError(f"{str(folder)!r} exists and is no bank; name a new folder")
            storage.make_folder(folder)
            facts = {"format": FORMAT, "version": VERSION, "written_by": f"featurebank {__version__}"}
            storage.commit(folder / "bank.json", json.dumps(facts, indent=2).encode())
        storage.make_folder(folder / "samples")
        storage.make_folder(folder / "features")
        return cls(folder)

    def __repr__(self) -> str:
        return f"Bank({str(self.path)!r})"

    # --- samples -------------------------------------------------------------------------------------------

    @property
    def table(self) -> SampleTable:
        """Every sample with its columns, sorted by (source, path bytes); not to be changed."""
        return self.table_of(self.sample_segments())

    def sample_segments(self) -> tuple[Segment, ...]:
        """The files that the sample table is read from."""
        return tuple(segment.list_segments(self.path / "samples", "samples"))

    def table_of(self, files: tuple[Segment, ...]) -> SampleTable:
        """Return the sample table that is read from some files; see `table`."""
        return self._kept("samples", files, lambda: samples.merge(map(samples.decode_table, files)))

    def _kept(self, key: str, files: tuple[Segment, ...], make: Callable[[], Any]) -> Any:
        """Return what was made of segment files the last time, as long as they are the same; else make it."""
        before, made = self._made.get(key, ((), None))
        if made is None or len(before) != len(files) or not all(map(operator.is_, before, files)):
            made = make()
            self._made[key] = files, made
        return made

    @property
    def samples(self) -> pd.DataFrame:
        """The sample table as a DataFrame: one row a sample, the user's columns after featurebank's own.

        ``status`` is ``"ok"``, ``"failed"`` (see ``error``) or ``"gone"``; ``digest`` is hexadecimal. A user's
        column that shares a name with one of featurebank's gets a ``_`` behind it here.
        """
        table = self.table
        rows = table.rows
        frame = pd.DataFrame(
            {
                "source": rows["source"],
                "path": pd.Series(table.paths, dtype=object),
                "digest": pd.Series([digest.hex() for digest in rows["digest"].to_numpy()], dtype=object),
                "size": rows["size"],
                "mtime_ns": rows["mtime_ns"],
                "status": pd.Series([samples.STATUSES[code] for code in rows["status"]], dtype=object),
                "error": rows["error"],
            }
        )
        renamed = {name: name + "_" for name in table.columns if name in frame}
        return pd.concat([frame, table.columns.rename(columns=renamed)], axis=1)

    def select(self, *columns: str, paths: Sequence[str | os.PathLike[str]] | None = None) -> SampleTable:
        """Return the samples that embeddings can be loaded for.

        Parameters
        ----------
        *columns : str
            Leave out samples whose value in one of these columns is missing.
        paths : sequence of path-like, optional
            Relative paths that select and order the rows; by default all, sorted by (source, path bytes).

        Raises
        ------
        ColumnError
            When the bank has no such column.
        BankError
            When a path is not in the bank, or in several of its sources.
        """
        table = self.table
        keep = (table.rows["status"] == samples.OK).to_numpy()
        for name in columns:
            keep = keep & column_of(table, name).notna().to_numpy()
        table = table.take(keep)
        return table if paths is None else table.take(_positions_of(table, paths))

    def classes(self, target: str) -> NDArray[Any]:
        """Return the distinct values of a column among the samples that can be loaded, sorted.

        Raises
        ------
        ColumnError
            When the bank has no such column.
        """
        return np.unique(values_of(self.select(target), target))

    def label(self, frame: pd.DataFrame, *, path_column: str = "path") -> int:
        """Attach columns to samples, or correct them, without extracting anything.

        Parameters
        ----------
        frame : DataFrame
            A column of relative paths, the columns to set (a missing value leaves what is there), and a column
            ``source`` where a path is in several sources.
        path_column : str, default "path"
            Its column of paths.

        Returns
        -------
        int
            Number of samples whose columns changed.

        Raises
        ------
        BankError
            When a path is not in the bank; nothing is written then.
        ColumnError
            When there is no such path column, or no other.
        """
        if path_column not in frame.columns or not set(frame.columns) - {path_column, "source"}:
            have = ", ".join(map(str, frame.columns))
            raise ColumnError(f"labels have the columns {have}; expected {path_column!r} and at least one more")
        named = ["source"] if "source" in frame.columns else []
        fresh = tidy(frame.drop(columns=[path_column, *named]))
        sources = [str(source) for source in frame["source"]] if named else None
        with self.locked():
            table = self.table
            where = _positions_of(table, [str(path) for path in frame[path_column]], sources)
            if len(set(where)) != len(where):
                raise BankError("labels name a path more than once; expected one row a sample")
            old = table.take(where)
            columns = overlay(old.columns, fresh)
            changed = _differs(old.columns, columns)
            self.add_samples(SampleTable(old.rows, columns).take(changed), newest=newest_stamp(table))
        return int(changed.sum())

    def add_samples(self, table: SampleTable, *, newest: int) -> list[str]:
        """Write rows of samples as one segment, stamped above `newest`; return its name, none where there are no rows.

        The caller holds `locked` from reading the table to here, so that no other update is lost.
        """
        if not len(table):
            return []
        rows, name = table.rows.assign(stamp=np.uint64(samples.next_stamp(newest))), segment_name()
        storage.commit(self.path / "samples" / name, samples.encode_table(SampleTable(rows, table.columns)))
        return [name]

    def locked(self) -> Any:
        """Return a context that holds the bank's lock; needed to update samples and to compact, not to add features."""
        return storage.locked(self.path / ".lock")

    # --- features ------------------------------------------------------------------------------------------

    @property
    def feature_sets(self) -> list[FeatureSet]:
        """The feature sets, sorted by name."""
        specs = self._specs()
        return [self._open_set(spec, name) for spec, name in zip(specs, unique_names(specs), strict=True)]

    def feature_set(self, name: str) -> FeatureSet:
        """Return the feature set of a name (`featurebank.bank.spec.parse_name`).

        Raises
        ------
        FeatureSetError
            When no set has this name, or several do.
        """
        specs = self._specs()
        spec = resolve_name(name, specs)
        return self._open_set(spec, unique_names(specs)[specs.index(spec)])

    def feature_set_of(self, spec: FeatureSpec) -> FeatureSet:
        """Return the feature set of a spec, empty when the bank has none."""
        return self._open_set(spec, spec.name)

    def _open_set(self, spec: FeatureSpec, name: str) -> FeatureSet:
        files = tuple(segment.list_segments(self.feature_folder(spec), "features"))
        features.check_segments(files, spec.fingerprint)
        found: FeatureSet = self._kept(spec.fingerprint, files, lambda: FeatureSet(spec, name, files))
        return found if found.name == name else replace(found, name=name)

    def feature_folder(self, spec: FeatureSpec) -> Place:
        """Return the folder of a spec's segments."""
        return self.path / "features" / spec.fingerprint

    def missing(self, spec: FeatureSpec, digests: Iterable[bytes]) -> set[bytes]:
        """Return those of `digests` that the feature set of a spec has no row for."""
        wanted = sorted(set(digests))
        if not wanted:
            return set()
        found = self.feature_set_of(spec).find(as_keys(wanted))
        return {digest for digest, position in zip(wanted, found, strict=True) if position < 0}

    def add_spec(self, spec: FeatureSpec, request: Mapping[str, Any] | None = None) -> None:
        """Make the folder of a feature set, and keep the request that led to it."""
        folder = self.feature_folder(spec)
        if not (folder / "spec.json").exists():
            storage.make_folder(folder / "requests")
            storage.commit(folder / "spec.json", canonical_json(spec.to_dict()))
        if request is not None:
            file = folder / "requests" / f"{digest_of(request)}.json"
            if not file.exists():
                storage.commit(file, canonical_json(request))

    def find_spec(self, request: Mapping[str, Any]) -> FeatureSpec | None:
        """Return the spec that an earlier request of the same content led to, without loading torch."""
        name = f"{digest_of(request)}.json"
        return next((spec for spec in self._specs() if (self.feature_folder(spec) / "requests" / name).is_file()), None)

    def requests_of(self, spec: FeatureSpec) -> list[dict[str, Any]]:
        """Return the requests that led to a spec, the last one last; empty for a custom module."""
        files: list[Place] = [*(self.feature_folder(spec) / "requests").glob("*.json")]
        return [_read_json(file) for file in sorted(files, key=lambda file: file.stat().st_mtime_ns)]

    def add_features(
        self,
        spec: FeatureSpec,
        digests: Sequence[bytes],
        values: NDArray[Any],
        made_by: Mapping[str, str] | None = None,
    ) -> None:
        """Write rows of a feature set as one segment; no lock is needed.

        Parameters
        ----------
        spec : FeatureSpec
            The set; `add_spec` comes first.
        digests : sequence of n bytes of length 32
            Content digests.
        values : ndarray of float, shape (n, views, …)
            Embeddings.
        made_by : mapping, optional
            Library versions and device that computed them.

        Raises
        ------
        BankError
            When float16 cannot hold a value.
        StorageError
            When the file system refuses.
        """
        storage.commit(self.feature_folder(spec) / segment_name(), features.encode_rows(spec, digests, values, made_by))

    def load(
        self,
        name: str | Sequence[str],
        target: str | None = None,
        *,
        views: str = "mean",
        paths: Sequence[str | os.PathLike[str]] | None = None,
        sample_weight: str | None = None,
        groups: str | None = None,
        return_paths: bool = False,
    ) -> Any:
        """Load embeddings, with labels and other columns beside them.

        Parameters
        ----------
        name : str or sequence of str
            A feature set; several are concatenated along the last axis (`blocks` says where each lies).
        target : str, optional
            Column of labels; samples that have none are left out.
        views : str, default "mean"
            ``"mean"`` over the views, the ``"first"`` (the identity), or ``"all"``.
        paths : sequence of path-like, optional
            Relative paths that select and order the rows.
        sample_weight, groups : str, optional
            Columns to return as well.
        return_paths : bool, default False
            Return the paths as well, last.

        Returns
        -------
        X : ndarray of float32, shape (n, d), or (n, views, d) for ``views="all"``
            Rows sorted by (source, path bytes), or in the order of `paths`.
        y : ndarray, shape (n,)
            The labels as they are in the column (text, integers or floats); only with `target`.
        sample_weight : ndarray of float64, shape (n,); groups : ndarray, shape (n,); paths : list of str
            As asked for, in this order.

        Raises
        ------
        FeatureSetError, ColumnError
            When a name or a column is not in the bank.
        BankError
            When a sample has no row in the feature set.
        """
        table = self.select(*([target] if target else []), paths=paths)
        results: list[Any] = [self.features(name, table, views=views)]
        results += [values_of(table, target)] if target else []
        results += [weights_of(table, sample_weight)] if sample_weight else []
        results += [values_of(table, groups)] if groups else []
        results += [table.paths] if return_paths else []
        return results[0] if len(results) == 1 else tuple(results)

    def iter_batches(
        self,
        name: str | Sequence[str],
        target: str | None = None,
        *,
        batch_size: int = 256,
        shuffle: bool = False,
        seed: int = 0,
        views: str = "mean",
        paths: Sequence[str | os.PathLike[str]] | None = None,
        sample_weight: str | None = None,
    ) -> Iterator[Any]:
        """Load embeddings a batch at a time, for what does not fit into memory.

        Parameters
        ----------
        name, target, views, paths, sample_weight
            See `load`.
        batch_size : int, default 256
            Rows in a batch; the last one may have fewer.
        shuffle : bool, default False
            Take the rows in a random order, each once; otherwise in that of `load`.
        seed : int, default 0
            Of the order; raise it with every epoch.

        Yields
        ------
        X : ndarray of float32, shape (batch_size, d), or (batch_size, views, d) for ``views="all"``
            With `target` or `sample_weight` it comes in a tuple before them.
        y : ndarray, shape (batch_size,); sample_weight : ndarray of float64, shape (batch_size,)

        Raises
        ------
        BankError
            When the batch size is below 1, or as `load`.

        Examples
        --------
        >>> import tempfile
        >>> from featurebank import extract
        >>> pixels = np.random.default_rng(0).integers(0, 255, (5, 40, 40, 3), dtype="uint8")
        >>> bank = extract(list(pixels), tempfile.mkdtemp() + "/a.bank", ids=list("abcde"), weights="random:0")
        >>> [len(X) for X in bank.iter_batches("penultimate", batch_size=2)]
        [2, 2, 1]
        """
        if batch_size < 1:
            raise BankError(f"batch size {batch_size}; expected at least 1")
        table = self.select(*([target] if target else []), paths=paths)
        beside = [values_of(table, target)] if target else []
        beside += [weights_of(table, sample_weight)] if sample_weight else []
        found = self._find(name, table, views)
        order = np.random.default_rng(seed).permutation(len(table)) if shuffle else np.arange(len(table))
        return _batches(found, beside, order, batch_size, views)

    def features(self, name: str | Sequence[str], table: SampleTable, *, views: str = "mean") -> NDArray[np.float32]:
        """Return the embeddings of the samples of a table, one row each; see `load`."""
        return _concatenate(self.feature_parts(name, table, views=views))

    def feature_parts(
        self, name: str | Sequence[str], table: SampleTable, *, views: str = "mean"
    ) -> list[NDArray[np.float32]]:
        """Return each set's embeddings of the samples of a table, (n, d) or (n, views, d); see `load`."""
        return [each.gather(rows, views) for each, rows in self._find(name, table, views)]

    def matrix(self, name: str | Sequence[str], table: SampleTable, *, views: str = "mean") -> BankMatrix:
        """Return the embeddings of the samples of a table as a matrix that is read in batches; see `features`.

        `TopModelSearchCV` takes it for X where that would not fit into memory.
        """
        return matrix_of([_part(each, rows, views) for each, rows in self._find(name, table, views)], len(table))

    def _find(
        self, name: str | Sequence[str], table: SampleTable, views: str
    ) -> list[tuple[FeatureSet, NDArray[np.int64]]]:
        """Return sets and where they have the rows of a table; where some are missing, the error says what to run."""
        check_views(views)
        sets = [self.feature_set(each) for each in ([name] if isinstance(name, str) else name)]
        found = [(each, each.find(as_keys(table.rows["digest"]))) for each in sets]
        lacking = [each for each, rows in found if (rows < 0).any()]
        if lacking:
            more = (
                f"; {len(lacking) - 1} more sets lack rows, `featurebank info` lists them" if len(lacking) > 1 else ""
            )
            raise BankError(missing_rows(self, lacking[0], table) + more)
        return found

    def blocks(self, names: Sequence[str]) -> dict[str, slice]:
        """Return the columns that each feature set takes when `load` concatenates them.

        Raises
        ------
        FeatureSetError
            When a name is not in the bank.
        """
        ends = np.cumsum([0] + [self.feature_set(name).width for name in names])
        return {name: slice(int(a), int(b)) for name, a, b in zip(names, ends[:-1], ends[1:], strict=True)}

    # --- the whole -----------------------------------------------------------------------------------------

    def info(self) -> dict[str, Any]:
        """Return what the bank holds: counts of samples, columns, feature sets, bytes on disk.

        ``sources`` and ``missing`` values are those of samples that are not gone; ``incomplete`` has a line, with the
        remedy, for each feature set that lacks rows of readable samples.
        """
        table = self.table
        status = table.rows["status"]
        present = status != samples.GONE
        sets, readable = self.feature_sets, table.take((status == samples.OK).to_numpy())
        return {
            "path": str(self.path),
            "samples": {word: int((status == code).sum()) for code, word in enumerate(samples.STATUSES)},
            "sources": sorted(set(table.rows["source"][present])),
            "columns": {
                name: {"kind": kind_of(column), "missing": int((column.isna() & present).sum())}
                for name, column in table.columns.items()
            },
            "feature_sets": [describe_set(each) for each in sets],
            "incomplete": [line for each in sets if (line := missing_rows(self, each, readable))],
            "bytes": sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file()),
        }

    def verify(self) -> list[dict[str, str]]:
        """Check every file of the bank, every byte.

        Returns
        -------
        list of dict
            ``file`` and ``problem`` (with the remedy) of each damaged file; empty when all is well.
        """
        from featurebank.bank import upkeep

        return upkeep.verify(self)

    def compact(self, *, grace: float = GRACE) -> dict[str, int]:
        """Merge small segments; see `featurebank.bank.upkeep.compact`."""
        from featurebank.bank import upkeep

        return upkeep.compact(self, grace=grace)

    def merge(self, *others: str | os.PathLike[str] | Bank) -> dict[str, int]:
        """Copy what other banks hold into this one; see `featurebank.bank.merging.merge`."""
        from featurebank.bank import merging

        return merging.merge(self, others)

    def prune(self, *, grace: float = GRACE, source: str | os.PathLike[str] | None = None) -> dict[str, int]:
        """Drop embeddings that no sample points at, a whole source first; see `featurebank.bank.upkeep.prune`."""
        from featurebank.bank import upkeep

        return upkeep.prune(self, grace=grace, source=source)

    def _specs(self) -> list[FeatureSpec]:
        files: list[Place] = [*self.path.glob("features/*/spec.json")]
        return sorted((self.read_spec(file) for file in files), key=lambda spec: (spec.name, spec.fingerprint))

    def read_spec(self, file: Place) -> FeatureSpec:
        """Return the spec that a feature set's folder holds as ``spec.json``.

        Raises
        ------
        CorruptError
            When it is damaged, or of another feature set.
        """
        spec = FeatureSpec.from_dict(_read_json(file))
        if spec.fingerprint != file.parent.name:
            raise CorruptError(f"{str(file.parent)!r} holds the spec of another feature set: {segment.REMEDY}")
        return spec


def _concatenate(parts: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)


def _part(each: FeatureSet, found: NDArray[np.int64], views: str) -> Part:
    """Return the columns of a matrix that a feature set gives; what was read is let go at once."""

    def read(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        values = each.gather(found[rows], views)
        each.close()
        return values

    return Part(read, each.width)


def _batches(
    found: list[tuple[FeatureSet, NDArray[np.int64]]],
    beside: list[NDArray[Any]],
    order: NDArray[np.int64],
    batch_size: int,
    views: str,
) -> Iterator[Any]:
    """Yield batches in an order; several are read at once, since random rows lie in many files."""
    block = max(1, ROWS_AT_ONCE // batch_size) * batch_size
    for start in range(0, len(order), block):
        rows = order[start : start + block]
        X = _concatenate([each.gather(positions[rows], views) for each, positions in found])
        for at in range(0, len(rows), batch_size):
            part = slice(at, at + batch_size)
            yield (X[part], *(values[rows[part]] for values in beside)) if beside else X[part]


def column_of(table: SampleTable, name: str) -> pd.Series:
    """Return a user's column, or one of featurebank's own (``source``, ``path``).

    Raises
    ------
    ColumnError
        When there is no such column.
    """
    if name in table.columns:
        return table.columns[name]
    if name in ("source", "path"):
        return pd.Series([os.fsdecode(value) for value in table.rows[name]], dtype=object)
    have = ", ".join(map(repr, table.columns)) or "none"
    raise ColumnError(
        f"the bank has no column {name!r}; it has {have}: name one of them, or add it with `featurebank label`"
    )


def values_of(table: SampleTable, name: str) -> NDArray[Any]:
    """Return a column without missing values as a plain array: text, int64, float64 or bool.

    Raises
    ------
    ColumnError
        When there is no such column, or it has missing values.
    """
    column = column_of(table, name)
    if column.isna().any():
        raise ColumnError(
            f"column {name!r} has {int(column.isna().sum())} missing values; fill them with `featurebank label`"
        )
    if column.dtype == object:
        return np.array(list(column), dtype=str)
    dtype = {"int": "int64", "float": "float64", "bool": "bool"}[kind_of(column)]
    return column.to_numpy(dtype, copy=True)  # the caller's to change; the table is not


def weights_of(table: SampleTable, name: str) -> NDArray[np.float64]:
    """Return a column of sample weights.

    Raises
    ------
    ColumnError
        When there is no such column, it is no number, or a value is missing, negative or infinite.
    """
    if kind_of(column_of(table, name)) not in ("int", "float"):
        raise ColumnError(f"column {name!r} is no column of numbers, so it cannot weight samples")
    weights = values_of(table, name).astype(float)
    if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.any()):
        raise ColumnError(f"column {name!r} holds negative, infinite or only zero weights; expected numbers from 0 up")
    return weights


def describe_set(each: FeatureSet) -> dict[str, Any]:
    """Return the facts of a feature set that commands print."""
    return {
        "name": each.name,
        "fingerprint": each.fingerprint,
        "rows": each.rows,
        "shape": list(each.shape),
        "dtype": each.dtype,
        "views": each.spec.views,
        "precision": each.spec.precision,
        "decoder": each.spec.preprocessing.get("decoder", "pil"),
        "origin": each.spec.origin,
        "made_by": each.made_by,
    }


def newest_stamp(table: SampleTable) -> int:
    """Return the highest stamp of a table, 0 for an empty one."""
    return int(table.rows["stamp"].max()) if len(table) else 0


def _is_blank(folder: Place) -> bool:
    """Say whether a folder holds nothing, or just what a killed maker of a bank left."""
    return folder.is_dir() and all(path.name.startswith(storage.TEMP_PREFIX) for path in folder.iterdir())


def segment_name() -> str:
    """Return a file name for a new segment, unique without asking anyone."""
    return f"{uuid.uuid4().hex}.h5"


def _read_json(file: Place) -> Any:
    try:
        status = file.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_JSON:
            raise CorruptError(f"{str(file)!r} is a link, a special file or too large; expected a small JSON file")
        return json.loads(file.read_bytes())
    except (CorruptError, StorageError):
        raise
    except (OSError, ValueError) as error:
        raise CorruptError(f"{str(file)!r} cannot be read as JSON; restore it, or extract into a new bank") from error


def _positions_of(table: SampleTable, paths: Sequence[Any], sources: Sequence[str] | None = None) -> list[int]:
    """Return the position of each path, of the source that is named for it where sources are."""
    where: dict[Any, list[int]] = {}
    for position, (source, path) in enumerate(zip(table.rows["source"], table.rows["path"].to_numpy(), strict=True)):
        where.setdefault(path if sources is None else (source, path), []).append(position)
    keys = [os.fsencode(path) for path in paths]
    found = [where.get(key, []) for key in (keys if sources is None else zip(sources, keys, strict=True))]
    for path, positions, source in zip(paths, found, sources or [""] * len(found), strict=True):
        if not positions:
            raise BankError(_unknown_path(table, str(path), source))
        if len(positions) > 1:
            raise BankError(
                f"path {str(path)!r} is in {len(positions)} sources of the bank; expected one: name it in a column "
                "'source' of the labels, as `featurebank info BANK --samples` lists it"
            )
    return [positions[0] for positions in found]


def _unknown_path(table: SampleTable, path: str, source: str) -> str:
    """Return the message about a path that the bank, or the source named with it, does not have."""
    elsewhere = table.rows["source"][table.rows["path"] == os.fsencode(path)]
    if len(elsewhere):
        return f"path {path!r} is not in source {source!r}; expected one of {', '.join(map(repr, elsewhere))}"
    near = near_path(path, table.rows["path"])
    hint = f"did you mean {near!r}? " if near else ""
    return f"path {path!r} is not in the bank; {hint}`featurebank info BANK --samples` lists its paths"


def _differs(old: pd.DataFrame, new: pd.DataFrame) -> NDArray[np.bool_]:
    """Return where a row of `new` is not the same as that of `old`, shape (n,)."""
    changed = np.zeros(len(new), bool)
    for name in new.columns:
        first = list(old[name]) if name in old else [None] * len(new)
        changed |= [
            not ((pd.isna(a) and pd.isna(b)) or (pd.notna(a) and pd.notna(b) and a == b))
            for a, b in zip(first, new[name], strict=True)
        ]
    return changed
