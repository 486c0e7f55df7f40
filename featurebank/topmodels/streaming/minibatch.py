"""Estimators that learn from one batch after the other: each is read once an epoch for all folds and parameters."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from joblib import Parallel
from numpy.typing import NDArray
from sklearn.base import is_classifier
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_limits

from featurebank.topmodels.solvers.problem import Cells, Problem, configured
from featurebank.topmodels.streaming.sums import fit_steps
from featurebank.topmodels.streaming.trainer import Fitted, Streamed, stepped
from featurebank.topmodels.threads import delayed

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

    def train(self, problem: Problem, cells: Cells, whitening: PCA | None) -> list[Fitted]:
        """Return the fitted estimators of every fold."""
        start = time.perf_counter()
        fitted = [
            Fitted(steps, {number: self._make(cell) for number, cell in cells.items()})
            for steps in fit_steps(problem, whitening)
        ]
        pupils = [self._pupils(problem, fold, each) for fold, each in enumerate(fitted)]
        here = Parallel(self.n_jobs, require="sharedmem")  # they learn in place
        with threadpool_limits(1 if self.n_jobs > 1 else None), here as workers:
            for rows, batch in self._drawn(problem):
                workers(lesson for each in pupils for lesson in each.lessons(problem.y, rows, batch))
        seconds = (time.perf_counter() - start) / (len(fitted) * len(cells))
        return [each._replace(seconds=seconds) for each in fitted]

    def _drawn(self, problem: Problem) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Yield batches of row numbers and rows, every row once an epoch."""
        count = len(problem.y)
        for epoch in range(min(MAX_EPOCHS, math.ceil(STEPS / count))):
            order, at = mixed(count, self.random_state + epoch), 0
            for batch in problem.X.batches(order, RUN * MIXED):  # type: ignore[attr-defined]
                yield order[at : at + len(batch)], batch
                at += len(batch)

    def _make(self, cell: Any) -> Any:
        return configured(self.estimator, cell, random_state=self.random_state)

    def _pupils(self, problem: Problem, fold: int, fitted: Fitted) -> _Pupils:
        asked = problem.sample_weight is not None or problem.class_weight is not None
        weights, is_weighted = _weights_of_rows(problem, fold), asked and _takes_weights(self.estimator)
        options = {"classes": problem.classes(fold)} if is_classifier(self.estimator) else {}
        return _Pupils(fitted, weights if is_weighted else weights > 0, options, is_weighted)


@dataclass(frozen=True)
class _Pupils:
    """The estimators of one fold, and what they are told beside the rows."""

    fitted: Fitted
    weights: NDArray[Any]  # (n,), 0 for rows that the fold does not train on; whether it does, if weights mean nothing
    options: dict[str, Any]
    is_weighted: bool

    def lessons(self, y: NDArray[Any], rows: NDArray[np.int64], batch: NDArray[np.float32]) -> Iterator[Any]:
        """Yield the calls by which every estimator learns from the rows of a batch."""
        weight = self.weights[rows]
        here = weight > 0
        if here.any():
            Z = stepped(self.fitted.steps, batch[here])
            options = self.options | ({"sample_weight": weight[here]} if self.is_weighted else {})
            for model in self.fitted.models.values():
                yield delayed(model.partial_fit)(Z, y[rows[here]], **options)


def mixed(count: int, random_state: int) -> NDArray[np.int64]:
    """Return an order of rows that is drawn and yet read in runs: what lies together in a file is read together.

    Runs of rows are drawn in any order, and the rows of each batch of runs are shuffled.

    Examples
    --------
    >>> order = mixed(300, 0)
    >>> sorted(order.tolist()) == list(range(300)), order[:2].tolist() == [0, 1]
    (True, False)
    """
    random = np.random.default_rng(random_state)
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
