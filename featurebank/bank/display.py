"""How results show themselves in a notebook: their one line, and a table below it. Any room above may use it."""

from __future__ import annotations

from html import escape

import pandas as pd

ROWS_SHOWN = 20


def as_html(shown: object, frame: pd.DataFrame) -> str:
    """Return what `_repr_html_` gives: the repr of an object and a table, escaped, at most `ROWS_SHOWN` rows.

    Examples
    --------
    >>> as_html("<b>", pd.DataFrame({"label": ["<i>"]})).splitlines()[0]
    '<p>&#x27;&lt;b&gt;&#x27;</p><table border="1" class="dataframe">'
    """
    return f"<p>{escape(repr(shown))}</p>{frame.to_html(index=False, escape=True, max_rows=ROWS_SHOWN)}"
