"""How much memory is free, and what a fit that is read in batches cannot do."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from featurebank.errors import TopModelError

_UNKNOWN = 4 << 30
_MEMINFO, _CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


def available_memory() -> int:
    """Return the bytes that a new array may take: what the machine says is available, and the container leaves.

    Half of the machine's memory is meant where it does not say, 4 GiB where that is unknown, too.
    """
    found = re.search(r"MemAvailable:\s+(\d+) kB", _text(_MEMINFO))
    return min(int(found[1]) << 10 if found else _half_of_memory(), _left_in_container())


def check_streamed(asked: Mapping[str, Any]) -> None:
    """Refuse what a fit that is read in batches cannot do.

    Parameters
    ----------
    asked : mapping
        By its name, whether something was asked for that needs all rows in memory.

    Raises
    ------
    TopModelError
        When something was.

    Examples
    --------
    >>> check_streamed({"nested": False})
    """
    found = [name for name, value in asked.items() if value]
    if found:
        remedy = "leave it out, or give the fit more memory"
        raise TopModelError(f"{found[0]} needs all rows in memory, which these do not fit into: {remedy}")


def _left_in_container() -> int:
    limit, used = _text(_CGROUP / "memory.max").strip(), _text(_CGROUP / "memory.current").strip()
    return max(int(limit) - int(used), 0) if limit.isdigit() and used.isdigit() else 1 << 62


def _half_of_memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (ValueError, OSError, AttributeError):  # not every system says
        return _UNKNOWN


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
