"""The rows of a semi-supervised fit: labelled ones, those held out, and those without a label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurebank.bank.bank import Bank
from featurebank.bank.samples import column_of, other_contents
from featurebank.fitting.rows import Target, load_table, read_target
from featurebank.fitting.semi_supervised import Part


@dataclass(frozen=True)
class Given:
    """Labelled rows in the order of the search, rows held out of it, and rows without a label.

    Attributes
    ----------
    X : ndarray of float32, shape (n, d)
        Of every row, the best features only.
    y : ndarray, shape (n,)
        Meaningless where there is no label.
    groups : ndarray of int64, shape (n,)
        Rows of one group are never on both sides.
    labelled, held_out, pool : ndarray of int64
        Row numbers; no content of the pool is in the others, or twice.
    is_grouped : bool
        Whether labelled rows share groups.
    """

    X: NDArray[np.float32]
    y: NDArray[Any]
    groups: NDArray[np.int64]
    labelled: NDArray[np.int64]
    held_out: NDArray[np.int64]
    pool: NDArray[np.int64]
    is_grouped: bool

    def part(self, train: NDArray[np.int64], test: NDArray[np.int64]) -> Part:
        """Return what is learned from when rows `test` are to be scored."""
        never = np.concatenate([self.groups[test], self.groups[self.held_out]])
        pool = self.pool[~np.isin(self.groups[self.pool], never)]
        groups = self.groups[train] if self.is_grouped else None
        return Part(self.X[train], self.y[train], groups, self.X[pool])


def load_given(
    bank: Bank,
    names: Sequence[str],
    target: Target,
    groups: str | None,
    searched: Sequence[Sequence[Any]],
    is_grouped: bool,
) -> Given:
    """Load every readable row of a bank.

    Parameters
    ----------
    bank : Bank
    names : sequence of str
        Feature sets.
    target : Target
        One column of classes.
    groups : str or None
        Column of groups, or ``"@near-duplicates"``; without it, identical content alone is a group.
    searched : sequence of [source, path, …]
        The labelled rows, in the order that the folds count in; others with a label are held out.
    is_grouped : bool
        Whether labelled rows share groups.

    Raises
    ------
    FeatureBankError
        When a column or a row is missing.
    """
    table = bank.select()
    has_label = column_of(table, target.name).notna().to_numpy()
    known = read_target(table.take(has_label), target)[0]
    y = np.empty(len(table), known.dtype)
    y[has_label] = known
    rows = load_table(bank, names, table, groups, None, ["mean"])
    keys = zip(table.rows["source"], table.paths, strict=True)
    position = {key: number for number, key in enumerate(keys)}
    labelled = np.array([position[source, path] for source, path, *_ in searched])
    held_out = np.setdiff1d(np.flatnonzero(has_label), labelled)
    ties = np.arange(len(table)) if rows.groups is None else rows.groups
    return Given(rows.X, y, ties, labelled, held_out, other_contents(table, has_label), is_grouped)
