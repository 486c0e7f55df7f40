"""Clutter: what systems and tools put beside people's images, which is never a class or a sample."""

from __future__ import annotations

import re
from collections.abc import Iterable

_FOLDERS = frozenset(
    {
        *("@eadir", "@tmp", "@recycle", "#recycle", "#snapshot", "@recently-snapshot", "@__thumb"),  # network storage
        *("~snapshot", "@sharebin", "_gsdata_", "dfsrprivate"),
        *("$recycle.bin", "recycler", "recycled", "system volume information", "$extend", "msocache"),  # Windows
        *("_vti_cnf", "wpsystem"),
        *("__macosx", "network trash folder", "temporary items", "thevolumesettingsfolder"),  # macOS
        *("ipod photo cache", "lost+found", "lost.dir", "~tmp~", "__pycache__"),
    }
)
"""Names of folders, in small letters."""
_NUMBERED = re.compile(r"found\.\d{3}")


def is_hidden(name: str) -> bool:
    """Say whether a part of a path is hidden by its dot, as the two dots that lead upwards are not."""
    return name.startswith(".") and name not in (".", "..")


def is_system(name: str) -> bool:
    """Say whether a folder is one that systems make by themselves, whatever lies in it.

    Examples
    --------
    >>> [name for name in ("@eaDir", "$RECYCLE.BIN", "lost+found", "cat", "trash") if is_system(name)]
    ['@eaDir', '$RECYCLE.BIN', 'lost+found']
    """
    small = name.casefold()
    return small in _FOLDERS or _NUMBERED.fullmatch(small) is not None


def is_clutter(parts: Iterable[str]) -> bool:
    """Say whether a part of a path is hidden, or made by a system."""
    return any(is_hidden(part) or is_system(part) for part in parts)


def system_folder(folders: Iterable[str]) -> str:
    """Return the first of some folders that a system made, or an empty text."""
    return next(filter(is_system, folders), "")
