"""Image sources -> samples: folders, manifests, tar shards, and images that already lie in memory."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from featurebank.errors import ImageError, SourceError, one_line
from featurebank.images import decoding, listing
from featurebank.images.columns import MANIFESTS, read_table, tidy
from featurebank.images.listing import read_image
from featurebank.images.shards import columns_of, expand, is_shards, list_shards, root_of
from featurebank.storage import files
from featurebank.storage.files import AnyPath
from featurebank.storage.objects import ObjectPath, is_address


@dataclass(frozen=True)
class Source:
    """The samples of one image source, before any image is read.

    Attributes
    ----------
    name : str
        Key of the source: the absolute path or the address of the folder, manifest or shards, or a name for images in
        memory.
    root : str
        Folder that the paths are relative to now.
    paths : list of bytes
        Path of each sample, as the file system's bytes, or its id.
    sizes, mtimes : ndarray of int64, shape (n,)
        Bytes and modification time (ns) of each file.
    columns : DataFrame
        The user's columns, aligned with `paths`.
    problems : dict of int to str
        Why a sample cannot be read, by its position.
    whole : bool
        Whether `paths` is all of the source, so that a sample that is not in it is gone.
    ignored : dict of str to int
        Files left out because their suffix is not that of an image, counted by suffix.
    class_folders : bool
        Whether the column ``label`` is the name of the folder that an image lies in.
    get_image : callable, optional
        Position to RGB image, for images in memory.
    """

    name: str
    root: str
    paths: list[bytes]
    sizes: NDArray[np.int64]
    mtimes: NDArray[np.int64]
    columns: pd.DataFrame
    problems: dict[int, str] = field(default_factory=dict)
    whole: bool = False
    ignored: dict[str, int] = field(default_factory=dict)
    class_folders: bool = False
    get_image: Callable[[int], Image.Image] | None = None

    def read(self, position: int) -> tuple[bytes, Callable[..., Any]]:
        """Read one sample once: its content digest, and a function that decodes what was read (`images.decode`).

        With ``on_gpu=True`` the function leaves to the GPU what it can decode (`images.find_jpeg`).

        Raises
        ------
        ImageError
            When the file cannot be read.
        """
        if position in self.problems:
            raise ImageError(self.problems[position])
        if self.get_image is not None:
            image = self.get_image(position)
            return decoding.pixel_digest(image), lambda least=0, on_gpu=False: image
        return read_image(os.fsdecode(os.path.join(os.fsencode(self.root), self.paths[position])))

    def take(self, positions: Sequence[int] | NDArray[np.int64]) -> Source:
        """Return the samples at these positions as a source of the same name, which is then not whole."""
        where, get_image = list(map(int, positions)), self.get_image
        return replace(
            self,
            paths=[self.paths[i] for i in where],
            sizes=self.sizes[where],
            mtimes=self.mtimes[where],
            columns=self.columns.iloc[where].reset_index(drop=True),
            problems={new: self.problems[old] for new, old in enumerate(where) if old in self.problems},
            whole=False,
            ignored={},
            get_image=None if get_image is None else lambda position: get_image(where[position]),
        )


def scan(
    source: Any,
    *,
    root: str | AnyPath | None = None,
    path_column: str | None = None,
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
        The manifest's column of paths (default ``"path"``).
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
        return _scan_path(files.as_path(source), None if root is None else files.as_path(root), path_column)
    if root is not None or path_column is not None:
        raise SourceError("root and path_column go with a folder or manifest, not with a list of images")
    if isinstance(source, (pd.Series, pd.Index)):  # positions, not its index, count below
        source = source.tolist()
    if not hasattr(source, "__len__") or not hasattr(source, "__getitem__"):
        raise SourceError(f"a {type(source).__name__} is no image source; expected a folder, a manifest or a list")
    if len(source) == 0:
        raise SourceError("the list of images is empty; expected at least one")
    if isinstance(source[0], (str, Path)):
        return _scan_list(source, ids, columns)
    return _scan_memory(source, ids, columns)


def _scan_path(path: AnyPath, root: AnyPath | None, path_column: str | None) -> Source:
    if path.suffix.lower() in MANIFESTS and not path.is_dir():
        return _scan_manifest(path, root or path.parent, path_column or "path")
    if path_column is not None:
        raise SourceError(f"{str(path)!r} is not a manifest, and only a manifest has a path column: leave it out")
    if is_shards(str(path)) and not path.is_dir():
        return _scan_shards(path, root)
    return _scan_folder(path, root or path)


def _key(path: AnyPath) -> str:
    """Return the name that stands for a path or an address everywhere."""
    return os.path.abspath(path) if isinstance(path, Path) else str(path)


def _of_files(name: str, root: str, entries: Sequence[listing.Entry], columns: pd.DataFrame, **facts: Any) -> Source:
    """Return a source of listed files."""
    paths, sizes, mtimes, problems = zip(*entries, strict=True)
    unusable = {i: problem for i, problem in enumerate(problems) if problem}
    numbers = np.array(sizes, np.int64), np.array(mtimes, np.int64)
    return Source(name, root, list(paths), *numbers, columns, unusable, **facts)


# --- folders -----------------------------------------------------------------------------------------------


def _scan_folder(name: AnyPath, root: AnyPath) -> Source:
    if isinstance(root, Path) and not root.is_dir():
        found = "is a file" if root.exists() else "does not exist"
        raise SourceError(f"{str(root)!r} {found}; expected a folder of images, or a {', '.join(MANIFESTS)} manifest")
    ignored: Counter[str] = Counter()
    entries = sorted(listing.walk(root, ignored), key=itemgetter(0))
    if not entries and not ignored and isinstance(root, ObjectPath):
        raise SourceError(f"nothing lies at {str(root)!r}; expected a folder of images: check the bucket and the name")
    if not entries:
        raise SourceError(
            f"no images in {str(root)!r}; expected files ending in {', '.join(sorted(decoding.SUFFIXES))}"
        )
    columns = _class_folders([path for path, *_ in entries])
    facts: dict[str, Any] = {"ignored": dict(ignored), "class_folders": "label" in columns}
    return _of_files(_key(name), _key(root), entries, columns, whole=True, **facts)


def _class_folders(paths: Sequence[bytes]) -> pd.DataFrame:
    """Return the column ``label``, the top folder of each path; no column for a flat folder."""
    tops = [top if slash else None for top, slash, _ in (path.partition(b"/") for path in paths)]
    if not any(tops):
        return pd.DataFrame(index=range(len(paths)))
    names = {top: None if top is None else os.fsdecode(top) for top in set(tops)}
    labels = [names[top] for top in tops]
    return pd.DataFrame({"label": pd.Series(labels, dtype=object)})


# --- shards ------------------------------------------------------------------------------------------------


def _scan_shards(pattern: AnyPath, root: AnyPath | None) -> Source:
    text = _key(pattern)
    folder = root_of(text)
    names = [shard.removeprefix(f"{folder}/") for shard in expand(text)]
    where = root or files.as_path(folder)
    listed = list_shards([where / name for name in names])
    if not any(index.members for index, _ in listed):
        raise SourceError(f"no images in {text!r}; expected members ending in {', '.join(sorted(decoding.SUFFIXES))}")
    columns, unread = columns_of([index for index, _ in listed])
    members = (
        (f"{name}/{member.name}", member, status.st_mtime_ns)
        for name, (index, status) in zip(names, listed, strict=True)
        for member in index.members
    )
    entries = [
        (os.fsencode(name), member.size, mtime, member.problem or unread.get(number, ""))
        for number, (name, member, mtime) in enumerate(members)
    ]
    _refuse_repeats(pattern, [path for path, *_ in entries])
    ignored = dict(sum((index.ignored for index, _ in listed), Counter()))
    return _of_files(text, _key(where), entries, columns, whole=True, ignored=ignored)


# --- manifests ---------------------------------------------------------------------------------------------


def _scan_manifest(manifest: AnyPath, root: AnyPath, path_column: str) -> Source:
    table = read_table(manifest)
    if path_column not in table.columns:
        raise SourceError(
            f"{str(manifest)!r} has no column {path_column!r}; it has {', '.join(map(repr, table.columns))}: "
            "name the one with the paths (--path-column)"
        )
    if isinstance(root, Path) and not root.is_dir():
        raise SourceError(f"{str(root)!r} is not a folder; expected the one that the manifest's paths start from")
    paths = [_manifest_path(cell, _key(root)) for cell in table[path_column]]
    _refuse_repeats(manifest, [path for path, _ in paths])
    look = listing.stat_below(root)
    entries = [(path, 0, 0, problem) if problem else (path, *look(path)) for path, problem in paths]
    return _of_files(_key(manifest), _key(root), entries, table.drop(columns=path_column), whole=True)


def _manifest_path(cell: Any, root: str) -> tuple[bytes, str]:
    """Return a cell's path relative to the root, and the problem if it is empty or leaves it."""
    if pd.isna(cell) or not str(cell).strip():
        return b"", "the manifest's path is empty"
    text = str(cell).removeprefix(f"{root}/") if is_address(root) else str(cell)
    inside = os.path.normpath(os.path.relpath(text, root) if os.path.isabs(text) else text)
    if is_address(text) or inside.split(os.sep, 1)[0] == os.pardir or "\0" in inside:
        return os.fsencode(text.replace("\0", "?")), "the manifest's path leaves the root"
    return os.fsencode(inside), ""


def _refuse_repeats(manifest: AnyPath, paths: list[bytes]) -> None:
    repeats = [path for path, count in Counter(paths).items() if count > 1]
    if repeats:
        raise SourceError(
            f"{str(manifest)!r} names {os.fsdecode(repeats[0])!r} more than once ({len(repeats)} such paths); "
            "expected one row an image"
        )


# --- lists and datasets ------------------------------------------------------------------------------------


def _scan_list(paths: Sequence[Any], ids: Sequence[str] | None, columns: Any) -> Source:
    if ids is not None:
        raise SourceError("ids go with images in memory; a list of paths is keyed by the paths")
    if any(is_address(os.fspath(path)) for path in paths):
        raise SourceError("a list holds paths of files; give addresses as a folder, or as a manifest with root=")
    keys = [os.fsencode(os.path.abspath(path)).lstrip(b"/") for path in paths]
    if len(set(keys)) != len(keys):
        raise SourceError("the list names a path more than once; expected each image once")
    entries = [(key, *listing.stat_file(b"/" + key)) for key in keys]
    return _of_files("files", "/", entries, _tidy_columns(columns, len(keys)))


def _scan_memory(items: Any, ids: Sequence[str] | None, columns: Any) -> Source:
    is_dataset = not isinstance(items, (list, tuple, np.ndarray))
    if ids is None and not is_dataset:
        raise SourceError("images in memory have no names; give ids, one distinct string each")
    names = [str(name) for name in ids] if ids is not None else [str(i) for i in range(len(items))]
    if len(names) != len(items) or len(set(names)) != len(names):
        raise SourceError(f"{len(names)} ids for {len(items)} images; expected one distinct id each")
    table = _tidy_columns(columns, len(items))
    if is_dataset and "label" not in table and isinstance(items[0], (tuple, list)):
        labels = pd.Series(_dataset_labels(items), dtype=object)  # text that is not UTF-8 fits no other dtype
        table["label"] = tidy(labels.to_frame("label"))["label"]
    name = type(items).__name__ if is_dataset else "memory"
    entries = [(os.fsencode(each), 0, 0, "") for each in names]
    return _of_files(name, "", entries, table, get_image=lambda position: _item_image(items, position))


def _item_image(items: Any, position: int) -> Image.Image:
    try:
        return decoding.as_image(items[position])
    except ImageError:
        raise
    except Exception as error:  # a lazily opened file, or the Dataset's own code: any kind
        raise ImageError(f"cannot be read: {one_line(error)}") from error


def _dataset_labels(dataset: Any) -> list[Any]:
    """Return the labels of a Dataset: its ``targets`` (torchvision's habit), or the second of each item."""
    labels = getattr(dataset, "targets", None)
    labels = [dataset[i][1] for i in range(len(dataset))] if labels is None else list(labels)
    plain = [label.item() if hasattr(label, "item") else label for label in labels]
    names = getattr(dataset, "classes", None)
    is_index = names is not None and all(isinstance(label, int) and 0 <= label < len(names) for label in plain)
    return [names[label] for label in plain] if is_index and names is not None else plain


def _tidy_columns(columns: Any, count: int) -> pd.DataFrame:
    try:
        frame = tidy(pd.DataFrame(columns if columns is not None else {}))
    except ValueError as error:
        raise SourceError(f"columns do not make a table: {one_line(error)}; expected one value an image") from error
    if len(frame.columns) and len(frame) != count:
        raise SourceError(f"columns have {len(frame)} rows for {count} images; expected one row an image")
    return frame if len(frame.columns) else pd.DataFrame(index=range(count))
