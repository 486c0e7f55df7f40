"""Facts -> one HTML file that needs nothing else: templates, escaping, and a policy that forbids any request."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from featurebank.errors import printable

SECTIONS = {
    "data": "Data",
    "map": "Map",
    "candidates": "Candidates",
    "confusion": "Confusion",
    "mistakes": "Mistakes",
    "classes": "Classes",
    "calibration": "Calibration",
    "learning": "Learning curve",
    "suspects": "Suspects",
    "why": "Why",
    "provenance": "What was run",
}

SCRIPTS = ("reading.js", "drawing.js", "finding.js", "choosing.js", "steering.js", "start.js")
"""Parts of the page's script in the order in which they build upon each other; they share one scope."""


def render(facts: Mapping[str, Any]) -> str:
    """Return the page of a report's facts.

    Every text of the user's is escaped by the template; JSON and pictures lie in elements that no browser runs; and the
    page's policy lets run just the one script, known by its digest, and nothing be fetched.

    Parameters
    ----------
    facts : mapping
        From `featurebank.report.collect`.

    Returns
    -------
    str
        Without halves of surrogate pairs outside of JSON's escapes, so that it can be encoded as UTF-8.
    """
    # autoescape=True, since select_autoescape goes by the name and would skip a template called report.html.j2
    environment = Environment(
        autoescape=True, loader=FunctionLoader(_read), undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"shown": lambda text: printable(str(text)), "percent": percent}
    script = '(() => {\n"use strict";\n' + "\n".join(map(_read, SCRIPTS)) + "})();\n"
    return environment.get_template("report.html").render(
        **{**facts, "points": to_json(facts["points"])},
        sections=list(SECTIONS.items()),
        style=Markup(_read("report.css")),
        script=Markup(script),
        script_digest="sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def percent(share: float) -> str:
    """Return a share in percent with one decimal.

    Examples
    --------
    >>> percent(0.8666)
    '86.7 %'
    """
    return f"{100 * share:.1f} %"


def to_json(value: Any) -> str:
    """Return JSON that may stand inside a script element: it holds no ``<``.

    Examples
    --------
    >>> to_json("</script>")
    '"\\\\u003c/script>"'
    """
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _read(name: str) -> str:
    return files("featurebank.report").joinpath("templates", name).read_text("utf-8")
