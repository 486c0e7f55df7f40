"""What commands print and write: tables, JSON, CSV."""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featurebank.errors import printable, shell_word

if TYPE_CHECKING:
    from featurebank.bank.bank import Bank

ROWS_SHOWN = 20
COLUMNS_SHOWN = 6
ROWS_WRITTEN = 8192


def print_json(value: Any) -> None:
    """Print one JSON object on stdout."""
    from featurebank.bank.display import json_text

    click.echo(json_text(value, indent=2, default=str))


def records(frame: Any) -> list[dict[str, Any]]:
    """Return a DataFrame's rows as JSON can hold them; see `featurebank.bank.display.records`."""
    from featurebank.bank import display

    return display.records(frame)


FOLDED = 12
"""The width below which no column of text is folded."""


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> None:
    """Print a table that stays readable at 80 columns and in a log.

    Parameters
    ----------
    title : str
    columns : sequence of str
    rows : sequence of sequences of str
    right : sequence of int
        Numbers of the columns that are aligned to the right.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), box=SIMPLE_HEAD, title_justify="left", pad_edge=False, padding=(0, 1))
    widths = [max(len(cell) for cell in column) for column in zip(columns, *rows, strict=True)]
    for number, name in enumerate(columns):
        least = widths[number] if number in right else min(widths[number], max(FOLDED, len(name)))
        justify: Any = "right" if number in right else "left"
        table.add_column(name, justify=justify, overflow="fold", min_width=least)
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    console = Console(width=None if sys.stdout.isatty() else 100)
    needed = sum(column.min_width or 0 for column in table.columns) + 2 * len(columns)
    console.width = max(console.width, needed)  # wider than a narrow terminal rather than with numbers broken in two
    console.print(table)


def csv_text(table: Any, header: bool = True) -> str:
    """Return a DataFrame, or columns by name, as CSV in which no text is a formula to a spreadsheet; see `undefused`.

    Examples
    --------
    >>> csv_text({"path": ["=1.png", "b.png"], "share": [0.5, None], "is_unlike": [True, None]}).splitlines()
    ['path,share,is_unlike', "'=1.png,0.5,True", 'b.png,,']
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if header:
        writer.writerow(_defuse(str(name)) for name, _ in table.items())
    for row in zip(*(_as_list(column) for _, column in table.items()), strict=True):
        writer.writerow(_defuse(cell) if isinstance(cell, str) else cell for cell in row)
    return text.getvalue()


def undefused(frame: Any) -> Any:
    """Return a tidy DataFrame that was read from the CSV of `csv_text` as it was before."""
    import pandas as pd

    texts = {name: map(_undefuse, frame[name]) for name in frame if frame[name].dtype == object}
    changed = {name: pd.Series(list(cells), frame.index, dtype=object) for name, cells in texts.items()}
    return frame.assign(**changed).rename(columns=_undefuse)


def write_csv(path: Path, table: Any) -> None:
    """Write a DataFrame, or columns by name, as CSV, some rows at a time; text that is not UTF-8 keeps its bytes."""
    from featurebank.storage import files

    count = max((len(column) for _, column in table.items()), default=0)
    with files.committing(path) as file:
        for start in range(0, max(count, 1), ROWS_WRITTEN):
            part = {name: column[start : start + ROWS_WRITTEN] for name, column in table.items()}
            file.write(csv_text(part, header=start == 0).encode("utf-8", "surrogateescape"))


def as_columns(table: Any) -> dict[str, list[Any]]:
    """Return the columns of a DataFrame, or of a dict of lists and arrays, as lists in which what is missing is None.

    Examples
    --------
    >>> as_columns({"label": ["cat", None], "share": [0.5, float("nan")]})
    {'label': ['cat', None], 'share': [0.5, None]}
    """
    return {name: _as_list(column) for name, column in table.items()}


def _as_list(column: Any) -> list[Any]:
    if hasattr(column, "notna"):  # pandas has several kinds of missing values
        column = column.astype(object).where(column.notna(), None)
    cells = column.tolist() if hasattr(column, "tolist") else column
    return [None if cell != cell else cell for cell in cells]


def print_rows(title: str, frame: Any, right: Sequence[int] = (), most: int = ROWS_SHOWN) -> None:
    """Print the first rows of a DataFrame as a table, its numbers with three digits; of none just the title."""
    if frame.empty:
        click.echo(title)
        return
    shown = [
        [f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row]
        for row in frame.head(most).itertuples(index=False)
    ]
    print_table(title, list(map(str, frame.columns)), shown, right)
    if len(frame) > most:
        click.echo(f"and {len(frame) - most} more: -o FILE.csv has them all")


_FORMULA = r"'*[=+\-@\t\r]"


def _defuse(value: str) -> str:
    return f"'{value}" if re.match(_FORMULA, value) else value


def _undefuse(value: Any) -> Any:
    return value[1:] if isinstance(value, str) and re.match(f"'{_FORMULA}", value) else value


def how_made(each: dict[str, Any]) -> str:
    """Return what tells a feature set from one that is made with the defaults.

    Examples
    --------
    >>> how_made({"origin": None, "options": {"size": 64, "views": "hflip", "store": "float32"}})
    '64 px, hflip'
    """
    if each.get("origin"):
        return "imported"
    shown = {name: value for name, value in each["options"].items() if name not in ("backbone", "store")}
    return ", ".join(f"{value} px" if name == "size" else str(value) for name, value in shown.items())


def next_command(bank: Bank) -> str:
    """Return what can be done with a bank: fit, once a column can be learned."""
    from featurebank.images.splits import SPLIT, holds_split

    place, columns = shell_word(bank.path), bank.select().columns
    known = columns.drop(columns=SPLIT) if holds_split(columns) else columns
    usable = [name for name in known if known[name].nunique() > 1]
    if not usable:
        return f"featurebank label {place} LABELS.csv (columns: path, label), then featurebank fit {place}"
    if "label" in usable or len(known.columns) == 1:
        return f"featurebank fit {place}"
    return f"featurebank fit {place} --target COLUMN (one of {', '.join(map(printable, usable[:COLUMNS_SHOWN]))})"
