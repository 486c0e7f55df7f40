"""The rows of several tasks: one X for all, and which rows have a label of which task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurebank.bank.bank import Bank
from featurebank.bank.samples import SampleTable, column_of, values_of
from featurebank.errors import ColumnError, TopModelError, counted
from featurebank.fitting.targets import Target, is_zero_or_one, read_target
from featurebank.fitting.training_data import TrainingData, load_table, torn_contents
from featurebank.topmodels.folds import Fold, combinations, make_folds


@dataclass(frozen=True)
class Labels:
    """What is known of one task.

    Attributes
    ----------
    name : str
        Its column.
    where : ndarray of int64, shape (m,)
        Rows that have a label, in their order.
    y : ndarray, shape (m,)
        Classes or numbers.
    task : str
        ``"classification"`` or ``"regression"``.
    notes : list of str
        What whole numbers were taken for.
    """

    name: str
    where: NDArray[np.int64]
    y: NDArray[Any]
    task: str
    notes: list[str] = field(default_factory=list)

    def among(self, kept: NDArray[np.int64]) -> Labels:
        """Return the labels of some rows, by their places among these."""
        place = np.full(1 + max(self.where.max(), kept.max()), -1)
        place[kept] = np.arange(len(kept))
        found = place[self.where]
        return replace(self, where=found[found >= 0], y=self.y[found >= 0])


@dataclass(frozen=True)
class TaskData:
    """Rows with a label of at least one task.

    Attributes
    ----------
    every : TrainingData
        Their ``y`` has a column a task: the number of the class, 0 for a number, -1 where there is no label.
    tasks : list of Labels
    """

    every: TrainingData
    tasks: list[Labels]

    def of(self, labels: Labels) -> TrainingData:
        """Return the rows that have a label of a task."""
        every, count = self.every, len(self.every.y)
        rows = every if len(labels.where) == count else every.take(labels.where)
        return replace(rows, y=labels.y, task=labels.task, notes=labels.notes + _notes(rows.table, labels.name, count))

    def folds(self, splitter: Any, kept: NDArray[np.int64], seed: int) -> list[Fold]:
        """Return folds of the kept rows that serve every task, stratified by what is known of each row.

        Parameters
        ----------
        splitter : splitter or list of (train, test)
        kept : ndarray of int64
            Rows that are not held out.
        seed : int
        """
        codes, groups = self.every.y[kept], self.every.groups
        strata = combinations(codes, splitter)
        return make_folds(splitter, codes, strata, None if groups is None else groups[kept], seed)


def is_multitask(bank: Bank, target: Target) -> bool:
    """Say whether a target is several tasks, not several labels: columns of 0 and 1, of which an image has all or none.

    Raises
    ------
    ColumnError
        When a column is missing.
    """
    if len(target.columns) < 2 or target.separator:
        return False
    table = bank.select()
    known = np.column_stack([column_of(table, name).notna() for name in target.columns])  # (n, columns)
    if (known != known[:, :1]).any():
        return True
    labelled = table.take(known[:, 0])
    return not all(is_zero_or_one(values_of(labelled, name)) for name in target.columns)


def load_tasks(
    bank: Bank,
    names: Sequence[str],
    target: Target,
    groups: str | None,
    sample_weight: str | None,
    views: Sequence[str] = ("mean",),
) -> TaskData:
    """Load the rows that have a label of at least one task.

    Parameters
    ----------
    bank, names, groups, sample_weight, views
        See `featurebank.fitting.training_data.load_rows`.
    target : Target
        One column a task.

    Raises
    ------
    ColumnError
        When a column is named twice, or tells nothing apart.
    """
    twice = [name for name in target.columns if target.columns.count(name) > 1]
    if twice:
        raise ColumnError(f"column {twice[0]!r} is named twice; expected each task once")
    table = bank.select(*([sample_weight] if sample_weight else []))
    known = np.column_stack([column_of(table, name).notna() for name in target.columns])
    table = table.take(known.any(axis=1))
    tasks = [_read(table, name, target.task) for name in target.columns]
    every = load_table(bank, names, table, groups, sample_weight, views)
    return TaskData(replace(every, y=_codes(tasks, len(table)), task="multitask"), tasks)


def _read(table: SampleTable, name: str, task: str | None) -> Labels:
    """Return what the rows of a table know of one task."""
    where = np.flatnonzero(column_of(table, name).notna().to_numpy())
    if not len(where):
        raise ColumnError(f"column {name!r} has no value; label some rows with `featurebank label`")
    found = read_target(table.take(where), Target([name], None, task, either="regression"))
    distinct = np.unique(found.y)
    if len(distinct) < 2:
        raise ColumnError(f"column {name!r} has one value, {distinct.tolist()[0]!r}; expected at least two to learn")
    return Labels(name, where, found.y, found.task, found.notes)


def _codes(tasks: Sequence[Labels], count: int) -> NDArray[np.int64]:
    codes = np.full((count, len(tasks)), -1)
    for column, each in zip(codes.T, tasks, strict=True):
        is_number = each.task == "regression"
        column[each.where] = 0 if is_number else np.unique(each.y, return_inverse=True)[1]
    return codes


def _notes(table: SampleTable, name: str, count: int) -> list[str]:
    missing = count - len(table)
    what = counted(missing, f"sample has no {name} and serves", f"samples have no {name} and serve")
    own = [f"{what} the other tasks alone"] if missing else []
    return own + torn_contents(table, [name])


def folds_of(labels: Labels, folds: Sequence[Fold]) -> list[Fold]:
    """Return shared folds as one task has them: the rows that have a label, by their places among these.

    Raises
    ------
    TopModelError
        When a fold would have no row to train on, or none to test.
    """
    found = []
    for number, fold in enumerate(folds):
        train, test = (np.flatnonzero(np.isin(labels.where, side)) for side in fold)
        if not len(train) or not len(test):
            rows = counted(len(train), "row")
            raise TopModelError(
                f"fold {number} has {rows} to train {labels.name!r} on and {len(test)} to test it; "
                "expected some of both: ask for fewer folds, or label more"
            )
        if labels.task == "classification" and len(np.unique(labels.y[train])) < 2:
            raise TopModelError(
                f"fold {number} trains {labels.name!r} on one class; expected two: ask for fewer folds, or label more"
            )
        found.append((train, test))
    return found
