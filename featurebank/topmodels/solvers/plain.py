"""Plain scikit-learn, fitted once a cell and fold: the reference, and the way out of every fast method."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from joblib import Parallel
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.utils.validation import has_fit_parameter
from threadpoolctl import threadpool_limits

from featurebank.errors import counted
from featurebank.topmodels.scaling import FlooredScaler
from featurebank.topmodels.solvers.problem import (
    Cells,
    Events,
    Note,
    Prediction,
    Problem,
    SolverOptions,
    configured,
    prediction_of,
)
from featurebank.topmodels.threads import delayed


def solve(
    problem: Problem, cells: Cells, settings: SolverOptions, estimator: BaseEstimator, reason: str = ""
) -> Events:
    """Fit `estimator` with each cell's parameters on each fold, in threads; `reason` becomes a note."""
    if not cells:
        return
    if reason:
        yield Note(f"plain {type(estimator).__name__} for {counted(len(cells), 'cell')}: {reason}", tuple(cells))
    jobs = (
        delayed(fit)(problem, fold, number, pipeline(problem, estimator, cell, settings.random_state))
        for number, cell in cells.items()
        for fold in range(len(problem.folds))
    )
    with threadpool_limits(1 if settings.n_jobs > 1 else None):
        yield from Parallel(settings.n_jobs, prefer="threads", return_as="generator_unordered")(jobs)


def pipeline(problem: Problem, estimator: BaseEstimator, cell: Mapping[str, Any], random_state: int) -> Pipeline:
    """The pipeline whose predictions every solver reproduces."""
    scaler = FlooredScaler(problem.widths) if problem.standardize else "passthrough"
    return make_pipeline(
        scaler, configured(estimator, cell, class_weight=problem.class_weight, random_state=random_state)
    )


def fit(problem: Problem, fold: int, number: int, model: Pipeline) -> Prediction:
    """Fit one pipeline on one fold and keep all it says of the test rows."""
    start = time.perf_counter()
    train, test = problem.folds[fold]
    weights = problem.full_weights(fold, count_weights=False) if is_emulated(problem, model) else problem.weights(train)
    extra = {} if weights is None else {f"{model.steps[-1][0]}__sample_weight": weights}
    model.fit(problem.X[train], problem.y[train], **extra)
    return prediction_of(model, problem.X[test], number, fold)._replace(seconds=time.perf_counter() - start)


def is_emulated(problem: Problem, model: Pipeline) -> bool:
    """Whether the class weights become weights of rows, for an estimator that knows only those."""
    estimator = model[-1]
    is_known = "class_weight" in estimator.get_params()
    return problem.class_weight is not None and not is_known and has_fit_parameter(estimator, "sample_weight")
