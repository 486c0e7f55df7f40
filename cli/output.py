"""What commands print and write: tables, JSON, CSV."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featurebank.errors import printable, shell_word
from featurebank_cli.state import State

if TYPE_CHECKING:
    from featurebank.bank.bank import Bank

ROWS_SHOWN = 20
COLUMNS_SHOWN = 6
ROWS_WRITTEN = 8192


def print_json(value: Any) -> None:
    """Print one JSON object on stdout."""
    click.echo(json.dumps(value, indent=2, allow_nan=False, default=str))


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


def csv_text(frame: Any, header: bool = True) -> str:
    """Return a DataFrame as CSV in which no cell of text is taken for a formula by a spreadsheet; see `undefused`."""
    safe = _each_text(frame, _defuse)
    safe.columns = type(safe.columns)([_defuse(str(name)) for name in safe.columns], dtype=object)
    return str(safe.to_csv(index=False, header=header))


def undefused(frame: Any) -> Any:
    """Return a DataFrame that was read from the CSV of `csv_text` as it was before."""
    return _each_text(frame, lambda value: value[1:] if re.match(f"'{_FORMULA}", value) else value).rename(
        columns=lambda name: name[1:] if re.match(f"'{_FORMULA}", name) else name
    )


def write_csv(path: Path, frame: Any) -> None:
    """Write a DataFrame as CSV, some rows at a time; a name that is not UTF-8 keeps its own bytes."""
    from featurebank.storage import files

    with files.committing(path) as file:
        for start in range(0, max(len(frame), 1), ROWS_WRITTEN):
            part = csv_text(frame.iloc[start : start + ROWS_WRITTEN], header=start == 0)
            file.write(part.encode("utf-8", "surrogateescape"))


def as_columns(table: Any) -> dict[str, list[Any]]:
    """Return the columns of a DataFrame, or of a dict of lists and arrays, as lists in which what is missing is None.

    Examples
    --------
    >>> as_columns({"label": ["cat", None], "share": [0.5, float("nan")]})
    {'label': ['cat', None], 'share': [0.5, None]}
    """
    lists = {name: column.tolist() if hasattr(column, "tolist") else list(column) for name, column in table.items()}
    return {name: [None if cell != cell else cell for cell in cells] for name, cells in lists.items()}


def columns_csv(columns: Mapping[str, Sequence[Any]]) -> str:
    """Return columns as CSV, as `csv_text` does a DataFrame and without pandas.

    Examples
    --------
    >>> columns_csv({"path": ["=1.png", "b.png"], "share": [0.5, None], "is_unlike": [True, None]}).splitlines()
    ['path,share,is_unlike', "'=1.png,0.5,True", 'b.png,,']
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(_defuse, columns))
    for row in zip(*columns.values(), strict=True):
        writer.writerow(_defuse(cell) if isinstance(cell, str) else cell for cell in row)
    return text.getvalue()


def write_columns(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write columns as CSV; a name that is not UTF-8 keeps its own bytes."""
    from featurebank.storage import files

    files.commit(path, columns_csv(columns).encode("utf-8", "surrogateescape"))


def predictor_path(bank: Any, output: Path | None) -> Path:
    """Return the file of the predictor that is to be fitted on a bank; its folder has to be there."""
    from featurebank.errors import StorageError
    from featurebank.fitting.fit import default_output

    path = output or default_output(bank)
    if not path.parent.is_dir():
        raise StorageError(f"no folder {str(path.parent)!r} for the predictor; make it, or name another with -o")
    return path


def save_fit(state: State, result: Any, path: Path) -> dict[str, Any]:
    """Save a FitResult, and its out-of-fold predictions beside it; print its warnings and return its report."""
    from featurebank.predictor.file import target_of

    before = target_of(path)
    result.save(path)
    beside = path.with_suffix(".oof.csv")
    write_csv(beside, result.oof)
    report = {**result.report, "predictor": str(path), "oof": str(beside)}
    for note in report["warnings"]:
        state.warn(note)
    if before not in (None, report["target"]):
        state.warn(f"{path} held a predictor of {before!r}; it is replaced by one of {report['target']!r}")
    return report


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


def _each_text(frame: Any, change: Callable[[str], str]) -> Any:
    """Return a copy of a DataFrame with all its text changed; names and text need not be UTF-8."""
    import pandas as pd

    columns = {}
    for number in range(frame.shape[1]):
        column = frame.iloc[:, number]
        if column.dtype == object or str(column.dtype) == "str":
            cells = [change(value) if isinstance(value, str) else value for value in column]
            column = pd.Series(cells, frame.index, dtype=object)
        columns[number] = column
    return pd.DataFrame(columns, frame.index).set_axis(frame.columns, axis=1)


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
