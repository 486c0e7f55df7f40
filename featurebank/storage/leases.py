"""A lock on object storage, made of conditional puts alone: no server, no clocks that agree, free when its holder dies.

The lock is a folder of numbered objects, of which the highest counts. Whoever wants it creates the next number, which
a conditional put gives to one process only, once the highest says that it is free, or has not changed for `SILENCE`
seconds: its holder writes to it all the time. The highest number is never removed, so that none is given twice.
"""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from featurebank.errors import StorageError
from featurebank.storage.objects import ObjectPath

SILENCE = 60.0
"""Seconds without a sign of life after which the holder of a lock is taken for dead."""
BEATS = 6
"""Signs of life in that time."""
PAUSE = 0.2
_FREE = b"free"


@contextmanager
def leased(folder: ObjectPath) -> Iterator[None]:
    """Hold the lock whose objects lie in a folder.

    Raises
    ------
    StorageError
        When the store does not answer, or has no conditional puts; afterwards, when the lock was taken over since
        this process gave no sign of life.
    """
    mine = _acquire(folder)
    ended, lost = threading.Event(), threading.Event()
    keeper = threading.Thread(target=_keep, args=(folder, mine, ended, lost), name="featurebank-lock", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        ended.set()
        keeper.join()
        with suppress(StorageError):  # it goes free by itself
            mine.put(_FREE)
    if lost.is_set():
        raise StorageError(
            f"the lock {str(folder)!r} was taken over: this process gave no sign of life for {SILENCE:.0f} s; run the "
            "same command again"
        )


def _acquire(folder: ObjectPath) -> ObjectPath:
    """Wait until the lock is free, and return the object that says it is ours."""
    token = uuid.uuid4().hex.encode()
    seen: tuple[ObjectPath | None, bytes] = (None, b"")
    since = time.monotonic()
    while True:
        newest, state = _look(folder)
        if (newest, state) != seen:
            seen, since = (newest, state), time.monotonic()
        if state == _FREE or time.monotonic() - since > SILENCE:
            mine = folder / f"{1 + (int(newest.name) if newest else 0):012}"
            if mine.create(token):
                if _newest(folder) == mine:
                    return _checked(folder, mine)
                mine.remove()
        time.sleep(PAUSE * random.uniform(0.5, 1.5))


def _look(folder: ObjectPath) -> tuple[ObjectPath | None, bytes]:
    """Return the object that counts, and what it says; a lock that no one ever held is free."""
    while newest := _newest(folder):
        with suppress(FileNotFoundError):  # the next holder cleared it away
            return newest, (folder / newest.name).read_bytes()
    return None, _FREE


def _newest(folder: ObjectPath) -> ObjectPath | None:
    return max((path for path in folder.iterdir() if path.name.isdigit()), default=None)


def _checked(folder: ObjectPath, mine: ObjectPath) -> ObjectPath:
    """Return our object where the store refuses to create it again; clear those before it away."""
    if mine.create(uuid.uuid4().hex.encode()):
        raise StorageError(
            f"{str(folder.parent)!r} lies on a store without conditional puts (If-None-Match), so samples cannot be "
            "updated safely there: choose another store, or keep the bank in a folder"
        )
    for path in folder.iterdir():
        if path < mine:
            path.remove()
    return mine


def _keep(folder: ObjectPath, mine: ObjectPath, ended: threading.Event, lost: threading.Event) -> None:
    """Write to our object again and again; note it when the lock was taken over."""
    while not ended.wait(SILENCE / BEATS):
        with suppress(StorageError):  # the store does not answer for a while; whether that was too long shows later
            if _newest(folder) != mine:
                lost.set()
                return
            mine.put(uuid.uuid4().hex.encode())
