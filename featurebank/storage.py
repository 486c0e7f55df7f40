"""The only module that writes files: temp, fsync, rename, fsync the folder; and the lock."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock

from featurebank.errors import StorageError

TEMP_PREFIX = ".tmp-"


def cache_folder() -> Path:
    """Return the folder for what can be made again: ``FEATUREBANK_CACHE``, else ``featurebank`` in the user's cache."""
    given = os.environ.get("FEATUREBANK_CACHE")
    return Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "featurebank"


def commit(path: Path, data: bytes | memoryview) -> None:
    """Write a file so that a reader, or a machine after a crash, sees the old file or the whole new one.

    The bytes go to a temporary file in the same folder, which is synced and renamed; then the folder is
    synced. The mode is the one the umask gives.

    Parameters
    ----------
    path : Path
        The file; its folder must exist.
    data : bytes or memoryview
        The whole content.

    Raises
    ------
    StorageError
        When the file system refuses; no temporary file is left behind.
    """
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


def make_folder(path: Path) -> None:
    """Create a folder and its parents, each one synced into its parent.

    Raises
    ------
    StorageError
        When the file system refuses.
    """
    with _storage_errors("create", path):
        if path.is_dir():
            return
        make_folder(path.parent)
        with suppress(FileExistsError):
            os.mkdir(path)
        _sync_folder(path.parent)


def remove(path: Path) -> None:
    """Remove a file; one that is already gone is fine.

    Raises
    ------
    StorageError
        When the file system refuses.
    """
    with _storage_errors("remove", path), suppress(FileNotFoundError):
        os.unlink(path)


def set_aside(path: Path) -> None:
    """Rename a damaged file to ``NAME.damaged``, so that nothing reads it and nothing is lost.

    Raises
    ------
    StorageError
        When the file system refuses.
    """
    with _storage_errors("rename", path), suppress(FileNotFoundError):
        os.replace(path, path.with_name(path.name + ".damaged"))
        _sync_folder(path.parent)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the exclusive lock file at `path`; it is free again when its holder dies.

    Raises
    ------
    StorageError
        When the lock file cannot be made.
    """
    with _storage_errors("lock", path):
        lock = FileLock(path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


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
