"""Tables of text (.csv, .tsv, .txt): bytes of any encoding and separator -> cells of text, and how they were read."""

from __future__ import annotations

import csv
import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from featurebank.errors import SourceError, counted, one_line, printable
from featurebank.images import encodings
from featurebank.images.dataframes import pd
from featurebank.images.path_columns import find_path_column
from featurebank.images.separators import Dialect, find_dialect

_NAMELESS = "Unnamed: "
"""How pandas calls columns without a name; Excel leaves such behind, with nothing in them."""
IsName = Callable[[str], bool]


@dataclass(frozen=True)
class Text:
    """The cells of a table of text.

    Attributes
    ----------
    cells : DataFrame
        Objects of str, without spaces around them except in the column of paths.
    decimal : str
        ``","`` where decimal commas can be told from separators.
    notes : list of str
        What was found and is not as everywhere.
    """

    cells: pd.DataFrame
    decimal: str
    notes: list[str]


def read_text(
    data: bytes,
    where: object,
    *,
    separator: str | None = None,
    encoding: str | None = None,
    path_column: str | None = None,
    is_name: IsName | None = None,
) -> Text:
    """Read the cells of a table of text.

    Parameters
    ----------
    data : bytes
        The whole file.
    where : object
        The file, for messages.
    separator, encoding : str, optional
        By default found.
    path_column : str, optional
        Column of paths, whose bytes may be of no encoding.
    is_name : callable, optional
        Says whether there is a file, or a sample, of this name.

    Raises
    ------
    SourceError
        When separator or encoding could be several.
    ValueError
        When the text is no table.
    """
    known = encoding or encodings.mark_of(data)
    text = encodings.decode(data, known, where) if known else data.decode("utf-8", "surrogateescape")
    dialect = find_dialect(text, separator, where)
    notes = [] if dialect.separator == "," else [f"separated by {dialect.name}s"]
    if not known and not is_utf8(text):
        known = _code_page(text, dialect, path_column, is_name, where)
        text = data.decode(known) if known else text
    if known not in ("", "utf-8-sig"):
        notes += [f"encoding {known}{_example(text)}"]
    frame = _parse(text, dialect)
    frame.columns = [str(name).strip() for name in frame.columns]
    frame = frame.drop(columns=[name for name in frame if name.startswith(_NAMELESS) and _is_empty(frame[name])])
    names = find_path_column(frame, path_column)
    cells = {name: frame[name] if name == names else _trimmed(frame[name]) for name in frame}
    trimmed = [name for name in frame if name != names and _differ(cells[name], frame[name])]
    notes += [f"spaces around the values of {', '.join(map(repr, trimmed))} left out"] if trimmed else []
    return Text(pd.DataFrame(cells), "." if dialect.separator == "," else ",", notes)


def _parse(text: str, dialect: Dialect) -> pd.DataFrame:
    """Return cells as text; a row with more cells than the header has names is an error."""
    try:
        return _read_csv(text, dialect)
    except (pd.errors.ParserWarning, pd.errors.ParserError) as error:
        raise ValueError(_about_long_row(text, dialect) or one_line(error)) from error


def _about_long_row(text: str, dialect: Dialect) -> str:
    """Return what is said of the first row that has more cells than the header has names; empty where none has."""
    rows = _rows(text, dialect)
    names = len(next(rows, []))
    for row in rows:
        if len(row) > names:
            return (
                f"line {dialect.start + rows.line_num} has {len(row)} cells, and the first line has "
                f"{counted(names, 'column name')}: delete lines above the names, put quotes around cells that hold a "
                f"{dialect.name}, or name another separator (--separator)"
            )
    return ""


def _read_csv(text: str, dialect: Dialect) -> pd.DataFrame:
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        return pd.read_csv(
            io.BytesIO(text.encode("utf-8", "surrogateescape")),
            sep=r"\s+" if dialect.separator == " " else dialect.separator,
            skiprows=dialect.start,
            skipinitialspace=dialect.has_spaces,
            dtype=object,
            keep_default_na=False,
            index_col=False,
            encoding_errors="surrogateescape",
        )


def _is_empty(column: pd.Series) -> bool:
    return not any(isinstance(cell, str) and cell.strip() for cell in column)


def _trimmed(column: pd.Series) -> pd.Series:
    """Return text without spaces around it; pandas' own text could not hold bytes that are not UTF-8."""
    return pd.Series([cell.strip(" \t\xa0") if isinstance(cell, str) else None for cell in column], dtype=object)


def _differ(trimmed: pd.Series, column: pd.Series) -> bool:
    return any(cell is not None and cell != before for cell, before in zip(trimmed, column, strict=True))


# --- encoding ----------------------------------------------------------------------------------------------


def is_utf8(text: str) -> bool:
    """Say whether all bytes of a text were UTF-8 (others are read as lone surrogates)."""
    return text.isascii() or not any("\udc80" <= character <= "\udcff" for character in text)


def _code_page(text: str, dialect: Dialect, path_column: str | None, is_name: IsName | None, where: object) -> str:
    """Return the code page of a file that is not UTF-8; empty when its odd bytes are those of files' names.

    Paths are bytes: a table that featurebank wrote has them as they are, and with them labels that were folders'
    names.
    """
    rows = _rows(text, dialect)
    header = [name.strip() for name in next(rows, [])]
    column = find_path_column(header, path_column)
    at = -1 if column is None else header.index(column)
    paths: set[str] = set()
    others = {cell for cell in header if not is_utf8(cell)}
    utf8: set[str] = set()
    for row in rows:
        for number, cell in enumerate(row):
            if not cell.isascii():
                (utf8 if is_utf8(cell) else paths if number == at else others).add(cell)
    if paths and (any(map(is_name, sorted(paths))) if is_name else not others):
        return ""
    try:
        return encodings.code_page(map(_bytes, others | paths | utf8), where)[0]
    except SourceError:
        if not utf8:
            raise
    odd = str(_bytes(min(others | paths)))[1:]
    raise SourceError(
        f"{str(where)!r} is partly UTF-8 ({printable(min(utf8))!r}), and {odd} in it is not: save the table as UTF-8, "
        "or name its encoding with --encoding (such as cp1252)"
    )


def _bytes(cell: str) -> bytes:
    return cell.encode("utf-8", "surrogateescape")


def _rows(text: str, dialect: Dialect) -> Any:
    """Return a reader of rows, which knows the number of its line."""
    lines = io.StringIO(text, newline=None)
    for _ in range(dialect.start):
        next(lines)
    return csv.reader(
        lines, delimiter=dialect.separator, skipinitialspace=dialect.has_spaces or dialect.separator == " "
    )


def _example(text: str) -> str:
    """Return a word that shows how a text was read."""
    words = (word for word in re.split(r"[\s,;|\"]+", text) if not word.isascii())
    return next((f" ({printable(word)!r})" for word in words), "")
