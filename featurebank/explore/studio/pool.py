"""The embeddings of a bank's contents in memory: standardised for the model, and reduced for what is near to what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featurebank.bank.bank import Bank
from featurebank.bank.neighbours import unit_rows
from featurebank.errors import BankError
from featurebank.storage.memory import available_memory

COMPONENTS = 50
"""Principal components in which near is told from far."""
DRAWN = 10_000
"""Rows that these are learned from."""
ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Pool:
    """Embeddings of the contents that have one.

    Attributes
    ----------
    names : tuple of str
        The feature sets, side by side.
    X : ndarray of float32, shape (m, d)
        Standardised by the mean and deviation of all m, which need no labels.
    mean, scale : ndarray of float32, shape (d,)
    places : ndarray of int64, shape (n,)
        Each content's row, -1 where it has none.
    contents : ndarray of int64, shape (m,)
        Each row's content.
    Z : ndarray of float32, shape (m, r)
        The first principal components, at length 1.
    axes : ndarray of float32, shape (d, r)
        Those of the standardised rows.
    """

    names: tuple[str, ...]
    X: NDArray[np.float32]
    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    places: NDArray[np.int64]
    contents: NDArray[np.int64]
    Z: NDArray[np.float32]
    axes: NDArray[np.float32]

    def standardised(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return embeddings as X has them."""
        return (rows - self.mean) / self.scale


def read_pool(bank: Bank, names: Sequence[str], digests: NDArray[np.bytes_], seed: int = 0) -> Pool:
    """Read the embeddings of contents.

    Parameters
    ----------
    bank : Bank
    names : sequence of str
        Feature sets.
    digests : ndarray of S32, shape (n,)
    seed : int, default 0
        Draws the rows that the principal components are learned from.

    Raises
    ------
    BankError
        When the embeddings do not fit into memory.
    """
    sets = [bank.feature_set(name) for name in names]
    found = np.stack([each.find(digests) for each in sets])  # (sets, n)
    contents = np.flatnonzero((found >= 0).all(axis=0))
    width = sum(each.width for each in sets)
    need, free = 4 * len(contents) * width, available_memory()
    if need > 0.7 * free:
        raise BankError(
            f"the embeddings take {need / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; label a smaller bank, or one "
            "with a narrower feature set (--features)"
        )
    X = np.empty((len(contents), width), np.float32)
    ends = np.cumsum([0, *(each.width for each in sets)])
    for start in range(0, len(contents), ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        for each, rows, first, last in zip(sets, found[:, contents[part]], ends, ends[1:], strict=False):
            X[part, first:last] = each.gather(rows)
    for each in sets:
        each.close()
    return make_pool(tuple(names), X, contents, len(digests), seed)


def make_pool(names: tuple[str, ...], X: NDArray[np.float32], contents: NDArray[np.int64], n: int, seed: int) -> Pool:
    """Make a pool of embeddings, which are standardised in place."""
    places = np.full(n, -1)
    places[contents] = np.arange(len(contents))
    drawn = np.sort(np.random.default_rng(seed).permutation(len(X))[:DRAWN])
    sample = X[drawn].astype(np.float64)
    middle = sample.mean(axis=0) if len(X) else np.zeros(X.shape[1])
    spread = sample.std(axis=0) if len(X) else np.ones(X.shape[1])
    spread[spread <= 1e-6 * spread.max(initial=0)] = np.inf  # a column that carries nothing is 0
    sample = (sample - middle) / spread
    axes = np.linalg.eigh(sample.T @ sample)[1][:, : -COMPONENTS - 1 : -1].astype(np.float32)
    Z = np.empty((len(X), axes.shape[1]), np.float32)
    mean, scale = np.asarray(middle, np.float32), np.asarray(spread, np.float32)
    for start in range(0, len(X), ROWS_AT_ONCE):
        part = X[start : start + ROWS_AT_ONCE]
        part -= mean
        part /= scale
        Z[start : start + ROWS_AT_ONCE] = unit_rows(part @ axes)
    return Pool(names, X, mean, scale, places, contents, Z, axes)
