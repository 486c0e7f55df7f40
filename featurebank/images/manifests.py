"""Manifests -> a source: tables with a column of paths."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd

from featurebank.errors import SourceError
from featurebank.images import listing
from featurebank.images.sources import Source, key_of, of_files, refuse_repeats
from featurebank.images.tables import read_table
from featurebank.storage.files import AnyPath
from featurebank.storage.objects import is_address


def scan_manifest(manifest: AnyPath, root: AnyPath, path_column: str) -> Source:
    """List the images that a manifest names; see `featurebank.scan`."""
    table = read_table(manifest)
    if path_column not in table.columns:
        raise SourceError(
            f"{str(manifest)!r} has no column {path_column!r}; it has {', '.join(map(repr, table.columns))}: "
            "name the one with the paths (--path-column)"
        )
    if isinstance(root, Path) and not root.is_dir():
        raise SourceError(f"{str(root)!r} is not a folder; expected the one that the manifest's paths start from")
    paths = [_manifest_path(cell, key_of(root)) for cell in table[path_column]]
    refuse_repeats(manifest, [path for path, _ in paths])
    look = listing.stat_below(root)
    entries = [(path, 0, 0, problem) if problem else (path, *look(path)) for path, problem in paths]
    return of_files(key_of(manifest), key_of(root), entries, table.drop(columns=path_column), whole=True)


def _manifest_path(cell: Any, root: str) -> tuple[bytes, str]:
    """Return a cell's path relative to the root, and the problem if it is empty or leaves it."""
    if pd.isna(cell) or not str(cell).strip():
        return b"", "the manifest's path is empty"
    text = str(cell).removeprefix(f"{root}/") if is_address(root) else str(cell)
    inside = os.path.normpath(os.path.relpath(text, root) if os.path.isabs(text) else text)
    if is_address(text) or inside.split(os.sep, 1)[0] == os.pardir or "\0" in inside:
        return os.fsencode(text.replace("\0", "?")), "the manifest's path leaves the root"
    return os.fsencode(inside), ""
