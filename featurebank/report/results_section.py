"""What the page says of a fit: candidates, scores, calibration, and the charts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from cycler import cycler
from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator
from numpy.typing import NDArray
from sklearn.calibration import calibration_curve
from sklearn.metrics import PredictionErrorDisplay

from featurebank.bank.spec import common_backbone, short
from featurebank.explore import plot_abstention, plot_layer_curve, plot_learning_curve
from featurebank.explore.plots import figure_bytes
from featurebank.report.inputs import OofPredictions
from featurebank.report.summary_section import held_out_score
from featurebank.topmodels.candidates import ranked
from featurebank.topmodels.formatting import bounded, cost_text, interval_text, is_known, luck_text, score_text
from featurebank.topmodels.one_class.model import FOLDS as THRESHOLD_FOLDS

BINS = 10
PAINT = {"#010203": "var(--ink)", "#010204": "var(--accent)", "#010205": "var(--second)", "#010206": "var(--line)"}
"""Colours that stand in a figure for those of the page's style sheet."""
INK, ACCENT, SECOND, LINE = PAINT
MOST_TOLD = 40
"""Points of a line up to which they are told one by one; a fitted curve has more."""
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": LINE,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "axes.prop_cycle": cycler(color=[ACCENT, SECOND, INK]),
}

Fit = Mapping[str, Any]


def scores(fit: Fit) -> dict[str, Any]:
    """Return the facts of the page's sections on candidates, calibration and the learning curve."""
    rows = candidates(fit)
    calibration, curve = fit.get("calibration"), fit.get("learning_curve")
    return {
        "plan": plan_text(fit),
        "one_class": [str(each) for each in fit.get("one_class", {}).get("sentences", [])],
        "candidates": rows,
        "luck": luck_text(fit),
        "comparison": str((fit.get("comparison") or {}).get("sentence", "")),
        "committee": committee_lines(fit.get("ensemble")),
        "nested": nested_text(fit),
        "held_out": held_out(fit),
        "warnings": [str(each) for each in fit.get("warnings", [])],
        "per_label": per_label(fit),
        "calibration": calibration_text(calibration) if calibration else "",
        "learning_verdict": str(curve["verdict"]) if curve else "",
    }


def drawn(fit: Fit, found: OofPredictions | None) -> dict[str, Any]:
    """Return the charts that there is something for; None for the others."""
    bins = reliability(found) if found is not None and found.classes else None
    is_numbers = found is not None and not found.classes
    draw: dict[str, Any] = {
        "layers": partial(plot_layer_curve, fit) if has_layers(fit) else None,
        "reliability": reliability_chart(bins) if bins else None,
        "abstention": partial(plot_abstention, fit) if fit.get("abstention") else None,
        "learning": partial(plot_learning_curve, fit) if (fit.get("learning_curve") or {}).get("points") else None,
        "against": against_chart(found.true, found.predicted) if found is not None and is_numbers else None,
    }
    return {name: each and to_svg(each, name) for name, each in draw.items()}


def candidates(fit: Fit) -> list[dict[str, Any]]:
    """Return the best of each features × normalisation × model, best first, with its interval on a common scale.

    ``low, mean, high`` are positions in percent of the column's width, low and high None where not known.
    """
    rows = ranked(fit.get("candidates", []))
    if not rows:
        return []
    ends = [end for each in rows if is_known(each["ci95"]) for end in bounded(fit["scoring"], each["ci95"])]
    shown = [*ends, *(each["mean"] for each in rows)]
    scale = min(shown), max(shown)
    common = common_backbone("+".join(each["features"]) for each in rows)
    return [_candidate(fit, each, scale, common) for each in rows]


def _candidate(fit: Fit, each: Any, scale: tuple[float, float], common: str) -> dict[str, Any]:
    low, high = bounded(fit["scoring"], each["ci95"]) if is_known(each["ci95"]) else (None, None)
    notes = [] if each.get("views", "mean") == "mean" else [f"views: {each['views']}"]
    notes += [] if each["normalize"] == "standardize" else [each["normalize"]]
    notes += [] if each["select"] is None else [f"{each['select']:g} of the dimensions"]
    span = max(scale[1] - scale[0], 1e-9)
    ends = [None if value is None else 100 * (value - scale[0]) / span for value in (low, each["mean"], high)]
    return {
        "features": short("+".join(each["features"])).removeprefix(common),
        "notes": ", ".join(notes),
        "model": each["model"],
        "params": ", ".join(
            f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
            for name, value in each["params"].items()
        ),
        "score": score_text(each["mean"], fit["scoring"]),
        "interval": interval_text(each["ci95"], fit["scoring"], between=" to ", unit=" %"),
        **dict(zip(("low", "mean", "high"), ends, strict=True)),
    }


def plan_text(fit: Fit) -> str:
    """Return how the candidates were scored, empty where there are none."""
    if not fit.get("candidates"):
        return ""
    grouped = ", kept together in groups" if fit["grouped"] else ""
    own = f" The {THRESHOLD_FOLDS} folds of the fit are others, by which the threshold was set."
    own = own if "one_class" in fit else ""
    return f"Scored by {fit['scoring']} over {fit['folds']} folds of {fit['n_samples']} images{grouped}.{own}"


def committee_lines(found: Mapping[str, Any] | None) -> list[str]:
    """Return whether a committee paid; of one that is shipped also its members and what it costs."""
    if found is None:
        return []
    sentence = str(found["sentence"])
    lines = [f"{sentence[0].upper()}{sentence[1:]}."]
    if not found["is_shipped"]:
        return lines
    members = [
        f"{each['weight']:.2f} {each['model']} on {short('+'.join(each['features']))}" for each in found["members"]
    ]
    return [*lines, f"Its members, with their weights: {'; '.join(members)}.", cost_text(found["cost"])]


def nested_text(fit: Fit) -> str:
    """Return the score of the whole procedure, selection included, empty where it was not asked for."""
    if "nested" not in fit:
        return ""
    ends = interval_text(fit["nested"]["ci95"], fit["scoring"], between=" to ", unit=" %")
    return f"{score_text(fit['nested']['mean'], fit['scoring'])} (95 % {ends})"


def held_out(fit: Fit) -> dict[str, Any] | None:
    """Return the score on rows that were held out: ``n`` and ``text``; None where none were."""
    if "held_out" not in fit:
        return None
    name, score = held_out_score(fit)
    ends = interval_text(score["ci95"], name, between=" to ", unit=" %")
    return {"n": fit["held_out"]["n_samples"], "text": f"{name} {score_text(score['mean'], name)} (95 % {ends})"}


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


def per_label(fit: Fit) -> list[dict[str, Any]]:
    """Return how often each of several labels occurs, and its scores, as the fit has them."""
    scores = ("accuracy", "f1", "roc_auc")
    return [
        {"label": str(each["label"]), "n": int(each["n"]), **{name: float(each[name]) for name in scores}}
        for each in fit.get("per_label", [])
    ]


def reliability(found: OofPredictions) -> dict[str, NDArray[np.float64]] | None:
    """Return how often answers of a confidence are right, in bins of equally many rows; None without probabilities."""
    sure = found.confidence
    if sure is None or np.isnan(sure).all():
        return None
    known = ~np.isnan(sure)
    right, confidence = calibration_curve(~found.wrong[known], sure[known], n_bins=BINS, strategy="quantile")
    return {"confidence": confidence, "accuracy": right}


# --- charts as inline SVG, in the page's own colours, so that they follow it from light to dark -------------


def to_svg(draw: Callable[..., Any], name: str) -> Markup:
    """Return what is drawn on the axes ``ax`` as an SVG element for a page, with its values for a screen reader.

    The name tells it from all other charts of the page; no id of two charts is the same.

    Examples
    --------
    >>> str(to_svg(lambda ax: ax.plot([0, 1], [0, 1]), "line"))[:48]
    '<svg role="img" aria-label="0: 0.000, 1: 1.000" '
    """
    with rc_context(_STYLE):
        figure = Figure(figsize=(5.6, 3.3), layout="constrained")
        axes = figure.subplots()
        draw(ax=axes)
        text = figure_bytes(figure, ".svg").decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(id="|href="#|url\(#)', rf"\1{name}-", text)  # matplotlib gives every chart the same ids
    for colour, variable in PAINT.items():
        text = text.replace(colour, variable)
    return Markup(f'<svg role="img" aria-label="{escape(described(axes))}" ') + Markup(text.removeprefix("<svg "))


def described(axes: Axes) -> str:
    """Return the points that axes show, line by line, as a screen reader says them."""
    is_named = isinstance(axes.xaxis.get_major_locator(), FixedLocator)
    names = [label.get_text() for label in axes.get_xticklabels()] if is_named else []
    over = " over ".join(filter(None, (axes.get_ylabel(), axes.get_xlabel())))
    lines: list[Any] = [line for line in axes.lines if line.get_marker() not in ("|", "_")]  # not ends of error bars
    drawn = [list(zip(*line.get_data(), strict=True)) for line in lines]
    told = [
        ", ".join(f"{names[int(x)] if names else f'{x:.3g}'}: {y:.3f}" for x, y in points)
        for points in drawn
        if len(points) <= MOST_TOLD
    ]
    return ". ".join(filter(None, [over, *told]))


def reliability_chart(found: Mapping[str, Any]) -> Callable[..., None]:
    """Return what draws how often answers of a confidence are right."""

    def draw(ax: Axes) -> None:
        low = min(found["confidence"].min(), found["accuracy"].min())
        ax.plot([low, 1], [low, 1], color=INK, linestyle=":", label="calibrated")
        ax.plot(found["confidence"], found["accuracy"], marker="o", label="out of fold")
        ax.set(xlabel="confidence", ylabel="share that is right")
        ax.legend()

    return draw


def against_chart(true: Any, predicted: Any) -> Callable[..., None]:
    """Return what draws predicted against true numbers."""

    def draw(ax: Axes) -> None:
        paint = {"scatter_kwargs": {"color": ACCENT, "s": 9}, "line_kwargs": {"color": INK}}
        PredictionErrorDisplay.from_predictions(true, predicted, kind="actual_vs_predicted", ax=ax, **paint)

    return draw
