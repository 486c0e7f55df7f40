"""Charts as inline SVG whose colours are the page's own, so that they follow it from light to dark."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

PAINT = {"#010203": "var(--ink)", "#010204": "var(--accent)", "#010205": "var(--second)", "#010206": "var(--line)"}
"""Colours that stand in a figure for those of the page's style sheet."""
INK, ACCENT, SECOND, LINE = PAINT
_STYLE = {
    "svg.fonttype": "none",
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
}


def to_svg(draw: Callable[[Axes], Any], name: str, description: str, size: tuple[float, float] = (6.0, 3.4)) -> Markup:
    """Return what is drawn on axes as an SVG element for a page.

    Parameters
    ----------
    draw : callable
        Takes the axes.
    name : str
        Told from all other charts of the page; no id of two charts is the same.
    description : str
        What a screen reader says.
    size : tuple of float, default (6, 3.4)
        Width and height in inches.

    Examples
    --------
    >>> str(to_svg(lambda axes: axes.plot([0, 1], [0, 1]), "line", "A line."))[:37]
    '<svg role="img" aria-label="A line." '
    """
    with rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.subplots())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # matplotlib numbers the groups of every chart alike
    for colour, variable in PAINT.items():
        text = text.replace(colour, variable)
    return Markup(f'<svg role="img" aria-label="{escape(description)}" ') + Markup(text.removeprefix("<svg "))


def told(x: Sequence[float], y: Sequence[float]) -> str:
    """Return the points of a curve as a screen reader says them.

    Examples
    --------
    >>> told([0.5, 1.0], [0.9, 0.8])
    '0.5: 0.900; 1: 0.800'
    """
    return "; ".join(f"{a:.3g}: {b:.3f}" for a, b in zip(x, y, strict=True))


def layer_curve(curve: Sequence[Mapping[str, Any]], unit: str) -> Callable[[Axes], None]:
    """Return what draws the best score of each feature set with its interval."""

    def draw(axes: Axes) -> None:
        names, mean = [each["name"] for each in curve], np.array([each["mean"] for each in curve])
        reach = np.abs(np.array([each["ci95"] for each in curve]).T - mean)
        axes.errorbar(range(len(mean)), mean, reach, color=ACCENT, marker="o", capsize=3)
        axes.set_xticks(range(len(mean)), names, rotation=25, ha="right", rotation_mode="anchor", parse_math=False)
        axes.set_ylabel(unit)

    return draw


def learning_curve(curve: Mapping[str, Any], unit: str) -> Callable[[Axes], None]:
    """Return what draws the score against the number of training rows, measured and fitted."""

    def draw(axes: Axes) -> None:
        points = sorted(curve["points"], key=lambda each: each["n_train"])
        rows, mean = (np.array([each[name] for each in points], float) for name in ("n_train", "mean"))
        reach = np.abs(np.array([each["ci95"] for each in points]).T - mean)
        axes.errorbar(rows, mean, reach, color=ACCENT, marker="o", linestyle="none", capsize=3, label="measured")
        if curve["fit"] is not None:
            law, at = curve["fit"], np.geomspace(rows.min(), 2 * curve["n_labels"], 100)
            axes.plot(at, law["a"] - law["b"] * at ** -law["c"], color=SECOND, label="fitted power law")
        axes.set(xscale="log", xlabel="training rows", ylabel=unit)
        axes.legend()

    return draw


def reliability(found: Mapping[str, Any]) -> Callable[[Axes], None]:
    """Return what draws how often answers of a confidence are right."""

    def draw(axes: Axes) -> None:
        low = min(found["confidence"].min(), found["accuracy"].min())
        axes.plot([low, 1], [low, 1], color=INK, linestyle=":", label="calibrated")
        axes.plot(found["confidence"], found["accuracy"], color=ACCENT, marker="o", label="out of fold")
        axes.set(xlabel="confidence", ylabel="share that is right")
        axes.legend()

    return draw


def abstention(curve: Sequence[Mapping[str, float]]) -> Callable[[Axes], None]:
    """Return what draws the accuracy of the surest answers against the share that is answered."""

    def draw(axes: Axes) -> None:
        axes.plot([each["coverage"] for each in curve], [each["accuracy"] for each in curve], color=ACCENT, marker=".")
        axes.set(xlabel="share of images answered", ylabel="accuracy of the answers", xlim=(0, 1.02))

    return draw


def against(true: Any, predicted: Any) -> Callable[[Axes], None]:
    """Return what draws predicted against true numbers."""

    def draw(axes: Axes) -> None:
        ends = [min(true.min(), predicted.min()), max(true.max(), predicted.max())]
        axes.plot(ends, ends, color=INK, linestyle=":")
        axes.scatter(true, predicted, s=8, color=ACCENT, alpha=0.5, linewidths=0, rasterized=True)
        axes.set(xlabel="true", ylabel="predicted, out of fold")

    return draw
