"""The quick ridge probe: every feature set on the same folds, the layer curve, and what it can be trusted to say.

The permutation test asks the same of shuffled labels: can the labels be told from noise?
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import Ridge

from featurebank.errors import TopModelError
from featurebank.fitting.training_data import TrainingData
from featurebank.images.reading import Progress
from featurebank.topmodels.candidates import Candidate, best_of_each, mean_of
from featurebank.topmodels.evaluation import scorer_of
from featurebank.topmodels.folds import Fold, Folds, Sizes, make_folds
from featurebank.topmodels.learning_curve import NEGLIGIBLE
from featurebank.topmodels.models import ALPHAS
from featurebank.topmodels.refitting import guess_scores
from featurebank.topmodels.scores import Trials, fold_difference
from featurebank.topmodels.search import TopModelSearchCV
from featurebank.topmodels.solvers import ridge
from featurebank.topmodels.solvers.problem import Prediction, Problem, SolverOptions

PROBE = "ridge"
SHUFFLES = 199
CLASSES = 8
"""Classes whose columns are learned, the largest first: any statistic makes a valid test, and this bounds its work."""


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
    rows: TrainingData,
    features: Sequence[Sequence[str]],
    models: Sequence[str],
    cv: Folds,
    *,
    scoring: str | None = None,
    class_weight: Any = None,
    n_jobs: int = -1,
    progress: Progress | None = None,
) -> TopModelSearchCV:
    """Cross-validate models on every candidate's features with the same grid; nothing is refined or refitted."""
    return TopModelSearchCV(
        models,
        task=rows.task,
        cv=cv,
        scoring=scoring,
        blocks=rows.blocks,
        features=features,
        class_weight=class_weight,
        refine=0,
        refit=False,
        random_state=cv.random_state,
        n_jobs=n_jobs,
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


def compared(first: Sequence[float], second: Sequence[float], sizes: Sizes, scoring: Any, trials: Trials) -> Interval:
    """Return the first's scores less the second's on the same folds (`topmodels.scores.fold_difference`)."""
    found = fold_difference(first, second, *sizes, scoring, trials=trials)
    return Interval(found["difference"], *found["ci95"])


def chance(rows: TrainingData, folds: Sequence[Fold], scoring: Any) -> list[float]:
    """Return what a guess that never looks at an image scores on each fold: the most frequent class, or the mean.

    Raises
    ------
    TopModelError
        When the scorer gives it no number.
    """
    found = guess_scores(scorer_of(scoring, rows.task), rows.task, rows.y, folds, rows.weight)
    if found is None:
        raise TopModelError("this scoring gives a guess no number to compare with; choose another (--scoring)")
    return found


def read_curve(
    candidates: Sequence[Candidate], layers: Sequence[str], sizes: Sizes, half: float, scoring: Any, trials: Trials
) -> Curve:
    """Return what a layer curve says, the choice among the lower layers and among strengths crossed.

    The candidates are the probe's, the layers two feature sets or more, the earliest first; those up to the place
    `half` are the lower half; `trials` are those of `topmodels.scores.fold_difference`.
    """
    places = [number / (len(layers) - 1) for number in range(len(layers))]
    lower = {(layer,) for layer, place in zip(layers, places, strict=True) if place <= half}
    best = best_by_features(candidates, PROBE)
    last = crossed([each for each in candidates if each.features == (layers[-1],)])
    first = crossed([each for each in candidates if each.features in lower])
    number = plateau([best[(layer,)].fold_scores for layer in layers], sizes)
    lead, error = compared(last, first, sizes, scoring, trials), standard_error(np.subtract(last, first), sizes)
    return Curve(lead, error, number, places[number])


def plateau(curve: Sequence[Sequence[float]], sizes: Sizes) -> int:
    """Return the number of the earliest layer within one standard error, and one point, of the best.

    What comes after it adds nothing that could be seen on these folds. The rule is that of Breiman et al. 1984
    (Classification and regression trees), the error that of the difference to the best layer, corrected as in
    `topmodels.scores.corrected_interval`; the point (`topmodels.learning_curve.NEGLIGIBLE`) keeps few images, whose
    errors are large, from making everything a plateau. The curve has each layer's scores, the earliest layer first.

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


def permutation_test(
    rows: TrainingData, features: Sequence[Sequence[str]], *, folds: int = 5, random_state: int = 0, n_jobs: int = 1
) -> float | None:
    """Return the p-value of the labels: how often shuffled ones are predicted as well.

    The permutation test of Ojala and Garriga 2010 (Permutation tests for studying classifier performance), exact for
    any number of rows. The statistic is the share of the targets' squares that a ridge explains out of fold, its
    features and strength `crossed` in each shuffle alike. A ridge of
    numbers is linear in its targets, so that all shuffles are columns of one problem.

    The folds are drawn without a look at the labels, as exactness asks. Where rows belong together, so that shuffling
    them one by one is no chance, there is no answer; else it is at least 1 / (`SHUFFLES` + 1).
    """
    if rows.groups is not None:
        return None
    targets = _shuffled(_columns(rows), random_state)  # (n, 1 + shuffles, c)
    cv, numbers = Folds("plain", folds, random_state=random_state), np.arange(len(rows.y))
    parts = make_folds(cv, np.zeros((len(numbers), 1)), numbers, None, random_state, "regression")
    scores = np.concatenate([_scores(rows, names, targets, parts, n_jobs) for names in features])  # (cells, folds, s)
    best_elsewhere = (scores.sum(axis=1, keepdims=True) - scores).argmax(axis=0)  # (folds, s)
    found = np.take_along_axis(scores, best_elsewhere[None], axis=0)[0].mean(axis=0)  # (s,)
    return float((found >= found[0] - 1e-12).mean())  # the labels as they are count as one of the shuffles


def _columns(rows: TrainingData) -> NDArray[np.float64]:
    """Return the numbers to predict, shape (n, c): the target, or a column of 0 and 1 for the largest classes."""
    if rows.task != "classification":
        return rows.y.reshape(len(rows.y), -1).astype(np.float64)
    classes, counts = np.unique(rows.y, return_counts=True)
    wanted = classes[np.argsort(-counts, kind="stable")][: CLASSES if len(classes) > 2 else 1]
    return (rows.y[:, None] == wanted).astype(np.float64)


def _shuffled(columns: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Return the columns as they are, then in other orders of the rows, shape (n, 1 + shuffles, c)."""
    random = np.random.default_rng(seed)
    orders = [np.arange(len(columns)), *(random.permutation(len(columns)) for _ in range(SHUFFLES))]
    return np.stack([columns[order] for order in orders], axis=1)


def _scores(
    rows: TrainingData,
    names: Sequence[str],
    targets: NDArray[np.float64],
    folds: Sequence[Fold],
    n_jobs: int,
) -> NDArray[np.float64]:
    """Return the share of the squares explained on each fold, shape (strengths, folds, shuffles)."""
    X = rows.features(names)
    targets_of_rows = targets.reshape(len(X), -1)
    problem = Problem(X, targets_of_rows, list(folds), sample_weight=rows.weight, widths=rows.widths(names))
    cells = {number: {"alpha": alpha} for number, alpha in enumerate(ALPHAS)}
    scores = np.zeros((len(cells), len(folds), targets.shape[1]))
    for event in ridge.solve(problem, cells, SolverOptions(n_jobs=n_jobs), Ridge()):
        if isinstance(event, Prediction):
            train, test = folds[event.fold]
            true = targets[test]
            centre = np.average(targets[train], axis=0, weights=problem.weights(train))
            wrong = ((true - event.labels.reshape(true.shape)) ** 2).sum(axis=(0, 2))
            scores[event.cell, event.fold] = 1 - wrong / ((true - centre) ** 2).sum(axis=(0, 2))
    return scores
