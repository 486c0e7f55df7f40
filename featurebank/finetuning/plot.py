"""The learning curve of a fine-tuning as a picture."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from featurebank.errors import FineTuneError, NotInstalledError

FORMATS = (".png", ".svg", ".pdf")


def check_format(suffix: str) -> None:
    """Refuse a picture that cannot be drawn.

    Raises
    ------
    FineTuneError
        When the format is none of `FORMATS`.
    NotInstalledError
        When matplotlib is not installed.
    """
    if suffix.lower() not in FORMATS:
        raise FineTuneError(f"a plot in {suffix!r}; expected one of {', '.join(FORMATS)}")
    if find_spec("matplotlib") is None:
        raise NotInstalledError("a plot needs matplotlib: pip install 'featurebank[plot]'")


def learning_curve(history: Sequence[Mapping[str, Any]], suffix: str = ".png") -> bytes:
    """Draw loss and score over the epochs.

    Parameters
    ----------
    history : sequence of mapping
        Each epoch's ``number, train_loss, loss, score``, as a report has them.
    suffix : str, default ".png"
        One of `FORMATS`.

    Returns
    -------
    bytes
        Of the picture.

    Raises
    ------
    FeatureBankError
        See `check_format`.
    """
    check_format(suffix)
    from matplotlib.backend_bases import FigureCanvasBase
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.5), layout="constrained")
    losses, scores = figure.subplots(1, 2)
    for name, label in (("train_loss", "training"), ("loss", "validation")):
        _draw(losses, history, name, label)
    _draw(scores, history, "score", "validation")
    for axes, title in ((losses, "loss"), (scores, "accuracy")):
        axes.set(title=title, xlabel="epoch")
        if axes.lines:
            axes.legend()
    buffer = io.BytesIO()
    FigureCanvasBase(figure).print_figure(buffer, format=suffix.lower().lstrip("."))
    return buffer.getvalue()


def _draw(axes: Any, history: Sequence[Mapping[str, Any]], name: str, label: str) -> None:
    points = [(each["number"], each[name]) for each in history if each[name] is not None]
    if points:
        axes.plot(*zip(*points, strict=True), marker="o", label=label)
