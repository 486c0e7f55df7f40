"""The bank as its user sees it: samples and labels as a DataFrame, embeddings as matrices, above a `BankFolder`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featurebank.bank import samples, upkeep
from featurebank.bank.display import as_html
from featurebank.bank.features import FeatureSet, as_keys, check_views
from featurebank.bank.folder import BankFolder
from featurebank.bank.matrix import BankMatrix, ColumnReader, matrix_of, side_by_side
from featurebank.bank.repair_hints import missing_rows
from featurebank.bank.request import describe_set
from featurebank.bank.samples import SampleTable, column_of, positions_of, values_of, weights_of
from featurebank.bank.spec import unique_names
from featurebank.bank.upkeep import GRACE
from featurebank.errors import BankError, ColumnError, FeatureBankError
from featurebank.images.columns import kind_of, overlay, tidy

ROWS_AT_ONCE = 8192
SETS_SHOWN = 3
COUNTED = 50_000
"""Rows of samples up to which `repr` reads them to tell how many there are."""

Names = str | Sequence[str]
Paths = Sequence[str | os.PathLike[str]]


class Bank(BankFolder):
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

    def __repr__(self) -> str:
        return f"Bank({str(self.path)!r}{self._outline()})"

    def _repr_html_(self) -> str:
        try:
            facts = [(each.name, each.rows, each.shape, each.dtype) for each in self.feature_sets]
        except FeatureBankError:
            facts = []
        return as_html(self, pd.DataFrame(facts, columns=["feature set", "rows", "shape", "dtype"]))

    def _outline(self) -> str:
        """Return how many samples and which feature sets there are; nothing for a damaged bank or one on a store."""
        if not isinstance(self.path, Path):
            return ""
        try:
            files = self.sample_segments()
            stored = sum(file.shape("stamp")[0] for file in files)
            count = f"{len(self.table_of(files))}" if stored <= COUNTED else f"up to {stored}"
            names = unique_names(self._specs())
        except FeatureBankError:
            return ""
        more = f" and {len(names) - SETS_SHOWN} more" if len(names) > SETS_SHOWN else ""
        return f", {count} samples, {', '.join(names[:SETS_SHOWN]) or 'no feature set'}{more}"

    # --- samples -------------------------------------------------------------------------------------------

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

    def select(self, *columns: str, paths: Paths | None = None) -> SampleTable:
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
        keep = [column_of(table, name).notna().to_numpy() for name in columns]
        table = table.take(np.logical_and.reduce([(table.rows["status"] == samples.OK).to_numpy(), *keep]))
        return table if paths is None else table.take(positions_of(table, paths))

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
            where = positions_of(table, [str(path) for path in frame[path_column]], sources)
            if len(set(where)) != len(where):
                raise BankError("labels name a path more than once; expected one row a sample")
            old = table.take(where)
            columns = overlay(old.columns, fresh)
            changed = _differs(old.columns, columns)
            self.add_samples(SampleTable(old.rows, columns).take(changed), newest=table.newest_stamp)
        return int(changed.sum())

    # --- features ------------------------------------------------------------------------------------------

    @overload
    def load(
        self, name: Names, target: None = None, *, views: str = "mean", paths: Paths | None = None
    ) -> NDArray[np.float32]: ...

    @overload
    def load(
        self, name: Names, target: str, *, views: str = "mean", paths: Paths | None = None
    ) -> tuple[NDArray[np.float32], NDArray[Any]]: ...

    @overload
    def load(
        self,
        name: Names,
        target: str,
        *,
        views: str = "mean",
        paths: Paths | None = None,
        return_paths: Literal[True],
    ) -> tuple[NDArray[np.float32], NDArray[Any], list[str]]: ...

    @overload
    def load(
        self,
        name: Names,
        target: None = None,
        *,
        views: str = "mean",
        paths: Paths | None = None,
        return_paths: Literal[True],
    ) -> tuple[NDArray[np.float32], list[str]]: ...

    @overload
    def load(
        self,
        name: Names,
        target: str | None = None,
        *,
        views: str = "mean",
        paths: Paths | None = None,
        sample_weight: str | None = None,
        groups: str | None = None,
        return_paths: bool = False,
    ) -> NDArray[np.float32] | tuple[Any, ...]: ...

    def load(
        self,
        name: Names,
        target: str | None = None,
        *,
        views: str = "mean",
        paths: Paths | None = None,
        sample_weight: str | None = None,
        groups: str | None = None,
        return_paths: bool = False,
    ) -> NDArray[np.float32] | tuple[Any, ...]:
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
        return tuple(results) if len(results) > 1 else results[0]

    def iter_batches(
        self,
        name: Names,
        target: str | None = None,
        *,
        batch_size: int = 256,
        shuffle: bool = False,
        seed: int = 0,
        views: str = "mean",
        paths: Paths | None = None,
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

    def features(self, name: Names, table: SampleTable, *, views: str = "mean") -> NDArray[np.float32]:
        """Return the embeddings of the samples of a table, one row each; see `load`."""
        return side_by_side(self.feature_parts(name, table, views=views))

    def feature_parts(self, name: Names, table: SampleTable, *, views: str = "mean") -> list[NDArray[np.float32]]:
        """Return each set's embeddings of the samples of a table, (n, d) or (n, views, d); see `load`."""
        return [each.gather(rows, views) for each, rows in self._find(name, table, views)]

    def matrix(self, name: Names, table: SampleTable, *, views: str = "mean") -> BankMatrix:
        """Return the embeddings of the samples of a table as a matrix that is read in batches; see `features`.

        `TopModelSearchCV` takes it for X where that would not fit into memory.
        """
        return matrix_of([_part(each, rows, views) for each, rows in self._find(name, table, views)], len(table))

    def _find(self, name: Names, table: SampleTable, views: str) -> list[tuple[FeatureSet, NDArray[np.int64]]]:
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

        ``sources`` and ``missing`` values are those of samples that are not gone; ``incomplete`` has a line, with
        what to do, for each feature set that lacks rows of readable samples.
        """
        table = self.table
        status = table.rows["status"]
        present = status != samples.GONE
        sets, readable = self.feature_sets, table.readable()
        return {
            "path": str(self.path),
            "samples": {word: int((status == code).sum()) for code, word in enumerate(samples.STATUSES)},
            "sources": sorted(set(table.rows["source"][present])),
            "columns": {
                name: {"kind": kind_of(column), "missing": int((column.isna() & present).sum())}
                for name, column in table.columns.items()
            },
            "feature_sets": [describe_set(self, each) for each in sets],
            "incomplete": [line for each in sets if (line := missing_rows(self, each, readable))],
            "bytes": sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file()),
        }

    def verify(self) -> list[dict[str, str]]:
        """Check every file of the bank, every byte.

        Returns
        -------
        list of dict
            ``file`` and ``problem`` (with what repairs it) of each damaged file; empty when all is well.
        """
        return upkeep.verify(self)

    def compact(self, *, grace: float = GRACE) -> dict[str, int]:
        """Merge small segments; see `featurebank.bank.upkeep.compact`."""
        return upkeep.compact(self, grace=grace)

    def merge(self, *others: str | os.PathLike[str] | Bank) -> dict[str, int]:
        """Copy what other banks hold into this one; see `featurebank.bank.upkeep.merge`."""
        return upkeep.merge(self, others)

    def prune(self, *, grace: float = GRACE, source: str | os.PathLike[str] | None = None) -> dict[str, int]:
        """Drop embeddings that no sample points at, a whole source first; see `featurebank.bank.upkeep.prune`."""
        return upkeep.prune(self, grace=grace, source=source)


def _part(each: FeatureSet, found: NDArray[np.int64], views: str) -> ColumnReader:
    """Return the columns of a matrix that a feature set gives; what was read is let go at once."""

    def read(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        values = each.gather(found[rows], views)
        each.close()
        return values

    return ColumnReader(read, each.width)


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
        X = side_by_side([each.gather(positions[rows], views) for each, positions in found])
        for at in range(0, len(rows), batch_size):
            part = slice(at, at + batch_size)
            yield (X[part], *(values[rows[part]] for values in beside)) if beside else X[part]


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
