"""The map as one page of HTML that needs no network: hover for the path, zoom, move, find."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd

from featurebank.errors import ColumnError
from featurebank.explore.plots import classes_of, require_matplotlib

PLAIN, UNKNOWN = "#1f77b4", "#bbbbbb"


def map_page(points: pd.DataFrame, *, color: str | None = None, title: str = "map") -> str:
    """Return a map of samples as HTML; names are text there, whatever they hold.

    Parameters
    ----------
    points : DataFrame
        From `featurebank.explore.project`.
    color : str, optional
        One of its columns; see `featurebank.explore.plot_map`.
    title : str, default "map"

    Raises
    ------
    ColumnError
        When the points have no such column.
    NotInstalledError
        When matplotlib, which has the colours, is not installed.

    Examples
    --------
    >>> points = pd.DataFrame({"path": ["</script>"], "x": [0.0], "y": [0.0]})
    >>> "</script>" in map_page(points).split("application/json")[1].split("</script>")[0]
    False
    """
    from jinja2 import Environment

    require_matplotlib()
    if color is not None and color not in points:
        raise ColumnError(f"the points have no column {color!r}; project with columns=[{color!r}]")
    colours, legend = _colours(points, color)
    data: dict[str, Any] = {
        "x": points["x"].round(4).tolist(),
        "y": points["y"].round(4).tolist(),
        "path": [_shown(path) for path in points["path"]],
        "colour": colours,
    }
    if color is not None:
        data["value"] = ["" if pd.isna(value) else _shown(value) for value in points[color]]
    template = files("featurebank.explore").joinpath("map.html").read_text(encoding="utf-8")
    page = Environment(autoescape=True).from_string(template)
    return page.render(title=_shown(title), legend=[(_shown(name), code) for name, code in legend], data=data)


def _colours(points: pd.DataFrame, color: str | None) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the colour of each point, and the legend: names with their colours."""
    import matplotlib
    from matplotlib.colors import to_hex

    if color is None:
        return [PLAIN] * len(points), []
    values, classes = points[color], classes_of(points[color])
    if classes is not None:
        palette = matplotlib.colormaps["tab10" if len(classes) <= 10 else "tab20"]
        codes = {name: to_hex(palette(number % palette.N)) for number, name in enumerate(classes)}
        return [UNKNOWN if pd.isna(value) else codes.get(value, UNKNOWN) for value in values], list(codes.items())
    numbers = pd.to_numeric(values).to_numpy(np.float64, na_value=np.nan)
    low, high = (float(end(numbers)) for end in (np.nanmin, np.nanmax))
    scale = matplotlib.colormaps["viridis"]
    shares = (numbers - low) / ((high - low) or 1.0)
    found = [UNKNOWN if np.isnan(share) else to_hex(scale(share)) for share in shares]
    return found, [(f"{low:g}", to_hex(scale(0.0))), (f"{high:g}", to_hex(scale(1.0)))]


def _shown(value: Any) -> str:
    """Return a value as UTF-8 can hold it."""
    return str(value).encode("utf-8", "backslashreplace").decode()
