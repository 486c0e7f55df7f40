"""What a store says of an object: size and time, whatever the kind of store."""

from __future__ import annotations

import stat
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any


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
    given = [info[name] for name in ("LastModified", "mtime", "updated", "last_modified", "created") if info.get(name)]
    when = datetime.fromisoformat(given[0]) if given and isinstance(given[0], str) else given[0] if given else 0
    seconds = when.timestamp() if isinstance(when, datetime) else float(when)
    tags = [str(info[name]) for name in ("ETag", "etag", "generation", "md5Hash") if info.get(name)]
    return int(seconds) * 10**9 + (zlib.crc32(tags[0].encode()) % 10**9 if tags else int(seconds % 1 * 1e9))
