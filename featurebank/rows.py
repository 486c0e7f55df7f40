"""The rows of a fit: samples, embeddings, what is to be learned, weights, groups, and what was noticed about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurebank.bank import Bank, column_of, values_of, weights_of
from featurebank.errors import ColumnError, TopModelError
from featurebank.folds import Fold, tie
from featurebank.neighbours import THRESHOLD, near_duplicate_groups, near_duplicate_pairs
from featurebank.samples import SampleTable

NEAR_DUPLICATES = ("@near-duplicates", "near-duplicates")
NEAR_DUPLICATE_ROWS = 20_000
TRAIN, VALIDATION, TEST = ({"train", "training"}, {"val", "valid", "validation", "dev"}, {"test", "testing"})


@dataclass(frozen=True)
class Target:
    """What is to be learned.

    Attributes
    ----------
    columns : list of str
        One column of classes or numbers, or several of 0 and 1.
    separator : str or None
        Divides the labels in a cell.
    task : str or None
        ``"classification"``, ``"multilabel"`` or ``"regression"``; by default what the column looks like.
    """

    columns: list[str]
    separator: str | None = None
    task: str | None = None

    @property
    def name(self) -> str:
        """Return the columns as one text."""
        return "+".join(self.columns)


@dataclass(frozen=True)
class Rows:
    """The rows of a fit.

    Attributes
    ----------
    table : SampleTable
    X : ndarray of float32, shape (n, d)
        Embeddings of all feature sets side by side.
    blocks : dict of str to slice
        Columns of each feature set.
    y : ndarray, shape (n,) or (n, labels)
    task : str
    labels : list of str or None
        Names of the columns of y where a sample has several labels.
    weight : ndarray of float64, shape (n,), or None
    groups : ndarray of int64, shape (n,), or None
    notes : list of str
    """

    table: SampleTable
    X: NDArray[np.float32]
    blocks: dict[str, slice]
    y: NDArray[Any]
    task: str
    labels: list[str] | None
    weight: NDArray[np.float64] | None
    groups: NDArray[np.int64] | None
    notes: list[str]

    def take(self, chosen: NDArray[Any]) -> Rows:
        """Return some of the rows."""
        weight, groups = ((None if each is None else each[chosen]) for each in (self.weight, self.groups))
        table = self.table.take(chosen)
        return replace(self, table=table, X=self.X[chosen], y=self.y[chosen], weight=weight, groups=groups)

    @property
    def alike(self) -> NDArray[np.float32]:
        """The embeddings that near-duplicates are looked for in: the penultimate ones, else the first set's."""
        names = sorted(self.blocks, key=lambda name: "/penultimate" not in name)
        return self.X[:, self.blocks[names[0]]]


def load_rows(bank: Bank, names: Sequence[str], target: Target, groups: str | None, sample_weight: str | None) -> Rows:
    """Load what a fit needs from a bank.

    Parameters
    ----------
    bank : Bank
    names : sequence of str
        Feature sets.
    target : Target
    groups : str or None
        Column of groups, or ``"@near-duplicates"``.
    sample_weight : str or None
        Column of weights.

    Raises
    ------
    FeatureBankError
        When a column or a row is missing, or does not fit its use.
    """
    columns = [*target.columns, *([sample_weight] if sample_weight else [])]
    table = bank.select(*columns)
    y, task, labels = read_target(table, target)
    weight = weights_of(table, sample_weight) if sample_weight else None
    notes = _data_warnings(bank, table, columns, target)
    names = list(names)
    rows = Rows(table, bank.features(names, table), bank.blocks(names), y, task, labels, weight, None, notes)
    return replace(rows, groups=tied_groups(rows, groups))


def read_target(table: SampleTable, target: Target) -> tuple[NDArray[Any], str, list[str] | None]:
    """Return y, the task, and the names of the labels where a sample has several.

    Raises
    ------
    ColumnError
        When a column does not fit the task.
    """
    if target.separator:
        return _split_labels(table, target)
    if len(target.columns) > 1:
        return _stack_labels(table, target)
    y = values_of(table, target.columns[0])
    task = target.task or ("regression" if y.dtype.kind == "f" and (y % 1 != 0).any() else "classification")
    if task == "multilabel":
        raise ColumnError(f"one column {target.name!r} of several labels; name the separator, or several columns")
    if task == "regression":
        if y.dtype.kind not in "fi":
            raise ColumnError(f"column {target.name!r} holds text; regression needs numbers")
        y = y.astype(np.float64)
    return y, task, None


def _split_labels(table: SampleTable, target: Target) -> tuple[NDArray[Any], str, list[str]]:
    cells = values_of(table, target.columns[0]).astype(str)
    sets = [{part.strip() for part in cell.split(target.separator) if part.strip()} for cell in cells]
    labels = sorted(set().union(*sets))
    if len(labels) < 2:
        raise ColumnError(
            f"column {target.name!r} divided by {target.separator!r} has {len(labels)} labels; expected 2"
        )
    return np.array([[label in own for label in labels] for own in sets], np.int64), "multilabel", labels


def _stack_labels(table: SampleTable, target: Target) -> tuple[NDArray[Any], str, list[str]]:
    columns = [values_of(table, name) for name in target.columns]
    for name, values in zip(target.columns, columns, strict=True):
        if values.dtype.kind not in "ifb" or not np.isin(values, (0, 1)).all():
            raise ColumnError(f"column {name!r} holds more than 0 and 1; several targets are columns of 0 and 1")
    return np.column_stack(columns).astype(np.int64), "multilabel", list(target.columns)


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
    values = values_of(table, column)
    words = np.char.lower(values) if values.dtype.kind == "U" else values
    train, validation, test = (np.isin(words, list(names)) for names in (TRAIN, VALIDATION, TEST))
    held_out = test if validation.any() else np.zeros(len(words), bool)
    rest = np.flatnonzero(~held_out)
    always = train | (words == -1) if words.dtype.kind in "if" else train
    tested = [name for name in np.unique(words[rest]) if not always[words == name].all()]
    place = np.cumsum(~held_out) - 1  # positions among the rows that are not held out
    folds = []
    for name in tested:
        is_test = (words == name)[rest]
        folds.append((place[rest[~is_test]], place[rest[is_test]]))
    if not folds or any(not len(side) for fold in folds for side in fold):
        raise TopModelError(f"column {column!r} gives no split; expected train, val and test, or fold numbers")
    return folds, held_out


def tied_groups(rows: Rows, column: str | None) -> NDArray[np.int64] | None:
    """Return groups that hold identical content together, and what the user named; None when nothing ties rows.

    Parameters
    ----------
    rows : Rows
    column : str or None
        Column of groups, or ``"@near-duplicates"``.

    Raises
    ------
    ColumnError
        When there is no such column, or it has missing values.
    """
    digests = rows.table.rows["digest"].to_numpy()
    if column in NEAR_DUPLICATES:
        return tie(near_duplicate_groups(rows.alike), digests)
    if column is not None:
        return tie(values_of(rows.table, column), digests)
    return tie(digests) if len(set(digests)) < len(digests) else None


def straddling(rows: Rows, part: NDArray[np.int64], groups: str | None) -> list[str]:
    """Say how many rows have a near-duplicate in another part, whose score is then too good.

    Parameters
    ----------
    rows : Rows
    part : ndarray of int64, shape (n,)
        Fold that tests each row, or another number for the rows of a given training or held-out part.
    groups : str or None
        What the user asked to keep together.
    """
    if groups in NEAR_DUPLICATES:
        return []
    if len(rows.y) > NEAR_DUPLICATE_ROWS:
        return [f"not checked for near-duplicates (over {NEAR_DUPLICATE_ROWS} rows); --groups @near-duplicates does"]
    pairs = near_duplicate_pairs(rows.alike)
    torn = pairs[part[pairs[:, 0]] != part[pairs[:, 1]]]
    if not len(torn):
        return []
    return [
        f"{len(np.unique(torn))} samples have a near-duplicate (cosine distance below {THRESHOLD:g}) in another fold, "
        "which flatters every score; --groups @near-duplicates keeps them together"
    ]


def _data_warnings(bank: Bank, table: SampleTable, columns: Sequence[str], target: Target) -> list[str]:
    """Say what a reader of the scores should know about the rows."""
    notes, readable = [], bank.select()
    for name in columns:
        missing = int(column_of(readable, name).isna().sum())
        if missing:
            notes.append(f"{missing} samples have no {name} and are left out")
    labels: dict[bytes, set[Any]] = {}
    cells = zip(*(column_of(table, name) for name in target.columns), strict=True)
    for digest, values in zip(table.rows["digest"], cells, strict=True):
        labels.setdefault(digest, set()).add(values)
    torn = sum(len(values) > 1 for values in labels.values())
    if torn:
        notes.append(
            f"{torn} images of identical content carry different values of {target.name}: "
            "correct them with `featurebank label`"
        )
    repeats = len(table) - len(labels)
    if repeats:
        notes.append(f"{repeats} samples repeat the content of another; folds keep them together")
    return notes
