"""What a report is about: a bank, a predictor and its out-of-fold predictions, matched with the bank's samples."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featurebank.bank.bank import Bank, BankLike
from featurebank.bank.defaults import default_target
from featurebank.bank.samples import SampleTable, column_of, rows_of
from featurebank.errors import BankError, ColumnError, PredictorError, one_line
from featurebank.explore.embedding import chosen_sets
from featurebank.predictor.predictor import Predictor
from featurebank.predictor.task import ANOMALY, Task


@dataclass(frozen=True)
class OofPredictions:
    """What a model said of each sample when the sample was in a test part; with repeated folds, the first time.

    Of the m samples: positions in the table, folds, codes of the true and the predicted class (or numbers), and
    probabilities (m, k), NaN where the fold lacked a class. There are no `classes` of numbers.
    """

    row: NDArray[np.int64]
    fold: NDArray[np.int64]
    true: NDArray[Any]
    predicted: NDArray[Any]
    proba: NDArray[np.float64] | None
    classes: list[str]

    @property
    def confidence(self) -> NDArray[np.float64] | None:
        """Probability of the predicted class, shape (m,)."""
        return None if self.proba is None else self.proba[np.arange(len(self.row)), self.predicted]

    @property
    def wrong(self) -> NDArray[np.bool_]:
        """Where the predicted class is not the true one."""
        return np.asarray(self.true != self.predicted)


@dataclass(frozen=True)
class Inputs:
    """What a report is about.

    The table has the readable samples, in which rows are counted; `features` are the sets that the map shows. Without a
    target there is no column of classes or numbers, or several.
    """

    bank: Bank
    table: SampleTable
    features: list[str]
    target: str | None
    predictor: Predictor | None
    file: Path | None
    oof: OofPredictions | None

    @property
    def fit(self) -> dict[str, Any]:
        """The report of the fit, empty where there is none with scores."""
        found = {} if self.predictor is None else self.predictor.report
        return found if "scoring" in found else {}

    @property
    def groups(self) -> NDArray[np.int64] | None:
        """Number of the group of each sample, by the column that the fit kept together; None where it named none."""
        name = self.fit.get("groups")
        return None if name not in self.table.columns else pd.factorize(self.table.columns[name])[0]

    @property
    def folds(self) -> pd.Series | None:
        """Fold of each sample, missing for those in none; None where there are no out-of-fold predictions."""
        if self.oof is None:
            return None
        found = self.spread(self.oof.fold).astype("Int64")
        return found.mask(found < 0)  # -1 of what was not learned from

    @property
    def relabelled(self) -> int:
        """How many samples have another class now than when the predictor was fitted, as far as that is known."""
        found, name = self.oof, None if self.predictor is None else self.predictor.target
        if self.predictor is None or self.predictor.task == "anomaly":  # all that is not normal is one class
            return 0
        if found is None or not found.classes or name not in self.table.columns:
            return 0
        now = self.table.columns[name].iloc[found.row]
        return sum(str(label) != found.classes[code] for label, code in zip(now, found.true, strict=True))

    def spread(self, values: Any) -> pd.Series:
        """Return values of the out-of-fold rows, shape (m,), as a column of all samples, missing elsewhere."""
        assert self.oof is not None
        column = pd.Series([None] * len(self.table), dtype=object)
        column.iloc[self.oof.row] = np.asarray(values).tolist()
        return column


def read_inputs(
    bank: BankLike,
    predictor: str | os.PathLike[str] | None = None,
    *,
    target: str | None = None,
    features: str | None = None,
) -> Inputs:
    """Read what a report is about; see `featurebank.report.make_report`."""
    bank = Bank.of(bank)
    file = None if predictor is None else Path(predictor)
    table = bank.select()
    if not len(table):
        raise BankError(f"{str(bank.path)!r} has no readable image; run `featurebank extract` first")
    if target is not None:
        column_of(table, target)
    loaded = None if file is None else Predictor.load(file)
    task = None if loaded is None else loaded.single  # a page shows one task
    oof = None if task is None or task.kind == "multilabel" else match_predictions(task, table)
    names = _features(bank, loaded, features)
    return Inputs(bank, table, names, target or _target(bank, loaded), loaded, file, oof)


def _target(bank: Bank, predictor: Predictor | None) -> str | None:
    if predictor is not None:
        return predictor.target if predictor.target in bank.table.columns else None
    try:
        return default_target(bank)
    except ColumnError:
        return None


def _features(bank: Bank, predictor: Predictor | None, features: str | None) -> list[str]:
    """Return the named feature sets, else those of the predictor that the bank has, else the bank's own choice."""
    specs = [] if predictor is None or features else [each.spec for each in predictor.features]
    own = [each.name for spec in specs for each in bank.feature_sets if each.spec == spec]
    return chosen_sets(bank, features or own or None)


# --- out-of-fold predictions -------------------------------------------------------------------------------


def match_predictions(task: Task, table: SampleTable) -> OofPredictions | None:
    """Return the out-of-fold predictions of a task, matched with a bank's samples; None in files of earlier versions.

    Predictions about samples that the bank has no more are left out; the classes come in the order of the predictor.
    """
    frame = task.oof
    if frame is None:
        return None
    try:
        classes = [task.normal, ANOMALY] if task.kind == "anomaly" else task.classes.tolist()
        found = _aligned(frame, table, classes, task.kind)
    except (TypeError, ValueError, LookupError) as error:
        raise PredictorError(
            f"the out-of-fold predictions in the file are not of its model: {one_line(error)[:120]}; fit again"
        ) from error
    if not len(found.row):
        raise PredictorError("the predictor is about no sample of this bank; give the one that was fitted on it")
    return found


def _aligned(frame: pd.DataFrame, table: SampleTable, classes: list[Any], kind: str) -> OofPredictions:
    row = rows_of(table, frame)
    keep = (row >= 0) & ~pd.Series(row).duplicated().to_numpy() & frame["true"].notna().to_numpy()
    frame, row = frame[keep], row[keep]
    fold = frame["fold"].astype(np.int64).to_numpy()
    if kind == "regression":
        true, said = (frame[name].astype(float).to_numpy() for name in ("true", "predicted"))
        return OofPredictions(row, fold, true, said, None, [])
    code = {str(name): number for number, name in enumerate(classes)}
    true, said = (np.array([code[str(cell)] for cell in frame[name]], np.int64) for name in ("true", "predicted"))
    columns = [f"proba_{name}" for name in classes]
    proba = None
    if set(columns) <= set(frame.columns):  # one at a time: pandas takes no list of names that are not UTF-8
        proba = np.column_stack([frame[name].to_numpy(np.float64) for name in columns])
    return OofPredictions(row, fold, true, said, proba, [str(name) for name in classes])
