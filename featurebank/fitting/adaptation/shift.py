"""How far two domains lie apart: how well a classifier tells their rows from each other."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from featurebank.errors import TopModelError
from featurebank.topmodels.folds import make_folds, sizes_of
from featurebank.topmodels.refitting import over_folds
from featurebank.topmodels.scores import corrected_interval


@dataclass(frozen=True)
class Shift:
    """How well a classifier tells two domains apart, on rows that it has not seen.

    Attributes
    ----------
    accuracy : float
        Balanced accuracy; 0.5 is chance, whatever the sizes of the domains.
    ci95 : list of float
        Its 95 % interval over the folds (Nadeau and Bengio 2003).
    auc : float
        Area under the ROC curve.
    auc_ci95 : list of float
    """

    accuracy: float
    ci95: list[float]
    auc: float
    auc_ci95: list[float]

    @property
    def is_shift(self) -> bool:
        """Whether the interval of the accuracy lies above chance."""
        return self.ci95[0] > 0.5

    @property
    def a_distance(self) -> float:
        """The proxy A-distance 2 (1 - 2 error) of Ben-David et al. (2007), from 0 to 2 for disjoint domains."""
        return max(0.0, 2 * (2 * self.accuracy - 1))

    def sentence(self, first: str, second: str) -> str:
        """Return the finding as a line for the reader."""
        low, high = (f"{100 * end:.1f}" for end in self.ci95)
        found = f"a classifier tells {first} from {second} with {100 * self.accuracy:.1f} % (95 % {low}..{high})"
        if self.is_shift:
            return f"shift: {found}, chance is 50; proxy A-distance {self.a_distance:.2f} of 2"
        return f"no shift: {found}, which chance explains"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that ``featurebank adapt --json`` prints."""
        return {**asdict(self), "a_distance": self.a_distance, "is_shift": self.is_shift}


def domain_shift(
    X: NDArray[Any],
    is_source: NDArray[np.bool_],
    *,
    groups: NDArray[np.int64] | None = None,
    folds: int = 5,
    seed: int = 0,
) -> Shift:
    """Measure how well a cross-validated classifier tells two domains apart.

    The classifier is a ridge regression of the standardised columns, both domains weighing the same. Its strength is
    not searched, since the best of several strengths would find a shift where there is none: it is max(n, d), the
    mean of the eigenvalues that it is added to.

    Parameters
    ----------
    X : ndarray of float, shape (n, d)
    is_source : ndarray of bool, shape (n,)
    groups : ndarray of int64, shape (n,), optional
        Rows of one group never straddle folds.
    folds : int, default 5
    seed : int, default 0

    Raises
    ------
    TopModelError
        When a fold would lack one of the domains.

    Notes
    -----
    Ben-David, Blitzer, Crammer and Pereira (2007), Analysis of representations for domain adaptation.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(200, 3))
    >>> is_source = np.arange(200) < 120
    >>> domain_shift(X, is_source).is_shift, domain_shift(X + 3 * is_source[:, None], is_source).is_shift
    (False, True)
    """
    parts = make_folds(folds, X, is_source, groups, seed)
    if any(len(np.unique(is_source[rows])) < 2 for part in parts for rows in part):
        raise TopModelError("a fold would hold rows of one domain only; ask for fewer folds, or other groups")
    found = np.array(over_folds(partial(_told_apart, X, is_source), parts))
    (low, high), (auc_low, auc_high) = (
        np.clip(corrected_interval(list(scores), *sizes_of(parts)), 0, 1).tolist() for scores in found.T
    )
    accuracy, auc = found.mean(axis=0).tolist()
    return Shift(accuracy, [low, high], auc, [auc_low, auc_high])


def _told_apart(
    X: NDArray[Any], is_source: NDArray[np.bool_], train: NDArray[np.int64], test: NDArray[np.int64]
) -> tuple[float, float]:
    """Return the balanced accuracy and the area under the ROC curve on the test part of a fold."""
    ridge = RidgeClassifier(alpha=float(max(len(train), X.shape[1])), class_weight="balanced")
    said = make_pipeline(StandardScaler(), ridge).fit(X[train], is_source[train]).decision_function(X[test])
    return float(balanced_accuracy_score(is_source[test], said > 0)), float(roc_auc_score(is_source[test], said))
