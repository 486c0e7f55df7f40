"""The users' columns: brought to the four kinds that a bank stores, stacked and overlaid."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurebank.errors import ColumnError, FeatureBankError
from featurebank.images.dataframes import pd

_INFERRED = {"boolean": "boolean", "integer": "Int64", "floating": "Float64", "mixed-integer-float": "Float64"}
MAX_INT = 2**63 - 1
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
    if len(set(names)) != len(names) or "" in names or not all(map(is_unicode, names)):
        raise ColumnError(f"column names {names} are not distinct, non-empty Unicode text: rename them")
    columns = {name: _tidy_column(name, frame.iloc[:, i]) for i, name in enumerate(names)}
    return pd.DataFrame(columns, index=range(len(frame)))


def is_unicode(text: str) -> bool:
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
    values = [None if is_missing(value) else value for value in column]
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
    return bool(is_int and len(given) and (given.max() > MAX_INT or given.min() < -MAX_INT))


def is_missing(value: Any) -> bool:
    """Say whether a cell holds no value."""
    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and value != value)


def check_labels(y: Any, error: type[FeatureBankError], what: str = "label") -> None:
    """Refuse labels of which some are missing: None, NaN or pandas' NA.

    Parameters
    ----------
    y : array-like, shape (n,) or (n, labels)
    error : type
        What is raised.
    what : str, default "label"
        What they are called in it.

    Raises
    ------
    FeatureBankError
        The `error`, which says how many rows lack a label.

    Examples
    --------
    >>> check_labels(["a", "b"], FeatureBankError)
    """
    is_gone = np.asarray(pd.isna(y if hasattr(y, "dtype") else np.asarray(y, dtype=object)))
    if is_gone.ndim and is_gone.any():
        count = int(is_gone.reshape(len(is_gone), -1).any(axis=1).sum())
        raise error(
            f"{count} of {len(is_gone)} rows {'has' if count == 1 else 'have'} no {what} (None or NaN); expected one a "
            "row: leave those rows out"
        )


def _text(value: Any) -> str:
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def text_frame(columns: Mapping[str, Any]) -> pd.DataFrame:
    """Return a DataFrame whose names and texts may come from files' names that are not UTF-8.

    pandas' own text refuses those, so they are objects then.

    Examples
    --------
    >>> [ascii(name) for name in text_frame({"proba_caf\\udce9": [0.5]})]
    ["'proba_caf\\\\udce9'"]
    """
    try:
        return pd.DataFrame(columns)
    except UnicodeEncodeError:
        cells = {number: _as_objects(column) for number, column in enumerate(columns.values())}
        return pd.DataFrame(cells).set_axis(pd.Index(list(columns), dtype=object), axis=1)


def join_frames(*frames: pd.DataFrame) -> pd.DataFrame:
    """Return tables of the same rows as one, side by side; see `text_frame`."""
    try:
        return pd.concat(frames, axis=1)
    except UnicodeEncodeError:
        return text_frame({name: frame[name] for frame in frames for name in frame})


def _as_objects(column: Any) -> pd.Series:
    """Return a column of text as objects; one of numbers as it is."""
    return pd.Series(list(column), dtype=object) if np.asarray(column).dtype.kind in "UO" else pd.Series(column)


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
