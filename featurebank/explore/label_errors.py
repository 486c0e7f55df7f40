"""Label issues: samples whose label a model that never saw them disputes."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featurebank.bank.bank import Bank, BankLike
from featurebank.bank.defaults import default_target
from featurebank.bank.samples import SampleTable, rows_of, values_of
from featurebank.errors import ColumnError, NotInstalledError, install_hint, renamed
from featurebank.fitting.fit import fit
from featurebank.fitting.targets import task_of
from featurebank.images.reading import Progress
from featurebank.topmodels.models import Models

COLUMNS = ("source", "path", "given", "suggested", "quality")
_PROBA = "proba_"


@renamed(seed="random_state")
def label_issues(
    bank: BankLike,
    *,
    target: str | None = None,
    task: str | None = None,
    oof: pd.DataFrame | None = None,
    features: str | Sequence[str] | None = None,
    models: Models | None = None,
    groups: str | None = None,
    folds: int = 5,
    random_state: int = 0,
    n_jobs: int = -1,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Find samples whose label is probably wrong, the most doubtful first.

    Each sample is judged by a model of the others: `featurebank.fit` cross-validates, and cleanlab's confident
    learning (Northcutt, Jiang and Chuang 2021) picks from the out-of-fold probabilities as many samples as the
    classes seem to have exchanged.

    Parameters
    ----------
    bank : path-like or Bank
    target : str, optional
        Column of classes; by default ``label``, or the bank's only column.
    task : str, optional
        ``"classification"`` takes whole numbers for classes that may as well be amounts, as ages, or look like such.
    oof : DataFrame, optional
        Out-of-fold predictions of an earlier fit (`FitResult.oof`, or its CSV) to judge by, in place of a new one.
        A sample that it leaves out, or that has no probabilities there, is not judged.
    features, models, groups, folds, random_state, n_jobs, progress
        Of the fit; see `featurebank.fit`.

    Returns
    -------
    DataFrame
        ``source, path, given, suggested`` (the most probable class), ``quality`` (probability of the given class,
        the lower the more doubtful), and an empty column named as the target, for the corrections: its CSV goes back
        into the bank with ``featurebank label BANK issues.csv``.

    Raises
    ------
    NotInstalledError
        When cleanlab is not installed.
    ColumnError
        When the target is no column of classes, its name is one of the columns above, or `oof` is not of this bank
        and target.
    TopModelError
        When no fit is possible.

    See Also
    --------
    duplicates : Copies, which may have two labels.
    Bank.label : Put a label right.

    Examples
    --------
    >>> label_issues("photos.bank", features="penultimate", models=["logreg"])["path"].tolist()
    []
    """
    if find_spec("cleanlab") is None:
        raise NotInstalledError(f"label issues need cleanlab: {install_hint('explore')}")
    bank = Bank.of(bank)
    column = target or default_target(bank)
    if column in COLUMNS:
        raise ColumnError(
            f"the target is called {column!r}, as a column of the result is; rename it to list its issues"
        )
    if oof is None:
        oof = fit(
            bank,
            target=column,
            task=task or _task(bank, column),
            features=features,
            models=models,
            groups=groups,
            folds=folds,
            random_state=random_state,
            n_jobs=n_jobs,
            progress=progress,
        ).oof
    return _ranked(*_judged(bank, column, oof), column)


def _task(bank: Bank, target: str) -> str:
    """Return the task of a column of classes; refuse amounts, each of which would be a class."""
    y = values_of(bank.select(target), target)
    task, notes = task_of(y, target)
    if task != "classification":
        what = notes[0] if notes else f"column {target!r} holds fractions"
        raise ColumnError(f"{what}, and only classes have label issues: name another column")
    return "classification"


def _judged(bank: Bank, target: str, oof: pd.DataFrame) -> tuple[SampleTable, NDArray[Any], NDArray[np.float64]]:
    """Return the samples that have a label and probabilities, the classes (k,), and their probabilities (n, k)."""
    table = bank.select(target)
    classes = np.unique(values_of(table, target))
    columns = [f"{_PROBA}{name}" for name in classes.tolist()]
    absent = [name for name in ("source", "path", *columns) if name not in oof]
    if absent:
        raise ColumnError(
            f"the out-of-fold predictions have no column {absent[0]!r}; expected those of a fit of {target!r} here"
        )
    rows = rows_of(table, oof)
    proba = np.column_stack([oof[name].to_numpy(np.float64) for name in columns])
    known = (rows >= 0) & np.isfinite(proba).all(axis=1)
    total = np.zeros((len(table), len(columns)))
    np.add.at(total, rows[known], proba[known])  # with repeated folds a sample comes several times
    judged = total.any(axis=1)
    if not judged.any():
        raise ColumnError("the out-of-fold predictions are about no sample of this bank; give those of a fit on it")
    return table.take(judged), classes, total[judged] / total[judged].sum(axis=1, keepdims=True)


def _ranked(table: SampleTable, classes: NDArray[Any], proba: NDArray[np.float64], target: str) -> pd.DataFrame:
    """Return the samples that confident learning picks, by the probability of the class they were given.

    Confident learning leaves each class one sample at least, so that a class of a single one, as a typing mistake
    makes it, would never be found: those whose class no other fold has are picked as well, and come first.
    """
    from cleanlab.filter import find_label_issues

    labels = values_of(table, target)
    codes = np.searchsorted(classes, labels)
    picked = find_label_issues(codes, proba, return_indices_ranked_by="self_confidence")
    alone = np.flatnonzero(proba[np.arange(len(codes)), codes] == 0)
    issues = np.concatenate([alone, picked[~np.isin(picked, alone)]])
    found = table.take(issues).names()
    found["given"], found["suggested"] = labels[issues], classes[proba[issues].argmax(axis=1)]
    found["quality"] = proba[issues, codes[issues]]
    return found.assign(**{target: pd.Series([None] * len(found), dtype=object)})
