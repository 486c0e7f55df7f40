"""Pictures in memory: a matplotlib figure becomes the bytes of a file."""

from __future__ import annotations

import io
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from featurebank.errors import NotInstalledError, PlotError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg", ".pdf")


def check_format(suffix: str, formats: Sequence[str] = FORMATS) -> None:
    """Refuse a picture that cannot be drawn.

    Parameters
    ----------
    suffix : str
        Of the file, its dot included.
    formats : sequence of str
        The suffixes that can be drawn.

    Raises
    ------
    PlotError
        When the suffix is none of them.
    NotInstalledError
        When matplotlib is not installed.

    Examples
    --------
    >>> check_format(".gif")
    Traceback (most recent call last):
    featurebank.errors.PlotError: a plot in '.gif'; expected one of .png, .svg, .pdf
    """
    if suffix.lower() not in formats:
        raise PlotError(f"a plot in {suffix!r}; expected one of {', '.join(formats)}")
    require_matplotlib()


def require_matplotlib() -> None:
    """Refuse to draw where nothing can.

    Raises
    ------
    NotInstalledError
        When matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise NotInstalledError("a plot needs matplotlib: pip install 'featurebank[plot]'")


def new_axes(width: float = 8, height: float = 5) -> Axes:
    """Return axes of a new figure, sizes in inches, that no window and no list of open figures holds.

    Raises
    ------
    NotInstalledError
        When matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained").subplots()


def figure_bytes(figure: Figure, suffix: str) -> bytes:
    """Return a figure as the bytes of a file, the same in every run.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    suffix : str
        One of `FORMATS`.

    Raises
    ------
    FeatureBankError
        See `check_format`.
    """
    check_format(suffix)
    from matplotlib import rc_context
    from matplotlib.backend_bases import FigureCanvasBase

    kind = suffix.lower().lstrip(".")
    undated = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[kind]
    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": "featurebank"}):  # ids in an SVG are random without it
        FigureCanvasBase(figure).print_figure(buffer, format=kind, metadata=undated)
    return buffer.getvalue()
