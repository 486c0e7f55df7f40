"""Scanning: any image source -> its samples; each kind of source has a module of its own."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from featurebank.errors import SourceError
from featurebank.images import parquet
from featurebank.images.dataframes import pd
from featurebank.images.folders import scan_folder
from featurebank.images.frames import NO_NAME, TAKEN, as_frame, as_items, is_column, refuse_names, scan_frame
from featurebank.images.hugging_face import is_dataset, scan_dataset
from featurebank.images.items import facts_of, is_path, picture_of
from featurebank.images.manifests import scan_manifest
from featurebank.images.memory import scan_list, scan_memory
from featurebank.images.packed import scan_parquet, scan_parquet_folder, scan_shards
from featurebank.images.shards import is_shards
from featurebank.images.sources import Source
from featurebank.images.table_options import TableOptions
from featurebank.images.tables import is_table
from featurebank.storage import files
from featurebank.storage.files import AnyPath
from featurebank.storage.objects import ObjectPath, is_address


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
    name: str | None = None,
) -> Source:
    """List the samples of an image source without reading an image.

    Parameters
    ----------
    source : path, table, sequence or Dataset
        A folder (of class folders, or flat; of Parquet files with images inside), a manifest (CSV, Parquet or JSON
        Lines), Parquet with images inside or tar shards (``shard-{000..009}.tar``); all of them may lie on object
        storage (``s3://bucket/photos``).

        A DataFrame of pandas or Polars, an Arrow table or a dict of columns, one of them the paths or images; a dict
        of ``path: label``; a list of image paths, of (path, label) pairs, of PIL images or of uint8 arrays; a Dataset
        whose items are images, (image, label) pairs or dicts, such as a `datasets.Dataset`.
    root : path, optional
        Folder that a manifest's paths are relative to (default: the manifest's), or where a folder's files are
        now when they moved.
    path_column : str, optional
        The manifest's column of paths (default ``"path"``, else the first of `PATH_COLUMNS` that it has), or a table's
        column of paths or images.
    separator, encoding : str, optional
        Of a manifest of text; by default found. See `featurebank.images.table_options.TableOptions`.
    labels_as : str, default "auto"
        What a manifest's columns of text become: ``"auto"`` makes numbers where that loses nothing, ``"text"`` never,
        ``"numbers"`` also where it does.
    ids : sequence of str, optional
        A name for each image in memory; required for a list of PIL images or arrays. A table's are its index.
    columns : mapping or DataFrame, optional
        Columns for a list or Dataset, aligned with it.
    name : str, optional
        Name of images in memory, which tells one such source from another; by default what they are (a Dataset's
        class, for instance).

    Raises
    ------
    SourceError
        When the source is missing, empty, or not of these kinds.
    StorageError
        When a store does not answer, or the library for it is not installed.

    See Also
    --------
    extract : Embed what was listed.

    Examples
    --------
    >>> found = scan([("photos/cat/1.jpg", "cat"), ("photos/dog/1.jpg", "dog")])
    >>> found.columns["label"].tolist()
    ['cat', 'dog']
    """
    options = TableOptions(separator, encoding, labels_as)
    if isinstance(source, (str, Path, ObjectPath)):
        if ids is not None or columns is not None:
            raise SourceError("ids and columns go with a list of images; a folder or manifest has its own")
        if name is not None:
            raise SourceError(NO_NAME)
        where = None if root is None else files.as_path(root)
        found = _scan_path(files.as_path(source), where, path_column, options)
        return replace(found, named_options=options.named(path_column))
    if options != TableOptions():
        raise SourceError("separator, encoding and labels_as go with a manifest; a table in memory says what it holds")
    return _scan_object(source, root or "", path_column, ids, columns, name)


def _scan_object(
    source: Any,
    root: str | AnyPath,
    path_column: str | None,
    ids: Sequence[str] | None,
    columns: Any,
    name: str | None,
) -> Source:
    """List the images of what is no path: a Dataset, a table, or a sequence."""
    if name is not None and (not name or os.path.isabs(name) or is_address(name)):
        raise SourceError(f"the name {name!r} reads as a path; expected a word for these images, such as 'test photos'")
    if is_dataset(source):
        return scan_dataset(source, path_column, str(root), ids, columns, name)
    frame = as_frame(source)
    if frame is None and isinstance(source, pd.Series) and len(source) and not is_path(source.iloc[0]):
        frame = source.to_frame("image")
    if frame is not None:
        if columns is not None:
            raise SourceError("columns go with a list of images; a table has its own")
        return scan_frame(frame, path_column, str(root), ids, name)
    if str(root) or path_column is not None:
        raise SourceError("root and path_column go with a folder, manifest or table, not with a list of images")
    return _scan_items(source, ids, columns, name)


def _scan_items(source: Any, ids: Sequence[str] | None, columns: Any, name: str | None) -> Source:
    """List images or paths in a sequence, or a Dataset of them."""
    if is_column(source):
        source = as_items(source)
    if not hasattr(source, "__len__") or not hasattr(source, "__getitem__"):
        raise SourceError(f"a {type(source).__name__} is no image source; {TAKEN}")
    if len(source) == 0:
        raise SourceError("the list of images is empty; expected at least one")
    is_list = isinstance(source, (list, tuple, np.ndarray))
    if is_list and is_path(picture_of(source[0])):
        refuse_names(ids, name)
        facts = [facts_of(item) for item in source] if columns is None else columns
        return scan_list([picture_of(item) for item in source], facts)
    return scan_memory(source, ids, columns, name)


def _scan_path(path: AnyPath, root: AnyPath | None, path_column: str | None, options: TableOptions) -> Source:
    if path.suffix.lower() in parquet.SUFFIXES and not path.is_dir():
        images = scan_parquet(path, root, path_column)
        if images is not None:
            return images
    if is_table(path):
        return scan_manifest(path, root or path.parent, path_column, options)
    if path_column is not None and path.is_dir():
        images = scan_parquet_folder(path, root or path, path_column)
        if images is not None:
            return images
    if path_column is not None:
        raise SourceError(f"{str(path)!r} is not a manifest, and only a manifest has a path column: leave it out")
    if is_shards(str(path)) and not path.is_dir():
        if options != TableOptions():
            raise SourceError(f"{str(path)!r} is no table; leave out separator, encoding and labels_as")
        return scan_shards(path, root)
    return scan_folder(path, root or path, options)
