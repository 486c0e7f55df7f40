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


def cluster_interval(
    score: Callable[[int, NDArray[np.intp]], float],
    clusters: Sequence[NDArray[Any]],
    draws: int = 200,
    random_state: int = 0,
) -> tuple[float, float]:
    """Return the 95 % percentile interval of a mean over folds, whole groups of rows drawn again in each fold.

    Rows of one group are alike, so that drawing single rows would make the interval too short: the cluster bootstrap
    (Davison and Hinkley 1997, section 3.8).

    Parameters
    ----------
    score : callable
        Score of a fold on some of its test rows, given by their positions, with repeats.
    clusters : sequence of ndarray
        Group of each test row of each fold.
    draws : int, default 200
    random_state : int, default 0

    Examples
    --------
    >>> right = np.array([1.0, 1.0, 0.0, 0.0])
    >>> cluster_interval(lambda fold, rows: right[rows].mean(), [np.array([0, 0, 1, 1])])
    (0.0, 1.0)
    """
    random = np.random.default_rng(random_state)
    members = [_members(each) for each in clusters]
    means = []
    for _ in range(draws):
        drawn = [[each[i] for i in random.integers(0, len(each), len(each))] for each in members]
        means.append(np.mean([score(fold, np.concatenate(rows)) for fold, rows in enumerate(drawn)]))
    low, high = np.nanpercentile(means, [2.5, 97.5])
    return float(low), float(high)


def _members(clusters: NDArray[Any]) -> list[NDArray[np.intp]]:
    """Return the positions of each group's rows."""
    _, codes, counts = np.unique(clusters, return_inverse=True, return_counts=True)
    return np.split(np.argsort(codes, kind="stable"), np.cumsum(counts)[:-1])


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
    probabilities: NDArray[np.float64] | None,
    classes: NDArray[Any],
    sample_weight: NDArray[np.float64] | None = None,
    random_state: int = 0,
) -> dict[str, Any]:
    """Score predictions on rows that no fit has seen.

    Parameters
    ----------
    y, predicted : ndarray, shape (n,)
        True and predicted classes, each one of `classes`.
    probabilities : ndarray of float64, shape (n, k), or None
        In the order of `classes`; without them there is no log loss.
    classes : ndarray, shape (k,)
        Sorted.
    sample_weight : ndarray of float64, shape (n,), optional
    random_state : int, default 0
        Of the bootstrap that gives the intervals other than the accuracy's (Wilson's, without weights).

    Returns
    -------
    dict
        ``n_samples, classes, accuracy, ci95`` (of the accuracy), ``balanced_accuracy, macro_f1, log_loss``,
        ``intervals`` (95 %, by name) and ``confusion`` (rows true, columns predicted).
    """
    weight = np.ones(len(y)) if sample_weight is None else sample_weight
    true, guess = np.searchsorted(classes, y), np.searchsorted(classes, predicted)
    losses = None if probabilities is None else _log_losses(probabilities, true)

    def score(weight: NDArray[np.float64]) -> dict[str, float]:
        rates = _rates(_confusion(true, guess, weight, len(classes)))
        return rates if losses is None else {**rates, "log_loss": float(np.average(losses, weights=weight))}

    values, intervals = score(weight), _bootstrap(score, weight, random_state)
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


def regression_scores(
    y: NDArray[np.float64],
    predicted: NDArray[np.float64],
    sample_weight: NDArray[np.float64] | None = None,
    random_state: int = 0,
) -> dict[str, Any]:
    """Score predicted numbers on rows that no fit has seen.

    Parameters
    ----------
    y, predicted : ndarray of float64, shape (n,)
    sample_weight : ndarray of float64, shape (n,), optional
    random_state : int, default 0
        Of the bootstrap that gives the intervals.

    Returns
    -------
    dict
        ``n_samples, r2, mae, rmse, intervals`` (95 %, by name).

    Examples
    --------
    >>> regression_scores(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 4.0]))["r2"]
    0.5
    """
    weight = np.ones(len(y)) if sample_weight is None else sample_weight

    def score(weight: NDArray[np.float64]) -> dict[str, float]:
        error, centre = predicted - y, np.average(y, weights=weight)
        square = float(np.average(error**2, weights=weight))
        spread = float(np.average((y - centre) ** 2, weights=weight))
        return {
            "r2": 1 - square / spread if spread else 0.0,
            "mae": float(np.average(np.abs(error), weights=weight)),
            "rmse": float(np.sqrt(square)),
        }

    return {"n_samples": len(y), **score(weight), "intervals": _bootstrap(score, weight, random_state)}


def label_scores(
    y: NDArray[np.int64], predicted: NDArray[np.int64], labels: Sequence[str], random_state: int = 0
) -> dict[str, Any]:
    """Score predictions of several labels a row, on rows that no fit has seen.

    Parameters
    ----------
    y, predicted : ndarray of 0 and 1, shape (n, labels)
    labels : sequence of str
    random_state : int, default 0
        Of the bootstrap that gives the intervals.

    Returns
    -------
    dict
        ``n_samples, classes, accuracy`` (all labels of a row right), ``macro_f1``, ``per_label`` (``n, accuracy,
        f1``) and ``intervals`` (95 %, by name).

    Examples
    --------
    >>> label_scores(np.array([[0, 1], [1, 1]]), np.array([[0, 1], [1, 0]]), ["cat", "dog"])["accuracy"]
    0.5
    """

    def f1(weight: NDArray[np.float64]) -> NDArray[np.float64]:
        both = weight @ (y & predicted)
        return 2 * both / np.maximum(weight @ y + weight @ predicted, 1e-12)

    def score(weight: NDArray[np.float64]) -> dict[str, float]:
        right = (y == predicted).all(axis=1)
        return {"accuracy": float(np.average(right, weights=weight)), "macro_f1": float(f1(weight).mean())}

    ones = np.ones(len(y))
    per_label = [
        {"label": name, "n": int(count), "accuracy": float(accuracy), "f1": float(each)}
        for name, count, accuracy, each in zip(labels, y.sum(0), (y == predicted).mean(0), f1(ones), strict=True)
    ]
    intervals = _bootstrap(score, ones, random_state)
    return {
        "n_samples": len(y),
        "classes": list(labels),
        **score(ones),
        "ci95": intervals["accuracy"],
        "intervals": intervals,
        "per_label": per_label,
    }


def _log_losses(probabilities: NDArray[np.float64], true: NDArray[np.int64]) -> NDArray[np.float64]:
    chance = np.clip(probabilities[np.arange(len(true)), true], np.finfo(np.float64).eps, None)
    return -np.log(chance / probabilities.sum(axis=1))


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
    score: Callable[[NDArray[np.float64]], dict[str, float]], weight: NDArray[np.float64], random_state: int
) -> dict[str, list[float]]:
    """Return percentile intervals over resampled rows (Efron 1979)."""
    random = np.random.default_rng(random_state)
    count = len(weight)
    draws = (weight * np.bincount(random.integers(0, count, count), minlength=count) for _ in range(BOOTSTRAPS))
    results = [score(draw) for draw in draws if draw.any()]
    return {name: np.percentile([result[name] for result in results], [2.5, 97.5]).tolist() for name in results[0]}
