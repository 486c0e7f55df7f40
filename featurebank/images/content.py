"""The bytes of an image: a file's, an object's, those of one image in a file that holds many, or of a page."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable

from featurebank.errors import ImageError, StorageError, one_line
from featurebank.images import formats
from featurebank.images.tiff_pages import page_alone
from featurebank.storage import files
from featurebank.storage.files import AnyPath
from featurebank.storage.objects import ObjectPath, is_address

PAGE = "page"
A_PAGE = re.compile(f"(.+)#{PAGE}=([1-9][0-9]{{0,5}})", re.DOTALL)
INSIDE = re.compile(f"({'|'.join(map(re.escape, formats.PACKED))})/", re.IGNORECASE)


def read_file(path: str | os.PathLike[str]) -> bytes:
    """Return the bytes of a regular file, an object on a store, or an image in a file that holds many.

    That is a member of a tar shard (``shard.tar/member``), a row of a Parquet file (``images.parquet/0017``), or a page
    of a TIFF file (``stack.tif#page=3``), alone in a file of its own.

    Raises
    ------
    ImageError
        When it is missing, special (a pipe would block for ever), or refused by the system.
    StorageError
        When a store does not answer.
    """
    name = os.fsdecode(path)
    page = A_PAGE.fullmatch(name)
    if page is not None and not os.path.lexists(name):
        return page_alone(read_file(page[1]), int(page[2]))
    try:
        if is_address(name):
            return _read_packed(name) if INSIDE.search(name) else ObjectPath.parse(name).read_bytes()
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ImageError("not a regular file")
        with open(path, "rb") as file:
            return file.read()
    except StorageError:
        raise
    except OSError as error:
        if isinstance(error, NotADirectoryError) and INSIDE.search(name):
            return _read_packed(name)
        why = "no such object" if is_address(name) else error.strerror or one_line(error)
        raise ImageError(f"cannot be read: {why}") from error


def _read_packed(name: str) -> bytes:
    """Read an image by the path of the file that holds it, and its name in there."""
    ends = list(INSIDE.finditer(name))
    match = next((each for each in ends if os.path.isfile(name[: each.end() - 1])), ends[0])
    try:
        return _packed_reader(match[1].lower())(files.as_path(name[: match.end() - 1]), name[match.end() :])
    except (StorageError, ImageError):
        raise
    except (OSError, ValueError) as error:
        raise ImageError(f"cannot be read: {getattr(error, 'strerror', None) or one_line(error)}") from error


def _packed_reader(suffix: str) -> Callable[[AnyPath, str], bytes]:
    """Return what reads one image of a file that holds many, whose libraries are imported when there is one."""
    if suffix == formats.SHARD:
        from featurebank.images.shards import read_member

        return read_member
    from featurebank.images.parquet import read_row

    return read_row
