"""Manifests -> a source: tables with a column of paths."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from featurebank.errors import SourceError, no_column
from featurebank.images.cells import describe, notes_on_cells
from featurebank.images.locating import locate, rows_with_path
from featurebank.images.path_columns import find_path_column, path_column_hint
from featurebank.images.sources import Source, key_of, of_files, refuse_repeats
from featurebank.images.table_options import TableOptions
from featurebank.images.tables import read_table
from featurebank.storage.files import AnyPath

_LOG = logging.getLogger(__name__)


def scan_manifest(
    manifest: AnyPath, root: AnyPath, path_column: str | None = None, options: TableOptions | None = None
) -> Source:
    """List the images that a manifest names; see `featurebank.scan`."""
    table = read_table(manifest, options, path_column=path_column, is_name=lambda name: _is_below(root, name))
    column = find_path_column(table, path_column)
    if column is None:
        lacking = no_column(f"{str(manifest)!r} has", path_column or "path", table.columns)
        raise SourceError(f"{lacking}: {path_column_hint(table)}")
    if isinstance(root, Path) and not root.is_dir():
        raise SourceError(f"{str(root)!r} is not a folder; expected the one that the manifest's paths start from")
    rows = rows_with_path(table[column])
    if not rows:
        raise SourceError(f"{str(manifest)!r} has no path in its column {column!r}; expected one a row")
    table = table.iloc[rows].reset_index(drop=True)
    entries = locate([str(cell) for cell in table[column]], manifest, root)
    refuse_repeats(manifest, [path for path, *_ in entries])
    columns = table.drop(columns=column)
    _LOG.info("columns of %s: %s", manifest.name, describe(columns))
    names = [str(cell) for cell in table[column]]
    for note in notes_on_cells(columns, names, (options or TableOptions()).labels_as):
        _LOG.warning("%s", note)
    return of_files(key_of(manifest), key_of(root), entries, columns, whole=True)


def _is_below(root: AnyPath, name: str) -> bool:
    return isinstance(root, Path) and os.path.lexists(os.path.join(root, name))
