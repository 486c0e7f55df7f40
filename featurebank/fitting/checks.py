"""What is refused before anything is fitted: labels that tell nothing apart, options that do not fit the target."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from featurebank.errors import TopModelError
from featurebank.fitting.training_data import TrainingData
from featurebank.topmodels.folds import make_folds

_KINDS = {"regression": "numbers", "multilabel": "several labels"}
_FITS_LABELS = {"class_weight", "calibrate"}
"""Options about classes that each of several labels takes too."""


def check_target(rows: TrainingData) -> None:
    """Refuse numbers that are all the same, and a label that every row has, or none.

    Raises
    ------
    TopModelError
    """
    if rows.task == "regression" and len(rows.y) and (rows.y == rows.y[0]).all():
        raise TopModelError(f"all {len(rows.y)} rows have the number {rows.y[0]:g}; expected numbers that differ")
    shares = rows.y.mean(axis=0) if rows.labels is not None else np.empty(0)
    for name, share in zip(rows.labels or [], shares, strict=True):
        if share in (0, 1):
            raise TopModelError(
                f"label {name!r} is {'in every one' if share else 'in none'} of {len(rows.y)} rows; expected some with "
                "it and some without: leave it out"
            )


def check_threshold(rows: TrainingData, scoring: str | None) -> None:
    """Refuse to tune a threshold of other than two classes.

    Raises
    ------
    TopModelError
    """
    count = len(np.unique(rows.y)) if rows.task == "classification" else 2
    if scoring is not None and count != 2:
        raise TopModelError(f"a threshold for {count} classes; expected two classes: leave it out")


def check_nested(rows: TrainingData, cv: Any) -> None:
    """Refuse to search inside the training part of a fold that has rows of one group only.

    Raises
    ------
    TopModelError
    """
    groups = rows.groups
    if groups is None:
        return
    folds = make_folds(cv, rows.X, rows.y, groups, 0, rows.task)
    if any(len(np.unique(groups[train])) < 2 for train, _ in folds):
        raise TopModelError(
            f"a nested score on {len(folds)} folds of {len(np.unique(groups))} groups trains on one group; expected "
            "two or more: ask for more folds, or leave out --nested"
        )


def check_class_options(options: Mapping[str, Any], tasks: Collection[str]) -> None:
    """Refuse options about classes where no task has any.

    Parameters
    ----------
    options : mapping of str to object
        What was given for each, None where nothing was.
    tasks : collection of str
        Kinds of the tasks, e.g. ``{"regression"}``.

    Raises
    ------
    TopModelError

    Examples
    --------
    >>> check_class_options({"threshold": "f1", "calibrate": None}, {"classification"})
    >>> check_class_options({"threshold": "f1"}, {"regression"})
    Traceback (most recent call last):
    featurebank.errors.TopModelError: threshold 'f1' for a target of numbers; expected classes: leave it out
    """
    for name, value in options.items():
        able = {"classification"} | ({"multilabel"} if name in _FITS_LABELS else set())
        if value is not None and not able & set(tasks):
            kinds = " and ".join(sorted(_KINDS[task] for task in tasks))
            raise TopModelError(
                f"{name.replace('_', '-')} {value!r} for a target of {kinds}; expected classes: leave it out"
            )
