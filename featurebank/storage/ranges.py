"""Objects as files that are open for reading, a range at a time."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from featurebank.storage.objects import ObjectPath

BLOCK = 256 << 10


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
