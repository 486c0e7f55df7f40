"""Sums over parts of the rows, all parts in one pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from featurebank.solvers.moments import Array, Sums, deviation
from featurebank.solvers.problem import Fold, Problem
from featurebank.streaming.matrix import BankMatrix, Within

Weighed = tuple[NDArray[np.int64], Array]
"""Row numbers (m,) and the weight of each."""


def origin_of(X: BankMatrix) -> Array:
    """Return the mean of the first rows (d,): what is taken off before summing, so that no digits are lost."""
    return np.asarray(X[:2048], np.float64).mean(axis=0)


class StreamedMoments:
    """What `featurebank.solvers.moments.Moments` holds, from one pass over rows that are not in memory.

    A fold's sums are those of all rows less those of the rows it leaves out; where weights differ between folds, they
    are summed for each fold's training rows.

    Parameters
    ----------
    problem : Problem
        Its X is a `BankMatrix`.
    encode : callable
        Some of y to float64 columns (m, t): targets, or indicators of the classes.
    weigh : callable, optional
        Number of a fold to the weights of its training rows, where they differ between folds.
    """

    def __init__(
        self,
        problem: Problem,
        encode: Callable[[NDArray[np.generic]], Array],
        weigh: Callable[[int], Array] | None = None,
    ) -> None:
        self.problem, self.origin = problem, origin_of(problem.X)  # type: ignore[arg-type]
        count, numbers = len(problem.y), range(len(problem.folds))
        weights = problem.plain_weights(np.arange(count))
        self.is_shared = weigh is None
        if weigh is None:
            rests = [np.setdiff1d(np.arange(count), problem.folds[fold][0]) for fold in numbers]
            self.parts: list[Weighed] = [(rest, weights[rest]) for rest in rests] + [(np.arange(count), weights)]
        else:
            self.parts = [(problem.folds[fold][0], weigh(fold)) for fold in numbers]
        self.products, self.plain = self._pass(encode)

    def rows(self, rows: NDArray[np.intp]) -> Array:
        """Return the origin and a step along each column, (d + 1, d): what they are told is told of every row.

        Linear models are known by their values there, see `featurebank.streaming.exact`.
        """
        d = len(self.origin)
        return np.concatenate([np.zeros((1, d)), np.eye(d)])

    def training(self, fold: int, weights: Array) -> Sums:
        """Sums over a fold's training rows; `weights` are those that they were summed with."""
        d, sums = len(self.origin), self._of_training(self.products, fold)
        return Sums(sums[:d, :d], sums[:d, d], sums[:d, d + 1 :], sums[d, d + 1 :], float(sums[d, d]))

    def scaling(self, fold: int, weights: Array, sums: Sums) -> tuple[Array, Array]:
        """Mean, less the origin, and scale (d,) of the fold's `StandardScaler`, which knows no weights."""
        if not self.problem.standardize:
            return -self.origin, np.ones(len(self.origin))
        count, total, square = self._of_training(self.plain, fold)
        return total / count, deviation(total / count, square / count, self.origin)

    def _of_training(self, sums: Sequence[Array], fold: int) -> Array:
        return sums[-1] - sums[fold] if self.is_shared else sums[fold]

    def _pass(self, encode: Callable[[NDArray[np.generic]], Array]) -> tuple[list[Array], list[Array]]:
        """Return the weighted products of [x, 1, y] of each part, (d + 1 + t,) squared, and what scaling needs."""
        d, y = len(self.origin), self.problem.y
        width = d + 1 + encode(y[:1]).shape[1]
        products = [np.zeros((width, width)) for _ in self.parts]
        plain = [np.zeros((3, d)) for _ in self.parts]  # count, sum, sum of squares
        within = [Within(rows) for rows, _ in self.parts]
        whole = self._sums_of_others()
        start = 0
        for batch in self.problem.X.batches():  # type: ignore[attr-defined]
            block = np.ones((len(batch), width))
            block[:, :d] = batch - self.origin
            block[:, d + 1 :] = encode(y[start : start + len(batch)])
            for number, each in enumerate(within):
                if number in whole:
                    continue
                rows, places = each.between(start, start + len(batch))
                part = block[rows - start]
                plain[number] += [np.full(d, len(part)), part[:, :d].sum(axis=0), (part[:, :d] ** 2).sum(axis=0)]
                part *= np.sqrt(self.parts[number][1][places])[:, None]
                products[number] += part.T @ part
            start += len(batch)
        for number, parts in whole.items():
            products[number] = np.sum([products[each] for each in parts], axis=0)
            plain[number] = np.sum([plain[each] for each in parts], axis=0)
        return products, plain

    def _sums_of_others(self) -> dict[int, list[int]]:
        """Say which part is the sum of others: all rows, where each is left out by one fold."""
        last = len(self.parts) - 1
        if not self.is_shared or not last:
            return {}
        rests = np.concatenate([rows for rows, _ in self.parts[:last]])
        return {last: list(range(last))} if np.array_equal(np.sort(rests), np.arange(len(self.problem.y))) else {}


def scalers(X: BankMatrix, folds: Sequence[Fold]) -> list[tuple[Array, Array]]:
    """Return the mean and scale (d,) of the `StandardScaler` of each fold's training rows, from one pass."""
    origin, start = origin_of(X), 0
    within = [Within(train) for train, _ in folds]
    sums = [np.zeros((2, X.shape[1])) for _ in folds]
    for batch in X.batches():
        centred = batch - origin
        for number, each in enumerate(within):
            part = centred[each.between(start, start + len(batch))[0] - start]
            sums[number] += [part.sum(axis=0), (part**2).sum(axis=0)]
        start += len(batch)
    means = [total / len(train) for (total, _), (train, _) in zip(sums, folds, strict=True)]
    squares = [square / len(train) for (_, square), (train, _) in zip(sums, folds, strict=True)]
    return [(mean + origin, deviation(mean, square, origin)) for mean, square in zip(means, squares, strict=True)]
