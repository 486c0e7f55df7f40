"""How much memory this machine has, how much of it is free, giving some back, and sharing some with a process."""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import sys
import tempfile
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

_Given = ParamSpec("_Given")
_Found = TypeVar("_Found")
_UNKNOWN = 8 << 30
_MEMINFO, _CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


def physical_memory() -> int:
    """Return the bytes of memory that the machine has; 8 GiB where it does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):  # not every system says
        return _UNKNOWN


def available_memory() -> int:
    """Return the bytes that a new array may take: what the machine says is available, and the container leaves.

    Half of the machine's memory is meant where it does not say.
    """
    found = re.search(r"MemAvailable:\s+(\d+) kB", _text(_MEMINFO))
    return min(int(found[1]) << 10 if found else physical_memory() // 2, _left_in_container())


def _left_in_container() -> int:
    limit, used = _text(_CGROUP / "memory.max").strip(), _text(_CGROUP / "memory.current").strip()
    return max(int(limit) - int(used), 0) if limit.isdigit() and used.isdigit() else 1 << 62


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def release() -> None:
    """Give memory that was freed back to the system; glibc keeps the holes between what is in use, for long."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:  # other C libraries have none
        trim(0)
    if "pyarrow" in sys.modules:
        sys.modules["pyarrow"].default_memory_pool().release_unused()


def releasing(function: Callable[_Given, _Found]) -> Callable[_Given, _Found]:
    """Have a function that takes much memory for a while give it back (`release`) when it ends.

    Examples
    --------
    >>> releasing(len)("abc")
    3
    """

    @wraps(function)
    def released(*args: _Given.args, **kwargs: _Given.kwargs) -> _Found:
        try:
            return function(*args, **kwargs)
        finally:
            release()

    return released


def anonymous_file(size: int) -> int:
    """Return the descriptor of a file without a name, which is gone with its last user, however that ends.

    Parameters
    ----------
    size : int
        Its bytes, which are taken at once.

    Raises
    ------
    OSError
        When there is no room for it.
    """
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("featurebank")
    else:
        with tempfile.TemporaryFile() as unnamed:
            file = os.dup(unnamed.fileno())
    try:
        os.ftruncate(file, size)
        if hasattr(os, "posix_fallocate"):  # without, a lack of memory would end the process that writes into it
            os.posix_fallocate(file, 0, size)
    except OSError:
        os.close(file)
        raise
    return file


def map_file(file: int, size: int) -> mmap.mmap:
    """Return an open file as memory that is shared by all who map it."""
    return mmap.mmap(file, size)
