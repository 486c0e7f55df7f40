"""Logistic regression over the C path: shared products for all folds, warm starts, one preconditioner."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from featurebank.errors import counted
from featurebank.topmodels.solvers import plain
from featurebank.topmodels.solvers.designs import Design, design
from featurebank.topmodels.solvers.lbfgs import Array, Descent
from featurebank.topmodels.solvers.problem import (
    Cells,
    Events,
    Note,
    Prediction,
    Problem,
    SolverOptions,
    changed,
    label,
    split,
)

DEFAULT = LogisticRegression()
SHARED = ("C", "tol", "max_iter")
CARE = 0.1
"""Share of scikit-learn's `tol` to stop at: a warm start may already meet `tol` where it begins."""


def solve(
    problem: Problem, cells: Cells, settings: SolverOptions, estimator: LogisticRegression | None = None
) -> Events:
    """Predictions of `LogisticRegression` (L2, lbfgs) for every cell and fold, to the solver's tolerance.

    The path runs from strong to weak regularisation, each C from the last one's solution. With
    `settings.score` it ends once the mean score has clearly passed its peak; a note names the cells left out.
    """
    model = DEFAULT if estimator is None else estimator
    fast, rest = split({number: changed(model, DEFAULT) | dict(cell) for number, cell in cells.items()}, SHARED)
    yield from plain.solve(problem, rest, settings, model, "they change more than C, tol and max_iter")
    if not fast:
        return
    # Threads of our own wait quietly; those of BLAS spin, which on a busy machine costs many times the work.
    with threadpool_limits(1), ThreadPoolExecutor(settings.threads) as pool:
        paths = [Path(problem, folds, fast, settings, pool) for folds in by_classes(problem)]
        yield from walk(paths, fast, settings)


def walk(paths: list[Path], cells: Cells, settings: SolverOptions) -> Events:
    """Cells from strong to weak regularisation, until the mean score has clearly passed its peak."""
    order = sorted(cells, key=lambda number: cells[number].get("C", DEFAULT.C))
    results: list[list[Prediction]] = []
    for done, number in enumerate(order, 1):
        found = [prediction for path in paths for prediction in path.step(number)]
        yield from found
        stopped = sum(path.stopped for path in paths)
        if stopped:
            yield Note(
                f"{counted(stopped, 'fold')} did not converge within max_iter for {dict(cells[number])}", (number,)
            )
        results.append(found)
        left = tuple(order[done:])
        if left and settings.score is not None and is_past_peak(results, settings.score):
            yield Note(f"{len(left)} weaker C not evaluated: the mean score is clearly past its peak", left, True)
            return


def by_classes(problem: Problem) -> list[list[int]]:
    """Folds that train on the same classes, together: a class that a fold misses changes its model."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for fold in range(len(problem.folds)):
        groups.setdefault(tuple(problem.classes(fold)), []).append(fold)
    return list(groups.values())


def is_past_peak(results: Sequence[Sequence[Prediction]], score: Any) -> bool:
    """Whether the last cell is below the best by two standard errors of the paired fold differences."""
    scores = np.array([[score(p) for p in sorted(cell, key=lambda p: p.fold)] for cell in results])  # (cells, folds)
    fall = scores[scores.mean(axis=1).argmax()] - scores[-1]
    error = fall.std(ddof=1) / np.sqrt(len(fall)) if len(fall) > 1 else np.inf
    return bool(fall.mean() > 2 * error)


class Path:
    """Folds that share their classes, walked along C together.

    Parameters
    ----------
    folds : list of int
        Folds whose training parts hold the same classes.
    """

    def __init__(
        self, problem: Problem, folds: list[int], cells: Cells, settings: SolverOptions, pool: ThreadPoolExecutor
    ) -> None:
        self.problem, self.folds, self.cells, self.pool = problem, folds, cells, pool
        self.classes = problem.classes(folds[0])
        tight = min(cell.get("tol", DEFAULT.tol) for cell in cells.values()) < 1e-5
        dtype = np.float64 if tight else np.float32  # float32 gradients are good to about 1e-6
        self.design: Design = design(problem, folds, dtype, settings.memory, pool)
        self.codes = np.searchsorted(self.classes, problem.y).clip(max=len(self.classes) - 1)  # (n,)
        self.weights = np.zeros((len(folds), len(problem.y)), dtype)  # (F, n), zero outside the training part
        self.totals = np.ones(len(folds))
        for row, fold in enumerate(folds):
            given = problem.full_weights(fold, count_weights=True)
            self.totals[row] = given.sum()
            np.add.at(self.weights[row], problem.folds[fold][0], given / given.sum())  # rows may repeat
        edges = np.linspace(0, len(problem.y), settings.threads + 1).astype(int)
        self.slabs = [slice(start, stop) for start, stop in pairwise(edges)]
        outputs = 1 if len(self.classes) == 2 else len(self.classes)
        self.points = np.zeros((len(folds), outputs, self.design.width + 1))  # (F, K, d + 1), intercept last
        self.stopped = 0

    def step(self, number: int) -> list[Prediction]:
        """Solve one cell on all folds from where the path stands, and predict the test rows."""
        start = time.perf_counter()
        cell = self.cells[number]
        tol, max_iter = CARE * cell.get("tol", DEFAULT.tol), cell.get("max_iter", DEFAULT.max_iter)
        strengths = 1 / (cell.get("C", DEFAULT.C) * self.totals)  # (F,)
        curvatures = self.curvatures()
        noise = 4 * float(np.finfo(self.weights.dtype).eps)
        inverses = map(self.design.preconditioner, range(len(self.folds)), curvatures, strengths)
        descents = [
            Descent(point, inverse, tol, max_iter, noise) for point, inverse in zip(self.points, inverses, strict=True)
        ]
        while active := [row for row, descent in enumerate(descents) if not descent.done]:
            points = np.stack([descents[row].trial for row in active])
            losses, gradients = self.evaluate(active, points, strengths)
            list(self.pool.map(Descent.tell, [descents[row] for row in active], losses, gradients))
        self.points = np.stack([descent.trial for descent in descents])
        self.stopped = sum(descent.iterations >= max_iter for descent in descents)
        return self.predictions(number, (time.perf_counter() - start) / len(self.folds))

    def evaluate(self, rows: list[int], points: Array, strengths: Array) -> tuple[Array, Array]:
        """Penalised mean losses (A,) and gradients (A, K, d + 1) of active folds at points (A, K, d + 1)."""
        parts = list(self.pool.map(lambda slab: self.part(rows, points, slab), self.slabs))
        mean = np.sum([loss for loss, _ in parts], axis=0)
        gradients = np.sum([gradient for _, gradient in parts], axis=0)
        weights, strength = points[:, :, :-1], strengths[rows]
        gradients[:, :, :-1] += strength[:, None, None] * weights
        return mean + 0.5 * strength * (weights**2).sum(axis=(1, 2)), gradients

    def part(self, rows: list[int], points: Array, slab: slice) -> tuple[Array, Array]:
        """What a slab of m rows adds to the mean losses (A,) and their gradients (A, K, d + 1)."""
        logits = self.design.logits(rows, points, slab)  # (A, K, m)
        losses, residuals = (binary if len(self.classes) == 2 else multinomial)(logits, self.codes[slab])
        weights = self.weights[rows, slab]  # (A, m)
        residuals *= weights[:, None]
        mean = (losses * weights).sum(axis=1, dtype=np.float64)
        return mean, self.design.gradients(rows, residuals, slab)

    def curvatures(self) -> Array:
        """Mean Hessian of the loss in the logits, (F, K, K), at the path's points."""
        proba = self.probabilities(self.design.logits(list(range(len(self.folds))), self.points, slice(None)))
        if len(self.classes) == 2:
            return ((proba * (1 - proba))[:, 0] * self.weights).sum(axis=1, dtype=np.float64)[:, None, None]
        weighted = proba * self.weights[:, None]
        diagonal = weighted.sum(axis=2)[:, :, None] * np.eye(proba.shape[1])
        return (diagonal - weighted @ proba.transpose(0, 2, 1)).astype(np.float64)

    def probabilities(self, logits: NDArray[Any]) -> NDArray[Any]:
        """Class probabilities (F, K, n); of the second class alone (F, 1, n) when there are two."""
        return expit(logits) if len(self.classes) == 2 else softmax(logits, axis=1)

    def predictions(self, number: int, seconds: float) -> list[Prediction]:
        """What each fold's model says of its test rows."""
        logits = self.design.logits(list(range(len(self.folds))), self.points, slice(None))  # (F, K, n)
        proba = self.probabilities(logits)
        found = []
        for row, fold in enumerate(self.folds):
            test = self.problem.folds[fold][1]
            decision, p = logits[row][:, test].T, proba[row][:, test].T  # (m, K)
            if len(self.classes) == 2:
                decision, p = decision[:, 0], np.hstack([1 - p, p])
            found.append(Prediction(number, fold, self.classes, label(self.classes, decision), decision, p, seconds))
        return found


def multinomial(logits: NDArray[Any], codes: NDArray[np.intp]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Losses (A, n) of logits (A, K, n), and their derivatives (A, K, n), in the place of the logits."""
    columns = np.arange(logits.shape[2])
    logits -= logits.max(axis=1, keepdims=True)
    losses = -logits[:, codes, columns]
    np.exp(logits, out=logits)
    total = logits.sum(axis=1)  # (A, n)
    losses += np.log(total)
    logits /= total[:, None]
    logits[:, codes, columns] -= 1
    return losses, logits


def binary(logits: NDArray[Any], codes: NDArray[np.intp]) -> tuple[NDArray[Any], NDArray[Any]]:
    """As `multinomial` for two classes with one logit, (A, 1, n)."""
    losses = np.logaddexp(0, logits[:, 0]) - codes * logits[:, 0]
    return losses, expit(logits) - codes.astype(logits.dtype)
