"""Tables and other containers of Python -> a source, or a plain list of images: DataFrames, dicts, columns, Arrow."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from featurebank.errors import SourceError, no_column, one_line
from featurebank.images import formats
from featurebank.images.arrow import as_series, choose_column, holds_bytes, user_columns
from featurebank.images.cells import notes_on_strangers
from featurebank.images.columns import is_missing, tidy
from featurebank.images.dataframes import pd
from featurebank.images.items import is_path, is_picture
from featurebank.images.locating import say_left_out
from featurebank.images.memory import scan_list, scan_memory
from featurebank.images.path_columns import find_path_column
from featurebank.images.sources import Source

TAKEN = (
    "expected a folder, a manifest, a list of paths or images, a DataFrame or dict of columns, one of them the paths "
    "or images, a dict of path: label, or a Dataset"
)
NO_NAME = "a name goes with images in memory; files are known by their paths: leave it out"
_TO_LIST = ("to_pylist", "to_list")
"""How columns become lists: those of Arrow, those of pandas and Polars."""
_SHOWN = 5
_LOG = logging.getLogger(__name__)


# --- sources -----------------------------------------------------------------------------------------------


def scan_frame(
    frame: pd.DataFrame,
    column: str | None,
    root: str | os.PathLike[str],
    ids: Sequence[Any] | None,
    name: str | None,
    *,
    kind: str = "table",
) -> Source:
    """List the images of a table with a column of paths or of images; see `featurebank.scan`.

    Images in memory without a `name` are called after the `kind` of table.
    """
    if not len(frame):
        raise SourceError("the table has no rows; expected one an image")
    frame = _with_paths(frame) if column is None else frame
    column = picture_column(frame, column)
    names = list(frame.index if ids is None else ids)
    given = [not is_missing(cell) and not (is_path(cell) and not str(cell).strip()) for cell in frame[column]]
    if not all(given):
        say_left_out(given, f"nothing in column {column!r}")
        names = [each for each, has_one in zip(names, given, strict=False) if has_one]
    cells, rest = list(frame[column][given]), frame[given].drop(columns=column)
    mixed = [each for each in rest if pd.api.types.infer_dtype(rest[each]) in ("mixed", "mixed-integer")]
    rows = [str(cell) if is_path(cell) else f"row {row}" for row, cell in enumerate(cells)]
    for note in notes_on_strangers(tidy(rest[mixed]), rows) if mixed else []:
        _LOG.warning("%s", note)
    if not cells:
        raise SourceError(f"the table has no image in its column {column!r}; expected one a row")
    if is_path(cells[0]):
        refuse_names(ids, name)
        return scan_list(cells, rest, root)
    return scan_memory(cells, names, rest, name or kind)


def _with_paths(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose index has the paths, by its name or by what they end in, with these as a column."""
    index = frame.index
    is_text = isinstance(index[0], str)
    if not is_text or find_path_column(frame, None) is not None:
        return frame
    is_named = find_path_column([str(index.name)], None) is not None
    is_paths = is_named or os.path.splitext(index[0])[1].lower() in formats.SUFFIXES
    has_images = any(is_picture(_first(frame[name])) for name in frame)
    return frame if has_images or not is_paths else frame.rename_axis("path").reset_index()


def refuse_names(ids: Any, name: str | None) -> None:
    """Raise a `SourceError` when names are given for files."""
    if ids is not None:
        raise SourceError("ids go with images in memory; a list of paths is keyed by the paths")
    if name is not None:
        raise SourceError(NO_NAME)


def picture_column(frame: pd.DataFrame, asked: str | None = None) -> str:
    """Return the column of a table that holds the images, or else their paths.

    Raises
    ------
    SourceError
        When there is none, or several of which none has a usual name.

    Examples
    --------
    >>> picture_column(pd.DataFrame({"label": ["cat"], "filename": ["a.png"]}))
    'filename'
    """
    have = ", ".join(map(repr, frame.columns)) or "none"
    if asked is not None and asked not in frame.columns:
        lacking = no_column("the table has", asked, frame.columns)
        raise SourceError(f"{lacking}: name one of them as path_column=")
    if asked is not None:
        return asked
    first = {name: _first(frame[name]) for name in frame.columns}
    images = [name for name, cell in first.items() if is_picture(cell)]
    if images:
        return choose_column(images, "the table")
    paths = [name for name, cell in first.items() if is_path(cell)]
    known = find_path_column(frame[paths], None)
    if known is None and (len(first) > 1 or not paths):
        raise SourceError(f"no column of the table, {have}, is known to hold images or paths: name it as path_column=")
    return paths[0] if known is None else known


def _first(column: pd.Series) -> Any:
    return next((cell for cell in column if not is_missing(cell)), None)


# --- tables --------------------------------------------------------------------------------------------------


def as_frame(source: Any) -> pd.DataFrame | None:
    """Return a table of any library as a DataFrame, or None for what is no table.

    That is a DataFrame of pandas or Polars, an Arrow table or whatever else gives Arrow its columns, a dict, or a list
    of dicts.

    Raises
    ------
    SourceError
        When a dict or a table is of another kind.

    Examples
    --------
    >>> as_frame(pa.table({"path": ["a.png"], "label": [3]})).to_dict("list")
    {'path': ['a.png'], 'label': [3]}
    >>> as_frame({"a.png": "cat"}).to_dict("list")
    {'path': ['a.png'], 'label': ['cat']}
    >>> as_frame(["a.png"]) is None
    True
    """
    if isinstance(source, pd.DataFrame):
        return source
    if isinstance(source, Mapping):
        return _frame_of_dict(source)
    if isinstance(source, list) and source and all(isinstance(each, Mapping) for each in source):
        return _frame_of_rows(source)
    if hasattr(source, "collect_schema") and hasattr(source, "collect"):  # a lazy frame of Polars
        source = source.collect()
    is_table = hasattr(source, "columns") or hasattr(source, "column_names")
    if is_table and hasattr(source, "__arrow_c_stream__"):
        return _frame_of_arrow(source)
    is_whole = is_table and hasattr(source, "__len__")
    return source.to_pandas() if is_whole and hasattr(source, "to_pandas") else None


def _frame_of_arrow(source: Any) -> pd.DataFrame:
    """Return an Arrow table's columns; those of bytes are not copied."""
    try:
        table = pa.table(source)
    except Exception as error:  # Arrow's own, or that of the library which is asked for its columns
        raise SourceError(
            f"a {type(source).__name__} cannot be read through Arrow: {one_line(error)}; give a DataFrame of pandas"
        ) from error
    frame = user_columns(table)
    for field in table.schema:
        if holds_bytes(field.type) and field.name not in frame:
            frame[field.name] = as_series(table[field.name])
    return frame


def _frame_of_dict(source: Mapping[Any, Any]) -> pd.DataFrame:
    """Return a dict of columns, or one of an image, a label or several facts each, as a table."""
    keys, values = list(source), list(source.values())
    if values and all(map(is_picture, values)):
        return pd.DataFrame({"image": _cells(values)}).set_axis(keys)
    if values and all(map(_is_sequence, values)):
        return _frame_of_columns(source)
    if values and all(map(is_path, keys)) and all(isinstance(each, Mapping) for each in values):
        return _frame_of_rows([{**facts, "path": path} for path, facts in source.items()])
    if values and all(map(is_path, keys)) and all(map(_is_label, values)):
        return _frame_of_columns({"path": keys, "label": values})
    kinds = ", ".join(sorted({type(value).__name__ for value in values})) or "nothing"
    shown = ", ".join(map(repr, keys[:_SHOWN])) + ", …" * (len(keys) > _SHOWN)
    raise SourceError(f"a dict of {kinds} ({shown}) is no image source; {TAKEN}: of several, give one at a time")


def _frame_of_columns(columns: Mapping[Any, Any]) -> pd.DataFrame:
    counts = {name: len(column) for name, column in columns.items()}
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{name!r} {count}" for name, count in counts.items())
        raise SourceError(f"the dict's columns have different lengths ({found}); expected one value an image in each")
    return pd.DataFrame({name: _cells(column) for name, column in columns.items()})


def _frame_of_rows(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    names = dict.fromkeys(name for row in rows for name in row)
    return pd.DataFrame({name: _cells([row.get(name) for row in rows]) for name in names})


def _is_sequence(value: Any) -> bool:
    return isinstance(value, (list, tuple, np.ndarray)) or is_column(value)


def _is_label(value: Any) -> bool:
    return isinstance(value, str) or is_missing(value) or np.ndim(value) == 0


def _cells(column: Any) -> pd.Series:
    """Return a column as a Series without looking into what it holds."""
    if isinstance(column, (pd.Series, pd.Index, pd.api.extensions.ExtensionArray)):
        return pd.Series(column).reset_index(drop=True)
    if isinstance(column, np.ndarray) and column.ndim == 1:
        return pd.Series(column)
    cells = np.empty(len(column), object)
    cells[:] = None
    for row, cell in enumerate(as_items(column)):
        cells[row] = cell
    return pd.Series(cells)


# --- lists -------------------------------------------------------------------------------------------------


def as_items(images: Any) -> list[Any]:
    """Return what is given as images as a list of what `featurebank.images.listing.read_image` takes.

    Parameters
    ----------
    images : path-like, bytes, PIL image, sequence, column or table
        One image; a list, an array or a column of any library, whatever its index; a column vector of paths; or a table
        (`as_frame`), whose column of images or paths counts.

    Raises
    ------
    SourceError
        When a table has no such column.

    Examples
    --------
    >>> as_items("a.png"), as_items(pd.Series(["a.png", "b.png"], index=[7, 3])), as_items(np.array([["a.png"]]))
    (['a.png'], ['a.png', 'b.png'], ['a.png'])
    """
    if is_path(images) or isinstance(images, (bytes, Image.Image)):
        return [images]
    if isinstance(images, (list, tuple)):
        return list(images)
    frame = as_frame(images)
    if frame is not None:
        return list(frame[picture_column(frame)])
    if _is_column_vector(images):
        return images[:, 0].tolist()
    for method in _TO_LIST:
        if hasattr(images, method):
            return list(getattr(images, method)())
    return list(images)


def is_column(source: Any) -> bool:
    """Say whether something is a column of a table, or an array of one column of text or objects."""
    is_table = hasattr(source, "column_names")
    return _is_column_vector(source) or (not is_table and any(hasattr(source, method) for method in _TO_LIST))


def _is_column_vector(source: Any) -> bool:
    is_of_objects = isinstance(source, np.ndarray) and source.dtype.kind in "OUS"
    return bool(is_of_objects and source.ndim == 2 and source.shape[1] == 1)
