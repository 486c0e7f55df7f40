"""What every solver is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from joblib import cpu_count
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.utils.class_weight import compute_class_weight

Cells = Mapping[int, Mapping[str, Any]]
"""Cell number -> parameters in scikit-learn's own names."""

Fold = tuple[NDArray[np.intp], NDArray[np.intp]]
"""Row numbers of the training part and of the test part."""


@dataclass(frozen=True)
class Problem:
    """Rows, targets and folds that all cells of one search share.

    Parameters
    ----------
    X : ndarray of shape (n, d), float32 or float64
    y : ndarray of shape (n,); regressors also take (n, targets)
    folds : list of (train, test) integer arrays
    standardize : bool
        Fit `FlooredScaler` on the training rows of each fold, as a pipeline would.
    sample_weight : ndarray of shape (n,) or None
        Given to the top model, not to the scaler.
    class_weight : mapping, "balanced" or None
    widths : tuple of int
        Columns of each feature set, where there are several: `FlooredScaler` has a floor for each.
    """

    X: NDArray[Any]
    y: NDArray[Any]
    folds: list[Fold]
    standardize: bool = True
    sample_weight: NDArray[np.float64] | None = None
    class_weight: Mapping[Any, float] | str | None = None
    widths: tuple[int, ...] = ()

    def weights(self, rows: NDArray[np.intp]) -> NDArray[np.float64] | None:
        """Sample weights of `rows` (n_rows,), or None when there are none."""
        return None if self.sample_weight is None else self.sample_weight[rows]

    def plain_weights(self, rows: NDArray[np.intp]) -> NDArray[np.float64]:
        """Sample weights of `rows` (n_rows,), ones when there are none."""
        return np.ones(len(rows)) if self.sample_weight is None else self.sample_weight[rows].astype(np.float64)

    def classes(self, fold: int) -> NDArray[Any]:
        """Sorted labels in the training part of a fold; a fold with fewer than two is an error."""
        found = np.unique(self.y[self.folds[fold][0]])
        if len(found) < 2:
            raise ValueError(f"fold {fold} trains on one class, {found[0]!r}; expected two: use stratified folds")
        return found

    def full_weights(self, fold: int, count_weights: bool) -> NDArray[np.float64]:
        """Sample weight times class weight of the training rows, (n_train,).

        `count_weights`: "balanced" counts a row with its sample weight (logistic) or as one (ridge).
        """
        train = self.folds[fold][0]
        given, weights = self.weights(train), self.plain_weights(train)
        if self.class_weight is None:
            return weights
        classes, codes = np.unique(self.y[train], return_inverse=True)
        counted = {"sample_weight": given} if count_weights and given is not None else {}
        return weights * compute_class_weight(self.class_weight, classes=classes, y=self.y[train], **counted)[codes]


@dataclass(frozen=True)
class SolverOptions:
    """How much of the machine a solver may use, and what it is asked for.

    Parameters
    ----------
    n_jobs : int
        Cores; BLAS threads times workers never exceeds it. They may be a cluster's; see `threads`.
    memory : int
        Bytes that one solver may add; a method that needs more gives way to plain scikit-learn.
    random_state : int
        `random_state` of estimators that have one.
    score : callable from Prediction to float, or None
        Lets the logistic path stop once the mean score has clearly passed its peak.
    decisions : bool
        Whether decision values are wanted of a model that has probabilities, which a solver may leave out else.
    """

    n_jobs: int = 1
    memory: int = 2 * 2**30
    random_state: int = 0
    score: Callable[[Prediction], float] | None = None
    decisions: bool = True

    @property
    def threads(self) -> int:
        """Cores of this machine, for what is not a joblib task."""
        return min(self.n_jobs, cpu_count())


class Prediction(NamedTuple):
    """What the pipeline of one cell, fitted on one fold, says of the test rows.

    `labels` (m,) is `predict`; `decision` (m,) or (m, classes) is `decision_function`; `proba`
    (m, classes) is `predict_proba`; None where the estimator has no such method. `classes` are those
    of the training part, None for a regressor.
    """

    cell: int
    fold: int
    classes: NDArray[Any] | None
    labels: NDArray[Any]
    decision: NDArray[Any] | None = None
    proba: NDArray[Any] | None = None
    seconds: float = 0.0


class Note(NamedTuple):
    """A plain sentence about cells: solved another way, or not evaluated (`skipped`)."""

    text: str
    cells: tuple[int, ...]
    skipped: bool = False


Events = Iterator[Prediction | Note]


def configured(estimator: BaseEstimator, params: Mapping[str, Any], **common: Any) -> BaseEstimator:
    """A clone with these parameters, and with those of the common ones that it has and that are not None."""
    known = estimator.get_params()
    used = {name: value for name, value in common.items() if name in known and value is not None}
    return clone(estimator).set_params(**used | dict(params))


def prediction_of(model: Any, rows: NDArray[Any], cell: int = 0, fold: int = 0) -> Prediction:
    """All that a fitted estimator says of rows (m, d)."""
    said = {name: getattr(model, name)(rows) for name in ("decision_function", "predict_proba") if hasattr(model, name)}
    classes = model.classes_ if is_classifier(model) else None
    return Prediction(
        cell, fold, classes, model.predict(rows), said.get("decision_function"), said.get("predict_proba")
    )


def split(
    cells: Cells, supported: Iterable[str], is_fast: Callable[[Mapping[str, Any]], bool] = lambda cell: True
) -> tuple[dict[int, dict[str, Any]], dict[int, dict[str, Any]]]:
    """Cells whose every parameter is among `supported`, and which are fast, and the rest."""
    fast = {number: dict(cell) for number, cell in cells.items() if set(cell) <= set(supported) and is_fast(cell)}
    return fast, {number: dict(cell) for number, cell in cells.items() if number not in fast}


def changed(model: BaseEstimator, default: BaseEstimator) -> dict[str, Any]:
    """Parameters of `model` that differ from those of `default`; a seed changes no fast method."""
    plain = default.get_params()
    return {
        name: value for name, value in model.get_params().items() if value != plain[name] and name != "random_state"
    }


def label(classes: NDArray[Any], decision: NDArray[Any]) -> NDArray[Any]:
    """Labels (m,) of linear decisions (m,) or (m, classes), as `LinearClassifierMixin.predict` does."""
    return classes[(decision > 0).astype(int) if decision.ndim == 1 else decision.argmax(axis=1)]
