"""What is known about the images that are learned from, and which of them choose the epoch."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurebank.errors import FineTuneError
from featurebank.topmodels.folds import Folds, default_kind, make_folds, tie

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Labels:
    """What is known about the images of a feed, in its order.

    Attributes
    ----------
    y : ndarray, shape (n,)
        Classes.
    digests : list of bytes
        Contents; rows of the same content stay together.
    groups : ndarray, shape (n,), or None
        Rows that stay together.
    weight : ndarray of float64, shape (n,), or None
        What each row counts.
    """

    y: NDArray[Any]
    digests: list[bytes]
    groups: NDArray[Any] | None = None
    weight: NDArray[np.float64] | None = None

    def take(self, rows: Rows) -> Labels:
        """Return some of the rows."""
        groups, weight = (None if each is None else each[rows] for each in (self.groups, self.weight))
        return Labels(self.y[rows], [self.digests[row] for row in rows], groups, weight)

    @property
    def ties(self) -> NDArray[np.int64] | None:
        """Groups that also hold the same content together; None where nothing ties rows."""
        keys = [np.array([digest.hex() for digest in self.digests])]
        if self.groups is None and len(set(self.digests)) == len(self.digests):
            return None
        return tie(*keys, *([] if self.groups is None else [self.groups]))


def hold_out(labels: Labels, rows: Rows, share: float, seed: int) -> tuple[Rows, Rows]:
    """Divide rows into those that train and those that choose the epoch, stratified, rows of one group together.

    Parameters
    ----------
    labels : Labels
    rows : ndarray of int64
        The rows to divide.
    share : float
        How many of them choose the epoch, about; 0 for none.
    seed : int

    Raises
    ------
    FineTuneError
        When too few rows are left to train on.
    TopModelError
        When the rows cannot be divided so.
    """
    known = np.unique(labels.y)
    if len(known) < 2:
        raise FineTuneError(f"{len(labels.y)} rows of one class; expected two classes or more")
    train, validation = _divided(labels, rows, share, seed) if share else (rows, rows[:0])
    lost = sorted(set(known.tolist()) - set(labels.y[train].tolist()))
    if lost:
        raise FineTuneError(
            f"class {lost[0]!r} has no row to train on; expected more of its rows or groups, or --validation 0"
        )
    return train, validation


def _divided(labels: Labels, rows: Rows, share: float, seed: int) -> tuple[Rows, Rows]:
    part = labels.take(rows)
    units = np.arange(len(rows)) if part.ties is None else part.ties
    largest = max(len(np.unique(units[part.y == name])) for name in np.unique(part.y))
    kind = default_kind("classification", part.ties is not None)
    folds = Folds(kind, max(2, min(round(1 / share), largest)), seed=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class")  # it need not be in every fold: one is taken
        train, validation = make_folds(folds, np.zeros((len(rows), 1)), part.y, part.ties, seed)[0]
    return rows[train], rows[validation]
