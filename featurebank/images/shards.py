"""What tar shards hold; a shard is read once to list it, and the list is kept in the cache."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tarfile
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from featurebank.errors import SourceError, StorageError, one_line
from featurebank.images import decoding
from featurebank.images.shard_names import split_name
from featurebank.storage import files
from featurebank.storage.files import AnyPath
from featurebank.storage.objects import ObjectPath
from featurebank.storage.requests import at_once

BLOCK = 8 << 20
"""Bytes of a shard on a store that are fetched at once."""
NOTES = ("cls", "json", "txt")
LARGEST_NOTE = 1 << 20
_SEEN: dict[ObjectPath, Any] = {}


class Member(NamedTuple):
    """An image in a shard: its name as text with surrogates, where its bytes are, and why it cannot be used."""

    name: str
    offset: int
    size: int
    problem: str = ""


@dataclass(frozen=True)
class Index:
    """What a shard holds.

    Attributes
    ----------
    members : list of Member
        Its images, in its order.
    notes : dict of str to dict
        What lies beside the images, as text by suffix (``cls``, ``json``, ``txt``), by their name up to the first dot.
    ignored : dict of str to int
        Members that are neither, counted by suffix.
    """

    members: list[Member] = field(default_factory=list)
    notes: dict[str, dict[str, str]] = field(default_factory=dict)
    ignored: dict[str, int] = field(default_factory=dict)


def list_shards(shards: list[AnyPath]) -> list[tuple[Index, Any]]:
    """Return what each shard holds, and its status; several are read at once.

    Raises
    ------
    SourceError
        When a shard is missing, or not a whole tar file.
    StorageError
        When the store does not answer.
    """
    return at_once(_list_shard, shards)


def _list_shard(shard: AnyPath) -> tuple[Index, Any]:
    try:
        status = shard.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would block for ever
            raise ValueError("it is a folder or a special file")
        if isinstance(shard, ObjectPath):
            _SEEN[shard] = status
        return index_of(shard, status.st_size, status.st_mtime_ns), status
    except StorageError:
        raise
    except (OSError, tarfile.TarError, ValueError) as error:
        if isinstance(error, SourceError):
            raise
        missing = isinstance(error, FileNotFoundError)
        reason = "no such shard" if missing else getattr(error, "strerror", None) or one_line(error)
        raise SourceError(f"shard {str(shard)!r} cannot be read: {reason}; make it again, or leave it out") from error


def status_of(shard: AnyPath) -> Any:
    """Return a shard's status; of one on a store, which is not asked for every image, as it was listed last."""
    return (isinstance(shard, ObjectPath) and _SEEN.get(shard)) or shard.stat()


def index_of(shard: AnyPath, size: int, mtime_ns: int) -> Index:
    """Return what a shard holds, from the cache where it was listed before."""
    name = str(shard) if isinstance(shard, ObjectPath) else os.path.abspath(shard)
    key = f"{name}\0{size}\0{mtime_ns}".encode("utf-8", "surrogateescape")
    file = files.cache_folder() / "shards" / f"{hashlib.sha256(key).hexdigest()}.json"
    try:
        facts = json.loads(file.read_bytes())
        return Index([Member(*each) for each in facts["members"]], facts["notes"], facts["ignored"])
    except (OSError, ValueError, KeyError, TypeError):  # never listed, or the cache's file was damaged
        index = _read_index(shard, size)
    files.make_folder(file.parent)
    files.commit(file, json.dumps(vars(index)).encode())
    return index


def _read_index(shard: AnyPath, size: int) -> Index:
    found, ignored = Index(), Counter[str]()
    with (
        shard.open("rb", buffering=BLOCK if isinstance(shard, ObjectPath) else -1) as raw,
        tarfile.open(fileobj=raw, mode="r:", encoding="utf-8", errors="surrogateescape") as tar,
    ):
        for info in tar:
            if info.isreg():
                _take(found, ignored, tar, info)
        raw.seek(tar.offset)
        if raw.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
            raise SourceError(
                f"shard {str(shard)!r} is cut short or damaged at byte {tar.offset} of {size}: make it again, or "
                "leave it out"
            )
    found.ignored.update(ignored)
    return found


def _take(found: Index, ignored: Counter[str], tar: tarfile.TarFile, info: tarfile.TarInfo) -> None:
    """Put a member where it belongs."""
    name = info.name.removeprefix("./")
    base = name.rpartition("/")[2]
    suffix = os.path.splitext(base)[1].lower()
    key, note = split_name(name)
    if not base.startswith(".") and suffix in decoding.SUFFIXES:
        found.members.append(Member(name, info.offset_data, info.size, _problem(name, info)))
    elif not base.startswith(".") and note in NOTES and info.size <= LARGEST_NOTE:
        file = tar.extractfile(info)
        found.notes.setdefault(key, {})[note] = file.read().decode("utf-8", "replace") if file else ""
    else:
        ignored[suffix] += 1


def _problem(name: str, info: tarfile.TarInfo) -> str:
    if name.startswith("/") or ".." in name.split("/"):
        return "the member's name leaves the shard"
    return "stored as a sparse file; expected plain bytes" if info.issparse() else ""
