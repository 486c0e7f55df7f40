"""Names of images in memory: two Datasets of one class are two sources, the same one again is the same source."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

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
        known = np.flatnonzero((rows >= 0) & (table.rows["status"].to_numpy()[rows] == OK)) if len(table) else rows[:0]
        if _are_these(source, table, rows, known):
            if name != source.name and not len(known):
                warnings.warn(
                    f"the bank has other images under {source.name!r}, so these are {name!r}; name= decides otherwise: "
                    f"name={source.name!r} has them take the place of those",
                    stacklevel=3,
                )
            return replace(source, name=name)
    raise AssertionError("there is always another name")


def _are_these(source: Source, table: SampleTable, rows: Sequence[int], known: Sequence[int]) -> bool:
    """Say whether what the bank has of some samples are these images."""
    some = {int(known[i]) for i in np.linspace(0, len(known) - 1, COMPARED, dtype=int)} if len(known) else set()
    digests = table.rows["digest"].to_numpy()
    return all(_is_this(source, position, digests[rows[position]]) for position in sorted(some))


def _is_this(source: Source, position: int, digest: bytes) -> bool:
    try:
        found = source.read(position)[0]
        if found != digest and source.read(position)[0] != found:
            raise SourceError(
                f"the images of {source.name!r} change from one reading to the next, so that nothing tells whether the "
                "bank has them: give name=, or leave the random changes to views='augment:8'"
            )
    except ImageError:  # it will be told when it is embedded
        return True
    return bool(found == digest)
