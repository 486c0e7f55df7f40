"""What is to be learned: the target columns, and whether they hold classes, labels or numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurebank.bank.samples import SampleTable, values_of
from featurebank.errors import ColumnError
from featurebank.images.cells import notes_on_strangers
from featurebank.images.near_values import notes_on_near_values

CLASSES_AT_MOST = 10
"""Distinct whole numbers that are taken for classes without more ado."""
NUMBERED_AT_MOST = 20
"""The same of 0, 1, 2, … or 1, 2, 3, … without a gap."""
CODES = 5
"""Rows a value from which such are taken for the numbers of classes, however many."""
DECIMAL_COMMA = re.compile(r"[+-]?\d+(,\d+)?")
"""A number as much of Europe writes it."""
REPEATS = 2
"""Rows a value below which whole numbers are amounts: hardly one would be a class of two rows."""


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
    either : str or None
        What whole numbers that may be amounts as well as classes are taken for; by default they are refused.
    """

    columns: list[str]
    separator: str | None = None
    task: str | None = None
    either: str | None = None

    @property
    def name(self) -> str:
        """Return the columns as one text."""
        return "+".join(self.columns)


@dataclass(frozen=True)
class TargetValues:
    """What the rows of a table are to teach.

    Attributes
    ----------
    y : ndarray, shape (n,) or (n, labels)
    task : str
        ``"classification"``, ``"multilabel"`` or ``"regression"``.
    labels : list of str or None
        Names of the columns of y where a sample has several labels.
    notes : list of str
        What whole numbers were taken for.
    """

    y: NDArray[Any]
    task: str
    labels: list[str] | None = None
    notes: list[str] = field(default_factory=list)


def read_target(table: SampleTable, target: Target) -> TargetValues:
    """Return what the rows of a table are to teach.

    Raises
    ------
    ColumnError
        When a column does not fit the task, or whole numbers may be classes as well as amounts.
    """
    if target.separator:
        return _split_labels(table, target)
    if len(target.columns) > 1:
        return _stack_labels(table, target)
    name = target.columns[0]
    notes: list[str] = []
    y = values_of(table, name)
    if target.task == "multilabel":
        raise ColumnError(f"one column {name!r} of several labels; name the separator, or several columns")
    task, strange = target.task, notes_on_strangers(table.columns[[name]], table.paths) if name in table.columns else []
    if task is None:
        told = _about_strangers(y, strange)  # before what is said of text that hardly comes twice
        task, notes = task_of(y, name, target.either)
        notes += told
    _check_values(y, name, task, strange)
    if task == "classification" and name in table.columns:
        notes += notes_on_near_values(table.columns[[name]], table.paths)
    return TargetValues(y.astype(np.float64) if task == "regression" else y, task, None, notes)


def _about_strangers(y: NDArray[Any], strange: Sequence[str]) -> list[str]:
    """Say which cells made numbers text; refuse values of which hardly one comes twice, as classes they are not."""
    said = [f"{note}; --task classification takes each value for a class" for note in strange]
    if said and len(y) < REPEATS * len(np.unique(y)):
        raise ColumnError(said[0])
    return said


def _check_values(y: NDArray[Any], name: str, task: str, strange: Sequence[str]) -> None:
    is_number = y.dtype.kind in "fi"
    if task == "regression" and not is_number:
        why = "".join(f" ({note})" for note in strange)
        raise ColumnError(f"column {name!r} holds text; regression needs numbers{why}")
    if task == "classification" and is_number and (y % 1 != 0).any():
        raise ColumnError(f"column {name!r} holds fractions; expected classes: leave out the task, or the column")


def task_of(y: NDArray[Any], name: str, either: str | None = None) -> tuple[str, list[str]]:
    """Return what a column is to be taken for, and what to say of it where its numbers are whole.

    Fractions are a regression. Whole numbers are classes where there are few of them, or where they number classes
    from 0 or 1 on; amounts, as prices, where hardly one comes twice.

    Raises
    ------
    ColumnError
        When they may be either, as ages or the numbers of products, and `either` does not say which.

    Examples
    --------
    >>> task_of(np.array([0.5, 1.0]), "weight"), task_of(np.array(["a", "b"]), "kind")
    (('regression', []), ('classification', []))
    >>> task_of(np.arange(1200, 1300), "price")[0], task_of(np.repeat([0, 1, 2], 9), "grade")[0]
    ('regression', 'classification')
    """
    if y.dtype.kind not in "fi":
        _check_repeated(y, name)
        return "classification", []
    if (y % 1 != 0).any():
        return "regression", []
    values = np.unique(y)
    count, rows = len(values), len(y) / max(1, len(values))
    is_numbering = values[0] in (0, 1) and count == values[-1] - values[0] + 1
    is_numbering &= count <= NUMBERED_AT_MOST or rows >= CODES
    what = f"column {name!r} holds {count} different whole numbers in {len(y)} rows"
    if count <= CLASSES_AT_MOST or is_numbering:
        other = "--task regression takes them for amounts"
        return "classification", [f"{what}: taken for classes; {other}"] if count > 2 else []
    if rows < REPEATS or either == "regression":
        return "regression", [f"{what}: taken for amounts; --task classification takes them for classes"]
    if either is not None:
        return either, []
    raise ColumnError(
        f"{what}, which may be amounts or classes; expected to be told which: --task regression for amounts (ages, "
        "prices, counts), --task classification for classes"
    )


def _check_repeated(y: NDArray[Any], name: str) -> None:
    """Refuse text of which hardly a value comes twice, as names of files or numbers with a decimal comma.

    Raises
    ------
    ColumnError
    """
    values = np.unique(y)
    if len(values) <= NUMBERED_AT_MOST or len(y) >= REPEATS * len(values):
        return
    is_decimal = all(DECIMAL_COMMA.fullmatch(str(value)) for value in values)
    why = "numbers with a decimal comma are text: write them with a point" if is_decimal else "name another column"
    raise ColumnError(
        f"column {name!r} holds {len(values)} different texts in {len(y)} rows (e.g. {str(values[0])!r}); expected "
        f"classes, which come back: {why}, or take each for a class with --task classification"
    )


def _split_labels(table: SampleTable, target: Target) -> TargetValues:
    cells = values_of(table, target.columns[0]).astype(str)
    sets = [{part.strip() for part in cell.split(target.separator) if part.strip()} for cell in cells]
    labels = sorted(set().union(*sets))
    if len(labels) < 2:
        raise ColumnError(
            f"column {target.name!r} divided by {target.separator!r} has {len(labels)} labels; expected 2"
        )
    y = np.array([[label in own for label in labels] for own in sets], np.int64)
    return TargetValues(y, "multilabel", labels)


def _stack_labels(table: SampleTable, target: Target) -> TargetValues:
    columns = [values_of(table, name) for name in target.columns]
    for name, values in zip(target.columns, columns, strict=True):
        if not is_zero_or_one(values):
            raise ColumnError(f"column {name!r} holds more than 0 and 1; several targets are columns of 0 and 1")
    return TargetValues(np.column_stack(columns).astype(np.int64), "multilabel", list(target.columns))


def is_zero_or_one(values: NDArray[Any]) -> bool:
    """Say whether values are 0 and 1, or False and True."""
    return values.dtype.kind in "ifb" and bool(np.isin(values, (0, 1)).all())
