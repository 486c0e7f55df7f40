"""Objects on a store, by addresses such as ``s3://bucket/photos.bank``.

An `ObjectPath` has those methods of `pathlib.Path` that a bank needs, so that what lists and reads a bank is written
once. An object appears whole or not at all, and is replaced whole.
"""

from __future__ import annotations

import io
import os
import re
import stat
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

from featurebank.errors import StorageError
from featurebank.storage import retries
from featurebank.storage.retries import FORGOTTEN, LIBRARIES, tried

LAG = 60.0
"""Seconds in which a listing may not show yet what this process wrote or removed."""
SMALL = 64 << 10
BLOCK = 256 << 10
"""Bytes that are fetched at once of an object that is open as a file."""
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/+(.*)", re.DOTALL)


def is_address(text: str) -> bool:
    """Say whether text is an address on object storage, also where `pathlib` has made one slash of its two.

    Examples
    --------
    >>> [is_address(text) for text in ("s3://bucket/a.bank", "s3:/bucket/a.bank", "/data/a.bank", "c:/a.bank")]
    [True, True, False, False]
    """
    match = _ADDRESS.fullmatch(text)
    return match is not None and match[1] != "file" and (match[1] in LIBRARIES or f"{match[1]}://" in text)


@dataclass(frozen=True)
class Status:
    """What a store says of an object, under the names of `os.stat_result`."""

    st_size: int
    st_mtime_ns: int
    st_mode: int = stat.S_IFREG
    st_ino: int = 0

    @property
    def st_mtime(self) -> float:
        """Modification time in seconds."""
        return self.st_mtime_ns / 1e9


def status_of(info: Mapping[str, Any]) -> Status:
    """Return what fsspec tells of an object or a folder as a `Status`."""
    if info["type"] != "file":
        return Status(0, 0, stat.S_IFDIR)
    return Status(int(info["size"] or 0), _modified_ns(info))


def _modified_ns(info: Mapping[str, Any]) -> int:
    """Return the modification time: whole seconds are the store's, below them is a hash of the object's tag.

    Stores tell whole seconds, in which an object may change twice.
    """
    names = ("LastModified", "mtime", "updated", "last_modified", "created")
    when = next((info[name] for name in names if info.get(name)), 0)
    when = datetime.fromisoformat(when) if isinstance(when, str) else when
    seconds = when.timestamp() if isinstance(when, datetime) else float(when)
    tags = [str(info[name]) for name in ("ETag", "etag", "generation", "md5Hash") if info.get(name)]
    return int(seconds) * 10**9 + (zlib.crc32(tags[0].encode()) % 10**9 if tags else int(seconds % 1 * 1e9))


@dataclass(frozen=True, order=True)
class ObjectPath:
    """The address of an object, or of a folder of objects.

    Parameters
    ----------
    protocol : str
        One of `LIBRARIES`.
    key : str
        Bucket and name, without slashes at its ends.
    listed : Status, optional
        What a listing said of it.

    Examples
    --------
    >>> path = ObjectPath.parse("s3://bucket/photos.bank/") / "bank.json"
    >>> str(path), path.name, str(path.parent)
    ('s3://bucket/photos.bank/bank.json', 'bank.json', 's3://bucket/photos.bank')
    """

    protocol: str
    key: str
    listed: Status | None = field(default=None, compare=False, repr=False)

    @classmethod
    def parse(cls, text: str) -> ObjectPath:
        """Read an address.

        Raises
        ------
        StorageError
            When it is of a kind whose puts are not known to be atomic, or names no bucket.
        """
        match = _ADDRESS.fullmatch(text)
        if match is None or match[1] not in LIBRARIES:
            known = ", ".join(f"{name}://" for name in LIBRARIES if name not in FORGOTTEN)
            raise StorageError(f"no storage for {text!r}; expected a folder, or an address that begins with {known}")
        key = match[2].strip("/")
        if not key:
            raise StorageError(f"{text!r} names no bucket; expected {match[1]}://BUCKET/NAME")
        return cls(match[1], key)

    def __str__(self) -> str:
        return f"{self.protocol}://{self.key}"

    def __truediv__(self, name: str) -> ObjectPath:
        return ObjectPath(self.protocol, f"{self.key}/{name}")

    @property
    def name(self) -> str:
        """The last part."""
        return self.key.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """The last part's suffix."""
        return os.path.splitext(self.name)[1]

    @property
    def parent(self) -> ObjectPath:
        """The folder around it."""
        return ObjectPath(self.protocol, self.key.rpartition("/")[0])

    def with_name(self, name: str) -> ObjectPath:
        """Return the address with another last part."""
        return self.parent / name

    # --- looking ---------------------------------------------------------------------------------------------

    def lstat(self) -> Status:
        """Return what is known of the object, asking the store unless a listing has said it.

        Raises
        ------
        FileNotFoundError
            When nothing is there.
        """
        return self.listed or self._ask()

    stat = lstat

    def _ask(self) -> Status:
        return status_of(tried("read", self, lambda: self._files.info(str(self))))

    def is_file(self) -> bool:
        """Say whether an object is there."""
        return self._mode() == stat.S_IFREG

    def is_dir(self) -> bool:
        """Say whether there are objects below."""
        return self._mode() == stat.S_IFDIR

    def exists(self) -> bool:
        """Say whether there is an object, or objects below."""
        return self._mode() != 0

    def _mode(self) -> int:
        try:
            return self._ask().st_mode
        except FileNotFoundError:
            return 0

    def rglob(self, pattern: str = "*") -> Iterator[ObjectPath]:
        """Yield every object below whose name fits a pattern, with what the listing says of it."""
        return (path for path in self._listing() if fnmatchcase(path.name, pattern))

    def glob(self, pattern: str) -> Iterator[ObjectPath]:
        """Yield the objects and folders below that fit a pattern, part by part; ``**`` is not known."""
        wanted = pattern.split("/")
        fixed = next((n for n, part in enumerate(wanted[:-1]) if set(part) & set("*?[")), len(wanted) - 1)
        start = ObjectPath(self.protocol, "/".join([self.key, *wanted[:fixed]]))
        found: dict[str, ObjectPath] = {}
        for path in start._listing():
            parts = path.key.removeprefix(self.key + "/").split("/")
            if len(parts) >= len(wanted) and all(map(fnmatchcase, parts, wanted)):
                here = "/".join([self.key, *parts[: len(wanted)]])
                found[here] = path if len(parts) == len(wanted) else ObjectPath(self.protocol, here)
        yield from found.values()

    def iterdir(self) -> Iterator[ObjectPath]:
        """Yield what is directly below."""
        return self.glob("*")

    def _listing(self) -> list[ObjectPath]:
        """Return every object below, and what this process has just written, though the listing may lag behind."""
        try:
            infos = tried("list", self, lambda: self._files.find(str(self), detail=True))
        except FileNotFoundError:
            infos = {}
        found = {name.lstrip("/"): status_of(info) for name, info in infos.items() if info["type"] == "file"}
        for path, (status, since) in list(_CHANGES.items()):
            if time.monotonic() - since > LAG:
                _CHANGES.pop(path, None)
            elif path.protocol == self.protocol and status is None:
                found.pop(path.key, None)
            elif path.protocol == self.protocol and status is not None:
                found.setdefault(path.key, status)
        below = self.key + "/"
        names = sorted(name for name in found if name.startswith(below) and not name.endswith("/"))
        return [ObjectPath(self.protocol, name, found[name]) for name in names]

    # --- reading ---------------------------------------------------------------------------------------------

    def read_bytes(self, start: int = 0, stop: int | None = None) -> bytes:
        """Return the object's bytes, or a range of them.

        Raises
        ------
        FileNotFoundError
            When it is gone.
        StorageError
            When the store refuses, or does not answer.
        """
        if self.listed is not None and self.listed.st_size <= SMALL and (start, stop) == (0, None):
            return _read_small(self, self.listed)
        return self._read(start, stop)

    def _read(self, start: int, stop: int | None) -> bytes:
        def read() -> bytes:
            if stop is None:
                return bytes(self._files.cat_file(str(self)))[start:]
            data = bytes(self._files.cat_file(str(self), start=start, end=stop))
            if len(data) != stop - start:
                raise OSError(f"{len(data)} of {stop - start} bytes came")
            return data

        return b"" if stop is not None and stop <= start else tried("read", self, read)

    def open(self, mode: str = "rb", buffering: int = BLOCK) -> Any:
        """Open the object for reading, a range at a time."""
        raw = Ranged(self, self.lstat().st_size)
        return io.BufferedReader(raw, buffering) if buffering else raw

    # --- writing: for featurebank.storage.files alone --------------------------------------------------------

    def put(self, data: bytes | memoryview) -> None:
        """Write the object whole, and see that the store has all of it.

        Raises
        ------
        StorageError
            When the store refuses, or does not answer.
        """
        content = bytes(data)

        def write() -> Status:
            self._files.pipe_file(str(self), content)
            status = self._ask()
            if status.st_size != len(content):
                raise OSError(f"the store has {status.st_size} of {len(content)} bytes")
            return status

        try:
            _note(self, tried("write", self, write))
        except FileNotFoundError as error:
            raise StorageError(f"cannot write {str(self)!r}: no such bucket; make it, or name another") from error

    def create(self, data: bytes) -> bool:
        """Write the object unless there is one; say whether it is there with just these bytes.

        An answer that was lost does no harm where the bytes are like no one else's: they are compared with what is
        there.
        """

        def write() -> bool:
            try:
                self._files.pipe_file(str(self), data, mode="create")
                return True
            except Exception as error:  # not every library has a kind for "it exists", and the answer may be lost
                there = self._content()
                if there is None and not isinstance(error, FileExistsError):
                    raise
                return there == data

        created = tried("write", self, write)
        if created:
            _note(self, self._ask())
        return created

    def _content(self) -> bytes | None:
        with suppress(FileNotFoundError):
            return bytes(self._files.cat_file(str(self)))
        return None

    def remove(self) -> None:
        """Remove the object; one that is already gone is fine."""
        with suppress(FileNotFoundError):
            tried("remove", self, lambda: self._files.rm_file(str(self)))
        _note(self, None)

    @property
    def _files(self) -> Any:
        return retries.filesystem(self.protocol, os.getpid())


_CHANGES: dict[ObjectPath, tuple[Status | None, float]] = {}


def _note(path: ObjectPath, status: Status | None) -> None:
    _CHANGES[replace(path, listed=None)] = status, time.monotonic()


@lru_cache(maxsize=4096)
def _read_small(path: ObjectPath, status: Status) -> bytes:
    """Return the bytes of a small object; what a listing says of it is part of the key."""
    return path._read(0, None)


# --- open objects ------------------------------------------------------------------------------------------


class Ranged(io.RawIOBase):
    """An object as a file: every read is a request for a range.

    Parameters
    ----------
    path : ObjectPath
    size : int
        Its bytes.
    """

    def __init__(self, path: ObjectPath, size: int):
        self.path = path
        self.size = size
        self._at = 0

    def readable(self) -> bool:
        """Say yes."""
        return True

    def seekable(self) -> bool:
        """Say yes."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position."""
        self._at = offset + (0, self._at, self.size)[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fetch what fits into a buffer."""
        data = self._get(self._at, min(self._at + len(buffer), self.size))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _get(self, start: int, stop: int) -> bytes:
        return self.path.read_bytes(start, stop)


class Fetched(Ranged):
    """What has been fetched of an object, as a file; a read of the rest fails, and `fetch` gets what it lacked.

    HDF5 reads under a lock of the whole process, which other threads take whenever they drop one of its objects: to
    wait for a store inside it may wait for ever.
    """

    def __init__(self, path: ObjectPath, size: int):
        super().__init__(path, size)
        self.missing: int | None = 0
        self._blocks: dict[int, bytes] = {}

    def fetch(self) -> None:
        """Fetch the block that was missing, and go back to the beginning."""
        number = self.missing or 0
        self._blocks[number] = self.path.read_bytes(number * BLOCK, min((number + 1) * BLOCK, self.size))
        self.missing, self._at = None, 0

    def _get(self, start: int, stop: int) -> bytes:
        numbers = range(start // BLOCK, -(-stop // BLOCK))
        lacking = [number for number in numbers if number not in self._blocks]
        if lacking:
            self.missing = lacking[0]
            raise OSError("not fetched yet")
        return b"".join(self._blocks[number] for number in numbers)[start - numbers.start * BLOCK :][: stop - start]
