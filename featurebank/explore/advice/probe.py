"""The quick ridge probe: every feature set on the same folds, the layer curve, and what it can be trusted to say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.dummy import DummyClassifier, DummyRegressor

from featurebank.fitting.rows import Rows
from featurebank.images.reading import Progress
from featurebank.topmodels.candidates import Candidate, best_of_each, mean_of
from featurebank.topmodels.folds import Fold, Folds, Sizes, default_kind
from featurebank.topmodels.learning_curve import NEGLIGIBLE
from featurebank.topmodels.scores import paired_interval
from featurebank.topmodels.search import TopModelSearchCV

PROBE = "ridge"


class Interval(NamedTuple):
    """A value and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


class Curve(NamedTuple):
    """What a layer curve says.

    `lead` is what the last layer scores more than the best of the lower half, `error` its standard error; `plateau` the
    number of the layer where the plateau begins, and `place` where that lies: 0 the first layer, 1 the last.
    """

    lead: Interval
    error: float
    plateau: int
    place: float


def search_rows(
    rows: Rows,
    features: Sequence[Sequence[str]],
    models: Sequence[str] | Mapping[str, Any],
    *,
    folds: int = 5,
    repeats: int = 1,
    scoring: str | None = None,
    class_weight: Any = None,
    seed: int = 0,
    jobs: int = -1,
    progress: Progress | None = None,
) -> TopModelSearchCV:
    """Cross-validate models on every candidate's features with the same grid; nothing is refined or refitted.

    Parameters
    ----------
    rows : Rows
    features : sequence of sequences of str
        Feature sets of each candidate.
    models, scoring, class_weight, progress
        See `TopModelSearchCV`.
    folds : int, default 5
    repeats : int, default 1
        How often the folds are drawn anew.
    seed : int, default 0
    jobs : int, default -1
    """
    return TopModelSearchCV(
        models,
        task=rows.task,
        cv=Folds(default_kind(rows.task, rows.groups is not None), folds, repeats, seed),
        scoring=scoring,
        blocks=rows.blocks,
        features=features,
        class_weight=class_weight,
        refine=0,
        refit=False,
        random_state=seed,
        n_jobs=jobs,
        progress=progress,
    ).fit(rows.X, rows.y, groups=rows.groups, sample_weight=rows.weight)


def best_by_features(candidates: Sequence[Candidate], model: str) -> dict[tuple[str, ...], Candidate]:
    """Return the best candidate of a model on each features, in the order in which these were asked for."""
    return best_of_each((each for each in candidates if each.model == model), lambda each: each.features, mean_of)


def crossed(candidates: Sequence[Candidate]) -> list[float]:
    """Return a score a fold: that of the candidate which is best on the other folds.

    The best of many candidates looks better than it is. Here a fold's score never has a say in which candidate it is
    taken from, so that the mean is no longer flattered by the choice (after Tibshirani and Tibshirani 2009, A bias
    correction for the minimum error rate in cross-validation).

    Parameters
    ----------
    candidates : sequence of Candidate
        Scored on the same folds, two or more.

    Examples
    --------
    >>> lucky, plain = Candidate(("a",), "ridge", {}), Candidate(("b",), "ridge", {})
    >>> lucky.fold_scores, plain.fold_scores = [0.9, 0.4, 0.4], [0.5, 0.5, 0.5]
    >>> crossed([lucky, plain])
    [0.5, 0.4, 0.4]
    """
    scores = np.array([each.fold_scores for each in candidates])  # (c, k)
    rest = scores.sum(axis=1, keepdims=True) - scores
    chosen: list[float] = scores[rest.argmax(axis=0), np.arange(scores.shape[1])].tolist()
    return chosen


def compared(first: Sequence[float], second: Sequence[float], sizes: Sizes) -> Interval:
    """Return the first's scores less the second's on the same folds (`topmodels.scores.paired_interval`)."""
    found = paired_interval(first, second, *sizes)
    return Interval(found["difference"], *found["ci95"])


def chance(rows: Rows, folds: Sequence[Fold], scoring: str | None) -> list[float]:
    """Return what a guess that never looks at an image scores on each fold: the most frequent class, or the mean."""
    guess = DummyRegressor() if rows.task == "regression" else DummyClassifier(strategy="prior")
    search = TopModelSearchCV({"chance": (guess, {})}, task=rows.task, cv=folds, scoring=scoring, refit=False)
    search.fit(np.zeros((len(rows.y), 1)), rows.y, sample_weight=rows.weight)
    return search.candidates_[0].fold_scores


def read_curve(candidates: Sequence[Candidate], layers: Sequence[str], sizes: Sizes, half: float) -> Curve:
    """Return what a layer curve says, the choice among the lower layers and among strengths crossed.

    Parameters
    ----------
    candidates : sequence of Candidate
        Of the probe, on the same folds.
    layers : sequence of str
        Two feature sets or more, the earliest layer first.
    sizes : Sizes
    half : float
        Place up to which layers are the lower half.
    """
    places = [number / (len(layers) - 1) for number in range(len(layers))]
    lower = {(layer,) for layer, place in zip(layers, places, strict=True) if place <= half}
    best = best_by_features(candidates, PROBE)
    last = crossed([each for each in candidates if each.features == (layers[-1],)])
    first = crossed([each for each in candidates if each.features in lower])
    number = plateau([best[(layer,)].fold_scores for layer in layers], sizes)
    lead, error = compared(last, first, sizes), standard_error(np.subtract(last, first), sizes)
    return Curve(lead, error, number, places[number])


def plateau(curve: Sequence[Sequence[float]], sizes: Sizes) -> int:
    """Return the number of the earliest layer within one standard error, and one point, of the best.

    What comes after it adds nothing that could be seen on these folds. The rule is that of Breiman et al. 1984
    (Classification and regression trees), the error that of the difference to the best layer, corrected as in
    `topmodels.scores.corrected_interval`; the point (`topmodels.learning_curve.NEGLIGIBLE`) keeps few images, whose
    errors are large, from making everything a plateau.

    Parameters
    ----------
    curve : sequence of sequences of float
        Scores of each layer on the same folds, the earliest layer first.
    sizes : Sizes

    Examples
    --------
    >>> plateau([[0.5, 0.6], [0.8, 0.9], [0.81, 0.89]], Sizes(50, 50))
    1
    """
    scores: NDArray[np.float64] = np.array(curve)
    best = scores[scores.mean(axis=1).argmax()]
    errors = [standard_error(best - each, sizes) for each in scores]
    return int(np.flatnonzero((best - scores).mean(axis=1) <= np.minimum(errors, NEGLIGIBLE))[0])


def standard_error(differences: Any, sizes: Sizes) -> float:
    """Return the standard error of a mean over folds, corrected as in `topmodels.scores.corrected_interval`."""
    return float(np.sqrt(np.var(differences, ddof=1) * (1 / len(differences) + sizes.n_test / sizes.n_train)))
