"""Out-of-fold predictions: what a model said of each row when the row was in a test part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featurebank.bank.display import as_html
from featurebank.errors import TopModelError
from featurebank.images.columns import text_frame
from featurebank.topmodels.evaluation import SearchData
from featurebank.topmodels.solvers.problem import Prediction


@dataclass(frozen=True, repr=False)
class OutOfFold:
    """Predictions of one candidate on the test rows of every fold.

    Attributes
    ----------
    row : ndarray of int64, shape (m,)
        Row number in X; with repeated folds a row comes several times.
    fold : ndarray of int64, shape (m,)
        The fold that tested it.
    true, predicted : ndarray, shape (m,) or (m, labels)
    proba : ndarray of float64, shape (m, k), or None
        Probabilities where the model has them; a class that a fold did not learn has 0.
    decision : ndarray of float64, shape (m,) or (m, k), or None
        Decision values where it has none; a class that a fold did not learn has -inf.
    weight : ndarray of float64, shape (m,), or None
    classes : ndarray, shape (k,), or None
    """

    row: NDArray[np.int64]
    fold: NDArray[np.int64]
    true: NDArray[Any]
    predicted: NDArray[Any]
    proba: NDArray[np.float64] | None
    decision: NDArray[np.float64] | None
    weight: NDArray[np.float64] | None
    classes: NDArray[Any] | None

    def __repr__(self) -> str:
        return f"<OutOfFold: {len(self.row)} answers of {len(np.unique(self.fold))} folds>"

    def _repr_html_(self) -> str:
        return as_html(self, self.to_frame())

    @property
    def scores(self) -> NDArray[np.float64] | None:
        """What a calibrator takes, shape (m,) or (m, k); see `score_values`. None for numbers."""
        return score_values(self.decision, self.proba)

    @property
    def parts(self) -> NDArray[np.int64]:
        """The folds, or five parts drawn from the rows where there is but one fold, shape (m,)."""
        if len(np.unique(self.fold)) > 1:
            return self.fold
        return np.random.default_rng(0).permutation(len(self.fold)) % 5

    def to_frame(self, labels: Sequence[str] | None = None) -> pd.DataFrame:
        """Return ``row, fold, true, predicted``, a row for each answer.

        Parameters
        ----------
        labels : sequence of str, optional
            Names of several labels, by default their numbers; the columns are then ``true_LABEL, predicted_LABEL``.
        """
        columns: dict[str, Any] = {"row": self.row, "fold": self.fold}
        if self.true.ndim == 1:
            return text_frame({**columns, "true": _shared(self.true), "predicted": _shared(self.predicted)})
        for number, label in enumerate(labels or range(self.true.shape[1])):
            columns |= {f"true_{label}": self.true[:, number], f"predicted_{label}": self.predicted[:, number]}
        return text_frame(columns)

    def rows(self, chosen: NDArray[np.bool_]) -> OutOfFold:
        """Return some of the predictions."""
        parts = {
            name: value if value is None or name == "classes" else value[chosen] for name, value in vars(self).items()
        }
        return OutOfFold(**parts)

    @property
    def is_learned(self) -> NDArray[np.bool_]:
        """Whether the fold that tested a row had learned its true class, shape (m,); all, of a model without scores."""
        values = self.decision if self.proba is None else self.proba
        if values is None or self.classes is None or self.true.ndim == 2:
            return np.ones(len(self.row), bool)
        own = values if values.ndim == 1 else values[np.arange(len(values)), np.searchsorted(self.classes, self.true)]
        return np.isfinite(own) if self.proba is None else own > 0

    def learned(self, model: str) -> OutOfFold:
        """Return the predictions of rows whose true class their fold had learned: what scores can be learned from.

        Raises
        ------
        TopModelError
            When the model has no scores, or such rows are of one class only.
        """
        if self.scores is None:
            raise TopModelError(f"{model} gives neither probabilities nor decision values; choose another model")
        found = self.rows(self.is_learned)
        if len(np.unique(found.true)) < 2:
            raise TopModelError(
                f"no two classes are both learned and tested by some fold, so {model} gets no probabilities; expected "
                "two rows of each: label more, or ask for fewer folds or other groups"
            )
        return found


def gather(data: SearchData, found: Sequence[Prediction]) -> OutOfFold:
    """Return the predictions of all folds as one table, the folds in their order."""
    tests = [data.folds[each.fold][1] for each in found]
    row = np.concatenate(tests)
    classes = None if data.task == "regression" else _classes(data)
    proba = decision = None
    if classes is not None:
        proba = _stack(found, classes, "proba", 0.0)
        decision = _stack(found, classes, "decision", -np.inf) if proba is None else None
    return OutOfFold(
        row,
        np.repeat([each.fold for each in found], [len(test) for test in tests]),
        data.y[row],
        np.concatenate([each.labels for each in found]),
        proba,
        decision,
        None if data.weight is None else data.weight[row],
        classes,
    )


def score_values(decision: NDArray[Any] | None, proba: NDArray[Any] | None) -> NDArray[np.float64] | None:
    """Return what a calibrator takes: logarithms of probabilities where there are any, else decision values."""
    if proba is None:
        return None if decision is None else decision.astype(np.float64, copy=False)
    with np.errstate(divide="ignore"):
        return np.log(proba, dtype=np.float64)


def _shared(labels: NDArray[Any]) -> NDArray[Any]:
    """Return text as objects, of which each distinct one is there once; numbers as they are."""
    if labels.dtype.kind != "U":
        return labels
    distinct, codes = np.unique(labels, return_inverse=True)
    return distinct.astype(object)[codes]


def _classes(data: SearchData) -> NDArray[Any]:
    return np.arange(data.y.shape[1]) if data.task == "multilabel" else data.classes


def _stack(found: Sequence[Prediction], classes: NDArray[Any], name: str, absent: float) -> NDArray[np.float64] | None:
    """Stack values of all folds, (m,) or (m, k); a class that a fold did not learn has `absent`."""
    parts = [getattr(each, name) for each in found]
    if any(part is None for part in parts):
        return None
    if name == "proba":
        parts = [_above_none(part) for part in parts]
    learned = [np.asarray(each.classes) for each in found]
    if all(part.ndim == 1 and np.array_equal(own, classes) for part, own in zip(parts, learned, strict=True)):
        return np.concatenate(parts, dtype=np.float64)
    stacked = np.full((sum(map(len, parts)), len(classes)), absent)
    ends = np.cumsum([len(part) for part in parts])
    for part, own, end in zip(parts, learned, ends, strict=True):
        columns = part if part.ndim == 2 else np.column_stack([-part, part])
        stacked[end - len(part) : end, np.searchsorted(classes, own)] = columns
    return stacked


def _above_none(proba: NDArray[Any]) -> NDArray[Any]:
    """Return probabilities above 0, which stands for a class that was not learned."""
    return proba if proba.min(initial=1) > 0 else np.maximum(proba, np.finfo(np.float32).tiny)
