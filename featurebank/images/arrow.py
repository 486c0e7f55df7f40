"""Arrow tables: which column holds images, and the others as the users' columns."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from featurebank.errors import SourceError
from featurebank.images.columns import tidy
from featurebank.images.dataframes import pd

IMAGE_COLUMNS = ("image", "img", "picture", "photo", "pixel_values", "jpg", "jpeg", "png", "bytes")
"""Names that columns of images go by, the most usual first."""
BYTES, PATH = "bytes", "path"
"""What `datasets` calls the content of a file and its path, in a struct."""
_INDEX = re.compile(r"__index_level_\d+__")
"""Columns that pandas adds for the numbers of rows."""


def holds_bytes(kind: pa.DataType) -> bool:
    """Say whether cells of a type may be image files: bytes, or a struct that has some."""
    if pa.types.is_struct(kind):
        return kind.get_field_index(BYTES) >= 0 and holds_bytes(kind.field(BYTES).type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def file_paths(values: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """Return the paths of a column of files that are given by their paths alone, as `datasets` may; None for others.

    Examples
    --------
    >>> file_paths(pa.chunked_array([[{"bytes": None, "path": "a.png"}]])).to_pylist()
    ['a.png']
    >>> file_paths(pa.chunked_array([[{"bytes": b"...", "path": "a.png"}]])) is None
    True
    """
    kind = values.type
    if not pa.types.is_struct(kind) or not {PATH} <= {each.name for each in kind} <= {BYTES, PATH}:
        return None
    parts = dict(zip([each.name for each in kind], values.flatten(), strict=True))
    has_bytes = BYTES in parts and parts[BYTES].null_count < len(values)
    return None if has_bytes else parts[PATH]


def choose_column(names: Sequence[str], what: str) -> str:
    """Return which of several columns of images is meant.

    Raises
    ------
    SourceError
        When none has a usual name.
    """
    usual = [name for known in IMAGE_COLUMNS for name in names if name.lower() == known]
    if len(names) > 1 and not usual:
        raise SourceError(
            f"{what} has {len(names)} columns of images, {', '.join(map(repr, names))}: name the one to embed "
            "(path_column=, --path-column)"
        )
    return [*usual, *names][0]


def class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """Return the names of the classes that columns hold as numbers, as `datasets` keeps them in a schema."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        found = {name: _names(feature) for name, feature in features.items()}
    except (KeyError, TypeError, ValueError, AttributeError):  # not from there, or damaged
        return {}
    return {name: names for name, names in found.items() if names}


def _names(feature: Any) -> list[str]:
    """Return the class names of a feature, or of the items of a list."""
    inner = feature[0] if isinstance(feature, list) else feature.get("feature", feature)
    is_class = isinstance(inner, Mapping) and inner.get("_type") == "ClassLabel"
    return [str(name) for name in inner.get("names") or []] if is_class else []


def user_columns(table: pa.Table, count: int | None = None) -> pd.DataFrame:
    """Return the columns of an Arrow table as a bank stores them.

    Classes get their names, of which several in a cell are joined by ``|``; files that are given by their paths alone
    become these (`file_paths`); other lists and structs become JSON; columns of bytes, and the numbers of rows that
    pandas adds, are left out.

    Parameters
    ----------
    table : pyarrow.Table
    count : int, optional
        Its rows, which a table without columns does not know.

    Examples
    --------
    >>> features = {"label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}
    >>> schema = pa.schema({"label": "int64"}, {"huggingface": json.dumps({"info": {"features": features}})})
    >>> user_columns(pa.table({"label": [1, 0, -1]}, schema=schema))["label"].tolist()
    ['dog', 'cat', None]
    """
    names = class_names(table.schema)
    given = {name: (table[name], file_paths(table[name])) for name in table.column_names if not _INDEX.fullmatch(name)}
    cells = {
        name: values if paths is None else paths
        for name, (values, paths) in given.items()
        if paths is not None or not holds_bytes(values.type)
    }
    columns = {name: _column(name, values, names.get(name, [])) for name, values in cells.items()}
    return tidy(pd.DataFrame(columns, index=range(table.num_rows if count is None else count)))


def _column(name: str, values: pa.ChunkedArray, classes: list[str]) -> pd.Series:
    if classes:
        return name_classes(name, values.to_pylist(), classes)
    if pa.types.is_nested(values.type):
        cells = [None if cell is None else json.dumps(cell, default=str) for cell in values.to_pylist()]
        return pd.Series(cells, dtype=object)
    return as_series(values)


def as_series(values: pa.ChunkedArray) -> pd.Series:
    """Return a column of Arrow as one of pandas that holds it, missing values and all."""
    for is_view, kind in ((pa.types.is_string_view, pa.large_string()), (pa.types.is_binary_view, pa.large_binary())):
        values = values.cast(kind) if is_view(values.type) else values  # pandas knows no views
    return values.to_pandas(types_mapper=pd.ArrowDtype)


def name_classes(column: str, cells: Sequence[Any], classes: Sequence[str]) -> pd.Series:
    """Return class names for their numbers; -1 is a missing one, and several in a cell are joined by ``|``.

    Raises
    ------
    SourceError
        When a number has no name.
    """

    def name(number: Any) -> str | None:
        if number is None or number == -1 or isinstance(number, str):
            return None if number == -1 else number
        if not 0 <= number < len(classes):
            raise SourceError(f"column {column!r} holds class {number}, and names {len(classes)}: mend the file")
        return classes[number]

    named = [
        "|".join(filter(None, map(name, cell))) or None if isinstance(cell, (list, tuple)) else name(cell)
        for cell in cells
    ]
    return pd.Series(named, dtype=object)
