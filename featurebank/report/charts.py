"""Charts as inline SVG whose colours are the page's own, so that they follow it from light to dark."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from cycler import cycler
from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator
from sklearn.metrics import PredictionErrorDisplay

from featurebank.explore.plots import figure_bytes

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


def reliability(found: Mapping[str, Any]) -> Callable[..., None]:
    """Return what draws how often answers of a confidence are right."""

    def draw(ax: Axes) -> None:
        low = min(found["confidence"].min(), found["accuracy"].min())
        ax.plot([low, 1], [low, 1], color=INK, linestyle=":", label="calibrated")
        ax.plot(found["confidence"], found["accuracy"], marker="o", label="out of fold")
        ax.set(xlabel="confidence", ylabel="share that is right")
        ax.legend()

    return draw


def against(true: Any, predicted: Any) -> Callable[..., None]:
    """Return what draws predicted against true numbers."""

    def draw(ax: Axes) -> None:
        paint = {"scatter_kwargs": {"color": ACCENT, "s": 9}, "line_kwargs": {"color": INK}}
        PredictionErrorDisplay.from_predictions(true, predicted, kind="actual_vs_predicted", ax=ax, **paint)

    return draw
