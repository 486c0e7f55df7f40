"""A matrix of embeddings that is sliced without being read, and read a batch of rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

BATCH = 4096
"""Rows read at a time: 12 MB of 768 columns."""
SCATTERED = 128
"""Rows read at a time that may lie anywhere: each brings up to 2 MiB of its file into memory until that is let go."""


class ColumnReader(NamedTuple):
    """Columns of the matrix that one reader gives: row numbers -> float32 (m, width)."""

    read: Callable[[NDArray[np.int64]], NDArray[np.float32]]
    width: int


@dataclass(frozen=True)
class BankMatrix:
    """Rows of float32 that stay where they are until they are needed.

    ``X[rows]`` and ``X[:, columns]`` are matrices of the same kind, ``np.asarray(X)`` reads all of it.

    Attributes
    ----------
    parts : sequence of ColumnReader
        Readers of the columns, side by side.
    rows : ndarray of int64, shape (n,)
        Row numbers that the readers are asked for.
    columns : ndarray of int64, shape (d,)
        Columns of the parts; a part that has none of them is not read.
    transforms : tuple
        Transformers that learn nothing and keep the width, applied to what is read.

    Examples
    --------
    >>> values = np.arange(12, dtype=np.float32).reshape(4, 3)
    >>> X = matrix_of([ColumnReader(lambda rows: values[rows], 3)], 4)
    >>> X.shape, X[2:, ].shape, np.asarray(X[[3, 0]][:, [2]]).tolist()
    ((4, 3), (2, 3), [[11.0], [2.0]])
    """

    parts: Sequence[ColumnReader]
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    transforms: tuple[Any, ...] = ()

    dtype = np.dtype(np.float32)
    ndim = 2

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and of columns."""
        return len(self.rows), len(self.columns)

    @property
    def nbytes(self) -> int:
        """Bytes that all of it would take."""
        return len(self.rows) * len(self.columns) * self.dtype.itemsize

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: Any) -> BankMatrix:
        rows, columns = key if isinstance(key, tuple) and len(key) == 2 else (key, slice(None))
        return replace(self, rows=self.rows[rows], columns=self.columns[columns])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self._gathered(self.rows, np.dtype(dtype or self.dtype))

    def mapped(self, transforms: Sequence[Any]) -> BankMatrix:
        """Return the matrix as it is after transformers that learn nothing and keep the width."""
        return replace(self, transforms=(*self.transforms, *transforms))

    def batches(self, order: NDArray[np.int64] | None = None, size: int = BATCH) -> Iterator[NDArray[np.float32]]:
        """Yield rows in an order, by default their own, `size` at a time."""
        for start in range(0, len(self), size):
            if order is None:
                yield self._read(self.rows[start : start + size])
            else:
                yield self._gathered(self.rows[order[start : start + size]], self.dtype)

    def _gathered(self, rows: NDArray[np.int64], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return rows that may lie anywhere, (m, d), a few at a time, those beside each other together."""
        out, order = np.empty((len(rows), len(self.columns)), dtype), np.argsort(rows, kind="stable")
        for start in range(0, len(rows), SCATTERED):
            some = order[start : start + SCATTERED]
            out[some] = self._read(rows[some])
        return out

    def _read(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        starts = np.cumsum([0, *(part.width for part in self.parts)])
        number = np.searchsorted(starts, self.columns, side="right") - 1  # the part of each column
        needed = np.unique(number)
        X = side_by_side([self.parts[each].read(rows) for each in needed])
        widths = np.cumsum([0, *(self.parts[each].width for each in needed)])
        place = widths[np.searchsorted(needed, number)] + self.columns - starts[number]
        if not np.array_equal(place, np.arange(X.shape[1])):
            X = X[:, place]
        for each in self.transforms:
            X = each.transform(X)
        return X


def side_by_side(parts: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return arrays concatenated along the last axis; a single one as it is."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)


def matrix_of(parts: Sequence[ColumnReader], count: int) -> BankMatrix:
    """Return the matrix of `count` rows that some readers give side by side."""
    return BankMatrix(parts, np.arange(count), np.arange(sum(part.width for part in parts)))


def in_batches(X: NDArray[Any] | BankMatrix) -> Iterator[NDArray[Any]]:
    """Yield the rows of a matrix that is read in batches, or an array whole."""
    if isinstance(X, BankMatrix):
        yield from X.batches()
    else:
        yield X


class Within:
    """Sorted row numbers, of which those inside a batch are found at once.

    Parameters
    ----------
    rows : ndarray of int64, shape (m,)
    """

    def __init__(self, rows: NDArray[np.int64]):
        is_sorted = bool((rows[:-1] <= rows[1:]).all())  # as those of most folds: nothing is copied
        self.order = slice(None) if is_sorted else np.argsort(rows, kind="stable")
        self.rows = rows[self.order]

    def between(self, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the rows from `start` to before `stop`, and the position of each in the rows as they were given."""
        first, last = np.searchsorted(self.rows, (start, stop))
        places = np.arange(first, last) if isinstance(self.order, slice) else self.order[first:last]
        return self.rows[first:last], places
