"""The column of a table that holds the paths: the one that is named, or the only one called so."""

from __future__ import annotations

from collections.abc import Iterable

from featurebank.errors import shell_word
from featurebank.images import formats
from featurebank.images.dataframes import pd

PATH_COLUMNS = (
    "path",
    "file_name",
    "filename",
    "filepath",
    "file_path",
    "image_path",
    "image_file",
    "image_name",
    "img_path",
    "image",
    "id",
    "image_id",
    "img_id",
    "id_code",
)
"""Names of a column of paths, in small letters; of several that a table has, the first counts."""
_LOOKED_AT = 100
_FIRST = 5
"""Rows of which one may have the names, below a title."""


def find_path_column(columns: Iterable[str], asked: str | None) -> str | None:
    """Return the column of paths: the one asked for, else the first of `PATH_COLUMNS`; None where there is none.

    Examples
    --------
    >>> find_path_column(["label", "Filename"], None)
    'Filename'
    """
    names = list(columns)
    if asked is not None:
        return asked if asked in names else None
    lowered = {str(name).lower(): str(name) for name in reversed(names)}
    return next((lowered[name] for name in PATH_COLUMNS if name in lowered), None)


def path_column_hint(frame: pd.DataFrame) -> str:
    """Return what to do about a table without a known column of paths, as the end of a message."""
    likely = [name for name in frame.columns if any(map(_is_image, frame[name].head(_LOOKED_AT)))]
    if any(_is_image(name) for name in frame.columns):
        return "its first line looks like a row: add a line of column names above it, such as path,label"
    for number, row in enumerate(frame.head(_FIRST).to_numpy().tolist(), 2):
        if find_path_column(map(str, row), None) is not None:
            return f"line {number} or so looks like the column names: delete the lines above it"
    example = f", such as --path-column {shell_word(likely[0])}" if likely else ""
    one = "; if it is one column only by mistake, name what separates its cells (--separator)"
    return f"name the one with the paths (--path-column{example}){one if len(frame.columns) == 1 else ''}"


def _is_image(cell: object) -> bool:
    return str(cell).lower().endswith(tuple(formats.SUFFIXES))
