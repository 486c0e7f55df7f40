"""What every streamed top model does alike: train on all folds, ask for out-of-fold answers, refit on all rows."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, is_classifier
from sklearn.decomposition import PCA
from sklearn.pipeline import Pipeline

from featurebank.bank.matrix import BankMatrix, Within
from featurebank.errors import TopModelError
from featurebank.storage.memory import release
from featurebank.topmodels.candidates import Candidate, CandidateGroup
from featurebank.topmodels.evaluation import SearchData, split_steps
from featurebank.topmodels.solvers.problem import Cells, Events, Prediction, Problem, SolverOptions
from featurebank.topmodels.transforms import SelectDimensions, Step

AT_ONCE = 128 << 20
"""Bytes of out-of-fold answers that one pass collects; more parameters take more passes."""


class Fitted(NamedTuple):
    """The fitted steps of one fold that learn, and the estimators behind them by their cell."""

    steps: list[Step]
    models: dict[int, Any]
    seconds: float = 0.0


@dataclass(frozen=True)
class Streamed:
    """A top model's training on a `BankMatrix`, in the place of its solver (`featurebank.topmodels.models.TopModel`).

    Attributes
    ----------
    estimator : BaseEstimator
        Unfitted.
    random_state : int
    n_jobs : int
        Threads.
    """

    estimator: BaseEstimator
    random_state: int = 0
    n_jobs: int = 1

    dtype: ClassVar[np.dtype[Any]] = np.dtype(np.float32)
    """What rows are brought to before the estimators see them."""

    def train(self, problem: Problem, cells: Cells, whitening: PCA | None) -> list[Fitted]:
        """Return the fitted estimators of every fold, behind a scaler and a whitening that are fitted to it."""
        raise NotImplementedError

    def predictions(
        self, data: SearchData, group: CandidateGroup, folds: Sequence[int], settings: SolverOptions, cells: Cells
    ) -> Events:
        """Yield what each cell says of the test rows of some folds; see `topmodels.evaluation.predictions`."""
        problem, _, whitening = _seen(data, group, folds)
        fitted = self.train(problem, cells, whitening)
        each = AT_ONCE // (16 * len(problem.y) * _answers(problem, self.estimator))
        numbers = list(cells)
        for start in range(0, len(numbers), max(1, each)):
            some = numbers[start : start + max(1, each)]
            for found in self._answered(problem, fitted, some, settings.decisions):
                yield found._replace(fold=folds[found.fold])

    def fit(self, data: SearchData, group: CandidateGroup, candidate: Candidate) -> Pipeline:
        """Return the pipeline of a candidate, fitted on all rows; it takes all columns of X."""
        problem, leading, whitening = _seen(data, group, [])
        everyone = np.arange(len(problem.y))
        whole = replace(problem, folds=[(everyone, everyone[:0])])
        learned, models, _ = self.train(whole, {0: candidate.params}, whitening)[0]
        taken = data.columns[group.features]
        steps: list[Step] = [] if taken is None else [("columns", _fitted(SelectDimensions(taken), data.X))]
        steps += [(name, _fitted(step, problem.X)) for name, step in leading]
        return Pipeline([*steps, *learned, ("model", models[0])])

    def _answered(
        self, problem: Problem, fitted: list[Fitted], cells: list[int], decisions: bool
    ) -> Iterator[Prediction]:
        """Yield the predictions of some cells on every fold, from one pass over the rows."""
        started, start = time.perf_counter(), 0
        release()  # the answers of many rows take much memory
        within = [Within(test) for _, test in problem.folds]
        said = {(fold, cell): _Answers(len(each.rows), decisions) for fold, each in enumerate(within) for cell in cells}
        for batch in problem.X.batches():  # type: ignore[attr-defined]
            for fold, (each, (steps, models, _)) in enumerate(zip(within, fitted, strict=True)):
                rows, positions = each.between(start, start + len(batch))
                if len(rows):
                    Z = stepped(steps, batch[rows - start].astype(self.dtype))
                    for cell in cells:
                        said[fold, cell].take(positions, models[cell], Z)
            start += len(batch)
        passed = (time.perf_counter() - started) / len(said)
        for (fold, cell), answers in said.items():
            classes = getattr(fitted[fold].models[cell], "classes_", None)
            yield Prediction(cell, fold, classes, **answers.columns, seconds=passed + fitted[fold].seconds)


class _Answers:
    """What an estimator says of the test rows of a fold, filled in batch by batch."""

    def __init__(self, count: int, decisions: bool):
        self.count, self.decisions = count, decisions
        self.columns: dict[str, NDArray[Any]] = {}

    def take(self, positions: NDArray[np.int64], model: Any, Z: NDArray[Any]) -> None:
        """Put what a model says of rows (m, d) in their positions."""
        for name, method in self._asked(model).items():
            found = getattr(model, method)(Z)
            if name not in self.columns:
                self.columns[name] = np.empty((self.count, *found.shape[1:]), found.dtype)
            self.columns[name][positions] = found

    def _asked(self, model: Any) -> dict[str, str]:
        """Return what is asked of a model, and the method that says it; decisions beside probabilities if wanted."""
        methods = {"labels": "predict", "proba": "predict_proba", "decision": "decision_function"}
        found = {name: method for name, method in methods.items() if hasattr(model, method)}
        if "proba" in found and not self.decisions:
            found.pop("decision", None)
        return found


def _seen(data: SearchData, group: CandidateGroup, folds: Sequence[int]) -> tuple[Problem, list[Step], PCA | None]:
    """Return the problem of some folds as a group's models see it, the steps that learn nothing, and a whitening."""
    steps = group.before()
    leading, learning, is_scaled = split_steps(steps)
    taken = data.columns[group.features]
    X: BankMatrix = data.X if taken is None else data.X[:, taken]  # type: ignore[assignment]
    chosen = [data.folds[fold] for fold in folds]
    check_streamed(
        {"a fold that learns a row twice": any(np.bincount(train).max(initial=0) > 1 for train, _ in chosen)}
    )
    problem = Problem(
        X.mapped(leading),  # type: ignore[arg-type]
        data.y,
        chosen,
        is_scaled,
        data.weight,
        data.class_weight,
        group.widths,
    )
    return problem, steps[: len(leading)], learning[-1] if learning else None


def check_streamed(asked: Mapping[str, Any]) -> None:
    """Refuse what a fit that is read in batches cannot do.

    Parameters
    ----------
    asked : mapping
        By its name, whether something was asked for that needs all rows in memory.

    Raises
    ------
    TopModelError
        When something was.

    Examples
    --------
    >>> check_streamed({"nested": False})
    """
    found = [name for name, value in asked.items() if value]
    if found:
        hint = "leave it out, or give the fit more memory"
        raise TopModelError(f"{found[0]} needs all rows in memory, which these do not fit into: {hint}")


def stepped(steps: Sequence[Step], rows: NDArray[Any]) -> NDArray[Any]:
    """Return rows after fitted steps, shape (m, k)."""
    for _, step in steps:
        rows = step.transform(rows)
    return rows


def _fitted(step: Any, X: Any) -> Any:
    """Return a transformer that learns nothing but the number of columns."""
    return step.fit(np.zeros((1, X.shape[1]), np.float32))


def _answers(problem: Problem, estimator: BaseEstimator) -> int:
    """Return how many numbers an answer has, at most."""
    return len(np.unique(problem.y)) if is_classifier(estimator) else 1
