"""The only module that writes: files by temp, fsync, rename, fsync the folder; objects by one put; and the lock."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from featurebank.errors import StorageError
from featurebank.storage import leases
from featurebank.storage.objects import ObjectPath, is_address

TEMP_PREFIX = ".tmp-"
PIECE = 32 << 20
"""Bytes of an object that are in memory at once on their way to the cache."""

AnyPath = Path | ObjectPath
"""Where a bank, or a file of it, lies: in a folder, or on object storage."""


def as_path(path: str | os.PathLike[str] | ObjectPath) -> AnyPath:
    """Return where a path or an address leads.

    Parameters
    ----------
    path : str or path-like
        A path, or ``s3://…``, ``gs://…``, ``memory://…``; ``file://…`` is a path.

    Raises
    ------
    StorageError
        When the address is of no kind that is known.

    Examples
    --------
    >>> str(as_path("s3://bucket/photos.bank")), as_path("file:///data/photos.bank").name
    ('s3://bucket/photos.bank', 'photos.bank')
    """
    if isinstance(path, ObjectPath):
        return path
    text = os.fspath(path)
    if is_address(text):
        return ObjectPath.parse(text)
    return Path("/" + text.removeprefix("file:").lstrip("/") if text.startswith("file:/") else text)


def beside(path: AnyPath, suffix: str) -> Path:
    """Return the file beside a bank that has its stem and another suffix; in this folder where it lies on a store.

    Examples
    --------
    >>> str(beside(as_path("s3://bucket/photos.bank"), ".featurebank"))
    'photos.featurebank'
    """
    return (path if isinstance(path, Path) else Path(path.name)).with_suffix(suffix)


def free(path: Path, taken: Collection[Path] = ()) -> Path:
    """Return the first of ``NAME``, ``NAME-2``, ``NAME-3`` … that is not there and is not among those taken.

    Examples
    --------
    >>> str(free(Path("new.featurebank"), [Path("new.featurebank")]))
    'new-2.featurebank'
    """
    number, found = 1, path
    while found.exists() or found in taken:
        number += 1
        found = path.with_stem(f"{path.stem}-{number}")
    return found


def is_same(one: AnyPath, other: AnyPath) -> bool:
    """Say whether two places that exist are one, also by way of a link."""
    if isinstance(one, Path) and isinstance(other, Path):
        return os.path.samefile(one, other)
    return one == other


def cache_folder() -> Path:
    """Return the folder for what can be made again: ``FEATUREBANK_CACHE``, else ``featurebank`` in the user's cache."""
    given = os.environ.get("FEATUREBANK_CACHE")
    return Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "featurebank"


def commit(path: AnyPath, data: bytes | memoryview) -> None:
    """Write a file so that a reader, or a machine after a crash, sees the old file or the whole new one.

    The bytes go to a temporary file in the same folder, which is synced and renamed; then the folder is
    synced. The mode is the one the umask gives. An object is put whole, again until the store has it.

    Parameters
    ----------
    path : Path or ObjectPath
        The file; its folder must exist.
    data : bytes or memoryview
        The whole content.

    Raises
    ------
    StorageError
        When the file system refuses; no temporary file is left behind.
    """
    if isinstance(path, ObjectPath):
        path.put(data)
        return
    with _replacing(path) as temporary:
        _write_synced(temporary, data)


@contextmanager
def committing(path: Path) -> Iterator[BinaryIO]:
    """Yield a file to write piece by piece; when all went well it takes the place of `path`, as with `commit`.

    Raises
    ------
    StorageError
        When the file system refuses; no temporary file is left behind, whatever went wrong.
    """
    with _replacing(path) as temporary, open(temporary, "x+b") as buffer:
        yield buffer
        buffer.flush()
        os.fsync(buffer.fileno())


def make_folder(path: AnyPath) -> None:
    """Create a folder and its parents, each one synced into its parent; a store needs none.

    Raises
    ------
    StorageError
        When the file system refuses.
    """
    if isinstance(path, ObjectPath):
        return
    with _storage_errors("create", path):
        if path.is_dir():
            return
        make_folder(path.parent)
        with suppress(FileExistsError):
            os.mkdir(path)
        _sync_folder(path.parent)


def remove(path: AnyPath) -> None:
    """Remove a file; one that is already gone is fine.

    Raises
    ------
    StorageError
        When the file system refuses.
    """
    if isinstance(path, ObjectPath):
        path.remove()
        return
    with _storage_errors("remove", path), suppress(FileNotFoundError):
        os.unlink(path)


def mark_used(path: Path) -> None:
    """Set the times of a file to now.

    Raises
    ------
    StorageError
        When the file system refuses, or there is no such file.
    """
    with _storage_errors("mark", path):
        os.utime(path)


def set_aside(path: AnyPath) -> None:
    """Rename a damaged file to ``NAME.damaged``, so that nothing reads it and nothing is lost.

    Raises
    ------
    StorageError
        When the file system refuses.
    """
    if isinstance(path, ObjectPath):
        with suppress(FileNotFoundError):
            path.with_name(path.name + ".damaged").put(path.read_bytes())
            path.remove()
        return
    with _storage_errors("rename", path), suppress(FileNotFoundError):
        os.replace(path, path.with_name(path.name + ".damaged"))
        _sync_folder(path.parent)


@contextmanager
def locked(path: AnyPath) -> Iterator[None]:
    """Hold the exclusive lock at `path`, a file or a folder of objects; it is free again when its holder dies.

    Raises
    ------
    StorageError
        When the lock cannot be made; on a store also when it was taken over meanwhile (`featurebank.storage.leases`).
    """
    if isinstance(path, ObjectPath):
        with leases.leased(path):
            yield
        return
    with _storage_errors("lock", path):
        lock = FileLock(path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def is_locked(path: Path) -> bool:
    """Say whether someone holds the lock at `path` now; one that cannot be tried is taken for free."""
    if not path.exists():
        return False
    lock = FileLock(path, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        return True
    except OSError:
        return False
    lock.release()
    return False


def cached(path: ObjectPath, start: int, stop: int, *, afresh: bool = False) -> Path:
    """Return a file on this machine that holds a range of an object that never changes.

    Whoever reads it checks its digest, and asks for it `afresh` when it is not what it should be.

    Raises
    ------
    StorageError
        When the object is gone, the store does not answer, or the cache folder cannot be written.
    """
    folder = cache_folder() / "objects"
    file = folder / hashlib.sha256(f"{path} {start} {stop}".encode()).hexdigest()
    if afresh or not file.exists():
        make_folder(folder)
        with committing(file) as buffer:
            for first in range(start, stop, PIECE):
                try:
                    buffer.write(path.read_bytes(first, min(first + PIECE, stop)))
                except FileNotFoundError as error:
                    raise StorageError(f"{str(path)!r} was replaced while it was read: try again") from error
    return file


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Yield the name of a temporary file that takes the place of `path` when all went well."""
    temporary = path.with_name(f"{TEMP_PREFIX}{uuid.uuid4().hex}")
    with _storage_errors("write", path):
        try:
            yield temporary
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        _sync_folder(path.parent)


def _write_synced(path: Path, data: bytes | memoryview) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        view = memoryview(data).cast("B")
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(path: Path) -> None:
    if os.name == "nt":  # Windows cannot open a folder to sync it; its rename is journalled
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _storage_errors(action: str, path: Path) -> Iterator[None]:
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise StorageError(f"cannot {action} {str(path)!r}: {reason}; free the disk or choose another place") from error
