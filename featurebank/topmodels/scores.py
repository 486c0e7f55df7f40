"""The 95 % interval of a score: one rule decides for every score that is shown.

A score stands on units: rows, or groups of rows that belong together. Each unit's influence on the score, found by a
jackknife, gives the variance, with one degree of freedom less than there are units.

- A share (accuracy, F1, ROC AUC …), and what else has a least and a greatest value (a correlation), gets the
  Clopper-Pearson interval of a proportion of as many trials as give this variance (Korn and Graubard 1998, Confidence
  intervals for proportions with small expected number of positive counts estimated from survey data): it has a width
  where every unit is right, and stays in the range. There are no more trials than units for each unit with a mistake:
  what went wrong in one group says nothing of how groups differ.
- The accuracy of one held-out part, without weights and groups, is a plain proportion: Wilson (1927).
- R² and its kin are 1 less a ratio of errors, which is skewed: they get Student's t for the ratio's logarithm over the
  rows of all folds together (`ratio_interval`).
- Any other score, and the difference of two, gets Student's t, within what the score can be.

Where only the scores of folds are known, Nadeau and Bengio's interval is united with that of a proportion of as many
trials as there are rows. `tests/topmodels/test_coverage.py` simulates how often the truth is held.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from featurebank.topmodels.formatting import bounded, range_of
from featurebank.topmodels.influence import Part, block_influence

CONFIDENCE = 0.95
SHARED = 1.5
"""What the variance over units is multiplied by where a score comes from folds, which share training rows. Without it a
simulated 95 % interval holds the truth in 85 to 90 % of cases where the classes hardly differ; Nadeau and Bengio's own
factor (2.25 for five folds) holds it in 99 to 100 %, at nearly twice the width."""


class Interval(NamedTuple):
    """The ends of a 95 % interval, and the method that gave it."""

    low: float
    high: float
    method: str

    @property
    def ends(self) -> tuple[float, float]:
        """Low and high."""
        return self.low, self.high


def score_interval(
    mean: float,
    influence: NDArray[np.float64],
    scoring: Any,
    *,
    rows: float,
    folds: int = 1,
    units: int | None = None,
) -> Interval:
    """Return the 95 % interval of a score from the influence of each unit on it.

    Parameters
    ----------
    mean : float
        The score.
    influence : ndarray of float64, shape (units,) or (blocks,)
        What each unit (a row, a group, a block of them) adds to the score; they sum to about 0. See
        `featurebank.topmodels.influence`.
    scoring : str, callable or None
        Name of the scorer: has it a range?
    rows : float
        The most trials that the score is worth: its rows, or fewer where classes of unequal size count alike.
    folds : int, default 1
        The score is the mean over so many folds.
    units : int, optional
        How many rows or groups the blocks of `influence` are made of, where a block holds several.

    Returns
    -------
    Interval
        Where one unit, or units that do not differ, say nothing of how the score varies: its whole range, or that of a
        share of so many trials; of NaN where the range is infinite.

    Examples
    --------
    Twenty rows of twenty are right: the interval says that twenty are few.

    >>> low, high, method = score_interval(1.0, np.zeros(20), "accuracy", rows=20, folds=5)
    >>> round(low, 3), high, method
    (0.832, 1.0, 'korn-graubard')
    """
    blocks, (least, greatest) = len(influence), range_of(scoring)
    width = greatest - least
    if blocks < 2 or not np.isfinite(mean):
        return Interval(*((least, greatest) if np.isfinite(width) else (np.nan, np.nan)), "none")
    error, reach = _error(influence, folds), _student(blocks - 1)
    if error <= 1e-12 * abs(mean) and not np.isfinite(width):
        return Interval(np.nan, np.nan, "none")
    share = round((mean - least) / width, 12)  # a sum of steps, as average precision is, may miss 1 by a rounding
    if not np.isfinite(width) or not 0 <= share <= 1:
        low, high = bounded(scoring, [mean - reach * error, mean + reach * error])
        return Interval(low, high, "jackknife")
    error /= width
    fewer = min((_student(max(rows - 1, 1)) / reach) ** 2, 1)  # a variance of few units is a guess
    trials = min(share * (1 - share) / error**2, rows) * fewer if error > 0 and 0 < share < 1 else rows
    most = (units or blocks) * max(_units_apart(influence), 1)
    low, high = exact_interval(share, max(min(trials, most), 1))
    return Interval(least + width * low, least + width * high, "korn-graubard")


def _error(influence: NDArray[np.float64], folds: int) -> float:
    """Return the standard error of a score from the influence of its units, shape (units,)."""
    units = len(influence)
    return float(np.sqrt(influence @ influence * units / (units - 1) * (SHARED if folds > 1 else 1)))


def _units_apart(influence: NDArray[np.float64]) -> int:
    """Return how many units lower the score, or raise it, whichever are fewer: those with a mistake, where few are."""
    least = 1e-9 * np.abs(influence).max(initial=0)
    return int(min((influence < -least).sum(), (influence > least).sum()))


def is_ratio(scoring: Any) -> bool:
    """Say whether a scorer of numbers is 1 less a ratio of errors, as R² is.

    Examples
    --------
    >>> is_ratio("r2"), is_ratio("d2_absolute_error_score"), is_ratio("neg_mean_squared_error")
    (True, True, False)
    """
    return isinstance(scoring, str) and scoring.startswith(("r2", "d2_absolute", "explained_variance"))


def ratio_interval(score: Callable[[NDArray[np.intp]], float], part: Part, shown: float, *, folds: int = 1) -> Interval:
    """Return the 95 % interval of a score that is 1 less a ratio of errors (R² …) by a jackknife of log(1 - score).

    Folds of few rows scatter much, since each has its own small denominator, so that the rows of all folds are scored
    together. The interval is widened to hold the score that is shown, the mean over the folds.

    Parameters
    ----------
    score : callable
        Score of some of the rows, given by their positions; NaN where they have none.
    part : Part
        The test rows of all folds.
    shown : float
    folds : int, default 1

    Notes
    -----
    Kott (2001) for the jackknife; the logarithm makes the variance of a ratio stable (Efron and Tibshirani 1993, An
    introduction to the bootstrap, section 11). Simulated, it holds the true R² in 92 to 98 % of cases, at a third to
    two thirds of the width of a jackknife of the mean over folds where rows or groups are few.

    Examples
    --------
    >>> y, said = np.arange(20.0), np.arange(20.0) + np.tile([2, -2], 10)
    >>> r2 = lambda rows: 1 - ((y - said)[rows] ** 2).sum() / ((y[rows] - y[rows].mean()) ** 2).sum()
    >>> low, high, method = ratio_interval(r2, Part(np.arange(20), np.ones(20)), r2(np.arange(20)))
    >>> round(low, 3), round(high, 3), method
    (0.809, 0.924, 'log-jackknife')
    """

    def logarithm(_: int, rows: NDArray[np.intp]) -> float:
        return float(np.log(max(1 - score(rows), np.finfo(float).tiny)))

    influence = block_influence(logarithm, [part])
    if not influence.any() or not np.isfinite(shown):
        return Interval(np.nan, np.nan, "none")
    centre, reach = logarithm(0, np.arange(len(part.units))), _student(len(influence) - 1) * _error(influence, folds)
    with np.errstate(over="ignore"):
        low, high = 1 - np.exp(centre + reach), 1 - np.exp(centre - reach)
    if not np.isfinite(low):
        return Interval(np.nan, np.nan, "none")
    return Interval(min(float(low), shown), max(float(high), shown), "log-jackknife")


class Trials(NamedTuple):
    """What a score stands on: so many rows of equal weight, in so many units (groups of rows, or the rows)."""

    rows: float
    units: float


def trials_of(rows: float, groups: NDArray[Any] | None) -> Trials:
    """Return what a score of rows stands on, that belong to groups, shape (n,), or to none.

    Examples
    --------
    >>> trials_of(6, np.array([0, 0, 0, 1, 1, 1])), trials_of(6, None)
    (Trials(rows=6, units=2), Trials(rows=6, units=6))
    """
    return Trials(rows, rows if groups is None else min(rows, len(np.unique(groups))))


def fold_interval(scores: Sequence[float], n_train: float, n_test: float, scoring: Any, *, trials: Trials) -> Interval:
    """Return the 95 % interval of a mean over folds of which only the scores are known.

    Parameters
    ----------
    scores : sequence of k floats
    n_train, n_test : float
        Mean number of rows in the training and test parts.
    scoring : str, callable or None
    trials : Trials
        Of the rows that the folds test in all; where the score has a least and a greatest value, the interval is not
        narrower than these allow.

    Returns
    -------
    Interval
        Of NaN where one fold is all that is known of a score without such a range.

    Examples
    --------
    >>> low, high, method = fold_interval([1.0] * 5, 80, 20, "accuracy", trials=Trials(100, 100))
    >>> round(low, 3), high, method
    (0.964, 1.0, 'nadeau-bengio')
    """
    low, high = corrected_interval(scores, n_train, n_test)
    mean, (bottom, top) = float(np.mean(scores)), range_of(scoring)
    if np.isfinite(top - bottom) and bottom <= mean <= top:
        apart = max(_units_apart(np.subtract(scores, mean)), 1)
        least = exact_interval((mean - bottom) / (top - bottom), max(min(trials.rows, trials.units * apart), 1))
        ends = [bottom + (top - bottom) * end for end in least]
        low, high = bounded(scoring, [np.fmin(low, ends[0]), np.fmax(high, ends[1])])
    return Interval(float(low), float(high), "nadeau-bengio")


def averages_classes(scoring: Any) -> bool:
    """Say whether a scorer counts classes alike, however many rows each has.

    Examples
    --------
    >>> averages_classes("balanced_accuracy"), averages_classes("f1_macro"), averages_classes("accuracy")
    (True, True, False)
    """
    return str(scoring).startswith(("balanced", "matthews")) or "macro" in str(scoring)


def effective_rows(weight: NDArray[np.float64], counts: NDArray[np.float64] | None = None) -> float:
    """Return how many rows of equal weight, in classes of equal size, are worth as much.

    Parameters
    ----------
    weight : ndarray of float64, shape (n,)
    counts : ndarray of float64, shape (k,), optional
        The (weighted) sizes of the classes, for a score that counts classes alike.

    Notes
    -----
    Kish (1965), Survey sampling.

    Examples
    --------
    >>> effective_rows(np.ones(100)), round(effective_rows(np.ones(100), np.array([90.0, 10.0])), 6)
    (100.0, 36.0)
    """
    rows = float(weight.sum() ** 2 / max(weight @ weight, np.finfo(float).tiny))
    if counts is None:
        return rows
    shares = counts[counts > 0] / counts.sum()
    return rows * float(len(shares) ** 2 / (1 / shares).sum())


# --- methods -----------------------------------------------------------------------------------------------


def _student(freedom: float, confidence: float = CONFIDENCE) -> float:
    return float(stats.t.ppf((1 + confidence) / 2, freedom))


def exact_interval(share: float, trials: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the Clopper-Pearson (1934) interval of a proportion; the number of trials need not be whole.

    Examples
    --------
    >>> low, high = exact_interval(1.0, 20)
    >>> round(low, 3), high
    (0.832, 1.0)
    """
    right, wrong, tail = share * trials, (1 - share) * trials, (1 - confidence) / 2
    low = float(stats.beta.ppf(tail, right, wrong + 1)) if right > 1e-9 else 0.0
    high = float(stats.beta.ppf(1 - tail, right + 1, wrong)) if wrong > 1e-9 else 1.0
    return low, high


def wilson_interval(correct: float, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the Wilson (1927) interval of a proportion.

    Parameters
    ----------
    correct : float
        Number of successes.
    count : int
        Number of trials, at least 1.
    confidence : float, default 0.95

    Examples
    --------
    >>> low, high = wilson_interval(580, 656)
    >>> round(low, 3), round(high, 3)
    (0.857, 0.906)
    """
    interval = stats.binomtest(round(correct), count).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def corrected_interval(
    scores: Sequence[float], n_train: float, n_test: float, confidence: float = 0.95
) -> tuple[float, float]:
    """Return the confidence interval of a cross-validated mean.

    The variance over folds is corrected for the overlap of their training parts: multiplied by
    1/k + n_test/n_train (Nadeau & Bengio 2003, Inference for the generalization error), with k - 1 degrees of
    freedom.

    Parameters
    ----------
    scores : sequence of k floats
        One score a fold (and repeat).
    n_train, n_test : float
        Mean number of rows in the training and test parts.
    confidence : float, default 0.95

    Examples
    --------
    >>> low, high = corrected_interval([0.8, 0.9], 50, 50)
    >>> round(low, 3), round(high, 3)
    (-0.25, 1.95)
    """
    k = len(scores)
    mean = float(np.mean(scores))
    if k < 2:
        return np.nan, np.nan
    error = float(np.sqrt(np.var(scores, ddof=1) * (1 / k + n_test / n_train)))
    reach = _student(k - 1, confidence) * error
    return mean - reach, mean + reach


def difference_interval(value: float, influence: NDArray[np.float64], *, folds: int = 1) -> Interval:
    """Return the 95 % interval of the difference of two scores of the same rows.

    Parameters
    ----------
    value : float
        The difference.
    influence : ndarray of float64, shape (units,)
        What each row, or group of rows, adds to it.
    folds : int, default 1

    Examples
    --------
    One of two models is right on 3 of 100 rows where the other is wrong, and wrong on 3 where that is right.

    >>> gains = np.repeat([1.0, -1.0, 0.0], [3, 3, 94])
    >>> low, high, _ = difference_interval(0.0, gains / 100, folds=5)
    >>> round(low, 3), round(high, 3)
    (-0.06, 0.06)
    """
    if not influence.any():  # the same answers on every row
        return Interval(value, value, "jackknife")
    return score_interval(value, influence, "difference", rows=len(influence), folds=folds)


def least_interval(value: float, rows: float) -> Interval:
    """Return the interval of the difference of two shares that so many rows allow at best.

    The rows on which one of two models is right and the other wrong are taken to be as few as the difference says.

    Parameters
    ----------
    value : float
        The difference.
    rows : float

    Notes
    -----
    Agresti and Min (2005), Simple improved confidence intervals for comparing matched proportions: half a row is added
    to each of the four counts.

    Examples
    --------
    Two models that are right on the same 58 of 60 rows may still differ by three points.

    >>> low, high, _ = least_interval(0.0, 60)
    >>> round(low, 3), round(high, 3)
    (-0.032, 0.032)
    """
    apart, every = value * rows, rows + 2
    error = float(np.sqrt(abs(apart) + 1 - apart**2 / every)) / every
    reach = float(stats.norm.ppf((1 + CONFIDENCE) / 2)) * error
    return Interval(max(apart / every - reach, -1.0), min(apart / every + reach, 1.0), "agresti-min")


def gains_interval(gains: NDArray[np.float64], *, folds: int = 1) -> Interval:
    """Return the 95 % interval of the mean of what one model gains on another, row by row.

    It is never narrower than that which so many rows allow (`least_interval`): where the two are right on the same
    rows, the rows alone say how far they may differ.

    Parameters
    ----------
    gains : ndarray of float64, shape (n,)
        1 where the first model is right and the second wrong, -1 where it is the other way round, else 0; or means of
        several such.
    folds : int, default 1

    Examples
    --------
    >>> low, high, _ = gains_interval(np.zeros(60))
    >>> round(low, 3), round(high, 3)
    (-0.032, 0.032)
    """
    gain, rows = float(gains.mean()), len(gains)
    low, high, method = difference_interval(gain, (gains - gain) / rows, folds=folds)
    least = least_interval(gain, rows)
    return Interval(min(low, least.low), max(high, least.high), method)


def paired_interval(
    first: Sequence[float], second: Sequence[float], n_train: float, n_test: float, by_rows: Interval | None = None
) -> dict[str, Any]:
    """Compare two candidates on the same folds.

    The interval is that of the mean difference, corrected for the overlap of the training parts (Nadeau and Bengio
    2003).

    Parameters
    ----------
    first, second : sequence of k floats
        Scores on the same folds.
    n_train, n_test : float
        Mean number of rows in the training and test parts.
    by_rows : Interval, optional
        From the rows that both answered (`difference_interval`), or from how many these are (`fold_difference`), with
        which the interval is united: where two models score alike in every fold, only the rows tell how far they
        differ.

    Returns
    -------
    dict
        ``difference`` (first less second), ``ci95``, and ``told_apart``: whether the interval leaves out 0.

    Examples
    --------
    >>> paired_interval([0.9, 0.92, 0.91], [0.8, 0.81, 0.82], 60, 30)["told_apart"]
    True
    """
    differences = [one - two for one, two in zip(first, second, strict=True)]
    low, high = corrected_interval(differences, n_train, n_test)
    if by_rows is not None:
        low, high = float(np.fmin(low, by_rows.low)), float(np.fmax(high, by_rows.high))
    return {"difference": float(np.mean(differences)), "ci95": [low, high], "told_apart": bool(low > 0 or high < 0)}


def fold_difference(
    first: Sequence[float], second: Sequence[float], n_train: float, n_test: float, scoring: Any, *, trials: Trials
) -> dict[str, Any]:
    """Compare two candidates on the same folds of which only the scores are known.

    Parameters
    ----------
    first, second : sequence of k floats
    n_train, n_test : float
    scoring : str, callable or None
    trials : Trials
        As in `fold_interval`: the interval of a difference of shares is not narrower than these allow. Where the
        difference is the same in every fold, the folds say nothing of how groups differ, and each group is one trial.

    Returns
    -------
    dict
        As of `paired_interval`.

    Examples
    --------
    >>> found = fold_difference([0.9] * 5, [0.9] * 5, 80, 20, "accuracy", trials=Trials(100, 100))
    >>> [round(end, 3) for end in found["ci95"]], found["told_apart"]
    ([-0.019, 0.019], False)
    """
    differences, (least, greatest) = np.subtract(first, second), range_of(scoring)
    if not np.isfinite(greatest - least):
        return paired_interval(first, second, n_train, n_test)
    width, spread = greatest - least, np.ptp(differences)
    by_rows = least_interval(float(differences.mean()) / width, trials.rows if spread > 1e-12 else trials.units)
    by_rows = by_rows._replace(low=width * by_rows.low, high=width * by_rows.high)
    return paired_interval(first, second, n_train, n_test, by_rows)
