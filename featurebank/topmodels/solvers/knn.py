"""Nearest neighbours over all k from one search a fold."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import is_classifier
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor, NearestNeighbors
from threadpoolctl import threadpool_limits

from featurebank.topmodels.solvers import plain
from featurebank.topmodels.solvers.fold_rows import standardised
from featurebank.topmodels.solvers.problem import Cells, Events, Prediction, Problem, SolverOptions, split

SHARED = ("n_neighbors", "weights", "metric")
Neighbours = tuple[NDArray[Any], NDArray[np.intp]]


def solve(
    problem: Problem,
    cells: Cells,
    settings: SolverOptions,
    estimator: KNeighborsClassifier | KNeighborsRegressor | None = None,
) -> Events:
    """Predictions of `KNeighborsClassifier` (the default) or `KNeighborsRegressor` for every cell and fold.

    The k nearest are the first k of the most asked for, so one search of scikit-learn's own serves every k.
    """
    if problem.sample_weight is not None:
        raise ValueError("sample weights found; nearest neighbours take none: drop them or the model")
    model = KNeighborsClassifier() if estimator is None else estimator
    fast, rest = split(cells, SHARED, lambda cell: not callable(cell.get("weights", model.weights)))
    yield from plain.solve(problem, rest, settings, model, "they change more than k, weights and metric")
    for fold in range(len(problem.folds) if fast else 0):
        with threadpool_limits(settings.threads):
            found = search(problem, fold, fast, model)
        for number, cell in fast.items():
            start = time.perf_counter()
            full = model.get_params() | cell
            prediction = (classify if is_classifier(model) else average)(
                problem, fold, number, full, found[full["metric"]]
            )
            yield prediction._replace(seconds=time.perf_counter() - start)


def search(problem: Problem, fold: int, cells: Cells, model: Any) -> dict[str, Neighbours]:
    """Distances and numbers (m, largest k) of each test row's nearest training rows, by metric."""
    train, test = standardised(problem, problem.folds[fold])
    largest: dict[str, int] = {}
    for cell in cells.values():
        metric, k = cell.get("metric", model.metric), cell.get("n_neighbors", model.n_neighbors)
        largest[metric] = max(k, largest.get(metric, 0))
    options = {name: getattr(model, name) for name in ("algorithm", "leaf_size", "p", "metric_params")}
    return {
        metric: NearestNeighbors(n_neighbors=k, metric=metric, **options).fit(train).kneighbors(test)
        for metric, k in largest.items()
    }


def votes(cell: Mapping[str, Any], found: Neighbours) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Weight and number (m, k) of each neighbour; an exact match silences the others, as in scikit-learn."""
    distances, neighbours = (array[:, : cell["n_neighbors"]] for array in found)
    if cell["weights"] != "distance":
        return np.ones(neighbours.shape), neighbours
    same = distances == 0
    with np.errstate(divide="ignore"):
        return np.where(same.any(axis=1, keepdims=True), same, 1 / distances.astype(np.float64)), neighbours


def classify(problem: Problem, fold: int, number: int, cell: Mapping[str, Any], found: Neighbours) -> Prediction:
    """The class with most votes; the first of equals."""
    classes, codes = np.unique(problem.y[problem.folds[fold][0]], return_inverse=True)
    weights, neighbours = votes(cell, found)
    rows = np.arange(len(neighbours))[:, None] * len(classes)
    counts = np.bincount((rows + codes[neighbours]).ravel(), weights.ravel(), len(rows) * len(classes))
    counts = counts.reshape(len(rows), len(classes))
    proba = counts / counts.sum(axis=1, keepdims=True)
    return Prediction(number, fold, classes, classes[counts.argmax(axis=1)], None, proba)


def average(problem: Problem, fold: int, number: int, cell: Mapping[str, Any], found: Neighbours) -> Prediction:
    """The weighted mean of the neighbours' targets (m,) or (m, targets)."""
    weights, neighbours = votes(cell, found)
    targets = problem.y[problem.folds[fold][0]][neighbours]  # (m, k, ...)
    shares = weights / weights.sum(axis=1, keepdims=True)
    return Prediction(number, fold, None, np.einsum("mk,mk...->m...", shares, targets))
