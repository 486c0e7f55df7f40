"""The files of a source, in a folder, on a store, in tar shards or Parquet: listing them, and reading one."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from featurebank.errors import SourceError, one_line
from featurebank.images import clutter, decoding, formats
from featurebank.images.content import A_PAGE, INSIDE, read_file
from featurebank.images.items import picture_of
from featurebank.images.pixels import PLAIN, PixelRules
from featurebank.images.values import deep_values, values_digest
from featurebank.storage import files
from featurebank.storage.files import AnyPath
from featurebank.storage.objects import ObjectPath

Entry = tuple[bytes, int, int, str]
"""Path, size, modification time (ns) and problem of an image."""


def walk(root: AnyPath, ignored: Counter[str]) -> Iterator[Entry]:
    """Yield the images below a folder, by their paths from there; see `featurebank.images.sources.Source.ignored`.

    Hidden folders and those that systems make (`featurebank.images.clutter`) are left out. A link to a folder is one
    more way to what lies in it, except to a folder that it lies in itself.

    Raises
    ------
    SourceError
        When a folder cannot be listed.
    StorageError
        When a store does not answer.
    """
    if isinstance(root, ObjectPath):
        return _walk_objects(root, ignored)
    return _walk(os.fsencode(root), b"", ignored, frozenset())


def _walk(folder: bytes, prefix: bytes, ignored: Counter[str], above: frozenset[tuple[int, int]]) -> Iterator[Entry]:
    """Yield (path, size, mtime_ns, problem) of the images below a folder, which is not one of those above it."""
    try:
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in above:
            return
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=attrgetter("name"))
    except OSError as error:
        raise SourceError(f"{os.fsdecode(folder)!r} cannot be listed: {error.strerror}; make it readable") from error
    above |= {(status.st_dev, status.st_ino)}
    for entry in entries:
        name = os.fsdecode(entry.name)
        stem, dot, suffix = name.rpartition(".")
        is_folder = not clutter.is_hidden(name) and _is_folder(entry)
        if is_folder and clutter.is_system(name):
            ignored[f"{name}/"] += 1
        elif is_folder:
            yield from _walk(entry.path, prefix + entry.name + b"/", ignored, above)
        elif not clutter.is_hidden(name) and dot + suffix.lower() in formats.SUFFIXES:
            yield prefix + entry.name, *stat_file(entry)
        else:
            ignored[dot + suffix.lower() if stem else ""] += 1


def _walk_objects(folder: ObjectPath, ignored: Counter[str]) -> Iterator[Entry]:
    """Yield (path, size, mtime_ns, problem) of the images below a folder on a store."""
    for path in folder.rglob("*"):
        inside = path.key.removeprefix(folder.key + "/")
        parts, suffix = inside.split("/"), path.suffix.lower()
        if any(map(clutter.is_hidden, parts[:-1])):
            continue
        if system := clutter.system_folder(parts[:-1]):
            ignored[f"{system}/"] += 1
            continue
        if path.name.startswith(".") or suffix not in formats.SUFFIXES:
            ignored[suffix] += 1
            continue
        odd = ".." in parts or inside.startswith("/")
        status = path.lstat()
        yield os.fsencode(inside), status.st_size, status.st_mtime_ns, "the object's name leaves the folder" * odd


def _is_folder(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that loops: it is listed as a file that cannot be read
        return False


def stat_file(path: bytes | os.DirEntry[bytes]) -> tuple[int, int, str]:
    """Return (size, mtime_ns, problem) of a file."""
    try:
        status = os.stat(path)
    except OSError as error:
        return 0, 0, f"cannot be read: {error.strerror or one_line(error)}"
    return status.st_size, status.st_mtime_ns, "" if stat.S_ISREG(status.st_mode) else "not a regular file"


def stat_below(root: AnyPath) -> Callable[[bytes], tuple[int, int, str]]:
    """Return what gives (size, mtime_ns, problem) of a path below a root; a store is listed once for all of them."""
    if isinstance(root, Path):
        return lambda path: stat_file(os.path.join(os.fsencode(root), path))
    listed = {os.fsencode(path.key.removeprefix(root.key + "/")): path.lstat() for path in root.rglob("*")}

    def look(path: bytes) -> tuple[int, int, str]:
        status = listed.get(path)
        return (status.st_size, status.st_mtime_ns, "") if status else (0, 0, "cannot be read: no such object")

    return look


def is_there(path: AnyPath) -> bool:
    """Say whether a file or folder is there, or one that holds many images or pages of which the path names one."""
    page, inside = A_PAGE.fullmatch(str(path)), INSIDE.search(str(path))
    if page is not None and not path.exists():
        return is_there(files.as_path(page[1]))
    return path.exists() or (inside is not None and files.as_path(str(path)[: inside.end() - 1]).exists())


def holds_many(path: AnyPath) -> bool:
    """Say whether a path names a folder, or a file that holds many images."""
    return path.suffix.lower() in formats.PACKED or path.is_dir()


def read_image(item: Any) -> tuple[bytes, Callable[..., Any]]:
    """Read an image once: return its content digest, and a function that decodes it (`decoding.decode_or_leave`).

    Parameters
    ----------
    item : path-like, bytes, PIL image, array or tensor
        A file by its path, the bytes of one, or an image in memory; or a pair or dict that has one (`picture_of`).

    Raises
    ------
    ImageError
        When it cannot be read.
    """
    item = picture_of(item)
    if isinstance(item, (str, os.PathLike)):
        item = read_file(item)
    if isinstance(item, bytes):
        return decoding.content_digest(item), partial(decoding.decode_or_leave, item)
    return _read_memory(decoding.unwrap(item))


def _read_memory(item: Any) -> tuple[bytes, Callable[..., Any]]:
    """Return the digest of an image in memory; what is seen of more than 8 bits is decided when it is decoded."""
    deep = deep_values(item)
    if deep is None and isinstance(item, np.ndarray) and item.ndim == 3 and item.shape[2] not in (1, 3, 4):
        deep = item  # which of its channels are seen is decided later as well
    if deep is not None:
        return values_digest(deep), lambda least=0, on_gpu=False, pixels=PLAIN: decoding.as_image(item, pixels)
    image = decoding.as_image(item)

    def pick(least: int = 0, on_gpu: bool = False, pixels: PixelRules = PLAIN) -> Any:
        return image if pixels.channels is None else decoding.as_image(item, pixels)

    return decoding.pixel_digest(image), pick
