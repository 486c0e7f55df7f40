"""How results show themselves: in a notebook as one line with a table below it, in JSON as rows."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from html import escape
from typing import Any

from featurebank.images.dataframes import pd

ROWS_SHOWN = 20


def as_html(shown: object, frame: pd.DataFrame) -> str:
    """Return what `_repr_html_` gives: the repr of an object and a table, escaped, at most `ROWS_SHOWN` rows.

    Examples
    --------
    >>> as_html("<b>", pd.DataFrame({"label": ["<i>"]})).splitlines()[0]
    '<p>&#x27;&lt;b&gt;&#x27;</p><table border="1" class="dataframe">'
    """
    return f"<p>{escape(repr(shown))}</p>{frame.to_html(index=False, escape=True, max_rows=ROWS_SHOWN)}"


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a table's rows as JSON can hold them, missing values as None.

    Examples
    --------
    >>> records(pd.DataFrame({"a": [1.5, float("nan")]}))
    [{'a': 1.5}, {'a': None}]
    """
    return list(frame.astype(object).where(frame.notna(), None).to_dict("records"))


def json_text(value: Any, **options: Any) -> str:
    """Return JSON in which a number that is not known is null, whatever JSON itself has no word for.

    Examples
    --------
    >>> json_text({"ci95": [0.5, float("nan")]})
    '{"ci95": [0.5, null]}'
    """
    try:
        return json.dumps(value, allow_nan=False, **options)
    except ValueError:  # few values hold such numbers, and looking for them takes longer than writing
        return json.dumps(_without_nan(value), allow_nan=False, **options)


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_nan(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
