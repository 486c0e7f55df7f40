"""Folders of images -> a source: flat folders, class folders, and parts of a split."""

from __future__ import annotations

from collections import Counter
from operator import itemgetter
from pathlib import Path
from typing import Any

from featurebank.errors import SourceError
from featurebank.images import listing
from featurebank.images.layout import read_layout, top_folders
from featurebank.images.metadata import add_metadata
from featurebank.images.packed import scan_parquet_folder
from featurebank.images.sources import Source, key_of, no_images, of_files
from featurebank.images.table_options import TableOptions
from featurebank.images.tables import MANIFESTS
from featurebank.storage.files import AnyPath
from featurebank.storage.objects import ObjectPath

_INSTEAD = dict.fromkeys((".zip", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar"), "unpack it first")
_INSTEAD |= dict.fromkeys((".xlsx", ".xls", ".ods"), "save the table as CSV")
_INSTEAD |= {".json": "write it as JSON Lines (.jsonl), an object a line"}
"""What to do about files that are no source, by the ends of their names."""


def scan_folder(name: AnyPath, root: AnyPath, options: TableOptions) -> Source:
    """List a folder's images; see `featurebank.scan`."""
    if isinstance(root, Path) and not root.is_dir():
        found = "is a file" if root.exists() else "does not exist"
        way = f": {_INSTEAD[root.suffix.lower()]}" if root.suffix.lower() in _INSTEAD else ""
        raise SourceError(
            f"{str(root)!r} {found}; expected a folder of images, or a {', '.join(MANIFESTS)} manifest{way}"
        )
    ignored: Counter[str] = Counter()
    entries = sorted(listing.walk(root, ignored), key=itemgetter(0))
    if not entries and (images := scan_parquet_folder(name, root)) is not None:
        return images
    if not entries and not ignored and isinstance(root, ObjectPath):
        raise SourceError(f"nothing lies at {str(root)!r}; expected a folder of images: check the bucket and the name")
    if not entries:
        raise no_images(str(root), ignored, "files")
    layout, notes = read_layout([path for path, *_ in entries])
    entries, columns, more = add_metadata(root, entries, layout, ignored, options)
    is_label = "label" in layout and layout["label"].equals(columns["label"].head(len(layout)))
    facts: dict[str, Any] = {"ignored": dict(+ignored), "class_folders": is_label, "notes": notes + more}
    earlier = top_folders([path for path, *_ in entries])
    facts["earlier"] = None if columns.equals(earlier) else earlier
    return of_files(key_of(name), key_of(root), entries, columns, whole=True, **facts)
