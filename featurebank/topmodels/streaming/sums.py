"""Sums over parts of the rows, all parts in one pass, and the scalers and whitenings that are made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.decomposition import PCA

from featurebank.bank.matrix import BankMatrix, Within
from featurebank.topmodels.scaling import FlooredScaler, floored, make_scaler
from featurebank.topmodels.solvers.moments import Array, Sums, deviation
from featurebank.topmodels.solvers.problem import Problem
from featurebank.topmodels.transforms import Step

Weighed = tuple[NDArray[np.int64], Array]
"""Row numbers (m,) and the weight of each."""


def origin_of(X: BankMatrix) -> Array:
    """Return the mean of the first rows (d,): what is taken off before summing, so that no digits are lost."""
    return np.asarray(X[:2048], np.float64).mean(axis=0)


class StreamedMoments:
    """What `featurebank.topmodels.solvers.moments.Moments` holds, from one pass over rows that are not in memory.

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
        self.problem, self.weigh, self.origin = problem, weigh, origin_of(problem.X)  # type: ignore[arg-type]
        self.parts = self._pass(encode)

    def rows(self, rows: NDArray[np.intp]) -> Array:
        """Return the origin and a step along each column, (d + 1, d): what they are told is told of every row.

        Linear models are known by their values there, see `featurebank.topmodels.streaming.exact`.
        """
        d = len(self.origin)
        return np.concatenate([np.zeros((1, d)), np.eye(d)])

    def training(self, fold: int, weights: Array) -> Sums:
        """Sums over a fold's training rows; `weights` are those that they were summed with."""
        d, sums = len(self.origin), self._of_training("products", fold)
        return Sums(sums[:d, :d], sums[:d, d], sums[:d, d + 1 :], sums[d, d + 1 :], float(sums[d, d]))

    def scaling(self, fold: int, weights: Array, sums: Sums) -> tuple[Array, Array]:
        """Mean, less the origin, and scale (d,) of the fold's `FlooredScaler`, which knows no weights."""
        if not self.problem.standardize:
            return -self.origin, np.ones(len(self.origin))
        count, total, square = self._of_training("plain", fold)
        mean = total / count
        spread = deviation(mean, square / count, self.origin)
        return mean, floored(spread, mean + self.origin, self.problem.widths)

    def _of_training(self, name: str, fold: int) -> Array:
        sums: list[Array] = [getattr(part, name) for part in self.parts]
        return sums[fold] if self.weigh is not None else sums[-1] - sums[fold]

    def _pass(self, encode: Callable[[NDArray[np.generic]], Array]) -> list[_Part]:
        """Return the sums of each part, from one pass over the rows."""
        d, y, start = len(self.origin), self.problem.y, 0
        width = d + 1 + encode(y[:1]).shape[1]
        parts = [_Part(rows, weights, d, width) for rows, weights in self._weighed()]
        is_whole = self._is_whole(parts)
        told = parts[:-1] if is_whole else parts
        for batch in self.problem.X.batches():  # type: ignore[attr-defined]
            block = np.ones((len(batch), width))
            block[:, :d] = batch - self.origin
            block[:, d + 1 :] = encode(y[start : start + len(batch)])
            for each in told:
                each.add(block, start)
            start += len(batch)
        if is_whole:
            parts[-1].take(told)
        return parts

    def _weighed(self) -> list[Weighed]:
        """Return the rows and weights of each part: what a fold leaves out, and all; or what each fold learns."""
        folds, everyone = self.problem.folds, np.arange(len(self.problem.y))
        if self.weigh is not None:
            return [(train, self.weigh(fold)) for fold, (train, _) in enumerate(folds)]
        rows = [*(np.delete(everyone, train) for train, _ in folds), everyone]
        return [(part, self.problem.plain_weights(part)) for part in rows]

    def _is_whole(self, parts: list[_Part]) -> bool:
        """Say whether the last part, all rows, is the sum of the others: each row is left out by one fold."""
        if self.weigh is not None or len(parts) == 1:
            return False
        rests = np.concatenate([part.within.rows for part in parts[:-1]])
        return np.array_equal(np.sort(rests), np.arange(len(self.problem.y)))


class _Part:
    """Sums over some rows: the weighted products of [x, 1, y], (width, width), and what scaling needs.

    Parameters
    ----------
    rows : ndarray of int64, shape (m,)
    weights : ndarray of float64, shape (m,)
    d : int
        Columns of x.
    width : int
        Of [x, 1, y].
    """

    def __init__(self, rows: NDArray[np.int64], weights: Array, d: int, width: int):
        self.within, self.weights = Within(rows), weights
        self.products, self.plain = np.zeros((width, width)), np.zeros((3, d))  # count, sum, sum of squares

    def add(self, block: Array, start: int) -> None:
        """Add those rows of a batch (m, width) that are the part's; `start` is the number of its first row."""
        rows, positions = self.within.between(start, start + len(block))
        own = block[rows - start]
        x = own[:, : self.plain.shape[1]]
        self.plain += [np.full(x.shape[1], len(x)), x.sum(axis=0), (x**2).sum(axis=0)]
        own *= np.sqrt(self.weights[positions])[:, None]
        self.products += own.T @ own

    def take(self, others: Sequence[_Part]) -> None:
        """Become the sum of other parts."""
        self.products = np.sum([each.products for each in others], axis=0)
        self.plain = np.sum([each.plain for each in others], axis=0)


def scalers(problem: Problem) -> list[FlooredScaler]:
    """Return the scaler of each fold's training rows, from one pass."""
    X: BankMatrix = problem.X  # type: ignore[assignment]
    folds, origin, start = problem.folds, origin_of(X), 0
    within = [Within(train) for train, _ in folds]
    sums = [np.zeros((2, X.shape[1])) for _ in folds]
    for batch in X.batches():
        centred = batch - origin
        for number, each in enumerate(within):
            part = centred[each.between(start, start + len(batch))[0] - start]
            sums[number] += [part.sum(axis=0), (part**2).sum(axis=0)]
        start += len(batch)
    found = []
    for (total, square), (train, _) in zip(sums, folds, strict=True):
        count = len(train)
        mean = total / count + origin
        scale = floored(deviation(total / count, square / count, origin), mean, problem.widths)
        found.append(make_scaler(mean, scale, count))
    return found


# --- the steps before a model that learn ------------------------------------------------------------


def fit_steps(problem: Problem, whitening: PCA | None) -> list[list[Step]]:
    """Return the fitted steps of every fold: its scaler, if the problem is standardised, and its whitening after it."""
    if whitening is not None:
        return _whitened(problem, whitening)
    if not problem.standardize:
        return [[] for _ in problem.folds]
    return [[("scale", scaler)] for scaler in scalers(problem)]


def _whitened(problem: Problem, whitening: PCA) -> list[list[Step]]:
    """Neither step knows weights."""
    plain = replace(problem, sample_weight=None, class_weight=None, standardize=True)
    moments = StreamedMoments(plain, lambda y: np.empty((len(y), 0)))
    found: list[list[Step]] = []
    for fold, (train, _) in enumerate(problem.folds):
        sums = moments.training(fold, np.empty(0))
        mean, scale = moments.scaling(fold, np.empty(0), sums)
        covariance = (sums.xx - np.outer(sums.x, sums.x) / len(train)) / scale / scale[:, None] / (len(train) - 1)
        scaler = make_scaler(mean + moments.origin, scale, len(train))
        found.append([("scale", scaler), ("whiten", make_pca(covariance, len(train), whitening))])
    return found


def make_pca(covariance: Array, count: int, pca: PCA) -> PCA:
    """Return the `PCA` that has seen `count` rows of mean 0 and this covariance (d, d).

    It is fitted to rows that have them: the principal axes, each as long as its deviation, there and back.

    Examples
    --------
    >>> make_pca(np.diag([1.0, 4.0]), 9, PCA(1)).transform([[5.0, 3.0]])
    array([[3.]])
    """
    values, vectors = np.linalg.eigh(covariance)
    axes = (vectors * np.sqrt(values.clip(min=0))).T
    rows = np.concatenate([axes, -axes]) * np.sqrt((2 * len(axes) - 1) / 2)
    fitted = clone(pca).fit(rows)
    fitted.n_samples_, fitted.singular_values_ = count, np.sqrt(fitted.explained_variance_ * (count - 1))
    return fitted


class Along:
    """A fold's moments in the coordinates that its steps bring rows to; it stands in for `StreamedMoments`.

    Parameters
    ----------
    moments : StreamedMoments
        Of rows that are not standardised.
    fold : int
    steps : sequence of (name, transformer)
        Fitted, and affine together.
    """

    def __init__(self, moments: StreamedMoments, fold: int, steps: list[Step]):
        points = moments.origin + moments.rows(np.empty(0, np.intp))
        for _, step in steps:
            points = step.transform(points)
        self.moments, self.problem = moments, moments.problem
        self.start, self.axes = points[0], points[1:] - points[0]  # (k,), (d, k)
        self.origin = np.zeros(len(self.start))
        self._sums = self._turned(moments.training(fold, np.empty(0)))

    def rows(self, rows: NDArray[np.intp]) -> Array:
        """Return the origin and a step along each axis, (k + 1, k); see `StreamedMoments`."""
        return np.concatenate([self.origin[None], np.eye(len(self.origin))])

    def training(self, fold: int, weights: Array) -> Sums:
        """Sums over the fold's training rows."""
        return self._sums

    def scaling(self, fold: int, weights: Array, sums: Sums) -> tuple[Array, Array]:
        """Mean and scale of the rows' own coordinates, 0 and 1."""
        return self.origin, np.ones(len(self.origin))

    def _turned(self, sums: Sums) -> Sums:
        x, start = self.axes.T @ sums.x, self.start
        xx = self.axes.T @ sums.xx @ self.axes + np.outer(x, start) + np.outer(start, x)
        xx += sums.weight * np.outer(start, start)
        xy = self.axes.T @ sums.xy + np.outer(start, sums.y)
        return Sums(xx, x + sums.weight * start, xy, sums.y, sums.weight)
