"""Loading: what is read from a bank, samples that can be loaded and their embeddings with labels beside them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from featurebank.bank import samples
from featurebank.bank.features import FeatureSet, as_keys, check_views
from featurebank.bank.folder import BankFolder
from featurebank.bank.matrix import BankMatrix, ColumnReader, matrix_of, side_by_side
from featurebank.bank.repair_hints import missing_rows
from featurebank.bank.samples import SampleTable, column_of, positions_of, values_of, weights_of
from featurebank.errors import BankError

ROWS_AT_ONCE = 8192

Names = str | Sequence[str]
Paths = Sequence[str | os.PathLike[str]]


class BankReader(BankFolder):
    """The reading half of a bank; see `featurebank.Bank`."""

    # --- samples -------------------------------------------------------------------------------------------

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

    @overload
    def iter_batches(
        self,
        name: Names,
        target: None = None,
        *,
        batch_size: int = 256,
        shuffle: bool = False,
        seed: int = 0,
        views: str = "mean",
        paths: Paths | None = None,
        sample_weight: None = None,
    ) -> Iterator[NDArray[np.float32]]: ...

    @overload
    def iter_batches(
        self,
        name: Names,
        target: str,
        *,
        batch_size: int = 256,
        shuffle: bool = False,
        seed: int = 0,
        views: str = "mean",
        paths: Paths | None = None,
        sample_weight: str | None = None,
    ) -> Iterator[tuple[NDArray[Any], ...]]: ...

    @overload
    def iter_batches(
        self,
        name: Names,
        target: None = None,
        *,
        batch_size: int = 256,
        shuffle: bool = False,
        seed: int = 0,
        views: str = "mean",
        paths: Paths | None = None,
        sample_weight: str,
    ) -> Iterator[tuple[NDArray[Any], ...]]: ...

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
    ) -> Iterator[NDArray[np.float32] | tuple[NDArray[Any], ...]]:
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
) -> Iterator[NDArray[np.float32] | tuple[NDArray[Any], ...]]:
    """Yield batches in an order; several are read at once, since random rows lie in many files."""
    block = max(1, ROWS_AT_ONCE // batch_size) * batch_size
    for start in range(0, len(order), block):
        rows = order[start : start + block]
        X = side_by_side([each.gather(positions[rows], views) for each, positions in found])
        for at in range(0, len(rows), batch_size):
            part = slice(at, at + batch_size)
            yield (X[part], *(values[rows[part]] for values in beside)) if beside else X[part]
