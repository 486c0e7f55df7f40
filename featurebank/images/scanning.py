"""Scanning: any image source -> its samples; each kind of source has a module of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from featurebank.errors import SourceError
from featurebank.images import parquet
from featurebank.images.folders import scan_folder
from featurebank.images.manifests import scan_manifest
from featurebank.images.memory import scan_list, scan_memory
from featurebank.images.packed import scan_parquet, scan_shards
from featurebank.images.shards import is_shards
from featurebank.images.sources import Source
from featurebank.images.tables import MANIFESTS, TableOptions
from featurebank.storage import files
from featurebank.storage.files import AnyPath
from featurebank.storage.objects import ObjectPath


def scan(
    source: Any,
    *,
    root: str | AnyPath | None = None,
    path_column: str | None = None,
    separator: str | None = None,
    encoding: str | None = None,
    labels_as: str = "auto",
    ids: Sequence[str] | None = None,
    columns: Mapping[str, Sequence[Any]] | pd.DataFrame | None = None,
) -> Source:
    """List the samples of an image source without reading an image.

    Parameters
    ----------
    source : path, sequence or torch Dataset
        A folder (of class folders, or flat), a manifest (CSV or Parquet), tar shards (``shard-{000..009}.tar``), a
        list of image paths, of PIL images or of uint8 arrays, or a Dataset whose items are images or (image, label)
        pairs. Folders, manifests and shards may lie on object storage (``s3://bucket/photos``).
    root : path, optional
        Folder that a manifest's paths are relative to (default: the manifest's), or where a folder's files are
        now when they moved.
    path_column : str, optional
        The manifest's column of paths (default ``"path"``, else the first of `PATH_COLUMNS` that it has).
    separator, encoding : str, optional
        Of a manifest of text; by default found. See `featurebank.images.tables.TableOptions`.
    labels_as : str, default "auto"
        What a manifest's columns of text become: ``"auto"`` makes numbers where that loses nothing, ``"text"`` never,
        ``"numbers"`` also where it does.
    ids : sequence of str, optional
        A name for each image in memory; required for PIL images and arrays.
    columns : mapping or DataFrame, optional
        Columns for a list or Dataset, aligned with it.

    Raises
    ------
    SourceError
        When the source is missing, empty, or not of these kinds.
    StorageError
        When a store does not answer, or the library for it is not installed.
    """
    if isinstance(source, (str, Path, ObjectPath)):
        if ids is not None or columns is not None:
            raise SourceError("ids and columns go with a list of images; a folder or manifest has its own")
        where = None if root is None else files.as_path(root)
        return _scan_path(files.as_path(source), where, path_column, TableOptions(separator, encoding, labels_as))
    if root is not None or path_column is not None:
        raise SourceError("root and path_column go with a folder or manifest, not with a list of images")
    if isinstance(source, (pd.Series, pd.Index)):  # positions, not its index, count below
        source = source.tolist()
    if not hasattr(source, "__len__") or not hasattr(source, "__getitem__"):
        raise SourceError(f"a {type(source).__name__} is no image source; expected a folder, a manifest or a list")
    if len(source) == 0:
        raise SourceError("the list of images is empty; expected at least one")
    if isinstance(source[0], (str, Path)):
        return scan_list(source, ids, columns)
    return scan_memory(source, ids, columns)


def _scan_path(path: AnyPath, root: AnyPath | None, path_column: str | None, options: TableOptions) -> Source:
    if path.suffix.lower() in parquet.SUFFIXES and not path.is_dir():
        images = scan_parquet(path, root, path_column)
        if images is not None:
            return images
    if path.suffix.lower() in MANIFESTS and not path.is_dir():
        return scan_manifest(path, root or path.parent, path_column, options)
    if path_column is not None or options != TableOptions():
        given = "a path column" if path_column is not None else "separator, encoding and labels as text"
        raise SourceError(f"{str(path)!r} is not a manifest, and only a manifest has {given}: leave it out")
    if is_shards(str(path)) and not path.is_dir():
        return scan_shards(path, root)
    return scan_folder(path, root or path)
