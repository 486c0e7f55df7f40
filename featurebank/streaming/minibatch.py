"""Estimators that learn from one batch after the other: each is read once an epoch for all folds and parameters."""

from __future__ import annotations

import inspect
import math
import time
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from sklearn.base import clone, is_classifier
from threadpoolctl import threadpool_limits

from featurebank.solvers.problem import Cells, Problem
from featurebank.streaming.sums import scalers
from featurebank.streaming.trainer import Fitted, Streamed, make_scaler

STEPS = 10**6
"""Rows that an estimator sees at least, over all epochs (scikit-learn's advice for stochastic gradients)."""
MAX_EPOCHS = 50
RUN, MIXED = 32, 256
"""Consecutive rows read together, and how many such runs are drawn and mixed to make a batch."""


class Minibatch(Streamed):
    """``partial_fit`` of any scikit-learn estimator over batches in a drawn order.

    Averaged stochastic gradients need few passes over many rows (Polyak and Juditsky 1992; Bottou 2010): as many as
    make a million rows, at most 50.
    """

    def train(self, problem: Problem, cells: Cells) -> list[Fitted]:
        """Return the fitted estimators of every fold."""
        start = time.perf_counter()
        X, folds = problem.X, problem.folds
        fits = scalers(X, folds) if problem.standardize else []  # type: ignore[arg-type]
        steps = [make_scaler(*fit, len(train)) for fit, (train, _) in zip(fits, folds, strict=False)]
        models = [{number: self._make(cell) for number, cell in cells.items()} for _ in folds]
        weights = [_weights_of_rows(problem, fold) for fold in range(len(folds))]
        with threadpool_limits(1 if self.n_jobs > 1 else None), Parallel(self.n_jobs, prefer="threads") as workers:
            for epoch in range(min(MAX_EPOCHS, math.ceil(STEPS / len(problem.y)))):
                order, at = mixed(len(problem.y), self.seed + epoch), 0
                for batch in X.batches(order, RUN * MIXED):  # type: ignore[attr-defined]
                    rows = order[at : at + len(batch)]
                    at += len(batch)
                    jobs = []
                    for fold, given in enumerate(weights):
                        here = given[rows] > 0
                        Z = steps[fold].transform(batch[here]) if steps else batch[here]
                        jobs += [
                            delayed(self._learn)(model, Z, problem, fold, rows[here], given[rows[here]])
                            for model in models[fold].values()
                            if here.any()
                        ]
                    workers(jobs)
        seconds = (time.perf_counter() - start) / (len(folds) * len(cells))
        return [Fitted(steps[fold] if steps else None, models[fold], seconds) for fold in range(len(folds))]

    def _make(self, cell: Any) -> Any:
        model = clone(self.estimator)
        given = {"random_state": self.seed} if "random_state" in model.get_params() else {}
        return model.set_params(**given | dict(cell))

    def _learn(
        self, model: Any, Z: NDArray[Any], problem: Problem, fold: int, rows: NDArray[np.int64], weight: NDArray[Any]
    ) -> None:
        options: dict[str, Any] = {"classes": problem.classes(fold)} if is_classifier(model) else {}
        if _takes_weights(model) and (problem.sample_weight is not None or problem.class_weight is not None):
            options["sample_weight"] = weight
        model.partial_fit(Z, problem.y[rows], **options)


def mixed(count: int, seed: int) -> NDArray[np.int64]:
    """Return an order of rows that is drawn and yet read in runs: what lies together in a file is read together.

    Runs of rows are drawn in any order, and the rows of each batch of runs are shuffled.

    Examples
    --------
    >>> order = mixed(300, 0)
    >>> sorted(order.tolist()) == list(range(300)), order[:2].tolist() == [0, 1]
    (True, False)
    """
    random = np.random.default_rng(seed)
    starts = random.permutation(np.arange(0, count, RUN))
    order = np.concatenate([np.arange(start, min(start + RUN, count)) for start in starts])
    for start in range(0, count, RUN * MIXED):
        random.shuffle(order[start : start + RUN * MIXED])
    return order


def _weights_of_rows(problem: Problem, fold: int) -> NDArray[np.float64]:
    """Return the weight of every row in a fold, 0 for those that it does not train on, shape (n,)."""
    weights = np.zeros(len(problem.y))
    train = problem.folds[fold][0]
    is_class = problem.class_weight is not None
    weights[train] = problem.full_weights(fold, False) if is_class else problem.plain_weights(train)
    return weights


def _takes_weights(model: Any) -> bool:
    return "sample_weight" in inspect.signature(model.partial_fit).parameters
