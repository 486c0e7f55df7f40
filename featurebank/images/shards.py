"""Tar shards as images: their names, what they hold, the columns beside the images, and reading one image.

A shard is read once to list it, and the list is kept in the cache. An image is a range of its shard; on a store, of
blocks that neighbours share.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import posixpath
import re
import stat
import tarfile
import threading
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

from featurebank.errors import ImageError, SourceError, StorageError, one_line
from featurebank.images import clutter, formats
from featurebank.images.columns import tidy
from featurebank.images.dataframes import pd
from featurebank.images.tables import flat_row, parse_text
from featurebank.storage import files
from featurebank.storage.files import AnyPath
from featurebank.storage.objects import ObjectPath
from featurebank.storage.retries import at_once

SUFFIX = formats.SHARD
MOST_SHARDS = 1_000_000
BLOCK = 8 << 20
"""Bytes of a shard on a store that are fetched at once."""
NOTES = ("cls", "json", "txt")
LARGEST_NOTE = 1 << 20
KEPT_BLOCKS = 16
KEPT_SHARDS = 64
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_COLUMNS = {"cls": "label", "txt": "text"}
_RULES = f"3 {sorted(formats.SUFFIXES)}"
"""What decides which members are images; a list that was kept under other rules is not used."""
_SEEN: dict[ObjectPath, Any] = {}
"""What a store said of a shard when it was listed last; it is not asked for every image."""
_LOCKS = [threading.Lock() for _ in range(KEPT_BLOCKS)]


# --- names -------------------------------------------------------------------------------------------------


def is_shards(text: str) -> bool:
    """Say whether a path or address names tar shards."""
    return text.endswith(SUFFIX)


def expand(pattern: str) -> list[str]:
    """Return the names that a pattern with ranges of numbers stands for.

    Raises
    ------
    SourceError
        When a range runs backwards, or there are more than `MOST_SHARDS`.

    Examples
    --------
    >>> expand("a-{08..10}.tar")
    ['a-08.tar', 'a-09.tar', 'a-10.tar']
    """
    ranges = [(int(first), int(last)) for first, last in _RANGE.findall(pattern)]
    count = math.prod(max(0, last - first + 1) for first, last in ranges)
    if not 0 < count <= MOST_SHARDS:
        raise SourceError(f"{pattern!r} stands for {count} shards; expected 1 to {MOST_SHARDS}, e.g. {{000..009}}")
    match = _RANGE.search(pattern)
    if match is None:
        return [pattern]
    head, tail = pattern[: match.start()], expand(pattern[match.end() :])
    numbers = [str(number).zfill(len(match[1])) for number in range(int(match[1]), int(match[2]) + 1)]
    return [head + number + rest for number in numbers for rest in tail]


def root_of(pattern: str) -> str:
    """Return the folder that the shards of a pattern are named from.

    Examples
    --------
    >>> root_of("s3://bucket/photos/part-{0..3}/{000..009}.tar")
    's3://bucket/photos'
    """
    return pattern.partition("{")[0].rpartition("/")[0]


def split_name(name: str) -> tuple[str, str]:
    """Return a member's name up to the first dot of its last part, and what comes after that dot.

    Examples
    --------
    >>> split_name("d.1/0007.left.PNG")
    ('d.1/0007', 'left.png')
    """
    folder, slash, base = name.rpartition("/")
    stem, _, note = base.partition(".")
    return folder + slash + stem, note.lower()


# --- what they hold ----------------------------------------------------------------------------------------


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
    ignored : Counter of str
        Members that are neither, counted by suffix.
    """

    members: list[Member] = field(default_factory=list)
    notes: dict[str, dict[str, str]] = field(default_factory=dict)
    ignored: Counter[str] = field(default_factory=Counter)


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
        return _index_of(shard, status.st_size, status.st_mtime_ns), status
    except (StorageError, SourceError):
        raise
    except (OSError, tarfile.TarError, ValueError) as error:
        missing = isinstance(error, FileNotFoundError)
        reason = "no such shard" if missing else getattr(error, "strerror", None) or one_line(error)
        raise SourceError(f"shard {str(shard)!r} cannot be read: {reason}; make it again, or leave it out") from error


def _index_of(shard: AnyPath, size: int, mtime_ns: int) -> Index:
    """Return what a shard holds, from the cache where it was listed before."""
    name = str(shard) if isinstance(shard, ObjectPath) else os.path.abspath(shard)
    key = f"{name}\0{size}\0{mtime_ns}\0{_RULES}".encode("utf-8", "surrogateescape")
    file = files.cache_folder() / "shards" / f"{hashlib.sha256(key).hexdigest()}.json"
    try:
        facts = json.loads(file.read_bytes())
        return Index([Member(*each) for each in facts["members"]], facts["notes"], Counter(facts["ignored"]))
    except (OSError, ValueError, KeyError, TypeError):  # never listed, or the cache's file was damaged
        index = _read_index(shard, size)
    files.make_folder(file.parent)
    files.commit(file, json.dumps(vars(index)).encode())
    return index


def _read_index(shard: AnyPath, size: int) -> Index:
    found = Index()
    with (
        shard.open("rb", buffering=BLOCK if isinstance(shard, ObjectPath) else -1) as raw,
        tarfile.open(fileobj=raw, mode="r:", encoding="utf-8", errors="surrogateescape") as tar,
    ):
        files_by_name = {posixpath.normpath(info.name): info for info in tar if info.isreg()}
        for info in tar:
            file = _file_of(info, files_by_name)
            if file is not None:
                _take(found, tar, info.name, file)
        raw.seek(tar.offset)
        if raw.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
            raise SourceError(
                f"shard {str(shard)!r} is cut short or damaged at byte {tar.offset} of {size}: make it again, or "
                "leave it out"
            )
    return found


def _file_of(info: tarfile.TarInfo, regular: dict[str, tarfile.TarInfo]) -> tarfile.TarInfo | None:
    """Return the file that a member is, or is a link to; None for folders and other members."""
    if info.isreg():
        return info
    folder = posixpath.dirname(info.name) if info.issym() else ""
    return regular.get(posixpath.normpath(posixpath.join(folder, info.linkname))) if info.linkname else None


def _take(found: Index, tar: tarfile.TarFile, name: str, info: tarfile.TarInfo) -> None:
    """Put a member where it belongs; a link by its own name, with the file that it leads to."""
    name = name.removeprefix("./")
    *folders, base = name.split("/")
    suffix = os.path.splitext(base)[1].lower()
    key, note = split_name(name)
    is_hidden = any(map(clutter.is_hidden, (*folders, base)))
    if system := clutter.system_folder(folders):
        found.ignored[f"{system}/"] += 1
    elif not is_hidden and suffix in formats.SUFFIXES:
        found.members.append(Member(name, info.offset_data, info.size, _problem(name, info)))
    elif not is_hidden and note in NOTES and info.size <= LARGEST_NOTE:
        file = tar.extractfile(info)
        text = file.read().decode("utf-8-sig", "surrogateescape") if file else ""
        found.notes.setdefault(key, {})[note] = text
    else:
        found.ignored[suffix] += 1


def _problem(name: str, info: tarfile.TarInfo) -> str:
    if name.startswith("/") or ".." in name.split("/"):
        return "the member's name leaves the shard"
    return "stored as a sparse file; expected plain bytes" if info.issparse() else ""


# --- columns -----------------------------------------------------------------------------------------------


def columns_of(indexes: list[Index]) -> tuple[pd.DataFrame, dict[int, str]]:
    """Return what lies beside the images of shards as columns, and the problems of those it cannot be read of.

    ``.cls`` is the column ``label``, ``.txt`` the column ``text``, and each key of ``.json`` one of its own name;
    lists and the like are kept as JSON.
    """
    problems: dict[int, str] = {}
    rows: list[dict[str, Any]] = []
    for index in indexes:
        for member in index.members:
            notes = index.notes.get(split_name(member.name)[0], {})
            try:
                rows.append(_row(notes))
            except ValueError as error:
                problems[len(rows)] = f"the .json beside it cannot be read: {one_line(error)}"
                rows.append({})
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = {name: pd.Series([row.get(name) for row in rows], dtype=object) for name in names}
    columns = tidy(pd.DataFrame(cells, index=range(len(rows))))
    if any("cls" in note for index in indexes for note in index.notes.values()):
        columns["label"] = parse_text(columns[["label"]])["label"]  # class numbers are written as text
    return columns, problems


def _row(notes: dict[str, str]) -> dict[str, Any]:
    """Return the cells that the texts beside an image make; bytes that are not UTF-8 stay, as in names."""
    row: dict[str, Any] = {}
    if "json" in notes:
        facts = json.loads(notes["json"])
        if not isinstance(facts, dict):
            raise ValueError(f"it holds a {type(facts).__name__}, expected an object")
        row = flat_row(facts)
    return row | {_COLUMNS[note]: notes[note].strip() for note in ("cls", "txt") if note in notes}


# --- reading -----------------------------------------------------------------------------------------------


def read_member(shard: AnyPath, name: str) -> bytes:
    """Return the bytes of an image in a shard.

    Raises
    ------
    FileNotFoundError
        When there is no such shard.
    ImageError
        When it has no such member, or has become shorter.
    """
    status = (isinstance(shard, ObjectPath) and _SEEN.get(shard)) or shard.stat()
    member = _members(shard, status.st_size, status.st_mtime_ns).get(name)
    if member is None:
        raise ImageError(f"the shard has no member {name!r}")
    start, stop = member.offset, member.offset + member.size
    if isinstance(shard, ObjectPath):
        data = _read_blocks(shard, status.st_size, status.st_mtime_ns, start, stop)
    else:
        data = _read_file(shard, start, stop)
    if len(data) != member.size:
        raise ImageError("the shard was cut short while it was read")
    return data


@lru_cache(KEPT_SHARDS)
def _members(shard: AnyPath, size: int, mtime_ns: int) -> dict[str, Member]:
    return {member.name: member for member in _index_of(shard, size, mtime_ns).members}


def _read_file(shard: AnyPath, start: int, stop: int) -> bytes:
    with shard.open("rb", buffering=0) as file:
        file.seek(start)
        return bytes(file.read(stop - start))


def _read_blocks(shard: ObjectPath, size: int, mtime_ns: int, start: int, stop: int) -> bytes:
    numbers = range(start // BLOCK, -(-stop // BLOCK))
    data = bytearray()
    for number in numbers:
        with _LOCKS[hash((shard, number)) % len(_LOCKS)]:  # who wants what another thread fetches waits for it
            data += _block(shard, size, mtime_ns, number)
    first = start - numbers.start * BLOCK
    return bytes(data[first : first + stop - start])


@lru_cache(KEPT_BLOCKS)
def _block(shard: ObjectPath, size: int, mtime_ns: int, number: int) -> bytes:
    return shard.read_bytes(number * BLOCK, min((number + 1) * BLOCK, size))
