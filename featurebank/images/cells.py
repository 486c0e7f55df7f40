"""The cells of a table of text: which columns are numbers, and what each column was taken for."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import partial

from featurebank.errors import printable
from featurebank.images.columns import is_missing, kind_of, tidy
from featurebank.images.dataframes import pd
from featurebank.images.near_values import notes_on_near_values

MISSING_WORDS = frozenset({"na", "n/a", "#n/a", "nan", "null", "none", "-", "?"})
"""Words for a missing number, in small letters."""
OF_STRANGERS = (
    "for numbers, write one there or leave it empty, under another name where a bank has the column as text already"
)
"""What to do about them; see `notes_on_strangers`."""
_SHOWN = 6
_ODD_SHOWN = 3
_FEW = 5
"""One cell in so many may be no number in what is taken for a column of numbers."""
_LOOKED_AT = 1000
_INT = re.compile("-?[0-9]{1,18}")
_NUMBER = re.compile(r"[+-]?(?=\.?[0-9])([0-9]+)?(?:\.([0-9]*))?([eE][+-]?[0-9]+)?")
"""A number's whole part, decimals and exponent."""
_GROUPED = {  # by its decimal sign
    ",": re.compile(r"[+-]?(?:[0-9]{1,3}(?:[. \xa0\u202f][0-9]{3})+|[0-9]+)(?:,[0-9]+)?"),
    ".": re.compile(r"[+-]?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?"),
}
_THOUSANDS = re.compile(r"[+-]?[0-9]{1,3}(?:,[0-9]{3})+")
"""What may be a decimal comma as well as one between thousands."""


def parse_text(frame: pd.DataFrame, *, decimal: str = ".", labels_as: str = "auto") -> pd.DataFrame:
    """Turn columns of text (a CSV's cells) into numbers where every cell reads as one and loses nothing.

    An empty cell is a missing value, and so is a word such as ``NA`` between numbers. ``01`` stays text, since a
    number would lose its zero; so does ``1e5`` where no other cell has a decimal point, and ``1.10`` beside ``1.9``.

    Parameters
    ----------
    frame : DataFrame
        Cells of text, missing ones None or empty.
    decimal : str, default "."
        ``","`` where decimal commas are read as well.
    labels_as : str, default "auto"
        ``"text"`` leaves every cell as it is; ``"numbers"`` makes numbers also of what loses its spelling.

    Examples
    --------
    >>> parsed = parse_text(pd.DataFrame({"a": ["1", ""], "b": ["01", "2"], "c": ["0.5", "1e3"]}))
    >>> parsed.dtypes.astype(str).to_dict()
    {'a': 'Int64', 'b': 'object', 'c': 'Float64'}
    """
    columns = {name: _parse_column(frame[name], decimal, labels_as) for name in frame.columns}
    return tidy(pd.DataFrame(columns, index=frame.index))


def _parse_column(column: pd.Series, decimal: str, labels_as: str) -> pd.Series:
    cells = [str(value) if value != "" and not is_missing(value) else None for value in column.tolist()]
    distinct = dict.fromkeys(cell for cell in cells if cell is not None)
    numbers = [cell for cell in distinct if cell.strip().lower() not in MISSING_WORDS]
    is_one = len(numbers) == 1 < len(distinct) and cells.count(numbers[0]) == 1  # one number makes no column of them
    if labels_as == "text" or is_one or not numbers:
        return pd.Series(cells, dtype=object, index=column.index)
    found = _as_ints(numbers) or _as_floats(numbers, decimal, loosely=labels_as == "numbers")
    if found is None:
        return pd.Series(cells, dtype=object, index=column.index)
    dtype = "Int64" if isinstance(found[numbers[0]], int) else "Float64"
    return pd.Series([None if cell is None else found.get(cell) for cell in cells], dtype=dtype, index=column.index)


def _as_ints(cells: Sequence[str]) -> dict[str, int] | None:
    """Return the whole number that each cell writes, None where one of them would not be written so."""
    keeps = all(_INT.fullmatch(cell) and str(int(cell)) == cell for cell in cells)
    return {cell: int(cell) for cell in cells} if keeps else None


def _as_floats(cells: Sequence[str], decimal: str, *, loosely: bool) -> dict[str, float] | None:
    """Return the number that each cell writes, None where one is no number or something of it would be lost."""
    texts = _with_points([cell.strip() for cell in cells], decimal, loosely=loosely)
    parts = []
    for text in texts:
        match = _NUMBER.fullmatch(text)
        if match is None:
            return None
        parts.append(match.groups())
    values = list(map(float, texts))
    if not all(map(math.isfinite, values)) or not (loosely or _keep_spelling(parts, values)):
        return None
    return dict(zip(cells, values, strict=True))


def _with_points(texts: list[str], decimal: str, *, loosely: bool) -> list[str]:
    """Return numbers with decimal points and nothing between thousands, where it is certain which sign is which.

    It is where one number has both (``1.234,5``), and where commas are decimal ones or were asked to be.
    """
    if not any("," in text for text in texts):
        return texts
    for sign, pattern in _GROUPED.items():
        other = "." if sign == "," else ","
        has_both = any(sign in text and (other in text or " " in " ".join(text.split())) for text in texts)
        if has_both and all(map(pattern.fullmatch, texts)):
            return [re.sub(f"[^0-9+{sign}-]", "", text).replace(sign, ".") for text in texts]
    may_be_thousands = decimal != "," and all(map(_THOUSANDS.fullmatch, (text for text in texts if "," in text)))
    if any("." in text for text in texts) or may_be_thousands or not (loosely or decimal == ","):
        return texts
    return [text.replace(",", ".") for text in texts]


def _keep_spelling(parts: Sequence[tuple[str | None, ...]], values: Sequence[float]) -> bool:
    """Say whether numbers are written so that reading them loses nothing that may have a meaning."""
    is_measured = any(decimals is not None or (exponent and exponent[1] in "+-") for _, decimals, exponent in parts)
    if not is_measured or any(whole and whole[0] == "0" and len(whole) > 1 for whole, *_ in parts):  # an id such as 007
        return False
    widths = {len(decimals) for _, decimals, exponent in parts if decimals is not None and not exponent}
    if len(widths) > 1 and any(d and len(d) > 1 and d[-1] == "0" and not e for _, d, e in parts):  # 1.10 beside 1.9
        return False
    # an id of 20 digits: its last ones would go
    return not any(
        decimals is None and exponent is None and whole and abs(int(value)) != int(whole)
        for (whole, decimals, exponent), value in zip(parts, values, strict=True)
    )


def describe(columns: pd.DataFrame) -> str:
    """Return what columns were taken for, as far as it fits a line.

    Examples
    --------
    >>> describe(pd.DataFrame({"label": ["cat", "dog", "cat"], "age": pd.array([3, 4, None], dtype="Int64")}))
    'label: text, 2 classes; age: whole numbers, 3 to 4, 1 missing'
    """
    parts = [f"{printable(name)}: {_describe_column(columns[name])}" for name in list(columns)[:_SHOWN]]
    more = [f"… ({len(columns.columns)} columns)"] if len(columns.columns) > _SHOWN else []
    return "; ".join(parts + more) or "none beside the paths"


def _describe_column(column: pd.Series) -> str:
    given, missing = column.dropna(), int(column.isna().sum())
    kind, gaps = kind_of(column), f", {missing} missing" if missing else ""
    if given.empty:
        return "empty"
    if kind == "str":
        count = given.nunique()
        return f"text, {count} {'classes' if count <= max(2, len(given) / 2) else 'different values'}{gaps}"
    if kind == "bool":
        return f"true or false{gaps}"
    return f"{'whole numbers' if kind == 'int' else 'numbers'}, {given.min():g} to {given.max():g}{gaps}"


def notes_on_numbers(before: pd.DataFrame, after: pd.DataFrame) -> list[str]:
    """Return a note for each column of numbers with commas, or with words for missing ones, or that could be some."""
    about = {name: _about_commas(after[name]) for name in after if kind_of(after[name]) == "str"}
    notes = [f"{printable(name)}: text, {said}" for name, said in about.items() if said]
    for name in [name for name in after if kind_of(after[name]) in ("int", "float")]:
        gone = [cell for cell, is_gone in zip(before[name], after[name].isna(), strict=True) if is_gone and cell]
        words = [repr(cell) for cell in dict.fromkeys(gone) if not is_missing(cell)]
        notes += [f"{printable(name)}: {' and '.join(words)} taken as missing"] if words else []
        commas = [str(cell) for cell in before[name] if "," in str(cell)]
        what = "commas between thousands" if any("." in cell.partition(",")[2] for cell in commas) else "decimal commas"
        notes += [f"{printable(name)}: {what}"] if commas and kind_of(after[name]) == "float" else []
    return notes


def _about_commas(column: pd.Series) -> str:
    """Return what is said of a column of text that is numbers but for its commas; empty for any other."""
    distinct = list(dict.fromkeys(cell for cell in column if not is_missing(cell)))
    if not any("," in cell for cell in distinct[:_LOOKED_AT]):
        return ""
    if _as_floats(distinct, ".", loosely=True) is not None:
        return "though all of it reads as numbers with decimal commas; --labels-as numbers makes it numbers"
    if _as_floats(distinct, ",", loosely=True) is not None:
        return "since its commas may be decimal ones or between thousands; for numbers, write it without them"
    return ""


# --- cells that are probably slips --------------------------------------------------------------------------


def notes_on_cells(columns: pd.DataFrame, rows: Sequence[str], labels_as: str = "auto") -> list[str]:
    """Return a note for each column with cells that are probably slips: no numbers among numbers, mistyped classes."""
    strange = [] if labels_as == "text" else notes_on_strangers(columns, rows)
    return [*strange, *notes_on_near_values(columns, rows)]


def notes_on_strangers(columns: pd.DataFrame, rows: Sequence[str]) -> list[str]:
    """Return a note for each column that is text for the sake of a few cells, which are no numbers as all others are.

    It ends in what to do about them.

    Parameters
    ----------
    columns : DataFrame
        Tidy columns.
    rows : sequence of str
        What each row goes by: a path, mostly.

    Examples
    --------
    >>> size = ["1.5", "2", "3", "n. a.", "5", "6"]
    >>> columns = pd.DataFrame({"size": size, "label": list("ababab")})
    >>> [note.split(";")[0] for note in notes_on_strangers(columns, [f"{row}.png" for row in range(6)])]
    ["size: text, since 1 of 6 cells is no number: 'n. a.' (3.png)"]
    """
    found = {name: _strangers(columns[name]) for name in columns if kind_of(columns[name]) == "str"}
    notes = []
    for name, (odd, count) in [(name, each) for name, each in found.items() if each[0]]:
        shown = [f"{printable(columns[name].iloc[row])!r} ({printable(rows[row])})" for row in odd[:_ODD_SHOWN]]
        verb = "cells is no number" if len(odd) == 1 else "cells are no numbers"
        which = ", ".join(shown) + ", …" * (len(odd) > _ODD_SHOWN)
        notes.append(f"{printable(name)}: text, since {len(odd)} of {count} {verb}: {which}; {OF_STRANGERS}")
    return notes


def _strangers(column: pd.Series) -> tuple[list[int], int]:
    """Return the rows of a column of text that alone are no numbers, if they are few, and how many rows have a cell."""
    cells = [None if is_missing(cell) else cell for cell in column]
    distinct = list(dict.fromkeys(filter(None, cells)))
    looked_at = distinct[:_LOOKED_AT]
    for decimal in ".,":
        if 2 * sum(map(partial(_is_number, decimal=decimal), looked_at)) < len(looked_at):
            continue  # words, of which there may be a million
        words = {cell for cell in distinct if not _is_number(cell, decimal)}
        odd = {cell for cell in words if cell.strip().lower() not in MISSING_WORDS} or words
        rows, count = [row for row, cell in enumerate(cells) if cell in odd], sum(map(bool, cells))
        rest = pd.Series([cell for cell in cells if cell and cell not in words], dtype=object)
        if len(rows) * _FEW <= count and kind_of(_parse_column(rest, decimal, "auto")) in ("int", "float"):
            return rows, count
    return [], 0


def _is_number(cell: str, decimal: str) -> bool:
    return _as_floats([cell], decimal, loosely=True) is not None
