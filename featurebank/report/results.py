"""What a fit found, as the page says it: candidates, confusion, mistakes, classes, calibration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.calibration import calibration_curve
from sklearn.metrics import precision_recall_fscore_support

from featurebank.bank.spec import common_backbone, short
from featurebank.report.outcomes import Outcomes
from featurebank.topmodels.candidates import ranked
from featurebank.topmodels.formatting import bounded, interval_text
from featurebank.topmodels.formatting import score_text as text_of
from featurebank.topmodels.scores import wilson_interval

MOST_CLASSES = 24
"""Classes up to which the whole confusion matrix is shown; beyond, the pairs that are confused most."""
MOST_PAIRS = 30
MOST_MISTAKES = 48
BINS = 10

Fit = Mapping[str, Any]


def score_text(fit: Fit, value: float) -> str:
    """Return a score as the page shows it."""
    return text_of(value, fit["scoring"])


def candidates(fit: Fit) -> list[dict[str, Any]]:
    """Return the best of each features × normalisation × model, best first, with its interval on a common scale.

    ``low, mean, high`` are places in percent of the column's width.
    """
    rows = ranked(fit.get("candidates", []))
    if not rows:
        return []
    ends = [[*bounded(fit["scoring"], each["ci95"]), each["mean"]] for each in rows]
    scale = min(map(min, ends)), max(map(max, ends))
    common = common_backbone("+".join(each["features"]) for each in rows)
    return [_candidate(fit, each, scale, common) for each in rows]


def _candidate(fit: Fit, each: Any, scale: tuple[float, float], common: str) -> dict[str, Any]:
    low, high = bounded(fit["scoring"], each["ci95"])
    notes = [] if each.get("views", "mean") == "mean" else [f"views: {each['views']}"]
    notes += [] if each["normalize"] == "standardize" else [each["normalize"]]
    notes += [] if each["select"] is None else [f"{each['select']:g} of the dimensions"]
    span = max(scale[1] - scale[0], 1e-9)
    places = [100 * (value - scale[0]) / span for value in (low, each["mean"], high)]
    return {
        "features": short("+".join(each["features"])).removeprefix(common),
        "notes": ", ".join(notes),
        "model": each["model"],
        "params": ", ".join(
            f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
            for name, value in each["params"].items()
        ),
        "score": score_text(fit, each["mean"]),
        "interval": interval_text(each["ci95"], fit["scoring"], between=" to ", unit=" %"),
        **dict(zip(("low", "mean", "high"), places, strict=True)),
    }


def plan_text(fit: Fit) -> str:
    """Return how the candidates were scored, empty where there are none."""
    if not fit.get("candidates"):
        return ""
    grouped = ", kept together in groups" if fit["grouped"] else ""
    return f"Scored by {fit['scoring']} over {fit['folds']} folds of {fit['n_samples']} images{grouped}."


def nested_text(fit: Fit) -> str:
    """Return the score of the whole procedure, selection included, empty where it was not asked for."""
    if "nested" not in fit:
        return ""
    ends = interval_text(fit["nested"]["ci95"], fit["scoring"], between=" to ", unit=" %")
    return f"{score_text(fit, fit['nested']['mean'])} (95 % {ends})"


def held_out(fit: Fit) -> dict[str, Any] | None:
    """Return the score on rows that were held out: ``n`` and ``text``; None where none were."""
    if "held_out" not in fit:
        return None
    found = fit["held_out"]
    name = "r2" if fit["task"] == "regression" else "accuracy"
    low, high = found["intervals"][name]
    return {"n": found["n_samples"], "text": f"{name} {found[name]:.3f} (95 % {low:.3f} to {high:.3f})"}


def calibration_text(found: Mapping[str, Any]) -> str:
    """Return what a fit says of the calibration."""
    after = f"expected calibration error {found['ece_after']:.3f} out of fold"
    if not found["method"]:
        return f"The model's own probabilities: {after}."
    before = "" if found["ece_before"] is None else f", {found['ece_before']:.3f} before"
    return f"Probabilities calibrated by {found['method']}: {after}{before}."


def has_layers(fit: Fit) -> bool:
    """Say whether a fit scored several feature sets, each alone."""
    return len({each["features"][0] for each in fit.get("candidates", []) if len(each["features"]) == 1}) > 1


def confusion(found: Outcomes) -> dict[str, Any]:
    """Return the confusion matrix: whole for some classes, else the pairs that are confused most.

    Returns
    -------
    dict
        ``classes, counts`` (rows true, columns predicted), ``shares`` of each row, and ``pairs`` (true and predicted
        code, count), most confused first; ``mistakes``, how many there are; ``whole`` says whether the matrix is to be
        shown.
    """
    k = len(found.classes)
    counts = np.bincount(found.true * k + found.predicted, minlength=k * k).reshape(k, k)
    off = counts * ~np.eye(k, dtype=bool)
    order = np.argsort(-off, axis=None, kind="stable")[:MOST_PAIRS]
    pairs = [(int(at // k), int(at % k), int(off.flat[at])) for at in order if off.flat[at]]
    return {
        "classes": found.classes,
        "counts": counts.tolist(),
        "shares": (counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)).tolist(),
        "pairs": pairs,
        "mistakes": int(off.sum()),
        "whole": k <= MOST_CLASSES,
    }


def per_class(found: Outcomes) -> list[dict[str, Any]]:
    """Return precision, recall with its Wilson interval, and F1 of each class."""
    codes = np.arange(len(found.classes))
    precision, recall, f1, count = precision_recall_fscore_support(
        found.true, found.predicted, labels=codes, zero_division=0
    )
    rows = zip(found.classes, precision, recall, f1, count, strict=True)
    return [
        {
            "name": name,
            "precision": float(p),
            "recall": float(r),
            "f1": float(f),
            "n": int(n),
            "ci95": wilson_interval(r * n, int(n)) if n else None,
        }
        for name, p, r, f, n in rows
    ]


def per_label(fit: Fit) -> list[dict[str, Any]]:
    """Return how often each of several labels occurs, and its scores, as the fit has them."""
    scores = ("accuracy", "f1", "roc_auc")
    return [
        {"label": str(each["label"]), "n": int(each["n"]), **{name: float(each[name]) for name in scores}}
        for each in fit.get("per_label", [])
    ]


def mistakes(found: Outcomes) -> list[dict[str, Any]]:
    """Return the most confident mistakes, or the largest errors of numbers: ``row, true, said, surety``."""
    if not found.classes:
        return _largest_errors(found)
    sure = found.confidence
    ranked = np.zeros(len(found.row)) if sure is None else np.nan_to_num(sure, nan=-1.0)
    wrong = np.flatnonzero(found.wrong)
    worst = wrong[np.argsort(-ranked[wrong], kind="stable")][:MOST_MISTAKES]
    return [
        {
            "row": int(found.row[i]),
            "true": found.classes[found.true[i]],
            "said": found.classes[found.predicted[i]],
            "surety": "" if sure is None or np.isnan(sure[i]) else f"{100 * sure[i]:.0f} % sure",
        }
        for i in worst
    ]


def _largest_errors(found: Outcomes) -> list[dict[str, Any]]:
    error = np.abs(found.true - found.predicted)
    return [
        {
            "row": int(found.row[i]),
            "true": f"{found.true[i]:g}",
            "said": f"{found.predicted[i]:.4g}",
            "surety": f"off by {error[i]:.3g}",
        }
        for i in np.argsort(-error, kind="stable")[:MOST_MISTAKES]
    ]


def reliability(found: Outcomes) -> dict[str, NDArray[np.float64]] | None:
    """Return how often answers of a confidence are right, in bins of equally many rows; None without probabilities."""
    sure = found.confidence
    if sure is None or np.isnan(sure).all():
        return None
    known = ~np.isnan(sure)
    right, chance = calibration_curve(~found.wrong[known], sure[known], n_bins=BINS, strategy="quantile")
    return {"confidence": chance, "accuracy": right}
