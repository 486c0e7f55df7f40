"""The random order of the contents: a tenth that tests and that no model chooses, and how it is mixed into the rest."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RANDOM = "random"
TENTH = 10
HOLES = 10
"""One in so many images of the test part may have been skipped."""


@dataclass(frozen=True)
class Draw:
    """The random order of the contents, and the tenth of them that tests.

    Attributes
    ----------
    order : ndarray of int64, shape (n,)
    asked : ndarray of int64
        The test part, in the order in which it is asked.
    is_test : ndarray of bool, shape (n,)
    """

    order: NDArray[np.int64]
    asked: NDArray[np.int64]
    is_test: NDArray[np.bool_]

    @classmethod
    def of(cls, digests: NDArray[np.bytes_], seed: int) -> Draw:
        """Draw by digests and a seed."""
        numbers = draws(digests, seed)
        asked, is_test = tenth_of(numbers), np.zeros(len(digests), bool)
        is_test[asked] = True
        return cls(np.argsort(numbers), asked, is_test)


def draws(digests: NDArray[np.bytes_], seed: int) -> NDArray[np.uint64]:
    """Return a random number for each content, which its digest and the seed decide alone, shape (n,).

    Those below a tenth of the largest are the test part, in this order.

    Examples
    --------
    >>> found = draws(np.array([b"a", b"b"]), 0)
    >>> found.dtype, bool((found == draws(np.array([b"b", b"a"]), 0)[::-1]).all())
    (dtype('uint64'), True)
    """
    start = f"featurebank studio {seed}".encode()
    hashed = b"".join(hashlib.sha256(start + bytes(each)).digest()[:8] for each in digests)
    return np.frombuffer(hashed, "<u8")


def tenth_of(numbers: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return the contents of the random tenth in the order in which they are asked, from their `draws`."""
    order = np.argsort(numbers)
    return order[numbers[order] < np.uint64(2**64 // TENTH)]


def honest_part(asked: NDArray[np.int64], is_labelled: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the labelled contents of the random tenth that a score may stand on: those of a beginning without gaps.

    A beginning of a random order is a random sample, whoever labelled it and why; of what was labelled further on,
    say as a region of the map, the choice was not random. One in ten may have been skipped.

    Examples
    --------
    >>> honest_part(np.array([4, 2, 7, 1]), np.array([0, 1, 0, 0, 1, 0, 0, 0], bool))
    array([4])
    """
    given = is_labelled[asked]
    holes = np.cumsum(~given)
    fits = given & (holes <= np.arange(len(asked)) // HOLES)
    end = int(np.flatnonzero(fits)[-1]) + 1 if fits.any() else 0
    return asked[:end][given[:end]]


def mixed(
    chosen: Sequence[tuple[int, str | None]], asked: Sequence[int], count: int, labelled: int, tested: int
) -> list[tuple[int, str | None]]:
    """Return what comes next with a tenth from the test part mixed in, each with why it comes.

    Parameters
    ----------
    chosen : sequence of (content, why)
    asked : sequence of int
        Contents of the test part.
    count : int
        How many.
    labelled, tested : int
        Labels so far, and those of them in the test part.

    Examples
    --------
    >>> mixed([(1, "coverage"), (2, "coverage")], [7, 8], 3, labelled=4, tested=0)
    [(1, 'coverage'), (7, 'random'), (2, 'coverage')]
    """
    found: list[tuple[int, str | None]] = []
    first, second = deque(chosen), deque(asked)
    while len(found) < count and (first or second):
        is_due = TENTH * tested < labelled + 1 - TENTH // 2
        if second and (is_due or not first):
            found.append((second.popleft(), RANDOM))
            tested += 1
        else:
            found.append(first.popleft())
        labelled += 1
    return found
