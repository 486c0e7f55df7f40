"""Matching: the file that is meant by a name that no file has exactly, as tables from other machines give it."""

from __future__ import annotations

import difflib
import itertools
import os
import posixpath
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property

from featurebank.images import formats

PATHS_COMPARED = 20_000
_GUESSES = 5
_SHOWN = 3
_DIGITS = re.compile("[0-9]+")


class Matcher:
    """Finds which of some names is meant by another one.

    A name is read more and more loosely, until one or several fit: as it is; with ``\\`` or ``/`` between folders and
    without ``./``; composed (NFC) and decomposed (NFD) letters alike; capitals and small letters alike; without the
    suffix where none is given; without zeros in front of a number; at last with more or fewer folders above it.

    Parameters
    ----------
    names : iterable of bytes
        Paths of the files, with ``/`` between folders; taken at the first `find`.

    Examples
    --------
    >>> matcher = Matcher([b"cat/000.png", b"dog/001.PNG"])
    >>> matcher.find(b"cat/000.png")
    (b'cat/000.png', '')
    >>> matcher.find(b"data\\\\dog\\\\001.png")
    (b'dog/001.PNG', 'the folders above it')
    >>> matcher.find(b"cat/000")
    (b'cat/000.png', 'its suffix')
    >>> matcher.find(b"cat/00.png")
    (None, "no file has this name; the nearest is 'cat/000.png'")
    """

    def __init__(self, names: Iterable[bytes]) -> None:
        self._names = names
        self._indexes: dict[tuple[Callable[[str], str], int], dict[str, list[bytes]]] = {}
        self._guesses = _GUESSES

    def find(self, wanted: bytes) -> tuple[bytes | None, str]:
        """Return the one name that is meant, and what had to be ignored for it to fit (nothing: empty).

        When no name fits, or several do, the first is None and the second the reason in plain words.
        """
        if wanted in self._known:
            return wanted, ""
        for ignored, found in self._readings(os.fsdecode(wanted)):
            if len(found) == 1:
                return found[0], ignored
            if found:
                return None, f"{len(found)} files fit, ignoring {ignored}: {_listed(found)}"
        return None, self._nearest(os.fsdecode(wanted))

    @cached_property
    def _known(self) -> dict[bytes, None]:
        return dict.fromkeys(self._names)

    def _readings(self, wanted: str) -> Iterator[tuple[str, list[bytes]]]:
        """Yield what is ignored, and the names that then fit."""
        yield "how folders are separated", self._index(_tidy).get(_tidy(wanted), [])
        yield "Unicode normalisation", self._index(_composed).get(_composed(wanted), [])
        yield "letter case", self._index(_folded).get(_folded(wanted), [])
        yield "its suffix", self._index(_bare).get(_folded(wanted), [])
        is_id = _bare(wanted) == _folded(wanted)  # a file's own name is not guessed at
        if is_id:
            yield "zeros in front", self._index(_unpadded).get(_unpadded(wanted), [])
        parts = [part for part in _folded(wanted).split("/") if part not in ("", "..")]
        ends = ["/".join(parts[start:]) for start in range(len(parts))]
        for reading in (_folded, _bare):
            for end in ends:  # the table's paths start further up than the files'
                yield "the folders above it", self._index(reading).get(end, [])
            if ends:  # or further down
                yield "the folders above it", self._index(reading, len(ends)).get(ends[0], [])
        if ends and is_id:
            found = self._index(_unpadded, len(ends)).get(_unpadded(ends[0]), [])
            yield "zeros in front and the folders above it", found

    def _index(self, reading: Callable[[str], str], depth: int = 0) -> dict[str, list[bytes]]:
        """Return the names by how they read, by their last `depth` parts where that is not 0."""
        if (reading, depth) not in self._indexes:
            index: dict[str, list[bytes]] = {}
            for name in self._known:
                key = "/".join(reading(os.fsdecode(name)).split("/")[-depth:])
                index.setdefault(key, []).append(name)
            self._indexes[reading, depth] = index
        return self._indexes[reading, depth]

    def _nearest(self, wanted: str) -> str:
        """Return the reason when no name fits; the nearest one is looked for a few times only, since that is slow."""
        self._guesses -= 1
        near = near_path(wanted, self._known) if self._guesses >= 0 else ""
        return f"no file has this name; the nearest is {near!r}" if near else "no file has this name"


def _tidy(name: str) -> str:
    """Return a path with ``/`` between its folders, and no step that leads nowhere."""
    return posixpath.normpath(name.strip().replace("\\", "/"))


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", _tidy(name))


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", _composed(name).casefold())


def _bare(name: str) -> str:
    """Return a folded path without the suffix of an image, ``.ome.tif`` and its kin as a whole."""
    stem, suffix = posixpath.splitext(_folded(name))
    return stem.removesuffix(".ome") if suffix in formats.SUFFIXES else stem + suffix


def _unpadded(name: str) -> str:
    """Return a bare path whose last part, where it is a number, has no zeros in front: a table's program took them."""
    folder, slash, last = _bare(name).rpartition("/")
    return f"{folder}{slash}{int(last) if last.isdecimal() else last}"


def _listed(names: list[bytes]) -> str:
    """Return names for a message; of those that are not ASCII, with their normalisation, since they may look alike."""
    more = ", …" * (len(names) > _SHOWN)
    return ", ".join(repr(text) + _form(text) for text in map(os.fsdecode, names[:_SHOWN])) + more


def _form(text: str) -> str:
    forms = [form for form in ("NFC", "NFD") if unicodedata.is_normalized(form, text)]
    return f" ({forms[0]})" if len(forms) == 1 else ""


def near_path(path: str, known: Iterable[bytes]) -> str:
    """Return the known path that was probably meant: one that ends, looks or is spelt alike; empty for none.

    One of other numbers was not meant: they tell the images of a folder apart.

    Examples
    --------
    >>> near_path("photos/cat/1.jpg", [b"cat/1.jpg", b"dog/1.jpg"])
    'cat/1.jpg'
    >>> near_path("cat/O.JPG", [b"cat/0.jpg", b"cat/9.jpg"])
    'cat/0.jpg'
    >>> near_path("cat/img_7.jpg", [b"cat/img_17.jpg", b"cat/img_007.jpg"]), near_path("a/7.jpg", [b"a/8.jpg"])
    ('cat/img_007.jpg', '')
    """
    names = list(dict.fromkeys(os.fsdecode(each) for each in known))
    alike = [name for name in names if f"/{path}".endswith(f"/{name}") or f"/{name}".endswith(f"/{path}")]
    alike = alike or [name for name in names if _looks(name) == _looks(path)]
    alike = alike or difflib.get_close_matches(path, _numbered_alike(path, names), n=1)
    return alike[0] if alike else ""


def _numbered_alike(path: str, names: Iterable[str]) -> list[str]:
    """Return the first names that have the numbers of a path, leading zeros aside."""
    wanted = _numbers(path)
    return list(itertools.islice((name for name in names if _numbers(name) == wanted), PATHS_COMPARED))


def _numbers(path: str) -> list[int]:
    return [int(digits) for digits in _DIGITS.findall(path)]


def _looks(path: str) -> str:
    """Return a path with letters that look like digits, and capitals, made equal."""
    return path.casefold().translate(str.maketrans("ol", "01"))
