"""Support vector machines over all C and gamma from one matrix of inner products a fold."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from joblib import Parallel
from numpy.typing import NDArray
from sklearn.base import clone, is_classifier
from sklearn.svm import SVC, SVR
from threadpoolctl import threadpool_limits

from featurebank.topmodels.solvers import plain
from featurebank.topmodels.solvers.fold_rows import gram
from featurebank.topmodels.solvers.problem import Cells, Events, Prediction, Problem, SolverOptions, split
from featurebank.topmodels.threads import delayed

SHARED = ("C", "gamma", "epsilon", "tol", "shrinking", "cache_size", "max_iter", "decision_function_shape")


def solve(problem: Problem, cells: Cells, settings: SolverOptions, estimator: SVC | SVR | None = None) -> Events:
    """Predictions of `SVC` or `SVR` (kernel "rbf" or "linear") for every cell and fold.

    One matrix of inner products a fold, in X's dtype, serves every cell: float32 is what libsvm itself keeps
    kernel values in. libsvm runs on precomputed kernels, in threads (it releases the interpreter's lock).
    Cells that change anything else, and kernels beyond the memory budget, go to plain scikit-learn.
    """
    model = SVC() if estimator is None else estimator
    fast, rest = split(cells, SHARED if model.kernel in ("rbf", "linear") else ())
    yield from plain.solve(problem, rest, settings, model, "they change more than the shared kernel allows")
    need = 8 * (2 + settings.threads) * max(len(train) + len(test) for train, test in problem.folds) ** 2
    if need > settings.memory:
        reason = f"kernels need {need:,} bytes, the budget is {settings.memory:,}"
        yield from plain.solve(problem, fast, settings, model, reason)
        return
    if is_classifier(model):
        model = clone(model).set_params(class_weight=problem.class_weight)
    with threadpool_limits(1):
        # Few tasks ahead, so that few folds are in memory at once.
        workers = Parallel(settings.n_jobs, prefer="threads", return_as="generator_unordered", pre_dispatch="n_jobs+1")
        for predictions in workers(tasks(problem, fast, model, settings.n_jobs)):
            yield from predictions


def tasks(problem: Problem, cells: Cells, model: SVC | SVR, n_jobs: int) -> Iterator[Any]:
    """Tasks of a fold's kernels, made when a thread is free: one a kernel, more where kernels are few."""
    for fold, (train, test) in enumerate(problem.folds if cells else ()):
        if is_classifier(model):
            problem.classes(fold)
        products = gram(problem, (train, test))
        auto = auto_gamma(problem, products, train)
        if model.kernel == "rbf":
            to_distances(products)
        chains = by_kernel(cells, model, auto)
        pieces = -(-n_jobs // len(chains))
        for gamma, chain in chains.items():
            for start in range(pieces):
                size = -(-len(chain) // pieces)
                part = chain[start * size : (start + 1) * size]
                yield delayed(fit_kernel)(problem, fold, products, gamma, part, model)


def by_kernel(
    cells: Cells, model: SVC | SVR, auto: Mapping[str, float]
) -> dict[float | None, list[tuple[int, Mapping[str, Any]]]]:
    """Cells by the number their gamma stands for (None: linear), each list from small C to large."""
    chains: dict[float | None, list[tuple[int, Mapping[str, Any]]]] = {}
    for number, cell in sorted(cells.items(), key=lambda item: item[1].get("C", model.C)):
        gamma = cell.get("gamma", model.gamma)
        width = None if model.kernel == "linear" else auto.get(gamma, gamma)
        chains.setdefault(width, []).append((number, cell))
    return chains


def auto_gamma(problem: Problem, products: NDArray[Any], train: NDArray[np.intp]) -> dict[str, float]:
    """scikit-learn's named gammas for a fold; `products` (n, n) are its inner products."""
    d = problem.X.shape[1]
    if problem.standardize:  # columns have mean 0, so the variance of all entries is their mean square
        variance = np.trace(products[: len(train), : len(train)], dtype=np.float64) / (len(train) * d)
    else:
        variance = problem.X[train].var(dtype=np.float64)
    return {"auto": 1 / d, "scale": 1 / (d * variance) if variance > 0 else 1.0}


def to_distances(products: NDArray[Any]) -> None:
    """Inner products (n, n) become squared Euclidean distances, in place."""
    squares = products.diagonal().copy()
    products *= -2
    products += squares[:, None]
    products += squares
    np.maximum(products, 0, out=products)
    np.fill_diagonal(products, 0)


def fit_kernel(
    problem: Problem,
    fold: int,
    products: NDArray[Any],
    gamma: float | None,
    chain: list[tuple[int, Mapping[str, Any]]],
    model: SVC | SVR,
) -> list[Prediction]:
    """A chain of cells of one kernel on one fold, from small C to large.

    A solution that no box touches is also that of every larger C, so it is kept.
    """
    n = len(problem.folds[fold][0])
    scaled = products[:, :n] if gamma is None else np.exp(-gamma * products[:, :n])
    kernel = scaled.astype(np.float64, order="C")  # (n_train + n_test, n_train)
    solved: dict[Any, Prediction] = {}
    done = []
    for number, cell in chain:
        rest = tuple(sorted((name, value) for name, value in cell.items() if name not in ("C", "gamma")))
        if rest in solved:
            done.append(solved[rest]._replace(cell=number, seconds=0.0))
            continue
        fitted, prediction = fit_cell(problem, fold, kernel, number, clone(model).set_params(**cell))
        done.append(prediction)
        if is_inside(fitted, problem.weights(problem.folds[fold][0])):
            solved[rest] = prediction
    return done


def fit_cell(
    problem: Problem, fold: int, kernel: NDArray[np.float64], number: int, model: SVC | SVR
) -> tuple[SVC | SVR, Prediction]:
    """Fit one cell on a kernel (n_train + n_test, n_train) and predict the test rows."""
    start = time.perf_counter()
    train = problem.folds[fold][0]
    model.set_params(kernel="precomputed").fit(kernel[: len(train)], problem.y[train], problem.weights(train))
    rows = kernel[len(train) :]
    decision = model.decision_function(rows) if is_classifier(model) else None
    classes = model.classes_ if is_classifier(model) else None
    labels = model.predict(rows)
    return model, Prediction(number, fold, classes, labels, decision, None, time.perf_counter() - start)


def is_inside(model: SVC | SVR, weights: NDArray[np.float64] | None) -> bool:
    """Whether every dual coefficient is below its bound, C times the row's weights."""
    bound = np.full(len(model.support_), float(model.C))
    if weights is not None:
        bound *= weights[model.support_]
    if is_classifier(model):
        bound *= np.repeat(model.class_weight_, model.n_support_)
    return bool((np.abs(model.dual_coef_) < bound * (1 - 1e-9)).all())
