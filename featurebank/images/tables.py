"""The users' tables: files read as columns of the four kinds that a bank stores, each format by its reader."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Mapping
from typing import Any

from featurebank.errors import SourceError, StorageError, one_line, printable
from featurebank.images import encodings
from featurebank.images.arrow import user_columns
from featurebank.images.cells import notes_on_numbers, parse_text
from featurebank.images.columns import is_missing, tidy
from featurebank.images.dataframes import pd
from featurebank.images.path_columns import find_path_column
from featurebank.images.table_options import TableOptions
from featurebank.images.text_tables import IsName, is_utf8, read_text
from featurebank.storage.files import AnyPath

TEXTS = (".csv", ".tsv", ".txt")
JSON_LINES = (".jsonl", ".ndjson")
MANIFESTS = (*TEXTS, ".parquet", ".pq", *JSON_LINES)
"""The ends of the names of files that hold a table."""
_LOG = logging.getLogger(__name__)


def is_table(path: AnyPath) -> bool:
    """Say whether a path is a file that holds a table, by its name."""
    return path.suffix.lower() in MANIFESTS and not path.is_dir()


def read_table(
    path: AnyPath,
    options: TableOptions | None = None,
    *,
    path_column: str | None = None,
    is_name: IsName | None = None,
) -> pd.DataFrame:
    """Read a table of text (CSV), Parquet or JSON Lines as tidy columns (see `tidy`).

    Separator and encoding of a table of text are found where they are unambiguous; what is not as everywhere goes to
    the log. Cells become numbers as `parse_text` says; those of the column of paths never do.

    Parameters
    ----------
    path : path
    options : TableOptions, optional
    path_column : str, optional
        Column of paths, by default one of `PATH_COLUMNS` where there is one.
    is_name : callable, optional
        Says whether there is a file, or a sample, of a name, so that names that are not UTF-8 keep their bytes.

    Raises
    ------
    SourceError
        When the file is missing, empty or not such a table, or could be read in several ways.
    """
    if not is_table(path):
        found = "is a folder" if path.is_dir() else "is no table by its suffix"
        raise SourceError(f"{str(path)!r} {found}; expected a file that ends in {', '.join(MANIFESTS)}")
    options = options or TableOptions()
    try:
        table, notes = _read(path, options, path_column, is_name)
    except (StorageError, SourceError):
        raise
    except (OSError, ValueError, ImportError, LookupError, pd.errors.ParserWarning) as error:
        raise SourceError(f"{str(path)!r} cannot be read as a table: {one_line(error)}") from error
    if table.empty:
        raise SourceError(f"{str(path)!r} has no rows; expected one a sample")
    if notes:
        _LOG.info("%s: %s", path.name, "; ".join(notes))
    return table


def _read(
    path: AnyPath, options: TableOptions, path_column: str | None, is_name: IsName | None
) -> tuple[pd.DataFrame, list[str]]:
    """Return the columns of a file, and notes on how it was read."""
    suffix, data = path.suffix.lower(), path.read_bytes()
    if suffix in TEXTS:
        separator = options.separator or ("tab" if suffix == ".tsv" and b"\t" in data else None)
        told = {"separator": separator, "encoding": options.encoding}
        text = read_text(data, path, **told, path_column=path_column, is_name=is_name)
        return _parse(text.cells, path_column, text.decimal, options.labels_as, text.notes)
    if options.separator or (options.encoding and suffix not in JSON_LINES):
        raise SourceError(f"{str(path)!r} is no table of text ({', '.join(TEXTS)}); leave out separator and encoding")
    if suffix in JSON_LINES:
        table = tidy(_read_json_lines(data, options.encoding, path))
        _check_utf8(table, path_column, path)
    else:
        table = _read_parquet(io.BytesIO(data))
    if options.labels_as == "auto":
        return table, []
    cells = table.astype(object).map(lambda value: None if is_missing(value) else str(value))
    return _parse(cells, path_column, ".", options.labels_as, [])


def _parse(
    cells: pd.DataFrame, path_column: str | None, decimal: str, labels_as: str, notes: list[str]
) -> tuple[pd.DataFrame, list[str]]:
    """Return columns of text as what they hold, the column of paths as it is, and notes on what was not plain."""
    names = find_path_column(cells, path_column)
    paths = [] if names is None else [names]
    parsed = parse_text(cells.drop(columns=paths), decimal=decimal, labels_as=labels_as)
    notes = notes + notes_on_numbers(cells, parsed)
    return parse_text(cells[paths], labels_as="text").join(parsed)[list(cells)], notes


def _read_parquet(content: io.BytesIO) -> pd.DataFrame:
    """Return the columns of a Parquet file as everywhere (`user_columns`)."""
    import pyarrow.parquet as pq

    return user_columns(pq.read_table(content))


def _read_json_lines(data: bytes, encoding: str | None, where: AnyPath) -> pd.DataFrame:
    """Return the objects of JSON Lines as rows, each cell as JSON has it; lists and objects are kept as JSON."""
    found = json.detect_encoding(data)
    text = encodings.decode(data, encoding, where) if encoding else data.decode(found, "surrogateescape")
    lines = text.split("\n")
    rows = [_read_json_line(line, number) for number, line in enumerate(lines, 1) if line.strip()]
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pd.DataFrame({name: pd.Series([row.get(name) for row in rows], dtype=object) for name in names})


def _check_utf8(table: pd.DataFrame, path_column: str | None, where: AnyPath) -> None:
    """Refuse text that is not UTF-8, unless paths are not either: then all of it are files' names."""
    paths = find_path_column(table, path_column)
    odd = {name: [cell for cell in table[name] if isinstance(cell, str) and not is_utf8(cell)] for name in table}
    words = [cell for name, cells in odd.items() if name != paths for cell in cells]
    if words and not (paths and odd[paths]):
        raise SourceError(
            f"{str(where)!r} is not UTF-8, as JSON Lines are ({printable(words[0])!r}): save it as UTF-8, or name its "
            "encoding with --encoding (such as cp1252)"
        )


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
