"""How many cores this process may use, which can be fewer than the machine has.

joblib counts them too; importing it takes longer than embedding an image.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """Return the cores that are left to this process: by its affinity (Slurm, taskset) and its container's quota."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not every system has it
        cores = os.cpu_count() or 1
    return max(1, min(cores, _quota()))


def _quota() -> int:
    """Return the cores that a container may keep busy: the microseconds of them in so many microseconds of time."""
    parts = _text("cpu.max").split() or [_text("cpu/cpu.cfs_quota_us"), _text("cpu/cpu.cfs_period_us")]
    used, period = (int(part) if part.isdigit() else 0 for part in parts[:2])  # "max", and -1, are no limit
    return math.ceil(used / period) if used and period else 1 << 30


def _text(name: str) -> str:
    try:
        return (_CGROUP / name).read_text().strip()
    except OSError:
        return ""
