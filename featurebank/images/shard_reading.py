"""Images out of tar shards: each is a range of its shard; on a store, of blocks that neighbours share."""

from __future__ import annotations

import threading
from functools import lru_cache

from featurebank.errors import ImageError
from featurebank.images import shards
from featurebank.images.shards import Member
from featurebank.storage.files import AnyPath
from featurebank.storage.objects import ObjectPath

KEPT_BLOCKS = 16
KEPT_SHARDS = 64
_LOCKS = [threading.Lock() for _ in range(KEPT_BLOCKS)]


def read_member(shard: AnyPath, name: str) -> bytes:
    """Return the bytes of an image in a shard.

    Raises
    ------
    FileNotFoundError
        When there is no such shard.
    ImageError
        When it has no such member, or has become shorter.
    """
    status = shards.status_of(shard)
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
    return {member.name: member for member in shards.index_of(shard, size, mtime_ns).members}


def _read_file(shard: AnyPath, start: int, stop: int) -> bytes:
    with shard.open("rb", buffering=0) as file:
        file.seek(start)
        return bytes(file.read(stop - start))


def _read_blocks(shard: ObjectPath, size: int, mtime_ns: int, start: int, stop: int) -> bytes:
    numbers = range(start // shards.BLOCK, -(-stop // shards.BLOCK))
    data = bytearray()
    for number in numbers:
        with _LOCKS[hash((shard, number)) % len(_LOCKS)]:  # who wants what another thread fetches waits for it
            data += _block(shard, size, mtime_ns, number)
    first = start - numbers.start * shards.BLOCK
    return bytes(data[first : first + stop - start])


@lru_cache(KEPT_BLOCKS)
def _block(shard: ObjectPath, size: int, mtime_ns: int, number: int) -> bytes:
    return shard.read_bytes(number * shards.BLOCK, min((number + 1) * shards.BLOCK, size))
