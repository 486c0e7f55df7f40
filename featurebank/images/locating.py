"""The paths of a manifest -> files below its root, also where the table was written elsewhere or on another machine."""

from __future__ import annotations

import itertools
import logging
import os
import posixpath
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from featurebank.errors import SourceError, counted, printable, shell_word
from featurebank.images import listing
from featurebank.images.columns import is_missing
from featurebank.images.listing import Entry
from featurebank.images.matching import Matcher
from featurebank.images.sources import key_of
from featurebank.storage.files import AnyPath
from featurebank.storage.objects import is_address

OUTSIDE = "the manifest's path leaves the root"
URL = "a URL, and only files are read: download it, and write where the file is"
UNREAD = "cannot be read"
"""How the problem of a file begins that is not there."""
_LISTED = 300_000
"""Most files of a root that a name is looked for among."""
_TRIED, _SHOWN = 20, 5
_LOG = logging.getLogger(__name__)


def rows_with_path(cells: Sequence[Any]) -> list[int]:
    """Return the rows that have a path; the log names those without one."""
    has_path = [not is_missing(cell) and bool(str(cell).strip()) for cell in cells]
    say_left_out(has_path, "no path")
    return [number for number, there in enumerate(has_path) if there]


def say_left_out(given: Sequence[bool], what: str) -> None:
    """Tell the log of the rows that are not given, by their numbers, and what they have."""
    empty = [number for number, there in enumerate(given, 1) if not there]
    if empty:
        numbers = ", ".join(map(str, empty[:_SHOWN])) + ", …" * (len(empty) > _SHOWN)
        rows = counted(len(empty), f"row has {what} and is", f"rows have {what} and are")
        _LOG.warning("%s left out: %s", rows, numbers)


def is_url(text: str) -> bool:
    """Say whether a path is the address of a web page or file."""
    return re.match("(?i)https?://", text) is not None


def say_ignored(texts: Sequence[str], names: Sequence[bytes], ignored: Sequence[str]) -> None:
    """Tell the log of the names that fit a file only when something is ignored, by what that was."""
    first: dict[str, tuple[str, bytes]] = {}
    for text, name, what in zip(texts, names, ignored, strict=True):
        first.setdefault(what, (text, name))
    for what, count in Counter(filter(None, ignored)).items():
        text, name = first[what]
        shown = printable(text), printable(os.fsdecode(name))
        paths = counted(count, "path fits", "paths fit")
        _LOG.info("%s a file, ignoring %s: '%s' is '%s'", paths, what, *shown)


def locate(texts: Sequence[str], manifest: AnyPath, root: AnyPath) -> list[Entry]:
    """Return the file that each path of a manifest means, or why there is none.

    A path is looked for below the root, then from the manifest's folder, then as `Matcher` reads it.

    Raises
    ------
    SourceError
        When none is found and another root has them; the message names it.
    """
    locator = _Locator(manifest, root)
    entries = [locator.entry(text) for text in texts]
    entries = _without_doubles(entries, texts, locator.ignored)
    if texts and all(problem for *_, problem in entries):
        locator.refuse(texts)
    if locator.outside:
        wider = locator.wider(entries)
        hint = f": --root {shell_word(wider)} has it" if wider else ""
        entries = [(*entry[:3], entry[3] + hint if entry[3] == OUTSIDE else entry[3]) for entry in entries]
    names = [name for name, *_ in entries]
    say_ignored(texts, names, [locator.ignored.get(text, "") for text in texts])
    return entries


def _without_doubles(entries: list[Entry], texts: Sequence[str], ignored: dict[str, str]) -> list[Entry]:
    """Refuse a file that was only found by ignoring something when another row names it too."""
    count = Counter(name for name, *_ in entries)
    for at, (text, entry) in enumerate(zip(texts, entries, strict=True)):
        if text in ignored and count[entry[0]] > 1:
            fits = f"ignoring {ignored.pop(text)}, it fits {os.fsdecode(entry[0])!r} like another row"
            why = f"no file has this name; {fits}"
            entries[at] = (os.fsencode(text), 0, 0, why)
    return entries


def match_lost(entries: list[Entry], texts: Sequence[str], root: Path) -> list[Entry]:
    """Return files with those that are not there as they are written found below a root, as `Matcher` reads them."""
    matcher, ignored = Matcher(names_below(root)), dict[str, str]()
    found = list(entries)
    for at, (entry, text) in enumerate(zip(entries, texts, strict=True)):
        if not entry[3].startswith(UNREAD):
            continue
        name, what = matcher.find(os.fsencode(text))
        if name is None:
            found[at] = (*entry[:3], what)
        else:
            ignored[text] = what
            path = os.path.join(os.fsencode(os.path.abspath(root)), name)
            found[at] = (path.lstrip(b"/"), *listing.stat_file(path))
    found = _without_doubles(found, texts, ignored)
    say_ignored(texts, [name for name, *_ in found], [ignored.get(text, "") for text in texts])
    return found


def names_below(root: AnyPath) -> Iterator[bytes]:
    """Yield the files below a root; none where there are too many, or a folder cannot be listed."""
    try:
        found = [path for path, *_ in itertools.islice(listing.walk(root, Counter()), _LISTED)]
    except SourceError:
        return
    yield from found if len(found) < _LISTED else ()


class _Locator:
    """Finds files below a root, and keeps what else is to be said of them.

    Attributes
    ----------
    ignored : dict of str to str
        What had to be ignored of a path so that it fitted a file.
    outside : list of str
        Files that are there, but not below the root.
    """

    def __init__(self, manifest: AnyPath, root: AnyPath) -> None:
        self.ignored: dict[str, str] = {}
        self.outside: list[str] = []
        self._root, self._key, self._base = root, key_of(root), key_of(manifest.parent)
        self._manifest = manifest
        self._look = listing.stat_below(root)
        self._matcher = Matcher(names_below(root))

    def entry(self, text: str) -> Entry:
        """Return where a path leads."""
        if is_url(text):
            return os.fsencode(text), 0, 0, URL
        first: Entry | None = None
        is_outside = is_address(text) and not text.startswith(f"{self._key}/")
        for inside, full in [] if is_outside or "\0" in text else self._readings(text):
            if inside is None:
                is_outside |= os.path.lexists(full)
                self.outside += [full] * os.path.lexists(full)
            else:
                entry = (os.fsencode(inside), *self._look(os.fsencode(inside)))
                if not entry[3].startswith(UNREAD):
                    return entry
                first = first or entry
        if is_address(text):
            self.outside.append(text)
        if is_outside or "\0" in text:
            return os.fsencode(text.replace("\0", "?")), 0, 0, OUTSIDE
        return self._matched(text, first)

    def _readings(self, text: str) -> list[tuple[str | None, str]]:
        """Return a path as one below the root (None where it leaves it) and whole: from the root, from the manifest."""
        if is_address(self._key):
            inside = posixpath.normpath(text.removeprefix(f"{self._key}/"))
            return [(None if _leaves(inside) else inside, inside)]
        local = text.removeprefix("file://")
        folders = [self._key] if os.path.isabs(local) else dict.fromkeys([self._key, self._base])
        wholes = [os.path.normpath(os.path.join(folder, local)) for folder in folders]
        found = [(None if _leaves(inside := os.path.relpath(whole, self._key)) else inside, whole) for whole in wholes]
        return found[:1] + [each for each in found[1:] if each[0] is not None or found[0][0] is None]

    def _matched(self, text: str, first: Entry | None) -> Entry:
        """Return the file that a path means that is not there as it is written."""
        name, what = self._matcher.find(os.fsencode(text))
        if name is not None and (not first or name != first[0]):
            self.ignored[text] = what
            return name, *self._look(name)
        if first is None:
            return os.fsencode(text), 0, 0, OUTSIDE
        more = "" if is_address(self._key) else what.removeprefix("no file has this name").removeprefix("; ")
        return (*first[:3], f"{first[3]} ({more})" if more and name is None else first[3])

    # --- another root ------------------------------------------------------------------------------------------

    def wider(self, entries: Sequence[Entry]) -> str:
        """Return the folder that holds all files that were found, those outside the root too; empty for none."""
        inside = [f"{self._key}/{os.fsdecode(name)}" for name, *_, problem in entries if not problem]
        schemes, paths = zip(*map(_split, [*self.outside, *inside]), strict=True)
        if len(set(schemes)) > 1:
            return ""
        return schemes[0] + os.path.commonpath([os.path.dirname(each) for each in paths])

    def refuse(self, texts: Sequence[str]) -> None:
        """Raise an error that names the root that has the files, where one is known."""
        what = f"none of the {len(texts)} paths in {str(self._manifest)!r} is a file below {self._key!r}, the first is "
        what += repr(printable(texts[0]))
        if all(map(is_url, texts)):
            raise SourceError(f"{what}: {URL}")
        root = self.wider([]) if len(self.outside) >= len(texts) else self._elsewhere(texts)
        if root:
            raise SourceError(
                f"{what}; expected paths that start there: name the folder that has them with --root {shell_word(root)}"
            )

    def _elsewhere(self, texts: Sequence[str]) -> str:
        """Return a folder near the manifest, or near here, that has a file of the first paths; empty for none."""
        if is_address(self._key):
            return ""
        near = [Path(self._base), *list(Path(self._base).parents)[:3], Path.cwd()]
        for folder in [each for each in dict.fromkeys(near) if str(each) != self._key]:
            if any(os.path.isfile(os.path.join(folder, end)) for text in texts[:_TRIED] for end in _ends(text)):
                return str(folder)
        return ""


def _split(name: str) -> tuple[str, str]:
    """Return the store and bucket of an address, and the path in there."""
    found = re.match(r"\w+://[^/]*", name)
    store = found.group() if found else ""
    return store, name.removeprefix(store)


def _ends(text: str) -> list[str]:
    """Return a path without more and more of its first folders, but with one at least."""
    parts = [part for part in text.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    return ["/".join(parts[start:]) for start in range(max(1, len(parts) - 1))]


def _leaves(inside: str) -> bool:
    return inside.split(os.sep, 1)[0] == os.pardir
