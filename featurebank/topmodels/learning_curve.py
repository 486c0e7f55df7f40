"""Label more, or stop? The score as a power law of the number of rows, from ever larger parts of the folds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from numpy.typing import NDArray
from sklearn.base import is_regressor
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from threadpoolctl import threadpool_limits

from featurebank.errors import TopModelError, one_line
from featurebank.topmodels.evaluation import scorer_of
from featurebank.topmodels.folds import Fold, sizes_of
from featurebank.topmodels.power_law import PowerLaw, fit_power_law
from featurebank.topmodels.refitting import fit_and_score
from featurebank.topmodels.scores import corrected_interval, paired_interval

BOOTSTRAPS = 200
LEAST_SIZES = 3
"""Numbers of rows that a curve takes."""
LEAST_SHOTS = 5
"""Fewer rows a class say nothing of the curve."""
BALANCED = 1.5
"""Few-shot sets hold all classes alike: the curve takes them where no class is more times as large as another."""
WORTHWHILE, NEGLIGIBLE = 0.005, 0.01
"""A gain surely above the first is worth its labels; one surely below the second is not."""
MORE, STOP, NOT_CLEAR = "Label more", "Stop", "Not clear"
_BEST_IS_ONE = {
    *("accuracy_score", "balanced_accuracy_score", "top_k_accuracy_score", "matthews_corrcoef", "cohen_kappa_score"),
    *("f1_score", "precision_score", "recall_score", "jaccard_score", "roc_auc_score", "average_precision_score"),
    *("r2_score", "explained_variance_score"),
}


# --- the curve ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LearningCurve:
    """Scores at several numbers of training rows, the power law through them, and what it says of more labels.

    Attributes
    ----------
    points : list of dict
        By ascending ``n_train`` (mean number of rows): ``per_class`` (rows a class, or None), ``share`` (of the
        training part, or None), ``mean``, ``ci95`` ([low, high], over the folds as in `corrected_interval`),
        ``scores`` (fold by fold) and ``is_fitted`` (whether the power law takes the point).
    n_labels : int
        Number of labelled rows there are.
    fit : PowerLaw or None
        Of floats; None where there are fewer than `LEAST_SIZES` numbers of rows.
    bootstraps : PowerLaw or None
        Of ndarrays, shape (`BOOTSTRAPS`,): fitted to folds, and draws within each, that are drawn again (Efron
        1979), the spread corrected for the overlap of the training parts (Nadeau and Bengio 2003).
    chance : dict or None
        ``score`` of a guess that never looks at X, and ``ci95`` of what the largest parts score more than that; None
        where the guess cannot be scored.
    in_points : bool, default True
        Whether the best possible score is 1, so that a gain is told in points (hundredths).
    notes : list of str
        What was left out, and why.

    Examples
    --------
    >>> LearningCurve([], 100, PowerLaw(0.9, 1.0, 0.5), PowerLaw(np.full(9, 0.9), np.ones(9), np.full(9, 0.5))).verdict
    'Label more: twice the labels (200) promise +2.9 points (95 % +2.9…+2.9).'
    """

    points: list[dict[str, Any]]
    n_labels: int
    fit: PowerLaw | None = None
    bootstraps: PowerLaw | None = field(default=None, repr=False)
    chance: dict[str, Any] | None = None
    in_points: bool = True
    notes: list[str] = field(default_factory=list)

    def predict(self, n: float) -> tuple[float, float, float]:
        """Return the score of n training rows and its 95 % interval: mean, low, high.

        Raises
        ------
        TopModelError
            When no curve could be fitted.
        """
        return self._interval(lambda law: law(n))

    @property
    def doubling(self) -> dict[str, Any] | None:
        """What twice the labels promise: ``n`` (rows then), ``gain`` and its ``ci95``; None without a curve."""
        if self.fit is None:
            return None
        n = 2 * self.n_labels
        gain, low, high = self._interval(lambda law: law(n) - law(self.n_labels))
        return {"n": n, "gain": gain, "ci95": [low, high]}

    @property
    def verdict(self) -> str:
        """One plain sentence: label more, stop, or not clear.

        Label more where the gain's interval lies above `WORTHWHILE`; stop where it lies below `NEGLIGIBLE`, or the
        gain itself below `WORTHWHILE`. Where the best score is not 1, these are shares of the score that is now. A
        score that is not above chance is told as such, unless it surely rises.
        """
        promise = self.doubling
        if self.fit is None or promise is None:
            return f"{NOT_CLEAR}: a curve takes {LEAST_SIZES} numbers of rows and fewer could be scored; add shares."
        size = 1.0 if self.in_points else abs(self.fit(self.n_labels))
        decision = _decision(promise["gain"], promise["ci95"], size)
        if decision != MORE and self.chance is not None and self.chance["ci95"][0] <= 0:
            guess = self.chance["score"]
            return f"{decision}: the score does not rise above chance ({guess:.3f}); check the labels and the features."
        if self.fit.b == 0:
            return f"{STOP}: the curve is flat, more rows have not raised the score."
        told = f"{decision}: {self._promise(**promise)}"
        if decision != NOT_CLEAR:
            return told
        worth = f"{100 * WORTHWHILE:g} points" if self.in_points else f"{100 * WORTHWHILE:g} % of the score"
        return f"{told[:-1]}; what is surely worth labels is a gain of {worth}."

    def to_dict(self) -> dict[str, Any]:
        """Return the points, the fit, the promise and the verdict, ready for JSON."""
        return {
            "points": self.points,
            "n_labels": self.n_labels,
            "fit": None if self.fit is None else self.fit._asdict(),
            "doubling": self.doubling,
            "chance": self.chance,
            "verdict": self.verdict,
            "notes": self.notes,
        }

    def to_frame(self) -> pd.DataFrame:
        """Return one row a point."""
        return pd.DataFrame(self.points)

    def _promise(self, n: int, gain: float, ci95: list[float]) -> str:
        told, low, high = (f"{100 * each:+.1f}" if self.in_points else f"{each:+.3g}" for each in (gain, *ci95))
        unit = " points" if self.in_points else ""
        return f"twice the labels ({n:,}) promise {told}{unit} (95 % {low}…{high})."

    def _interval(self, ask: Callable[[PowerLaw], Any]) -> tuple[float, float, float]:
        if self.fit is None or self.bootstraps is None:
            raise TopModelError(f"no curve was fitted; expected {LEAST_SIZES} numbers of rows: add shares")
        low, high = np.percentile(ask(self.bootstraps), [2.5, 97.5])
        return float(ask(self.fit)), float(low), float(high)


def _decision(gain: float, ci95: list[float], size: float) -> str:
    low, high = ci95
    if low > WORTHWHILE * size:
        return MORE
    return STOP if high < NEGLIGIBLE * size or gain < WORTHWHILE * size else NOT_CLEAR


# --- the whole -----------------------------------------------------------------------------------------------


def learning_curve(
    estimator: Any,
    X: Any,
    y: Any,
    folds: Sequence[Fold],
    *,
    groups: Any = None,
    sample_weight: Any = None,
    scoring: Any = None,
    shots: Sequence[int] = (1, 2, 5, 10, 20),
    shares: Sequence[float] = (0.1, 0.2, 0.4, 0.7, 1.0),
    seeds: int = 5,
    random_state: int = 0,
    n_jobs: int = -1,
    progress: Callable[[int, int], None] | None = None,
) -> LearningCurve:
    """Score an estimator on parts of each fold's training rows, and predict what more labels would bring.

    Each part is fitted from scratch and scored on the whole test part of its fold. The parts of one draw are nested:
    the smaller lies inside the larger, as when labels are added. The power law takes the shares, and the few-shot
    sets of `LEAST_SHOTS` or more rows a class where they are like the shares: no groups, classes about balanced.

    Parameters
    ----------
    estimator : scikit-learn pipeline or estimator
        Cloned, never changed.
    X : array-like of float, shape (n, d)
        Embeddings.
    y : array-like, shape (n,) or (n, labels)
        Classes, numbers, or columns of 0 and 1.
    folds : sequence of (train, test)
        Row numbers, the same as the search used; the share 1.0 then has the search's scores.
    groups : array-like, shape (n,), optional
        Shares are of whole groups, each as many as reach the share. Few-shot rows are drawn one by one.
    sample_weight : array-like of float, shape (n,), optional
        Used in fitting, by the last step, and in scoring.
    scoring : str or callable, optional
        Any scikit-learn scorer; accuracy by default, R² for numbers.
    shots : sequence of int, default (1, 2, 5, 10, 20)
        Rows a class. A number that some class cannot give is left out; for numbers and several labels all are.
    shares : sequence of float, default (0.1, 0.2, 0.4, 0.7, 1.0)
        Of the training part, the classes in proportion; 1.0 is the training part itself.
    seeds : int, default 5
        Draws a fold of each few-shot number and share; the share 1.0 has one.
    random_state : int, default 0
        Seed of the draws and of the intervals.
    n_jobs : int, default -1
        Threads; -1 for one a core.
    progress : callable, optional
        Called with (fits done, fits in all).

    Returns
    -------
    LearningCurve

    Raises
    ------
    TopModelError
        When an option is out of its range, or the estimator could not be fitted and scored on any part.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.neighbors import KNeighborsClassifier
    >>> from featurebank.topmodels.folds import make_folds
    >>> X, y = load_digits(return_X_y=True)
    >>> folds = make_folds(3, X, y, None, seed=0)
    >>> curve = learning_curve(KNeighborsClassifier(1), X, y, folds, shots=(), seeds=2)
    >>> curve.to_frame()["mean"].round(1).tolist()
    [0.9, 1.0, 1.0, 1.0, 1.0]
    >>> curve.verdict.split(":")[0]
    'Stop'
    """
    _check_options(shots, shares, seeds, n_jobs)
    task = _task(estimator, X, y, folds, groups, sample_weight, scoring)
    sizes, notes = _sizes(task, shots, shares)
    draws = list(_draws(task, sizes, seeds, random_state))
    outcomes = _outcomes(task, draws, n_jobs, progress)
    notes += _failures(sizes, draws, outcomes)
    if len(folds) == 1:
        notes.append("one fold: the intervals leave out the chance of its test part; more folds would show it")
    return _curve(task, _measured(sizes, draws, outcomes, (len(folds), seeds)), random_state, notes)


def _check_options(shots: Sequence[int], shares: Sequence[float], seeds: int, n_jobs: int) -> None:
    rules = [
        (len(shots) + len(shares) > 0, "no shots and no shares; expected some to draw"),
        (all(each == int(each) >= 1 for each in shots), f"shots {tuple(shots)}; expected whole numbers from 1 on"),
        (all(0 < each <= 1 for each in shares), f"shares {tuple(shares)}; expected numbers above 0, at most 1"),
        (seeds >= 1, f"{seeds} seeds; expected at least 1 draw"),
        (n_jobs != 0, "0 jobs; expected a number of threads, or -1 for one a core"),
    ]
    for is_kept, message in rules:
        if not is_kept:
            raise TopModelError(message)


# --- draws -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Task:
    """What all fits share; ``classes`` is None for numbers and for several labels."""

    pipeline: Pipeline
    X: NDArray[Any]
    y: NDArray[Any]
    classes: NDArray[Any] | None
    groups: NDArray[Any] | None
    weight: NDArray[Any] | None
    folds: Sequence[Fold]
    scorer: Any


def _task(
    estimator: Any, X: Any, y: Any, folds: Sequence[Fold], groups: Any, sample_weight: Any, scoring: Any
) -> _Task:
    X, y, groups, weight = (None if each is None else np.asarray(each) for each in (X, y, groups, sample_weight))
    columns = {"y": y, "groups": groups, "sample weights": weight}
    for name, column in columns.items():
        if column is not None and len(column) != len(X):
            raise TopModelError(f"{len(X)} rows of X and {len(column)} of {name}; expected as many")
    if not len(folds):
        raise TopModelError("no folds; expected at least one (train, test)")
    pipeline = estimator if isinstance(estimator, Pipeline) else make_pipeline(estimator)
    is_number = is_regressor(pipeline)
    scorer = scorer_of(scoring, "regression" if is_number else "classification")
    return _Task(pipeline, X, y, None if is_number or y.ndim == 2 else y, groups, weight, folds, scorer)


class _Size(NamedTuple):
    """A number of rows a class or a share of the training part, and whether the power law takes its score."""

    amount: float
    is_share: bool
    is_fitted: bool

    def __str__(self) -> str:
        if self.is_share:
            return f"{self.amount:.0%} of the training part"
        return f"{self.amount} row{'s' * (self.amount > 1)} a class"


class _Draw(NamedTuple):
    """Row numbers of one part of one fold's training part."""

    size: int
    fold: int
    seed: int
    rows: NDArray[np.int64]


def _sizes(task: _Task, shots: Sequence[int], shares: Sequence[float]) -> tuple[list[_Size], list[str]]:
    """Return what every fold can give, and a note of what some cannot."""
    parts = [_Size(share, True, True) for share in sorted({float(each) for each in shares})]
    if task.classes is None:
        return parts, []
    counts = [np.unique(task.classes[train], return_counts=True)[1] for train, _ in task.folds]
    least = min(count.min() for count in counts)
    wanted = sorted({int(each) for each in shots})
    is_alike = task.groups is None and all(count.max() <= BALANCED * count.min() for count in counts)
    few = [_Size(k, False, is_alike and k >= LEAST_SHOTS) for k in wanted if k <= least]
    over = ", ".join(str(k) for k in wanted if k > least)
    notes = [f"{over} rows a class left out: a class has {least} in some training part"] if over else []
    return few + parts, notes


def _draws(task: _Task, sizes: Sequence[_Size], seeds: int, random_state: int) -> Iterator[_Draw]:
    """Yield every part to fit; a seed shuffles all sizes alike, so that its parts are nested."""
    for (number, size), (fold, (train, _)) in product(enumerate(sizes), enumerate(task.folds)):
        for seed in range(1 if size.is_share and size.amount == 1 else seeds):
            random = np.random.default_rng([random_state, fold, seed])
            yield _Draw(number, fold, seed, train[_chosen(task, size, train, random)])


def _chosen(task: _Task, size: _Size, train: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.bool_]:
    """Choose some rows a class, whole groups, or rows with the classes in proportion."""
    strata = np.zeros(len(train)) if task.classes is None else task.classes[train]
    if not size.is_share:
        return _ranks(strata, random)[0] < size.amount
    wanted = max(1, round(size.amount * len(train)))
    if task.groups is not None:
        return _whole_groups(task.groups[train], wanted, random)
    ranks, counts = _ranks(strata, random)
    order = np.lexsort((random.random(len(train)), (ranks + 0.5) / counts))
    return np.isin(np.arange(len(train)), order[:wanted])


def _ranks(strata: NDArray[Any], random: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the place of each row among those of its class, in random order, and how many these are."""
    shuffled = random.permutation(len(strata))
    _, codes, counts = np.unique(strata[shuffled], return_inverse=True, return_counts=True)
    by_class = np.argsort(codes, kind="stable")
    ranks = np.empty(len(strata), np.int64)
    ranks[shuffled[by_class]] = np.arange(len(strata)) - np.repeat(np.cumsum(counts) - counts, counts)
    return ranks, counts[codes[np.argsort(shuffled)]]


def _whole_groups(groups: NDArray[Any], wanted: int, random: np.random.Generator) -> NDArray[np.bool_]:
    """Choose whole groups until the wanted number of rows is reached."""
    _, codes, counts = np.unique(groups, return_inverse=True, return_counts=True)
    order = random.permutation(len(counts))
    enough = 1 + np.searchsorted(np.cumsum(counts[order]), wanted)
    return np.isin(codes, order[:enough])


# --- fits --------------------------------------------------------------------------------------------------


def _outcomes(
    task: _Task, draws: Sequence[_Draw], n_jobs: int, progress: Callable[[int, int], None] | None
) -> list[tuple[float, str]]:
    """Return the score of every draw, in their order, or nan and the reason."""
    outcomes = []
    with threadpool_limits(1):
        jobs = (delayed(_outcome)(task, draw) for draw in draws)
        for outcome in Parallel(n_jobs, prefer="threads", return_as="generator")(jobs):
            outcomes.append(outcome)
            if progress is not None:
                progress(len(outcomes), len(draws))
    return outcomes


def _outcome(task: _Task, draw: _Draw) -> tuple[float, str]:
    test = task.folds[draw.fold][1]
    try:
        score = fit_and_score(task.pipeline, task.scorer, task.X, task.y, draw.rows, test, task.weight)
    except Exception as error:  # estimators raise all kinds
        return np.nan, one_line(error)[:160]
    return (score, "") if np.isfinite(score) else (np.nan, f"the score is {score}")


def _failures(sizes: Sequence[_Size], draws: Sequence[_Draw], outcomes: Sequence[tuple[float, str]]) -> list[str]:
    """Return a note for each size of which a fit failed, or raise when all did."""
    notes = []
    for number, size in enumerate(sizes):
        reasons = [reason for draw, (_, reason) in zip(draws, outcomes, strict=True) if draw.size == number]
        failed = [reason for reason in reasons if reason]
        if failed:
            notes.append(f"{len(failed)} of {len(reasons)} fits on {size} failed: {failed[0]}")
    if not any(np.isfinite(score) for score, _ in outcomes):
        first = notes[0] if notes else "every number of shots is left out"
        raise TopModelError(f"no part of the rows could be fitted and scored ({first}); give larger shots or shares")
    return notes


# --- results -----------------------------------------------------------------------------------------------


class _Measured(NamedTuple):
    """Mean number of rows of a size, and its scores, shape (folds, seeds), nan where there is none."""

    size: _Size
    n_train: float
    scores: NDArray[np.float64]


def _measured(
    sizes: Sequence[_Size], draws: Sequence[_Draw], outcomes: Sequence[tuple[float, str]], shape: tuple[int, int]
) -> list[_Measured]:
    """Gather what was scored, the sizes by their number of rows."""
    found = []
    for number, size in enumerate(sizes):
        pairs = zip(draws, outcomes, strict=True)
        done = [(draw, score) for draw, (score, _) in pairs if draw.size == number and np.isfinite(score)]
        scores = np.full(shape, np.nan)
        for draw, score in done:
            scores[draw.fold, draw.seed] = score
        if done:
            found.append(_Measured(size, float(np.mean([len(draw.rows) for draw, _ in done])), scores))
    return sorted(found, key=lambda each: each.n_train)


def _curve(task: _Task, found: Sequence[_Measured], seed: int, notes: list[str]) -> LearningCurve:
    n_train, n_test = sizes_of(task.folds)
    bound = _bound(task.scorer)
    chance = _chance(task, _filled(found[-1].scores).mean(axis=1), n_train, n_test)
    points = [_point(each, n_train, n_test) for each in found]
    fitted = [each for each in found if each.size.is_fitted]
    rows = np.array([each.n_train for each in fitted])
    if len(np.unique(rows)) < LEAST_SIZES:
        return LearningCurve(points, len(task.y), None, None, chance, bound == 1, notes)
    scores = np.stack([_filled(each.scores) for each in fitted])
    mean = scores.mean(axis=(1, 2))
    again = fit_power_law(rows, _drawn_again(scores, n_test / n_train, seed), bound)
    law = PowerLaw(*(float(each[0]) for each in fit_power_law(rows, mean[None], bound)))
    return LearningCurve(points, len(task.y), law, again, chance, bound == 1, notes)


def _point(each: _Measured, n_train: float, n_test: float) -> dict[str, Any]:
    by_fold = _by_fold(each.scores).compressed()
    return {
        "n_train": each.n_train,
        "per_class": None if each.size.is_share else each.size.amount,
        "share": each.size.amount if each.size.is_share else None,
        "mean": float(by_fold.mean()),
        "ci95": list(corrected_interval(by_fold, n_train, n_test)),
        "scores": each.scores[np.isfinite(each.scores)].tolist(),
        "is_fitted": each.size.is_fitted,
    }


def _chance(task: _Task, best: NDArray[np.float64], n_train: float, n_test: float) -> dict[str, Any] | None:
    """Compare scores, one a fold, with those of the mean, or of the classes' shares and the most frequent class."""
    guess = replace(
        task, pipeline=make_pipeline(DummyRegressor() if is_regressor(task.pipeline) else DummyClassifier())
    )
    scores = [_outcome(guess, _Draw(0, fold, 0, train))[0] for fold, (train, _) in enumerate(task.folds)]
    if not np.isfinite(scores).all():
        return None
    margin = paired_interval(best.tolist(), scores, n_train, n_test)
    return {"score": float(np.mean(scores)), "ci95": margin["ci95"]}


def _by_fold(scores: NDArray[np.float64]) -> Any:
    return np.ma.masked_invalid(scores).mean(axis=1)


def _filled(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return scores (folds, seeds) with the mean of its fold, or of all folds, where there is none."""
    means = _by_fold(scores)
    return np.where(np.isfinite(scores), scores, means.filled(means.mean())[:, None])


def _drawn_again(scores: NDArray[np.float64], ratio: float, seed: int) -> NDArray[np.float64]:
    """Return mean scores, shape (`BOOTSTRAPS`, m), of folds and draws within each that are drawn again.

    All sizes are drawn together, as they share the folds' test parts. The spread is that of `corrected_interval`:
    training parts that overlap make folds look more alike than new rows would be.
    """
    random = np.random.default_rng(seed)
    _, folds, seeds = scores.shape
    chosen = random.integers(folds, size=(BOOTSTRAPS, folds, 1))
    drawn = random.integers(seeds, size=(BOOTSTRAPS, folds, seeds))
    again, mean = scores[:, chosen, drawn].mean(axis=(2, 3)).T, scores.mean(axis=(1, 2))
    widening = np.sqrt((1 + folds * ratio) * folds / (folds - 1)) if folds > 1 else 1.0
    return mean + widening * (again - mean)


def _bound(scorer: Any) -> float:
    """Return the best possible score: 1 for scorers like the accuracy, inf where it is not known."""
    metric = getattr(getattr(scorer, "_score_func", None), "__name__", None)
    return 1.0 if metric in _BEST_IS_ONE and scorer._sign > 0 else np.inf
