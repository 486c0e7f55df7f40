"""The column of a table that holds the paths: the one that is named, or the only one called so."""

from __future__ import annotations

from collections.abc import Iterable

from featurebank.errors import shell_word
from featurebank.images import formats
from featurebank.images.columns import is_missing
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
OTHER_NAMES = (
    *("pfad", "dateipfad", "bildpfad", "dateiname", "bilddatei", "bildname", "bild", "datei"),
    *("chemin", "nom_de_fichier", "nom_fichier", "fichier"),
    *("ruta", "nombre_de_archivo", "nombre_archivo", "archivo", "imagen"),
)
"""The same in German, French and Spanish; they count where all that stands there ends as files of images do."""
_IDS = ("id", "image_id", "img_id", "id_code")
"""Names of `PATH_COLUMNS` that may as well be those of anything else."""
_LOOKED_AT = 100
_FIRST = 5
"""Rows of which one may have the names, below a title."""


def find_path_column(columns: Iterable[str], asked: str | None) -> str | None:
    """Return the column of paths: the one asked for, else the first of `PATH_COLUMNS`; None where there is none.

    Of a table also one of `OTHER_NAMES`, before a column that is called id.

    Examples
    --------
    >>> find_path_column(["label", "Filename"], None)
    'Filename'
    >>> find_path_column(pd.DataFrame({"ID": ["7"], "Nom de fichier": ["a/7.tif"]}), None)
    'Nom de fichier'
    """
    names = list(columns)
    if asked is not None:
        return asked if asked in names else None
    lowered = {"_".join(str(name).lower().split()): str(name) for name in reversed(names)}
    known = [name for name in PATH_COLUMNS if name in lowered][:1]
    if isinstance(columns, pd.DataFrame) and (not known or known[0] in _IDS):
        known = [name for name in OTHER_NAMES if name in lowered and _are_images(columns[lowered[name]])][:1] or known
    return lowered[known[0]] if known else None


def _are_images(cells: pd.Series) -> bool:
    some = [cell for cell in cells.head(_LOOKED_AT) if not is_missing(cell) and str(cell).strip()]
    return bool(some) and all(map(_is_image, some))


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
    return str(cell).strip().lower().endswith(tuple(formats.SUFFIXES))
