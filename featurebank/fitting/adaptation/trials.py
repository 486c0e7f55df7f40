"""Trials: one adaptation on one fold, scored on rows that it did not learn from, with and without target labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ks_2samp
from sklearn import config_context
from sklearn.pipeline import Pipeline

from featurebank.errors import TopModelError, near_names
from featurebank.fitting.adaptation.adapters import Adaptation, AdaptedModel, import_skada
from featurebank.fitting.adaptation.domains import UNKNOWN, Domains
from featurebank.topmodels.folds import Fold
from featurebank.topmodels.outoffold import score_values
from featurebank.topmodels.transforms import Step

SCORERS = ("outputs", "circular", "entropy", "density")


@dataclass(frozen=True)
class Recipe:
    """What the adaptations share.

    Attributes
    ----------
    before : sequence of steps
        Unfitted steps before the model.
    model : estimator
        Unfitted top model.
    scorer : str
        One of `SCORERS`.
    target_labels : int
        Labelled rows of each class of the target that join the training rows.
    seed : int
    """

    before: Sequence[Step]
    model: Any
    scorer: str
    target_labels: int
    seed: int

    def fit(self, adaptation: Adaptation, domains: Domains, rows: NDArray[Any], learned: NDArray[Any]) -> AdaptedModel:
        """Fit an adaptation to some rows, of which some give their labels; both are row numbers."""
        y = np.full(len(domains.y), UNKNOWN)
        y[learned] = domains.y[learned]
        model = AdaptedModel(adaptation, self.before, self.model, domains.classes, self.seed)
        return model.fit(domains.X[rows], y[rows], domains.sample_domain[rows])

    def learned(self, domains: Domains, train: NDArray[Any]) -> NDArray[Any]:
        """Return the training rows whose labels are used: those of the source, and a few of the target."""
        order = np.random.default_rng(self.seed).permutation(len(domains.y))
        drawn = order[np.isin(order, train) & ~domains.is_source[order]]
        few = [drawn[domains.y[drawn] == code][: self.target_labels] for code in range(len(domains.classes))]
        return np.concatenate([train[domains.is_source[train]], *few])


@dataclass(frozen=True)
class Trial:
    """What an adaptation did on a fold.

    Attributes
    ----------
    predicted : ndarray of int64, shape (m,)
        Codes of the classes said of the fold's test rows.
    scores : ndarray of float64, shape (s,) or (s, k)
        Decision values, or logarithms of probabilities, of the source's test rows.
    unsupervised : float
        How good the adaptation looks without labels of the target; the higher the better.
    effective : float or None
        Where source rows are weighted: how many equal ones weigh as much, (sum w)² / sum w² (Kish 1965).
    """

    predicted: NDArray[np.int64]
    scores: NDArray[np.float64]
    unsupervised: float
    effective: float | None


def run_trial(adaptation: Adaptation, recipe: Recipe, domains: Domains, fold: Fold) -> Trial:
    """Fit an adaptation to a fold's training part and see what it says of the test part.

    Test rows of the target are unknown to the adaptation. Those of the source are known to it without their labels,
    since optimal transport says nothing of rows that it has not moved. The scorer ``"outputs"`` looks at the test rows
    of both: transported rows lie among the target's training rows by construction.

    Parameters
    ----------
    adaptation : Adaptation
    recipe : Recipe
    domains : Domains
    fold : (train, test)
    """
    train, test = fold
    rows = np.union1d(train, np.flatnonzero(domains.is_source))
    learned = recipe.learned(domains, train)
    fitted = recipe.fit(adaptation, domains, rows, learned)
    tested = test[domains.is_source[test]]
    moved = fitted.moved_[np.searchsorted(rows, tested)]
    from_source = domains.is_source[test]
    predicted = np.empty(len(test), np.int64)
    predicted[from_source] = np.searchsorted(domains.classes, fitted.model_.predict(moved))
    predicted[~from_source] = fitted.predict(domains.X[test[~from_source]])
    scores = outputs(fitted.model_, moved)
    if recipe.scorer == "outputs":
        accuracy = float((predicted[from_source] == domains.y[tested]).mean())
        elsewhere = outputs(fitted.pipeline_, domains.X[test[~from_source]])
        unsupervised = accuracy - outputs_distance(scores, elsewhere)
    else:
        unsupervised = _score_of_skada(recipe.scorer, fitted, domains, rows)
    return Trial(predicted, scores, unsupervised, _effective(fitted, np.isin(rows, train) & domains.is_source[rows]))


def _effective(fitted: AdaptedModel, weighted: NDArray[np.bool_]) -> float | None:
    if fitted.weight_ is None:
        return None
    weight = fitted.weight_[weighted]
    return float(weight.sum() ** 2 / (weight**2).sum())


def outputs(model: Any, Z: NDArray[Any]) -> NDArray[np.float64]:
    """Return what a fitted classifier computes before it decides: decision values, or logarithms of probabilities.

    Raises
    ------
    TopModelError
        When it gives neither.
    """
    proba = model.predict_proba(Z) if hasattr(model, "predict_proba") else None
    decision = model.decision_function(Z) if hasattr(model, "decision_function") else None
    found = score_values(decision, proba)
    if found is None:
        last = model[-1] if isinstance(model, Pipeline) else model
        raise TopModelError(
            f"{type(last).__name__} gives neither probabilities nor decision values; choose another model"
        )
    return found


def outputs_distance(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Return how differently a classifier's outputs are distributed over two sets of rows, from 0 to 1.

    The largest difference of the cumulative distributions (Kolmogorov-Smirnov), averaged over the columns. A model
    that fits both domains, where the classes are about as frequent, has like outputs in both; that a shift of the
    outputs betrays failure better than one of the inputs was found by Rabanser, Günnemann and Lipton (2019), Failing
    loudly.

    Examples
    --------
    >>> outputs_distance(np.array([0.0, 1.0]), np.array([0.5, 2.0]))
    0.5
    """
    columns = zip(first.reshape(len(first), -1).T, second.reshape(len(second), -1).T, strict=True)
    return float(np.mean([ks_2samp(one, two, method="asymp").statistic for one, two in columns]))


def check_scorer(name: str, model: Any) -> None:
    """Refuse an unknown scorer, or one that needs probabilities which the model does not have.

    Raises
    ------
    TopModelError
    """
    if name not in SCORERS:
        raise TopModelError(f"no unsupervised scorer {name!r}; {near_names(name, SCORERS)}")
    if name in ("entropy", "density") and not hasattr(model, "predict_proba"):
        raise TopModelError(
            f"scorer {name!r} needs probabilities, which {type(model).__name__} has not; choose outputs or circular"
        )


def _score_of_skada(name: str, fitted: AdaptedModel, domains: Domains, rows: NDArray[Any]) -> float:
    """Return the score of skada's circular validation, prediction entropy or soft neighbourhood density."""
    metrics = import_skada().metrics
    makers = {
        "circular": metrics.CircularValidation,
        "entropy": metrics.PredictionEntropyScorer,
        "density": metrics.SoftNeighborhoodDensity,
    }
    y = np.where(domains.is_source, domains.y, UNKNOWN)[rows]
    with config_context(enable_metadata_routing=True):
        return float(makers[name]()(fitted, domains.X[rows], y, sample_domain=domains.sample_domain[rows]))
