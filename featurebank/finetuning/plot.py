"""The learning curve of a fine-tuning as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from featurebank.explore.drawing import check_format, figure_bytes


def learning_curve(history: Sequence[Mapping[str, Any]], suffix: str = ".png") -> bytes:
    """Draw loss and score over the epochs.

    Parameters
    ----------
    history : sequence of mapping
        Each epoch's ``number, train_loss, loss, score``, as a report has them.
    suffix : str, default ".png"
        One of `featurebank.explore.drawing.FORMATS`.

    Returns
    -------
    bytes
        Of the picture.

    Raises
    ------
    FeatureBankError
        See `featurebank.explore.drawing.check_format`.
    """
    check_format(suffix)
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
    return figure_bytes(figure, suffix)


def _draw(axes: Any, history: Sequence[Mapping[str, Any]], name: str, label: str) -> None:
    points = [(each["number"], each[name]) for each in history if each[name] is not None]
    if points:
        axes.plot(*zip(*points, strict=True), marker="o", label=label)
