"""Label more, or stop? The score as a power law of the number of rows, from ever larger parts of the folds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import is_regressor

from featurebank.bank.display import as_html
from featurebank.errors import TopModelError
from featurebank.images.reading import Progress
from featurebank.topmodels.folds import Fold, sizes_of
from featurebank.topmodels.formatting import gain_text, is_share
from featurebank.topmodels.refitting import guess_scores
from featurebank.topmodels.scores import Trials, effective_rows, fold_difference, fold_interval, trials_of
from featurebank.topmodels.subsampling import Measured, Subsampling, failures, measured, subsampling

EXPONENTS = np.geomspace(0.01, 2, 200)
"""Rates of a power law that are tried; its other two parameters have a closed form for each."""
BOOTSTRAPS = 200
LEAST_SIZES = 3
"""Numbers of rows that a curve takes."""
WORTHWHILE, NEGLIGIBLE = 0.005, 0.01
"""A gain surely above the first is worth its labels; one surely below the second is not."""
MORE, STOP, NOT_CLEAR = "Label more", "Stop", "Not clear"
_BEST_IS_ONE = {
    *("accuracy_score", "balanced_accuracy_score", "top_k_accuracy_score", "matthews_corrcoef", "cohen_kappa_score"),
    *("f1_score", "precision_score", "recall_score", "jaccard_score", "roc_auc_score", "average_precision_score"),
    *("r2_score", "explained_variance_score"),
}


# --- the power law --------------------------------------------------------------------------------


class PowerLaw(NamedTuple):
    """The score a - b n^-c of n rows (Cortes et al. 1994, Learning curves: asymptotic values and rate of convergence).

    Parameters
    ----------
    a : float or ndarray
        Score of endlessly many rows.
    b : float or ndarray
        What one row falls short of it, at least 0.
    c : float or ndarray
        Rate, above 0 and at most 2.

    Examples
    --------
    >>> PowerLaw(0.9, 1.0, 0.5)(100)
    0.8
    """

    a: Any
    b: Any
    c: Any

    def __call__(self, n: float) -> Any:
        """Return the score of n rows."""
        return self.a - self.b * float(n) ** -self.c


def fit_power_law(n_train: NDArray[Any], scores: NDArray[np.float64], bound: float = np.inf) -> PowerLaw:
    """Fit power laws to scores by weighted least squares, many at once.

    Large sets scatter less and lie nearer to what is asked, so that they weigh more (Figueroa et al. 2012, Predicting
    sample size required for classification performance), here as the square of their rows. Each of `EXPONENTS` is
    tried with the a and b that are best for it (Golub and Pereyra 1973, The differentiation of pseudo-inverses and
    nonlinear least squares problems whose variables separate), so that no local minimum is in the way.

    Parameters
    ----------
    n_train : ndarray, shape (m,)
        Numbers of rows, at least `LEAST_SIZES` different ones.
    scores : ndarray of float64, shape (k, m)
        One curve a row.
    bound : float, default inf
        The best possible score, which a does not exceed.

    Returns
    -------
    PowerLaw
        Of ndarrays of float64, shape (k,).

    Examples
    --------
    >>> n = np.array([10.0, 40.0, 90.0, 160.0])
    >>> [round(float(each[0]), 2) for each in fit_power_law(n, 0.9 - n[None] ** -0.5, bound=1.0)]
    [0.9, 1.0, 0.5]
    """
    weight = n_train**2 / (n_train**2).sum()
    x = n_train ** -EXPONENTS[:, None]
    centre = x @ weight
    off = x - centre[:, None]
    b = np.maximum(-(scores * weight) @ off.T / (off**2 @ weight), 0)
    a = (scores @ weight)[:, None] + b * centre
    if np.isfinite(bound):
        b = np.where(a > bound, np.maximum(((bound - scores) * weight) @ x.T / (x**2 @ weight), 0), b)
        a = np.minimum(a, bound)
    loss = (scores[:, None] - a[..., None] + b[..., None] * x) ** 2 @ weight
    best = loss.argmin(axis=1)
    curve = np.arange(len(scores))
    return PowerLaw(a[curve, best], b[curve, best], EXPONENTS[best])


# --- the curve ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
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
        Whether the best possible score is 1, so that what is worth labels is the same for all scores.
    scoring : str, callable or None
        What the scores are of: a gain in a share is told in points (hundredths).
    notes : list of str
        What was left out, and why.

    Examples
    --------
    >>> LearningCurve([], 100, PowerLaw(0.9, 1.0, 0.5), PowerLaw(np.full(9, 0.9), np.ones(9), np.full(9, 0.5))).verdict
    'Label more: twice the labels (200) promise +2.9 points (95 % +2.9..+2.9).'
    """

    points: list[dict[str, Any]]
    n_labels: int
    fit: PowerLaw | None = None
    bootstraps: PowerLaw | None = field(default=None, repr=False)
    chance: dict[str, Any] | None = None
    in_points: bool = True
    scoring: Any = field(default=None, repr=False)
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
        """What twice the labels promise: ``n`` (rows then), ``gain`` and its ``ci95``; None without a curve.

        The gain counts from the measured score where that lies above the curve, and ends at the best possible one.
        """
        if self.fit is None:
            return None
        n, now = 2 * self.n_labels, self.fit(self.n_labels)
        above = 0.0 if self.measured is None else max(self.measured - now, 0.0)
        found = self._interval(lambda law: law(n) - law(self.n_labels))
        gain, low, high = (min(each - above, self._left) for each in found)
        return {"n": n, "gain": gain, "ci95": [low, high]}

    @property
    def measured(self) -> float | None:
        """Mean score of the largest parts; None without points."""
        return self.points[-1]["mean"] if self.points else None

    @property
    def _left(self) -> float:
        """What the measured score leaves to gain, without end where the best possible one is not known."""
        return np.inf if self.measured is None or not self.in_points else max(1 - self.measured, 0.0)

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
        if self._left == 0:
            return f"{STOP}: every fold has the best possible score already, which leaves nothing to gain."
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
        worth = f"{100 * WORTHWHILE:g} % of the score"
        if self.in_points:
            worth = f"{100 * WORTHWHILE:g} points" if is_share(self.scoring) else f"{WORTHWHILE:g}"
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

    def __repr__(self) -> str:
        return f"<LearningCurve: {len(self.points)} points of {self.n_labels} labels; {self.verdict}>"

    def _repr_html_(self) -> str:
        return as_html(self, self.to_frame())

    def _promise(self, n: int, gain: float, ci95: list[float]) -> str:
        told = gain_text({"difference": gain, "ci95": ci95}, self.scoring)
        return f"twice the labels ({n:,}) promise {told}."

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
    progress: Progress | None = None,
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
    >>> folds = make_folds(3, X, y, None, random_state=0)
    >>> curve = learning_curve(KNeighborsClassifier(1), X, y, folds, shots=(), seeds=2)
    >>> curve.to_frame()["mean"].round(1).tolist()
    [0.9, 1.0, 1.0, 1.0, 1.0]
    >>> curve.verdict.split(":")[0]
    'Stop'
    """
    _check_options(shots, shares, seeds, n_jobs)
    task = subsampling(estimator, X, y, folds, groups, sample_weight, scoring)
    sizes, notes = task.sizes(shots, shares)
    draws = list(task.draws(sizes, seeds, random_state))
    outcomes = task.outcomes(draws, n_jobs, progress)
    notes += failures(sizes, draws, outcomes)
    if len(folds) == 1:
        notes.append("one fold: the intervals leave out the chance of its test part; more folds would show it")
    return _curve(task, measured(sizes, draws, outcomes, (len(folds), seeds)), random_state, notes)


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


# --- results -----------------------------------------------------------------------------------------------


def _curve(task: Subsampling, found: Sequence[Measured], random_state: int, notes: list[str]) -> LearningCurve:
    n_train, n_test = sizes_of(task.folds)
    bound = _bound(task.scorer)
    trials = _trials(task)
    chance = _chance(task, _filled(found[-1].scores).mean(axis=1), n_train, n_test, trials)
    points = [_point(each, n_train, n_test, task.scorer, trials) for each in found]
    fitted = [each for each in found if each.size.is_fitted]
    rows = np.array([each.n_train for each in fitted])
    if len(np.unique(rows)) < LEAST_SIZES:
        return LearningCurve(points, len(task.y), None, None, chance, bound == 1, task.scorer, notes)
    scores = np.stack([_filled(each.scores) for each in fitted])
    mean = scores.mean(axis=(1, 2))
    again = fit_power_law(rows, _drawn_again(scores, n_test / n_train, random_state), bound)
    law = PowerLaw(*(float(each[0]) for each in fit_power_law(rows, mean[None], bound)))
    return LearningCurve(points, len(task.y), law, again, chance, bound == 1, task.scorer, notes)


def _point(each: Measured, n_train: float, n_test: float, scorer: Any, trials: Trials) -> dict[str, Any]:
    by_fold = _by_fold(each.scores).compressed()
    interval = fold_interval(by_fold.tolist(), n_train, n_test, scorer, trials=trials)
    return {
        "n_train": each.n_train,
        "per_class": None if each.size.is_share else each.size.amount,
        "share": each.size.amount if each.size.is_share else None,
        "mean": float(by_fold.mean()),
        "ci95": list(interval.ends),
        "scores": each.scores[np.isfinite(each.scores)].tolist(),
        "is_fitted": each.size.is_fitted,
    }


def _trials(task: Subsampling) -> Trials:
    tested = np.unique(np.concatenate([test for _, test in task.folds]))
    rows = len(tested) if task.weight is None else effective_rows(task.weight[tested])
    return trials_of(rows, None if task.groups is None else task.groups[tested])


def _chance(
    task: Subsampling, best: NDArray[np.float64], n_train: float, n_test: float, trials: Trials
) -> dict[str, Any] | None:
    """Compare scores, one a fold, with those of a guess that never looks at an image."""
    kind = "regression" if is_regressor(task.pipeline) else "classification"
    scores = guess_scores(task.scorer, kind, task.y, task.folds, task.weight)
    if scores is None:
        return None
    margin = fold_difference(best.tolist(), scores, n_train, n_test, task.scorer, trials=trials)
    return {"score": float(np.mean(scores)), "ci95": margin["ci95"]}


def _by_fold(scores: NDArray[np.float64]) -> Any:
    return np.ma.masked_invalid(scores).mean(axis=1)


def _filled(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return scores (folds, seeds) with the mean of its fold, or of all folds, where there is none."""
    means = _by_fold(scores)
    return np.where(np.isfinite(scores), scores, means.filled(means.mean())[:, None])


def _drawn_again(scores: NDArray[np.float64], ratio: float, random_state: int) -> NDArray[np.float64]:
    """Return mean scores, shape (`BOOTSTRAPS`, m), of folds and draws within each that are drawn again.

    All sizes are drawn together, as they share the folds' test parts. The spread is that of `corrected_interval`:
    training parts that overlap make folds look more alike than new rows would be.
    """
    random = np.random.default_rng(random_state)
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
