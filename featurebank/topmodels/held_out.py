"""Scores of predictions on rows that no fit has seen, each with its 95 % interval."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurebank.topmodels.influence import Part, block_influence
from featurebank.topmodels.scores import (
    averages_classes,
    effective_rows,
    is_ratio,
    ratio_interval,
    score_interval,
    wilson_interval,
)

_ERRORS = {"log_loss", "mae", "rmse"}
"""Scores that are errors, which are not below 0."""


def classification_scores(
    y: NDArray[Any],
    predicted: NDArray[Any],
    probabilities: NDArray[np.float64] | None,
    classes: NDArray[Any],
    sample_weight: NDArray[np.float64] | None = None,
    groups: NDArray[Any] | None = None,
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
    groups : ndarray, shape (n,), optional
        Rows of one group belong together; the intervals count groups then.
    random_state : int, default 0
        Puts rows into the blocks that the intervals leave out (`featurebank.topmodels.scores`).

    Returns
    -------
    dict
        ``n_samples, classes, accuracy, ci95`` (of the accuracy), ``balanced_accuracy, macro_f1, log_loss``,
        ``intervals`` (95 %, by name) and ``confusion`` (rows true, columns predicted).
    """
    weight = np.ones(len(y)) if sample_weight is None else sample_weight
    true, guess = np.searchsorted(classes, y), np.searchsorted(classes, predicted)
    losses = None if probabilities is None else _log_losses(probabilities, true)

    def score(rows: NDArray[np.intp]) -> dict[str, float]:
        rates = _rates(_confusion(true[rows], guess[rows], weight[rows], len(classes)))
        return rates if losses is None else {**rates, "log_loss": float(np.average(losses[rows], weights=weight[rows]))}

    values, intervals = _with_intervals(
        score, weight, groups, random_state, counts=np.bincount(true, weight).astype(np.float64)
    )
    if sample_weight is None and groups is None:
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
    groups: NDArray[Any] | None = None,
    random_state: int = 0,
) -> dict[str, Any]:
    """Score predicted numbers on rows that no fit has seen.

    Parameters
    ----------
    y, predicted : ndarray of float64, shape (n,)
    sample_weight : ndarray of float64, shape (n,), optional
    groups, random_state
        See `classification_scores`.

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

    def score(rows: NDArray[np.intp]) -> dict[str, float]:
        true, part = y[rows], weight[rows]
        error, centre = predicted[rows] - true, np.average(true, weights=part)
        square = float(np.average(error**2, weights=part))
        spread = float(np.average((true - centre) ** 2, weights=part))
        return {
            "r2": 1 - square / spread if spread else 0.0,
            "mae": float(np.average(np.abs(error), weights=part)),
            "rmse": float(np.sqrt(square)),
        }

    values, intervals = _with_intervals(score, weight, groups, random_state)
    return {"n_samples": len(y), **values, "intervals": intervals}


def label_scores(
    y: NDArray[np.int64],
    predicted: NDArray[np.int64],
    labels: Sequence[str],
    groups: NDArray[Any] | None = None,
    random_state: int = 0,
) -> dict[str, Any]:
    """Score predictions of several labels a row, on rows that no fit has seen.

    Parameters
    ----------
    y, predicted : ndarray of 0 and 1, shape (n, labels)
    labels : sequence of str
    groups, random_state
        See `classification_scores`.

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

    def f1(rows: NDArray[np.intp]) -> NDArray[np.float64]:
        both = (y[rows] & predicted[rows]).sum(axis=0)
        return 2 * both / np.maximum(y[rows].sum(axis=0) + predicted[rows].sum(axis=0), 1e-12)

    def score(rows: NDArray[np.intp]) -> dict[str, float]:
        right = (y[rows] == predicted[rows]).all(axis=1)
        return {"accuracy": float(right.mean()), "macro_f1": float(f1(rows).mean())}

    per_label = [
        {"label": name, "n": int(count), "accuracy": float(accuracy), "f1": float(each)}
        for name, count, accuracy, each in zip(
            labels, y.sum(0), (y == predicted).mean(0), f1(np.arange(len(y))), strict=True
        )
    ]
    values, intervals = _with_intervals(score, np.ones(len(y)), groups, random_state)
    return {
        "n_samples": len(y),
        "classes": list(labels),
        **values,
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


# --- intervals ---------------------------------------------------------------------------------------------


def _with_intervals(
    score: Callable[[NDArray[np.intp]], dict[str, float]],
    weight: NDArray[np.float64],
    groups: NDArray[Any] | None,
    random_state: int,
    counts: NDArray[np.float64] | None = None,
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Return scores and their 95 % intervals; `counts` are the sizes of the classes."""
    everyone = np.arange(len(weight))
    units = everyone if groups is None else np.unique(groups, return_inverse=True)[1]
    found = score(everyone)
    part, count = Part(units, weight), len(np.unique(units))
    influence = block_influence(lambda _, rows: np.array(list(score(rows).values())), [part], random_state)
    ends = {}
    for (name, value), each in zip(found.items(), influence.T, strict=True):
        if is_ratio(name):
            low, high, _ = ratio_interval(_only(name, score), part, value)
        else:
            rows = effective_rows(weight, counts if averages_classes(name) else None)
            low, high, _ = score_interval(value, each, name, rows=rows, units=count)
        ends[name] = [max(low, 0.0) if name in _ERRORS else low, high]
    return found, ends


def _only(name: str, score: Callable[[NDArray[np.intp]], dict[str, float]]) -> Callable[[NDArray[np.intp]], float]:
    return lambda rows: score(rows)[name]
