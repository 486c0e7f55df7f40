"""The samples of a bank that the paths in a table of labels mean, also where it was written on another machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from featurebank.bank.samples import SampleTable
from featurebank.images.locating import say_ignored
from featurebank.images.matching import Matcher

_ABOVE = "the folders above it"


def is_sample(table: SampleTable) -> Callable[[str], bool]:
    """Return what says whether a bank has a sample of a name, as tables that featurebank wrote have it."""
    known = set(table.rows["path"].to_numpy())
    return lambda name: os.fsencode(name) in known or os.fsencode(name.removeprefix("'")) in known


def meant_paths(table: SampleTable, paths: Sequence[str], sources: Sequence[str] | None) -> list[str]:
    """Return the path in the bank that each path means; one that means none, or several, stays as it is.

    Parameters
    ----------
    table : SampleTable
    paths : sequence of str
    sources : sequence of str, optional
        The source of each, where they are named.
    """
    finders: dict[str, _Finder] = {}
    found, ignored = [], []
    for path, source in zip(paths, sources or [""] * len(paths), strict=True):
        if source not in finders:
            own = table.take((table.rows["source"] == source).to_numpy()) if source else table
            finders[source] = _Finder(own)
        name, what = finders[source].find(path)
        found.append(name)
        ignored.append(what)
    say_ignored(paths, [os.fsencode(name) for name in found], ignored)
    return found


class _Finder:
    """Finds the sample of some that a path means."""

    def __init__(self, table: SampleTable) -> None:
        self._known = set(table.rows["path"].to_numpy())
        self._roots = [root for root in dict.fromkeys(table.rows["root"]) if root]
        self._matcher = Matcher(sorted(self._known))

    def find(self, path: str) -> tuple[str, str]:
        """Return the path of the sample, and what had to be ignored for it; the path as it is where there is none."""
        for name in [path, *(os.path.relpath(path, root) for root in self._roots if os.path.isabs(path))]:
            if os.fsencode(name) in self._known:
                return name, ""
        found, what = self._matcher.find(os.fsencode(path))
        if found is None or (what == _ABOVE and not _starts_elsewhere(path)):
            return path, ""
        return os.fsdecode(found), what


def _starts_elsewhere(path: str) -> bool:
    """Say whether the folders of a path are those of another machine or place, or none, and so mean nothing here."""
    return "\\" in path or "/" not in path or path.startswith(("/", "..", "~"))
