"""The 95 % interval of a score: one rule decides for every score that is shown.

A score stands on units: rows, or groups of rows that belong together. Each unit's influence on the score, found by a
jackknife, gives the variance, with one degree of freedom less than there are units.

- A share (accuracy, F1, ROC AUC …) gets the Clopper-Pearson interval of a proportion of as many trials as give this
  variance (Korn and Graubard 1998, Confidence intervals for proportions with small expected number of positive counts
  estimated from survey data): it has a width where every unit is right, and stays between 0 and 1.
- The accuracy of one held-out part, without weights and groups, is a plain proportion: Wilson (1927).
- Any other score gets Student's t.

Where only the scores of folds are known, Nadeau and Bengio's interval is united with that of a proportion of as many
trials as there are rows. `tests/topmodels/test_coverage.py` simulates how often the truth is held.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from featurebank.topmodels.formatting import is_share

CONFIDENCE = 0.95
SHARED = 1.5
"""What the variance over units is multiplied by where a score comes from folds, which share training rows. Without it a
simulated 95 % interval holds the truth in 85 to 90 % of cases where the classes hardly differ; Nadeau and Bengio's own
factor (2.25 for five folds) holds it in 99 to 100 %, at nearly twice the width."""
BLOCKS = 50
"""The most parts of the rows that `block_influence` leaves out in turn."""


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
    mean: float, influence: NDArray[np.float64], scoring: Any, *, rows: float, folds: int = 1
) -> Interval:
    """Return the 95 % interval of a score from the influence of each unit on it.

    Parameters
    ----------
    mean : float
        The score.
    influence : ndarray of float64, shape (units,)
        What each unit (a row, a group, a block of them) adds to the score; they sum to about 0. See `mean_influence`
        and `block_influence`.
    scoring : str, callable or None
        Name of the scorer: is it a share?
    rows : float
        The most trials that the score is worth: its rows, or fewer where classes of unequal size count alike.
    folds : int, default 1
        The score is the mean over so many folds.

    Returns
    -------
    Interval
        Of NaN where there is one unit only, which says nothing.

    Examples
    --------
    Twenty rows of twenty are right: the interval says that twenty are few.

    >>> low, high, method = score_interval(1.0, np.zeros(20), "accuracy", rows=20, folds=5)
    >>> round(low, 3), high, method
    (0.832, 1.0, 'korn-graubard')
    """
    units = len(influence)
    if units < 2 or not np.isfinite(mean):
        return Interval(np.nan, np.nan, "none")
    variance = float(influence @ influence) * units / (units - 1) * (SHARED if folds > 1 else 1)
    reach = _student(units - 1)
    share = round(mean, 12)  # a sum of steps, as average precision is, may miss 1 by a rounding
    if not is_share(scoring) or not 0 <= share <= 1:
        return Interval(mean - reach * variance**0.5, mean + reach * variance**0.5, "jackknife")
    trials = min(share * (1 - share) / variance, rows) if variance > 0 and 0 < share < 1 else min(rows, units)
    fewer = (_student(max(rows - 1, 1)) / reach) ** 2  # a variance of few units is a guess
    return Interval(*exact_interval(share, max(trials * min(fewer, 1), 1)), "korn-graubard")


def fold_interval(scores: Sequence[float], n_train: float, n_test: float, scoring: Any, *, rows: float) -> Interval:
    """Return the 95 % interval of a mean over folds of which only the scores are known.

    Parameters
    ----------
    scores : sequence of k floats
    n_train, n_test : float
        Mean number of rows in the training and test parts.
    scoring : str, callable or None
    rows : float
        Rows that the folds test in all; the interval of a share is not narrower than these allow.

    Examples
    --------
    >>> low, high, method = fold_interval([1.0] * 5, 80, 20, "accuracy", rows=100)
    >>> round(low, 3), high, method
    (0.964, 1.0, 'nadeau-bengio')
    """
    low, high = corrected_interval(scores, n_train, n_test)
    mean = float(np.mean(scores))
    if is_share(scoring) and 0 <= mean <= 1:
        least = exact_interval(mean, rows)
        low, high = max(min(low, least[0]), 0.0), min(max(high, least[1]), 1.0)
    return Interval(low, high, "nadeau-bengio")


def averages_classes(scoring: Any) -> bool:
    """Say whether a scorer counts classes alike, however many rows each has.

    Examples
    --------
    >>> averages_classes("balanced_accuracy"), averages_classes("f1_macro"), averages_classes("accuracy")
    (True, True, False)
    """
    return str(scoring).startswith("balanced") or "macro" in str(scoring)


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


# --- influence ---------------------------------------------------------------------------------------------


class Part(NamedTuple):
    """The test rows of one fold: the number of each row's unit, and its weight, each of shape (m,)."""

    units: NDArray[np.intp]
    weight: NDArray[np.float64]


def mean_influence(parts: Sequence[Part], values: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
    """Return the influence of each unit on the mean over folds of the weighted mean of a value.

    Parameters
    ----------
    parts : sequence of k Part
    values : sequence of k ndarray, each of shape (m,)
        One value a test row, e.g. whether it was right.

    Examples
    --------
    >>> part = Part(np.array([0, 0, 1, 1]), np.ones(4))
    >>> mean_influence([part], [np.array([1.0, 1.0, 0.0, 1.0])])
    array([ 0.125, -0.125])
    """
    means = [_average(value, part.weight) for part, value in zip(parts, values, strict=True)]
    centre, total = float(np.mean(means)), np.zeros(1 + max(int(part.units.max()) for part in parts))
    for part, value in zip(parts, values, strict=True):
        share = part.weight / max(part.weight.sum(), np.finfo(float).tiny)
        total += np.bincount(part.units, share * (value - centre), len(total))
    return total / len(parts)


def block_influence(
    score: Callable[[int, NDArray[np.intp]], Any], parts: Sequence[Part], random_state: int = 0
) -> NDArray[np.float64]:
    """Return the influence of each block of units on the mean over folds of any score.

    Each block is left out in turn, and the folds that hold rows of it are scored again. For a mean this gives
    `mean_influence`.

    Parameters
    ----------
    score : callable
        Score, or scores of shape (s,), of a fold on some of its test rows, given by their positions.
    parts : sequence of k Part
    random_state : int, default 0
        Puts units into `BLOCKS` blocks where there are more units.

    Returns
    -------
    ndarray of float64, shape (blocks,) or (blocks, s)

    Notes
    -----
    Kott (2001), The delete-a-group jackknife.
    """
    blocks = _blocks(parts, random_state)
    whole = np.array([score(fold, np.arange(len(part.units))) for fold, part in enumerate(parts)])
    centre, total = whole.mean(axis=0), np.zeros((int(blocks.max()) + 1, *whole.shape[1:]))
    for fold, part in enumerate(parts):
        block = blocks[part.units]
        shares = np.bincount(block, part.weight, len(total)) / max(part.weight.sum(), np.finfo(float).tiny)
        for number in np.unique(block):
            rest, share = np.flatnonzero(block != number), shares[number]
            less = np.asarray(score(fold, rest) if part.weight[rest].any() else whole[fold])
            change = np.where(np.isfinite(less), whole[fold] - less, 0)  # e.g. ROC AUC, where one class is left
            total[number] += share * (whole[fold] - centre) + (1 - share) * change
    return np.asarray(total / len(parts))


def _blocks(parts: Sequence[Part], random_state: int) -> NDArray[np.intp]:
    """Return the number of each unit's block; a block's units are tested in as few folds as possible."""
    count = 1 + max(int(part.units.max()) for part in parts)
    first = np.full(count, len(parts))
    for fold in reversed(range(len(parts))):
        first[parts[fold].units] = fold
    tie = np.random.default_rng(random_state).permutation(count)
    blocks = np.empty(count, np.intp)
    order = np.lexsort((tie, first))
    for number, units in enumerate(np.array_split(order, min(count, BLOCKS))):
        blocks[units] = number
    return blocks


def _average(value: NDArray[Any], weight: NDArray[np.float64]) -> float:
    return float(np.average(value, weights=weight)) if weight.any() else float("nan")


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
        return mean, mean
    error = float(np.sqrt(np.var(scores, ddof=1) * (1 / k + n_test / n_train)))
    reach = _student(k - 1, confidence) * error
    return mean - reach, mean + reach


def paired_interval(first: Sequence[float], second: Sequence[float], n_train: float, n_test: float) -> dict[str, Any]:
    """Compare two candidates on the same folds.

    The interval is that of the mean difference, corrected for the overlap of the training parts (Nadeau and Bengio
    2003).

    Parameters
    ----------
    first, second : sequence of k floats
        Scores on the same folds.
    n_train, n_test : float
        Mean number of rows in the training and test parts.

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
    return {"difference": float(np.mean(differences)), "ci95": [low, high], "told_apart": bool(low > 0 or high < 0)}
