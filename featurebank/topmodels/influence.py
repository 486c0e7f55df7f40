"""What each unit (a row, or a group of rows that belong together) adds to a score: a jackknife."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

BLOCKS = 50
"""The most parts of the rows that `block_influence` leaves out in turn."""


class Part(NamedTuple):
    """The test rows of one fold: the number of each row's unit, and its weight, each of shape (m,)."""

    units: NDArray[np.intp]
    weight: NDArray[np.float64]


def mean_influence(parts: Sequence[Part], values: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
    """Return the influence of each unit on the mean over folds of the weighted mean of a value.

    Parameters
    ----------
    parts : sequence of k Part
    values : sequence of k ndarray, each of shape (m,)
        One value a test row, e.g. whether it was right.

    Examples
    --------
    >>> part = Part(np.array([0, 0, 1, 1]), np.ones(4))
    >>> mean_influence([part], [np.array([1.0, 1.0, 0.0, 1.0])])
    array([ 0.125, -0.125])
    """
    means = [_average(value, part.weight) for part, value in zip(parts, values, strict=True)]
    centre, total = float(np.mean(means)), np.zeros(1 + max(int(part.units.max()) for part in parts))
    for part, value in zip(parts, values, strict=True):
        share = part.weight / max(part.weight.sum(), np.finfo(float).tiny)
        total += np.bincount(part.units, share * (value - centre), len(total))
    return total / len(parts)


def block_influence(
    score: Callable[[int, NDArray[np.intp]], Any], parts: Sequence[Part], random_state: int = 0
) -> NDArray[np.float64]:
    """Return the influence of each block of units on the mean over folds of any score.

    Each block is left out in turn, and the folds that hold rows of it are scored again. For a mean this gives
    `mean_influence`.

    Parameters
    ----------
    score : callable
        Score, or scores of shape (s,), of a fold on some of its test rows, given by their positions.
    parts : sequence of k Part
    random_state : int, default 0
        Puts units into `BLOCKS` blocks where there are more units.

    Returns
    -------
    ndarray of float64, shape (blocks,) or (blocks, s)

    Notes
    -----
    Kott (2001), The delete-a-group jackknife.
    """
    blocks = _blocks(parts, random_state)
    whole = np.array([score(fold, np.arange(len(part.units))) for fold, part in enumerate(parts)])
    centre, total = whole.mean(axis=0), np.zeros((int(blocks.max()) + 1, *whole.shape[1:]))
    for fold, part in enumerate(parts):
        block = blocks[part.units]
        shares = np.bincount(block, part.weight, len(total)) / max(part.weight.sum(), np.finfo(float).tiny)
        for number in np.unique(block):
            rest, share = np.flatnonzero(block != number), shares[number]
            less = np.asarray(score(fold, rest) if part.weight[rest].any() else whole[fold])
            change = np.where(np.isfinite(less), whole[fold] - less, 0)  # e.g. ROC AUC, where one class is left
            total[number] += share * (whole[fold] - centre) + (1 - share) * change
    return np.asarray(total / len(parts))


def _blocks(parts: Sequence[Part], random_state: int) -> NDArray[np.intp]:
    """Return the number of each unit's block; a block's units are tested in as few folds as possible."""
    count = 1 + max(int(part.units.max()) for part in parts)
    first = np.full(count, len(parts))
    for fold in reversed(range(len(parts))):
        first[parts[fold].units] = fold
    tie = np.random.default_rng(random_state).permutation(count)
    blocks = np.empty(count, np.intp)
    order = np.lexsort((tie, first))
    for number, units in enumerate(np.array_split(order, min(count, BLOCKS))):
        blocks[units] = number
    return blocks


def _average(value: NDArray[Any], weight: NDArray[np.float64]) -> float:
    return float(np.average(value, weights=weight)) if weight.any() else float("nan")
