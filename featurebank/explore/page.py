"""Pages of HTML that need no network: the script and style that the map and the report share, and the map's page.

A page's JSON and pictures lie in elements that no browser runs, its texts are escaped by the templates, and its policy
lets run just the one script, known by its digest, and nothing be fetched.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featurebank.bank.display import json_text
from featurebank.errors import ColumnError, NotInstalledError, counted, install_hint, printable
from featurebank.topmodels.formatting import percent

SCRIPTS = (
    "reading.js",
    "scene.js",
    "sheets.js",
    "drawing.js",
    "finding.js",
    "choosing.js",
    "exporting.js",
    "steering.js",
    "start.js",
)
"""Modules of a page's script in the order in which they build upon each other; no two name the same thing."""
SHARED = ("page.css", "reading.js", "scene.js", "drawing.js", "finding.js", "choosing.js", "steering.js")
"""The style and the modules of the map, which the studio takes too."""
FEW = 12
"""Whole numbers of at most so many values are classes, not numbers."""
STEPS = 65535


def map_page(points: pd.DataFrame, *, color: str | None = None, title: str = "map") -> str:
    """Return a map of samples as HTML; names are text there, whatever they hold.

    Parameters
    ----------
    points : DataFrame
        From `featurebank.explore.project`; its columns beside the coordinates can be chosen for the colours.
    color : str, optional
        The column that is shown first; see `featurebank.explore.plot_map`.
    title : str, default "map"

    Raises
    ------
    ColumnError
        When the points have no such column.
    NotInstalledError
        When Jinja2 is not installed.

    See Also
    --------
    project : The points.
    make_report : A page with more on it.

    Examples
    --------
    >>> points = pd.DataFrame({"path": ["</script>"], "x": [0.0], "y": [0.0]})
    >>> "</script>" in map_page(points).split("application/json")[1].split("</script>")[0]
    False
    """
    if color is not None and color not in points:
        raise ColumnError(f"the points have no column {color!r}; project with columns=[{color!r}]")
    sources = points["source"] if "source" in points else pd.Series([""] * len(points))
    names = sorted(points.columns.drop(["source", "path", "x", "y"], errors="ignore"), key=lambda name: name != color)
    columns = {name: points[name] for name in names} or {"source": sources}
    maps = {title: points[["x", "y"]].to_numpy(np.float64)}
    facts = {
        "title": title,
        "features": "",
        "map_note": "",
        "points": encode_points(sources, points["path"], maps, columns),
    }
    return render("featurebank.explore", "map.html", facts)


def render(package: str, template: str, facts: Mapping[str, Any]) -> str:
    """Return the page of a package's template, with the shared script and style.

    The text has no halves of surrogate pairs outside of JSON's escapes, so that it can be encoded as UTF-8.
    """
    if find_spec("jinja2") is None:
        raise NotInstalledError(f"a page needs Jinja2: {install_hint('report')}")
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    loader = ChoiceLoader([PackageLoader(each) for each in dict.fromkeys((package, "featurebank.explore"))])
    environment = Environment(autoescape=True, loader=loader, undefined=StrictUndefined, trim_blocks=True)
    environment.filters |= {"shown": lambda text: printable(str(text)), "percent": lambda share: f"{percent(share)} %"}
    environment.filters["counted"] = counted

    def text_of(name: str) -> str:
        return loader.get_source(environment, name)[0]

    script = join_modules(map(text_of, SCRIPTS))
    return environment.get_template(template).render(
        **{**facts, "points": to_json(facts["points"])},
        style=Markup(text_of("page.css")),
        script=Markup(script),
        script_digest="sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def join_modules(texts: Iterable[str]) -> str:
    """Return modules as one script: a page without a server has no addresses that a module could be imported from.

    Examples
    --------
    >>> join_modules(["export const one = 1;", 'import { one } from "./one.js";\\nalert(one);'])
    '(() => {\\n"use strict";\\nconst one = 1;\\nalert(one);\\n})();\\n'
    """
    joined = "\n".join(texts).rstrip()
    return '(() => {\n"use strict";\n' + re.sub(r"^import .*\n|^export ", "", joined, flags=re.MULTILINE) + "\n})();\n"


def to_json(value: Any) -> str:
    """Return JSON that may stand inside a script element: it holds no ``<``.

    Examples
    --------
    >>> to_json("</script>")
    '"\\\\u003c/script>"'
    """
    return json_text(value, separators=(",", ":")).replace("<", "\\u003c")


# --- what the script gets of each sample -------------------------------------------------------------------


def encode_points(
    sources: Sequence[str],
    paths: Sequence[str],
    maps: Mapping[str, NDArray[Any]],
    columns: Mapping[str, pd.Series],
    cells: Mapping[str, NDArray[Any]] | None = None,
) -> dict[str, Any]:
    """Return what the script needs to know of samples without pictures, ready for JSON.

    The maps are coordinates (n, 2) by name; points can be coloured and searched by the columns, the first one first.
    The cells are ``true`` and ``predicted``: a sample's row and column in the confusion matrix, -1 for none.
    """
    codes, names = pd.factorize(np.array(sources, object))  # pandas' own text holds no undecodable bytes
    return {
        "sources": list(names),
        "source": to_base64(codes.astype("<u4")),
        "paths": list(paths),
        "maps": [{"name": name, "coordinates": encode_coordinates(each)} for name, each in maps.items()],
        "columns": [encode_column(name, values) for name, values in columns.items()],
        "tile": to_base64(np.full(len(codes), -1, "<i4")),
        "sizes": "",
        "side": 0,
        "across": 0,
        "cells": {name: to_base64(each.astype("<i4")) for name, each in (cells or {}).items()},
    }


def encode_coordinates(coordinates: NDArray[Any]) -> str:
    """Return coordinates (n, 2), scaled to 0..65535 with equal units on both axes, as base64 of uint16.

    Examples
    --------
    >>> np.frombuffer(base64.b64decode(encode_coordinates(np.array([[0.0, 1.0], [2.0, 2.0]]))), "<u2").tolist()
    [0, 16384, 65535, 49151]
    """
    low, high = coordinates.min(axis=0), coordinates.max(axis=0)
    span = max(float((high - low).max()), np.finfo(float).tiny)
    unit = (coordinates - (low + high) / 2) / span + 0.5
    return to_base64(np.round(unit * STEPS).clip(0, STEPS).astype("<u2"))


def encode_column(name: str, values: pd.Series) -> dict[str, Any]:
    """Return a column as the script takes it, with its ``name`` and ``kind``.

    A ``"class"`` has ``names``, its distinct values as text, and ``codes``, base64 of uint32: 0 where the value is
    missing, else the number of its name plus 1. A ``"number"`` has ``values``, base64 of float64, NaN where missing.

    Examples
    --------
    >>> encode_column("site", pd.Series(["b", None, "a"]))["names"]
    ['a', 'b']
    """
    if is_number(values):
        numbers = pd.to_numeric(values).astype("Float64").to_numpy(np.float64, na_value=np.nan)
        return {"name": name, "kind": "number", "values": to_base64(numbers.astype("<f8"))}
    codes, names = pd.factorize(values, sort=True)
    shown = [str(each) for each in names]
    return {"name": name, "kind": "class", "names": shown, "codes": to_base64((codes + 1).astype("<u4"))}


def is_number(values: pd.Series) -> bool:
    """Say whether a column is shown on a scale rather than as classes."""
    if pd.api.types.is_bool_dtype(values) or not pd.api.types.is_numeric_dtype(values) or values.isna().all():
        return False
    return bool(pd.api.types.is_float_dtype(values) or values.nunique() > FEW)


def to_base64(array: NDArray[Any]) -> str:
    """Return the bytes of an array as text."""
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
