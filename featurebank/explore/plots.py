"""Plots on matplotlib axes: the map, the layer curve, candidates, learning curves, abstention; figures as files.

What scikit-learn draws is drawn by it: ``ConfusionMatrixDisplay.from_predictions(result.oof["true"],
result.oof["predicted"])``, ``CalibrationDisplay`` and the like take a fit's out-of-fold predictions.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featurebank.bank.spec import layer_order
from featurebank.errors import ColumnError, NotInstalledError, PlotError, install_hint, no_column
from featurebank.topmodels.candidates import ranked
from featurebank.topmodels.formatting import COMMITTEE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg", ".pdf")
CLASSES_SHOWN = 20
"""Distinct words, or whole numbers, up to which a column is shown as classes."""
CANDIDATES_SHOWN = 20


def plot_map(points: pd.DataFrame, *, color: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw a map of samples.

    Parameters
    ----------
    points : DataFrame
        From `project`.
    color : str, optional
        One of its columns: classes get a legend, numbers a scale; samples without a value, and of the rarest of many
        classes, are grey.
    ax : Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    Axes

    Raises
    ------
    ColumnError
        When the points have no such column.

    See Also
    --------
    project : The points.
    map_page : A page in the place of a picture.

    Examples
    --------
    >>> points = pd.DataFrame({"x": [0.0, 1.0], "y": [1.0, 0.0], "label": ["cat", "dog"]})
    >>> [text.get_text() for text in plot_map(points, color="label").get_legend().get_texts()]
    ['cat', 'dog']
    """
    ax = ax or new_axes()
    size = float(np.clip(15_000 / max(len(points), 1), 1.5, 25))
    dots: dict[str, Any] = {"s": size, "linewidths": 0, "alpha": 0.7, "rasterized": len(points) > 5000}
    if color is None:
        ax.scatter(points["x"], points["y"], **dots)
    elif color not in points:
        raise ColumnError(f"{no_column('the points have', color, points.columns)}: project with columns=[{color!r}]")
    else:
        _colour(ax, points, points[color], dots)
    ax.set(xticks=[], yticks=[], title=None if color is None else _plain(color))
    return ax


def _colour(ax: Axes, points: pd.DataFrame, values: pd.Series, dots: dict[str, Any]) -> None:
    classes = classes_of(values)
    known = values.notna().to_numpy() if classes is None else values.isin(classes).to_numpy()
    ax.scatter(points["x"][~known], points["y"][~known], color="lightgrey", **dots)
    if classes is None:
        numbers = pd.to_numeric(values[known]).to_numpy(np.float64)
        drawn = ax.scatter(points["x"][known], points["y"][known], c=numbers, **dots)
        ax.figure.colorbar(drawn, ax=ax)
        return
    import matplotlib

    palette = matplotlib.colormaps["tab10" if len(classes) <= 10 else "tab20"]
    for number, name in enumerate(classes):
        own = values.isin([name]).to_numpy()
        ax.scatter(points["x"][own], points["y"][own], color=palette(number % palette.N), label=_plain(name), **dots)
    if classes:
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, markerscale=(30 / dots["s"]) ** 0.5)


def classes_of(values: pd.Series) -> list[Any] | None:
    """Return the distinct values of a column that is shown as classes, sorted; None for one that is shown as numbers.

    Of more than `CLASSES_SHOWN` words the most frequent are kept.

    Examples
    --------
    >>> classes_of(pd.Series(["b", "a", None])), classes_of(pd.Series([0.1, 0.2]))
    (['a', 'b'], None)
    """
    distinct = values.value_counts()
    is_number = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    if is_number and (len(distinct) > CLASSES_SHOWN or (pd.to_numeric(distinct.index) % 1 != 0).any()):
        return None
    return sorted(distinct.index[:CLASSES_SHOWN].tolist())


def plot_candidates(report: Mapping[str, Any], *, ax: Axes | None = None) -> Axes:
    """Draw the best of each features × model of a fit, the best on top, with 95 % intervals.

    Parameters
    ----------
    report : mapping
        `FitResult.report`, or what ``featurebank fit --json`` prints.
    ax : Axes, optional

    Returns
    -------
    Axes

    See Also
    --------
    featurebank.fit : Makes the report.

    Examples
    --------
    >>> from featurebank import fit
    >>> report = fit("photos.bank", models=["ridge", "logreg"]).report
    >>> len(plot_candidates(report).get_yticklabels())
    4
    """
    ax = ax or new_axes()
    best = ranked(report["candidates"])[:CANDIDATES_SHOWN]
    names = [_plain(", ".join([" + ".join(each["features"]), each["model"]])) for each in best]
    _errorbars(ax, best, np.arange(len(best))[::-1], is_upright=False)
    ax.set(yticks=np.arange(len(best))[::-1], yticklabels=names, xlabel=report["scoring"])
    return ax


def plot_layer_curve(report: Mapping[str, Any], *, ax: Axes | None = None) -> Axes:
    """Draw the best score of a fit on each single layer, from the first to the last, a line for each backbone.

    Parameters
    ----------
    report : mapping
        See `plot_candidates`.
    ax : Axes, optional

    Returns
    -------
    Axes

    Raises
    ------
    PlotError
        When no candidate is of a single feature set.

    See Also
    --------
    featurebank.fit : Makes the report.
    featurebank.advise : Reads the curve.

    Examples
    --------
    >>> from featurebank import fit
    >>> report = fit("photos.bank", models=["ridge", "logreg"]).report
    >>> [text.get_text() for text in plot_layer_curve(report).get_xticklabels()]
    ['blocks.4:avgmax', 'penultimate']
    """
    single = [each for each in report["candidates"] if len(each["features"]) == 1 and each["model"] != COMMITTEE]
    if not single:
        raise PlotError("the report has no candidate of a single layer; fit without --features, or with one layer each")
    ax = ax or new_axes()
    layers = sorted({_layer(each) for each in single}, key=layer_order)
    for backbone in sorted({_backbone(each) for each in single}):
        own = [each for each in single if _backbone(each) == backbone]
        best = sorted(ranked(own, _layer), key=lambda each: layers.index(_layer(each)))
        _errorbars(ax, best, np.array([layers.index(_layer(each)) for each in best]), label=_plain(backbone))
    ax.set(xticks=range(len(layers)), ylabel=report["scoring"], xlabel="layer")
    ax.set_xticklabels(map(_plain, layers), rotation=45, ha="right")
    ax.legend(frameon=False)
    return ax


def plot_learning_curve(report: Mapping[str, Any], *, ax: Axes | None = None) -> Axes:
    """Draw the scores of a learning curve over the number of training samples, with the law that was fitted to them.

    Parameters
    ----------
    report : mapping
        Of a fit with a learning curve.
    ax : Axes, optional

    Returns
    -------
    Axes

    Raises
    ------
    PlotError
        When the fit made none.

    See Also
    --------
    featurebank.fit : ``learning_curve=True`` makes it.

    Examples
    --------
    >>> from featurebank import fit
    >>> report = fit("photos.bank", models=["ridge", "logreg"], learning_curve=True).report
    >>> plot_learning_curve(report).get_xlabel() != ""
    True
    """
    curve = _part(report, "learning_curve", "--learning-curve")
    ax = ax or new_axes()
    points = curve["points"]
    _errorbars(ax, points, np.array([each["n_train"] for each in points]), marker="o", label="measured")
    if curve.get("fit"):
        from featurebank.topmodels.learning_curve import PowerLaw

        law, most = PowerLaw(**curve["fit"]), 2 * curve["n_labels"]
        n = np.geomspace(min(each["n_train"] for each in points), most, 100)
        ax.plot(n, [law(each) for each in n], linestyle="--", color="grey", label="power law")
    ax.set(xscale="log", xlabel="training samples", ylabel=report["scoring"])
    ax.legend(frameon=False)
    return ax


def plot_abstention(report: Mapping[str, Any], *, ax: Axes | None = None) -> Axes:
    """Draw the accuracy on the surest share of the samples over that share.

    Parameters
    ----------
    report : mapping
        Of a fit of classes.
    ax : Axes, optional

    Returns
    -------
    Axes

    Raises
    ------
    PlotError
        When the fit was of something else.

    See Also
    --------
    featurebank.fit : Makes the report.

    Examples
    --------
    >>> from featurebank import fit
    >>> report = fit("photos.bank", models=["ridge", "logreg"]).report
    >>> plot_abstention(report).get_xlabel() != ""
    True
    """
    rows = pd.DataFrame(_part(report, "abstention", "a column of classes"))
    ax = ax or new_axes()
    ax.plot(rows["coverage"], rows["accuracy"], clip_on=False)
    low, high = ax.get_ylim()
    ax.set(xlabel="share of samples answered, the surest first", ylabel="accuracy of the answers")
    ax.set(xlim=(0, 1), ylim=(max(low, 0), min(high, 1)))
    return ax


def plot_training(report: Mapping[str, Any]) -> Figure:
    """Draw loss and score of a fine-tuning over its epochs, side by side.

    Parameters
    ----------
    report : mapping
        What ``featurebank finetune --json`` prints: its ``history`` has ``number, train_loss, loss, score`` an epoch.

    Returns
    -------
    Figure

    See Also
    --------
    featurebank.finetune : Makes the report.

    Examples
    --------
    >>> from featurebank import Recipe, finetune
    >>> report = finetune("photos.bank", Recipe("blocks.6", epochs=1, augment="cached:hflip")).report
    >>> len(plot_training(report).axes)
    2
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.5), layout="constrained")
    losses, scores = figure.subplots(1, 2)
    for axes, title, lines in (
        (losses, "loss", {"train_loss": "training", "loss": "validation"}),
        (scores, "accuracy", {"score": "validation"}),
    ):
        for name, label in lines.items():
            points = [(each["number"], each[name]) for each in report["history"] if each[name] is not None]
            if points:
                axes.plot(*zip(*points, strict=True), marker="o", label=label)
        axes.set(title=title, xlabel="epoch")
        if axes.lines:
            axes.legend()
    return figure


# --- parts -------------------------------------------------------------------------------------------------


def _part(report: Mapping[str, Any], name: str, option: str) -> Any:
    if not report.get(name):
        raise PlotError(f"the report has no {name.replace('_', ' ')}; fit with {option}")
    return report[name]


def _errorbars(
    ax: Axes, rows: Sequence[Mapping[str, Any]], at: NDArray[Any], *, is_upright: bool = True, **style: Any
) -> None:
    """Draw means with their 95 % intervals."""
    means = np.array([each["mean"] for each in rows], np.float64)
    ends = np.array([each["ci95"] for each in rows], np.float64)  # (n, 2)
    reach = np.abs(ends - means[:, None]).T
    style = {"capsize": 3, **style}
    if is_upright:
        ax.errorbar(at, means, yerr=reach, **{"marker": "o", **style})
    else:
        ax.errorbar(means, at, xerr=reach, **{"fmt": "o", **style})


def _backbone(candidate: Mapping[str, Any]) -> str:
    return str(candidate["features"][0]).rpartition("/")[0]


def _layer(candidate: Mapping[str, Any]) -> str:
    return str(candidate["features"][0]).rpartition("/")[2]


def _plain(text: Any) -> str:
    """Return text as matplotlib shows it letter by letter: no formulas, no control characters."""
    shown = "".join(c if c.isprintable() else "?" for c in str(text))
    return shown.replace("$", r"\$")


# --- figures as files --------------------------------------------------------------------------------------


def check_format(suffix: str, formats: Sequence[str] = FORMATS) -> None:
    """Refuse a file whose suffix names no picture, or a picture where matplotlib is not installed.

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
    """Refuse to draw where matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        raise NotInstalledError(f"a plot needs matplotlib: {install_hint('plot')}")


def new_axes(width: float = 8, height: float = 5) -> Axes:
    """Return axes of a new figure, sizes in inches, that no window and no list of open figures holds."""
    require_matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained").subplots()


def figure_bytes(figure: Figure, suffix: str) -> bytes:
    """Return a figure as the bytes of a file with one of the suffixes `FORMATS`, the same in every run."""
    check_format(suffix)
    from matplotlib import rc_context
    from matplotlib.backend_bases import FigureCanvasBase

    kind = suffix.lower().lstrip(".")
    undated = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[kind]
    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": "featurebank"}):  # ids in an SVG are random without it
        FigureCanvasBase(figure).print_figure(buffer, format=kind, metadata=undated)
    return buffer.getvalue()
