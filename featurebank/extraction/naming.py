"""Names of images in memory: two Datasets of one class are two sources, the same one again is the same source."""

from __future__ import annotations

import itertools
import warnings
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from featurebank.bank.bank import Bank
from featurebank.bank.samples import OK, SampleTable
from featurebank.errors import ImageError, SourceError
from featurebank.images.sources import Source

COMPARED = 8
"""Images of a source that are compared with those in the bank."""


def tell_apart(source: Source, bank: Bank) -> Source:
    """Return images in memory, named after their kind, under a name that the bank has for no others.

    That is the kind's own (``CIFAR10``) as long as the images which the bank has under that name are these, else the
    first of ``CIFAR10-2``, ``CIFAR10-3``, … of which that is true. A few images from all over the source decide.

    Raises
    ------
    SourceError
        When an image is another one at each reading, so that nothing can be compared.

    Warns
    -----
    UserWarning
        When another name is used for the first time.
    """
    table = bank.table
    names = itertools.chain([source.name], (f"{source.name}-{number}" for number in itertools.count(2)))
    for name in names:
        rows = table.find(name, source.paths)
        known = _known(table, rows)
        if _are_these(source, table, rows, known):
            if name != source.name and not len(known):
                warnings.warn(
                    f"the bank has other images under {source.name!r}, so these are {name!r}; name= decides otherwise: "
                    f"name={source.name!r} has them take the place of those",
                    stacklevel=3,
                )
            return replace(source, name=name)
    raise AssertionError("there is always another name")


def about_replaced(source: Source, bank: Bank) -> str:
    """Return a warning where images that were given ids take the place of others, all of them; else nothing."""
    table = bank.table
    rows = table.find(source.name, source.paths)
    known = _known(table, rows)
    digests = table.rows["digest"].to_numpy()
    if len(known) < 2 or any(_digest(source, each) in (b"", digests[rows[each]]) for each in _some(known)):
        return ""
    return (
        f"the bank has other images under these ids of {source.name!r}, and these take their place: name= tells them "
        "apart"
    )


def _digest(source: Source, position: int) -> bytes:
    """Return the digest of an image, empty where it cannot be read."""
    try:
        return source.read(position)[0]
    except ImageError:
        return b""


def _known(table: SampleTable, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the samples that a table has an image of, by the rows that they have in it."""
    status = table.rows["status"].to_numpy()
    return np.flatnonzero((rows >= 0) & (status[rows] == OK)) if len(table) else rows[:0]


def _some(known: NDArray[np.int64]) -> list[int]:
    """Return a few of some samples, from all over them."""
    return sorted({int(known[i]) for i in np.linspace(0, len(known) - 1, COMPARED, dtype=int)}) if len(known) else []


def _are_these(source: Source, table: SampleTable, rows: NDArray[np.int64], known: NDArray[np.int64]) -> bool:
    """Say whether what the bank has of some samples are these images."""
    digests = table.rows["digest"].to_numpy()
    return all(_is_this(source, position, digests[rows[position]]) for position in _some(known))


def _is_this(source: Source, position: int, digest: bytes) -> bool:
    found = _digest(source, position)
    if found and found != digest and _digest(source, position) != found:
        raise SourceError(
            f"the images of {source.name!r} change from one reading to the next, so that nothing tells whether the "
            "bank has them: give name=, or leave the random changes to views='augment:8'"
        )
    return found in (b"", digest)  # one that cannot be read is told when it is embedded
