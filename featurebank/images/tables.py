"""The users' tables: files read as columns of the four kinds that a bank stores."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from featurebank.errors import SourceError, StorageError, one_line
from featurebank.images.columns import is_missing, tidy
from featurebank.storage.files import AnyPath

JSON_LINES = (".jsonl", ".ndjson")
MANIFESTS = (".csv", ".parquet", ".pq", *JSON_LINES)
"""The ends of the names of files that hold a table."""


def read_table(path: AnyPath) -> pd.DataFrame:
    """Read a CSV, Parquet or JSON Lines file as tidy columns (see `tidy`).

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
        elif path.suffix.lower() in JSON_LINES:
            table = tidy(_read_json_lines(content))
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


def _read_json_lines(path: Path | io.BytesIO) -> pd.DataFrame:
    """Return the objects of JSON Lines as rows, each cell as JSON has it; lists and objects are kept as JSON."""
    data = path.read_bytes() if isinstance(path, Path) else path.getvalue()
    lines = data.decode(json.detect_encoding(data), "surrogateescape").split("\n")
    rows = [_read_json_line(line, number) for number, line in enumerate(lines, 1) if line.strip()]
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pd.DataFrame({name: pd.Series([row.get(name) for row in rows], dtype=object) for name in names})


def _read_json_line(line: str, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {number} is no JSON ({error.msg}); expected an object a line") from error
    if not isinstance(row, dict):
        raise ValueError(f"line {number} holds a {type(row).__name__}; expected an object a line, {{...}}")
    return flat_row(row)


def flat_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON object as cells: lists and objects in it are kept as JSON."""
    return {name: json.dumps(value) if isinstance(value, (list, dict)) else value for name, value in row.items()}


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
    cells = [None if is_missing(value) or value == "" else str(value) for value in column]
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
