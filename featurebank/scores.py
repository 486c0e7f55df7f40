"""Scores with their intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

BOOTSTRAPS = 1000


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
    reach = float(stats.t.ppf((1 + confidence) / 2, k - 1)) * error
    return mean - reach, mean + reach


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


def classification_scores(
    y: NDArray[Any],
    predicted: NDArray[Any],
    probabilities: NDArray[np.float64],
    classes: NDArray[Any],
    sample_weight: NDArray[np.float64] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Score predictions on rows that no fit has seen.

    Parameters
    ----------
    y, predicted : ndarray, shape (n,)
        True and predicted classes, each one of `classes`.
    probabilities : ndarray of float64, shape (n, k)
        In the order of `classes`.
    classes : ndarray, shape (k,)
        Sorted.
    sample_weight : ndarray of float64, shape (n,), optional
    seed : int, default 0
        Of the bootstrap that gives the intervals other than the accuracy's (Wilson's, without weights).

    Returns
    -------
    dict
        ``n_samples, classes, accuracy, ci95`` (of the accuracy), ``balanced_accuracy, macro_f1, log_loss``,
        ``intervals`` (95 %, by name) and ``confusion`` (rows true, columns predicted).
    """
    weight = np.ones(len(y)) if sample_weight is None else sample_weight
    true, guess = np.searchsorted(classes, y), np.searchsorted(classes, predicted)
    chance = np.clip(probabilities[np.arange(len(y)), true], np.finfo(np.float64).eps, None)
    losses = -np.log(chance / probabilities.sum(axis=1))

    def score(weight: NDArray[np.float64]) -> dict[str, float]:
        counted = _confusion(true, guess, weight, len(classes))
        return {**_rates(counted), "log_loss": float(np.average(losses, weights=weight))}

    values, intervals = score(weight), _bootstrap(score, weight, seed)
    if sample_weight is None:
        intervals["accuracy"] = list(wilson_interval(values["accuracy"] * len(y), len(y)))
    return {
        "n_samples": len(y),
        "classes": classes.tolist(),
        **values,
        "ci95": intervals["accuracy"],
        "intervals": intervals,
        "confusion": _confusion(true, guess, weight, len(classes)).tolist(),
    }


def _confusion(
    true: NDArray[np.int64], guess: NDArray[np.int64], weight: NDArray[np.float64], k: int
) -> NDArray[np.float64]:
    """Return the weighted confusion matrix, rows true, columns predicted, shape (k, k)."""
    return np.bincount(true * k + guess, weight, k * k).reshape(k, k).astype(np.float64)


def _rates(confusion: NDArray[np.float64]) -> dict[str, float]:
    """Return accuracy, mean recall and mean F1; the means are over the classes that occur."""
    right, actual, called = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    occurs = actual > 0
    return {
        "accuracy": float(right.sum() / confusion.sum()),
        "balanced_accuracy": float((right[occurs] / actual[occurs]).mean()),
        "macro_f1": float((2 * right[occurs] / (actual + called)[occurs]).mean()),
    }


def _bootstrap(
    score: Callable[[NDArray[np.float64]], dict[str, float]], weight: NDArray[np.float64], seed: int
) -> dict[str, list[float]]:
    """Return percentile intervals over resampled rows (Efron 1979)."""
    random = np.random.default_rng(seed)
    count = len(weight)
    draws = (weight * np.bincount(random.integers(0, count, count), minlength=count) for _ in range(BOOTSTRAPS))
    results = [score(draw) for draw in draws if draw.any()]
    return {name: np.percentile([result[name] for result in results], [2.5, 97.5]).tolist() for name in results[0]}
