"""Rows divided by a column: the folds that it names, and the rows that are held out to the end."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurebank.bank.samples import SampleTable, column_of, values_of
from featurebank.errors import TopModelError, counted
from featurebank.images.splits import SPLIT, TEST, TRAIN, VAL, holds_split, parts_of
from featurebank.topmodels.folds import Fold

NO_SPLIT = "none"


@dataclass(frozen=True)
class GivenSplit:
    """Rows that a column divides into train, val and test.

    Attributes
    ----------
    column : str
    part : ndarray of str, shape (n,)
        Part of each row, ``"train"``, ``"val"`` or ``"test"``; a row without one trains.
    without : int
        Rows without a part.
    """

    column: str
    part: NDArray[np.str_]
    without: int

    @property
    def is_held_out(self) -> NDArray[np.bool_]:
        """Which rows are held out of the search, shape (n,)."""
        held_out: NDArray[np.bool_] = self.part == TEST
        return held_out

    def fold(self, y: NDArray[Any], task: str) -> list[Fold]:
        """Return the one fold, which tests val, in positions among the rows that are not held out.

        It is none without val, or where train and val have not the same classes: some would be tested or learned
        nowhere.
        """
        rest = ~self.is_held_out
        is_val, values = self.part[rest] == VAL, y[rest]
        columns = values.reshape(len(values), -1).T
        is_same = task == "regression" or all(_classes(each[is_val]) == _classes(each[~is_val]) for each in columns)
        return [(np.flatnonzero(~is_val), np.flatnonzero(is_val))] if is_val.any() and is_same else []

    def facts(self, is_fold: bool) -> dict[str, Any]:
        """Return what the report says: ``column``, the rows of each part, and a ``sentence``."""
        counts = Counter(self.part.tolist())
        shown = {part: f"{part} ({counts[part]})" for part in (TRAIN, VAL, TEST) if counts[part]}
        learned = " and ".join(shown[part] for part in (TRAIN, VAL) if part in shown)
        clauses = [
            f"models learn from {shown[TRAIN]} and are compared on {shown[VAL]}"
            if is_fold
            else f"folds are drawn from {learned}"
        ]
        clauses += [f"{shown[TEST]} is held out to the end"] if TEST in shown else []
        if self.without:
            without = counted(self.without, "sample without a part counts", "samples without a part count")
            clauses.append(f"{without} as train")
        sentence = f"Split by the column {self.column}: {', '.join(clauses)}; --split none takes all samples alike"
        return {"column": self.column, "parts": dict(counts), "sentence": sentence}


def given_split(table: SampleTable, y: NDArray[Any], column: str | None) -> GivenSplit | str:
    """Return how a column divides rows, or where it does not, why (empty: nobody would expect it).

    Parameters
    ----------
    table : SampleTable
        The rows, n of them.
    y : ndarray, shape (n,) or (n, labels)
    column : str or None
        A column of words for train, val and test (`featurebank.images.splits`); ``"none"`` for no split. None means
        the column ``split`` where it has nothing but such words.

    Raises
    ------
    ColumnError
        When there is no such column.
    TopModelError
        When the column that was named gives no split.
    """
    if column == NO_SPLIT or (column is None and not holds_split(table.columns)):
        return ""
    name = column or SPLIT
    cells = column_of(table, name).astype(object)
    words = [None if is_missing else str(cell) for cell, is_missing in zip(cells, cells.isna(), strict=True)]
    parts = parts_of({word for word in words if word is not None})
    part = np.array([TRAIN if word is None else parts.get(word, "") for word in words], dtype=str)
    reason = _why_not(part, y)
    if not reason:
        return GivenSplit(name, part, words.count(None))
    if column is None:
        return f"The column {name} is not used as a split: {reason}"
    raise TopModelError(f"column {name!r} gives no split: {reason}; for numbers of folds give --cv predefined:COLUMN")


def _classes(values: NDArray[Any]) -> set[Any]:
    """Return the distinct values; -1 stands for none, where tasks lie side by side."""
    return set(values.tolist()) - {-1}


def _why_not(part: NDArray[np.str_], y: NDArray[Any]) -> str:
    """Return why parts cannot be learned from and tested on; empty when they can."""
    found, train = set(part.tolist()), y[part == TRAIN]
    if "" in found:
        return "it has other words than train, val and test"
    if found == {TRAIN} or TRAIN not in found:
        return f"all samples to learn from are {' and '.join(sorted(found))}; expected train beside val or test"
    is_one = train.ndim == 1 and len(np.unique(train)) == 1
    return f"train has one value of the target, {train.tolist()[0]!r}; expected two to tell apart" if is_one else ""


def predefined(table: SampleTable, column: str) -> tuple[list[Fold], NDArray[np.bool_]]:
    """Return the folds that a column names, and which rows are held out of them.

    Numbers are the fold that tests a row, -1 for rows that always train (scikit-learn's `PredefinedSplit`). Of the
    words train, val and test, val is the fold's test part and test is held out to the end; without val, test is the
    fold's test part. Any other words are one fold each.

    Raises
    ------
    TopModelError
        When the column gives no fold with rows on both sides.
    """
    words = values_of(table, column)
    if words.dtype.kind == "U":
        parts = parts_of(set(words.tolist()))
        is_one = len(parts) > 1 == len(set(parts.values()))  # train1 and train2 are folds
        words = np.array([word if is_one else parts.get(word, word) for word in words.tolist()], dtype=str)
    held_out = (words == TEST) & (words == VAL).any()
    rest = np.flatnonzero(~held_out)
    always = (words == TRAIN) | (words == -1) if words.dtype.kind in "if" else words == TRAIN
    tested = [name for name in np.unique(words[rest]) if not always[words == name].all()]
    place = np.cumsum(~held_out) - 1  # positions among the rows that are not held out
    folds = []
    for name in tested:
        is_test = (words == name)[rest]
        folds.append((place[rest[~is_test]], place[rest[is_test]]))
    if not folds or any(not len(side) for fold in folds for side in fold):
        raise TopModelError(f"column {column!r} gives no split; expected train, val and test, or fold numbers")
    return folds, held_out
