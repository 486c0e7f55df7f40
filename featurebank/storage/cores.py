"""How many cores this process may use, which can be fewer than the machine has."""

from __future__ import annotations


def usable_cores() -> int:
    """Return the cores that are left to this process: by its affinity (Slurm, taskset) and its container's quota."""
    from joblib import cpu_count

    return int(cpu_count())
