"""Tables beside the images of a folder, as Hugging Face's ``imagefolder`` has them: ``metadata.csv`` and its kin."""

from __future__ import annotations

import logging
import os
import posixpath
from collections import Counter
from collections.abc import Iterator, Sequence

from featurebank.errors import SourceError, counted
from featurebank.images.cells import notes_on_cells
from featurebank.images.columns import concat_columns, tidy
from featurebank.images.dataframes import pd
from featurebank.images.listing import Entry
from featurebank.images.locating import rows_with_path
from featurebank.images.matching import Matcher
from featurebank.images.sources import refuse_repeats
from featurebank.images.table_options import TableOptions
from featurebank.images.tables import read_table
from featurebank.storage.files import AnyPath

NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
FILE_NAME = "file_name"
"""The column of the paths, which start where the table lies."""
_LOG = logging.getLogger(__name__)


def add_metadata(
    root: AnyPath, entries: list[Entry], columns: pd.DataFrame, ignored: Counter[str], options: TableOptions
) -> tuple[list[Entry], pd.DataFrame, list[str]]:
    """Lay the tables beside the images of a folder over the columns that its folders give.

    A row whose file is not there becomes a sample that cannot be read, so that it is told.

    Parameters
    ----------
    root : path
        The folder.
    entries : list of Entry
        Its images.
    columns : DataFrame
        What its folders say of them.
    ignored : Counter of str
        Its other files by suffix; the tables are taken off.
    options : TableOptions
        How the tables are read.

    Returns
    -------
    entries : list of Entry
    columns : DataFrame
    notes : list of str
        What was done, a sentence each.
    """
    found = list(_tables(root, entries, ignored, options))
    if not found and options != TableOptions():
        raise SourceError(
            f"{str(root)!r} has no table ({', '.join(NAMES)}); leave out separator, encoding and labels_as"
        )
    if not found:
        return entries, columns, []
    rows = concat_columns([table for _, table, _ in found])
    wanted = [name for *_, names in found for name in names]
    matcher = Matcher([path for path, *_ in entries])
    matched = [matcher.find(name) for name in wanted]
    paths = [name if path is None else path for name, (path, _) in zip(wanted, matched, strict=True)]
    refuse_repeats(root / found[0][0], paths)
    lost = [(path, 0, 0, why) for path, (there, why) in zip(paths, matched, strict=True) if there is None]
    entries = [*entries, *lost]
    given = rows.set_axis(paths).reindex([path for path, *_ in entries]).reset_index(drop=True)
    kept = columns.drop(columns=[name for name in given if name in columns]).reindex(range(len(entries)))
    without = len(entries) - len(paths)
    for doubt in notes_on_cells(rows, list(map(os.fsdecode, wanted)), options.labels_as):
        _LOG.warning("%s", doubt)
    note = f"{', '.join(map(repr, rows.columns)) or 'no column'} from {', '.join(name for name, *_ in found)}"
    return (
        entries,
        tidy(pd.concat([kept, given], axis=1)),
        [note + f"; {counted(without, 'image has', 'images have')} no row" * (without > 0)],
    )


def _tables(
    root: AnyPath, entries: Sequence[Entry], ignored: Counter[str], options: TableOptions
) -> Iterator[tuple[str, pd.DataFrame, list[bytes]]]:
    """Yield the name of each table, its columns, and the paths of its rows from the root."""
    for folder in _folders(entries):
        for name in NAMES:
            suffix = posixpath.splitext(name)[1]
            if not ignored[suffix] or not (root / posixpath.join(folder, name)).is_file():
                continue
            table = read_table(root / posixpath.join(folder, name), options)
            if FILE_NAME in table:
                ignored[suffix] -= 1
                table = table.iloc[rows_with_path(table[FILE_NAME])]
                cells = [posixpath.normpath(posixpath.join(folder, str(cell))) for cell in table[FILE_NAME]]
                rest = table.drop(columns=FILE_NAME).reset_index(drop=True)
                yield posixpath.join(folder, name), rest, [os.fsencode(cell) for cell in cells]


def _folders(entries: Sequence[Entry]) -> list[str]:
    """Return the folders that images lie in, and those above, from the top."""
    found = {""}
    for folder in {os.fsdecode(path.rpartition(b"/")[0]) for path, *_ in entries}:
        while folder not in found:
            found.add(folder)
            folder = folder.rpartition("/")[0]
    return sorted(found)
