"""The users' columns: tables read from files, brought to the four kinds that a bank stores, stacked and overlaid."""

from __future__ import annotations

import hashlib
import io
import json
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featurebank.errors import ColumnError, SourceError, StorageError, one_line
from featurebank.storage.files import AnyPath

MANIFESTS = (".csv", ".parquet", ".pq")
"""The ends of the names of files that hold a table."""
_INFERRED = {"boolean": "boolean", "integer": "Int64", "floating": "Float64", "mixed-integer-float": "Float64"}
_MAX_INT = 2**63 - 1
KINDS = {"int": ("<i8", "Int64"), "float": ("<f8", "Float64"), "bool": ("|u1", "boolean"), "str": ("", "object")}
"""How the values of each kind of column are stored, and its dtype here."""


def kind_of(column: pd.Series) -> str:
    """Return the kind of a tidy column: ``int``, ``float``, ``bool`` or ``str``."""
    return next((kind for kind, (_, dtype) in KINDS.items() if column.dtype == dtype), "str")


def tidy(frame: pd.DataFrame) -> pd.DataFrame:
    """Bring any columns to the four kinds that a bank stores.

    Whole numbers, floats and booleans keep their meaning, missing values included; everything else becomes
    text. Text is not guessed at here: ``"007"`` stays ``"007"``.

    Raises
    ------
    ColumnError
        When column names are not distinct strings, or a cell holds a list or another container.

    Examples
    --------
    >>> tidy(pd.DataFrame({"label": ["cat", None], "age": [3, 4]})).dtypes.astype(str).to_dict()
    {'label': 'object', 'age': 'Int64'}
    """
    names = [str(name) for name in frame.columns]
    if len(set(names)) != len(names) or "" in names or not all(map(_is_unicode, names)):
        raise ColumnError(f"column names {names} are not distinct, non-empty Unicode text: rename them")
    columns = {name: _tidy_column(name, frame.iloc[:, i]) for i, name in enumerate(names)}
    return pd.DataFrame(columns, index=range(len(frame)))


def _is_unicode(text: str) -> bool:
    """Say whether text has no lone surrogates, which a DataFrame's header cannot hold."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _tidy_column(name: str, column: pd.Series) -> pd.Series:
    column = _infer(column.reset_index(drop=True))
    for kind, test in (
        ("bool", pd.api.types.is_bool_dtype),
        ("int", pd.api.types.is_integer_dtype),
        ("float", pd.api.types.is_float_dtype),
    ):
        if test(column.dtype) and not isinstance(column.dtype, pd.CategoricalDtype) and not _overflows(column):
            return column.astype(KINDS[kind][1])
    values = [None if _missing(value) else value for value in column]
    if any(isinstance(value, (list, tuple, dict, set, np.ndarray)) for value in values):
        raise ColumnError(f"column {name!r} holds lists or other containers: give one value a cell")
    return pd.Series([None if value is None else _text(value) for value in values], dtype=object)


def _infer(column: pd.Series) -> pd.Series:
    """Give a column of objects that are all numbers, or all booleans, its dtype; gaps do not count."""
    kind = _INFERRED.get(pd.api.types.infer_dtype(column, skipna=True)) if column.dtype == object else None
    return column if kind is None or _overflows(column) else column.astype(kind)


def _overflows(column: pd.Series) -> bool:
    """Say whether whole numbers exceed 64 bits: text keeps all of their digits."""
    given = column.dropna()
    is_int = pd.api.types.infer_dtype(given) == "integer"
    return bool(is_int and len(given) and (given.max() > _MAX_INT or given.min() < -_MAX_INT))


def _missing(value: Any) -> bool:
    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and value != value)


def _text(value: Any) -> str:
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def parse_text(frame: pd.DataFrame) -> pd.DataFrame:
    """Turn columns of text (a CSV's cells) into numbers where every cell reads as one and loses nothing.

    An empty cell is a missing value. ``01`` stays text, since a number would lose its zero.

    Examples
    --------
    >>> parsed = parse_text(pd.DataFrame({"a": ["1", ""], "b": ["01", "2"], "c": ["0.5", "1e3"]}))
    >>> parsed.dtypes.astype(str).to_dict()
    {'a': 'Int64', 'b': 'object', 'c': 'Float64'}
    """
    return tidy(pd.DataFrame({name: _parse_column(frame[name]) for name in frame.columns}, index=frame.index))


def _parse_column(column: pd.Series) -> pd.Series:
    cells = [None if _missing(value) or value == "" else str(value) for value in column]
    given = [cell for cell in cells if cell is not None]
    for convert, keeps, dtype in ((int, _keeps_int, "Int64"), (float, _keeps_float, "Float64")):
        if given and all(keeps(cell) for cell in given):
            values = [None if cell is None else convert(cell) for cell in cells]
            return pd.Series(values, dtype=dtype, index=column.index)
    return pd.Series(cells, dtype=object, index=column.index)


def _keeps_int(cell: str) -> bool:
    digits = cell.removeprefix("-")
    return digits.isascii() and digits.isdigit() and len(digits) < 19 and str(int(cell)) == cell


def _keeps_float(cell: str) -> bool:
    digits = cell.strip().lstrip("+-")
    if not cell.isascii() or "_" in cell or (digits[:1] == "0" and digits[1:2].isdigit()):
        return False
    try:
        value = float(cell)
    except ValueError:
        return False
    loses = digits.isdigit() and np.isfinite(value) and int(value) != int(cell)  # an id of 20 digits, its last ones
    return bool(np.isfinite(value)) and not loses


def read_table(path: AnyPath) -> pd.DataFrame:
    """Read a CSV or Parquet file as tidy columns (see `tidy`).

    Only an empty CSV cell is missing; ``NA`` and ``None`` are words like any other.

    Raises
    ------
    SourceError
        When the file is missing, empty or not such a table.
    """
    if path.is_dir() or path.suffix.lower() not in MANIFESTS:
        found = "is a folder" if path.is_dir() else "is no table by its suffix"
        raise SourceError(f"{str(path)!r} {found}; expected a file that ends in {', '.join(MANIFESTS)}")
    try:
        content = path if isinstance(path, Path) else io.BytesIO(path.read_bytes())
        if path.suffix.lower() == ".csv":
            table = parse_text(_read_csv(content))
        else:
            table = tidy(pd.read_parquet(content, dtype_backend="numpy_nullable"))
    except StorageError:
        raise
    except (OSError, ValueError, ImportError, LookupError, pd.errors.ParserWarning) as error:
        raise SourceError(f"{str(path)!r} cannot be read as a table: {one_line(error)}") from error
    if table.empty:
        raise SourceError(f"{str(path)!r} has no rows; expected one a sample")
    return table


def _read_csv(path: Path | io.BytesIO) -> pd.DataFrame:
    """Return a CSV's cells as text; a row with more cells than the header has names is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        return pd.read_csv(
            path, dtype=object, keep_default_na=False, index_col=False, encoding_errors="surrogateescape"
        )


def concat_columns(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """Stack columns; where one name has two kinds, both become the kind that holds them."""
    names = list(dict.fromkeys(name for frame in frames for name in frame.columns))
    return pd.DataFrame({name: _concat_column(name, frames) for name in names}, index=range(sum(map(len, frames))))


def _concat_column(name: str, frames: list[pd.DataFrame]) -> pd.Series:
    kinds = {kind_of(frame[name]) for frame in frames if name in frame and frame[name].notna().any()}
    kind = next(iter(kinds)) if len(kinds) == 1 else "float" if kinds == {"int", "float"} else "str"
    parts = [frame[name] if name in frame else pd.Series([None] * len(frame), dtype=object) for frame in frames]
    return pd.concat([_cast(part, kind) for part in parts], ignore_index=True)


def _cast(column: pd.Series, kind: str) -> pd.Series:
    """Bring a tidy column to a kind that can hold it; text holds all of them."""
    if kind != "str":
        return (column if kind_of(column) != "str" else pd.Series([None] * len(column))).astype(KINDS[kind][1])
    if pd.api.types.infer_dtype(column, skipna=True) in ("string", "empty"):
        return column.astype(object).where(column.notna(), None)
    return pd.Series([None if pd.isna(value) else str(value) for value in column], dtype=object)


def row_hashes(columns: pd.DataFrame) -> NDArray[np.uint64]:
    """Return a hash of each row of columns, shape (n,), to tell a changed manifest from a corrected label."""
    names = list(columns.columns)
    rows = list(zip(*(columns[name] for name in names), strict=True)) if names else [()] * len(columns)
    hashes = {row: _row_hash(names, row) for row in set(rows)}  # labels repeat
    return np.fromiter(map(hashes.__getitem__, rows), np.uint64, len(columns))


def _row_hash(names: list[str], row: Iterable[Any]) -> int:
    cells = {name: str(value) for name, value in zip(names, row, strict=True) if not pd.isna(value)}
    return int.from_bytes(hashlib.sha256(json.dumps(cells, sort_keys=True).encode()).digest()[:8], "little")


def overlay(old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """Return columns of `old` and `new`, row by row; where `new` has a value it wins.

    Raises
    ------
    ColumnError
        When a text value meets a numeric column.
    """
    columns = {name: old[name].reset_index(drop=True) for name in old.columns}
    for name in new.columns:
        fresh = new[name].reset_index(drop=True)
        columns[name] = _overlay_column(columns[name], fresh) if name in columns else fresh
    return pd.DataFrame(columns, index=range(len(new)))


def _overlay_column(old: pd.Series, new: pd.Series) -> pd.Series:
    both = _concat_column("", [old.to_frame(""), new.to_frame("")])
    first, second = both.iloc[: len(old)], both.iloc[len(old) :].reset_index(drop=True)
    return first.where(second.isna(), second)
