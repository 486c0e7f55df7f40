"""Names of tar shards, and of what is in them."""

from __future__ import annotations

import math
import re

from featurebank.errors import SourceError

SUFFIX = ".tar"
MOST_SHARDS = 1_000_000
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


def is_shards(text: str) -> bool:
    """Say whether a path or address names tar shards."""
    return text.endswith(SUFFIX)


def expand(pattern: str) -> list[str]:
    """Return the names that a pattern with ranges of numbers stands for.

    Raises
    ------
    SourceError
        When a range runs backwards, or there are more than `MOST_SHARDS`.

    Examples
    --------
    >>> expand("a-{08..10}.tar")
    ['a-08.tar', 'a-09.tar', 'a-10.tar']
    """
    ranges = [(int(first), int(last)) for first, last in _RANGE.findall(pattern)]
    count = math.prod(max(0, last - first + 1) for first, last in ranges)
    if not 0 < count <= MOST_SHARDS:
        raise SourceError(f"{pattern!r} stands for {count} shards; expected 1 to {MOST_SHARDS}, e.g. {{000..009}}")
    match = _RANGE.search(pattern)
    if match is None:
        return [pattern]
    head, tail = pattern[: match.start()], expand(pattern[match.end() :])
    numbers = [str(number).zfill(len(match[1])) for number in range(int(match[1]), int(match[2]) + 1)]
    return [head + number + rest for number in numbers for rest in tail]


def root_of(pattern: str) -> str:
    """Return the folder that the shards of a pattern are named from.

    Examples
    --------
    >>> root_of("s3://bucket/photos/part-{0..3}/{000..009}.tar")
    's3://bucket/photos'
    """
    return pattern.partition("{")[0].rpartition("/")[0]


def split_name(name: str) -> tuple[str, str]:
    """Return a member's name up to the first dot of its last part, and what comes after that dot.

    Examples
    --------
    >>> split_name("d.1/0007.left.PNG")
    ('d.1/0007', 'left.png')
    """
    folder, slash, base = name.rpartition("/")
    stem, _, note = base.partition(".")
    return folder + slash + stem, note.lower()
