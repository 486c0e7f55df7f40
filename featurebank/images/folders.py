"""Folders of images -> a source: flat folders and class folders."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import pandas as pd

from featurebank.errors import SourceError
from featurebank.images import formats, listing
from featurebank.images.packed import scan_parquet_folder
from featurebank.images.sources import Source, key_of, of_files
from featurebank.images.tables import MANIFESTS
from featurebank.storage.files import AnyPath
from featurebank.storage.objects import ObjectPath


def scan_folder(name: AnyPath, root: AnyPath) -> Source:
    """List a folder's images; see `featurebank.scan`."""
    if isinstance(root, Path) and not root.is_dir():
        found = "is a file" if root.exists() else "does not exist"
        raise SourceError(f"{str(root)!r} {found}; expected a folder of images, or a {', '.join(MANIFESTS)} manifest")
    ignored: Counter[str] = Counter()
    entries = sorted(listing.walk(root, ignored), key=itemgetter(0))
    if not entries and (images := scan_parquet_folder(name, root)) is not None:
        return images
    if not entries and not ignored and isinstance(root, ObjectPath):
        raise SourceError(f"nothing lies at {str(root)!r}; expected a folder of images: check the bucket and the name")
    if not entries:
        raise SourceError(
            f"no images in {str(root)!r}; expected files ending in {', '.join(sorted(formats.SUFFIXES))}"
        )
    columns = _class_folders([path for path, *_ in entries])
    facts: dict[str, Any] = {"ignored": dict(ignored), "class_folders": "label" in columns}
    return of_files(key_of(name), key_of(root), entries, columns, whole=True, **facts)


def _class_folders(paths: Sequence[bytes]) -> pd.DataFrame:
    """Return the column ``label``, the top folder of each path; no column for a flat folder."""
    tops = [top if slash else None for top, slash, _ in (path.partition(b"/") for path in paths)]
    if not any(tops):
        return pd.DataFrame(index=range(len(paths)))
    names = {top: None if top is None else os.fsdecode(top) for top in set(tops)}
    labels = [names[top] for top in tops]
    return pd.DataFrame({"label": pd.Series(labels, dtype=object)})
