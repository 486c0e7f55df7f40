"""How well real anomalies are told from normals that were not learned from: scores with their 95 % intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from featurebank.topmodels.influence import Part, block_influence, mean_influence
from featurebank.topmodels.scores import Interval, effective_rows, score_interval, wilson_interval

_RANKINGS = {"roc_auc": roc_auc_score, "average_precision": average_precision_score}


def detection_scores(
    is_anomaly: NDArray[np.bool_],
    scores: NDArray[np.float64],
    flagged: NDArray[np.bool_],
    groups: NDArray[Any] | None = None,
    random_state: int = 0,
) -> dict[str, Any]:
    """Score what a one-class model says of rows that it has not learned from.

    Parameters
    ----------
    is_anomaly : ndarray of bool, shape (n,)
    scores : ndarray of float64, shape (n,)
        The higher the more normal.
    flagged : ndarray of bool, shape (n,)
        Which rows are called anomalies at the promised rate.
    groups : ndarray, shape (n,), optional
        Rows of one group belong together; the intervals count groups then.
    random_state : int, default 0
        Puts rows into the blocks that the intervals leave out (`featurebank.topmodels.scores`).

    Returns
    -------
    dict
        ``n_samples, n_anomalies``, ``roc_auc`` and ``average_precision`` (AUPR) where there are rows of both kinds,
        ``detection`` (share of the anomalies that are flagged), ``false_alarms`` (share of the normals that are) and
        ``intervals`` (95 %, by name).

    Examples
    --------
    >>> found = detection_scores(np.arange(8) > 5, -np.arange(8.0), np.arange(8) > 4)
    >>> found["roc_auc"], found["detection"], round(found["false_alarms"], 3)
    (1.0, 1.0, 0.167)
    """
    units = np.arange(len(scores)) if groups is None else np.unique(groups, return_inverse=True)[1]
    found: dict[str, Any] = {"n_samples": len(scores), "n_anomalies": int(is_anomaly.sum())}
    intervals: dict[str, list[float]] = {}
    if is_anomaly.any() and not is_anomaly.all():
        for name, metric in _RANKINGS.items():
            found[name], interval = _ranking(metric, name, is_anomaly, -scores, units, random_state)
            intervals[name] = list(interval.ends)
    for name, rows in (("detection", is_anomaly), ("false_alarms", ~is_anomaly)):
        if rows.any():
            found[name] = float(flagged[rows].mean())
            intervals[name] = _share_interval(name, flagged[rows], None if groups is None else units[rows])
    return {**found, "intervals": intervals}


def _ranking(
    metric: Any, name: str, true: NDArray[np.bool_], unusual: NDArray[Any], units: NDArray[np.intp], random_state: int
) -> tuple[float, Interval]:
    """Return the area under a curve, and its interval; rows count as if both kinds were as many."""

    def score(_: int, rows: NDArray[np.intp]) -> float:
        is_both = true[rows].any() and not true[rows].all()
        return float(metric(true[rows], unusual[rows])) if is_both else float("nan")

    weight = np.ones(len(true))
    influence = block_influence(score, [Part(units, weight)], random_state)
    counts = np.bincount(true, minlength=2).astype(np.float64)
    value = score(0, np.arange(len(true)))
    rows, count = effective_rows(weight, counts), len(np.unique(units))
    return value, score_interval(value, influence, name, rows=rows, units=count)


def _share_interval(name: str, flagged: NDArray[np.bool_], units: NDArray[np.intp] | None) -> list[float]:
    if units is None:
        return list(wilson_interval(flagged.sum(), len(flagged)))
    part = Part(np.unique(units, return_inverse=True)[1], np.ones(len(units)))
    influence = mean_influence([part], [flagged.astype(float)])
    return list(score_interval(float(flagged.mean()), influence, name, rows=len(flagged)).ends)
