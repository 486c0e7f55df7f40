"""What a report is about: a bank's readable samples, a predictor, and what it said of them out of fold."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from featurebank.bank.bank import Bank
from featurebank.bank.defaults import default_target
from featurebank.bank.samples import SampleTable, column_of
from featurebank.errors import BankError, ColumnError
from featurebank.explore.embedding import chosen_sets
from featurebank.predictor.predictor import Predictor
from featurebank.report.outcomes import Outcomes, read_outcomes


@dataclass(frozen=True)
class Subject:
    """What a report is about.

    Attributes
    ----------
    bank : Bank
    table : SampleTable
        Its readable samples; rows are counted in it.
    features : list of str
        Feature sets that the map shows.
    target : str or None
        Column of classes or numbers; None where there is none, or several.
    predictor : Predictor or None
    file : Path or None
        The predictor's.
    outcomes : Outcomes or None
        Its out-of-fold predictions.
    """

    bank: Bank
    table: SampleTable
    features: list[str]
    target: str | None
    predictor: Predictor | None
    file: Path | None
    outcomes: Outcomes | None

    @property
    def fit(self) -> dict[str, Any]:
        """The report of the fit, empty where there is none with scores."""
        found = {} if self.predictor is None else self.predictor.fit
        return found if "scoring" in found else {}

    @property
    def folds(self) -> pd.Series | None:
        """Fold of each sample, missing for those in none; None where there are no out-of-fold predictions."""
        return None if self.outcomes is None else self.spread(self.outcomes.fold).astype("Int64")

    @property
    def relabelled(self) -> int:
        """How many samples have another class now than when the predictor was fitted, as far as that is known."""
        found, name = self.outcomes, None if self.predictor is None else self.predictor.target
        if found is None or not found.classes or name not in self.table.columns:
            return 0
        now = self.table.columns[name].iloc[found.row]
        return sum(str(label) != found.classes[code] for label, code in zip(now, found.true, strict=True))

    def spread(self, values: Any) -> pd.Series:
        """Return values of the out-of-fold rows, shape (m,), as a column of all samples, missing elsewhere."""
        assert self.outcomes is not None
        column = pd.Series([None] * len(self.table), dtype=object)
        column.iloc[self.outcomes.row] = np.asarray(values).tolist()
        return column


def open_subject(
    bank: str | os.PathLike[str] | Bank,
    predictor: str | os.PathLike[str] | None = None,
    *,
    target: str | None = None,
    features: str | None = None,
) -> Subject:
    """Read what a report is about.

    Parameters
    ----------
    bank : path-like or Bank
    predictor : path-like, optional
        A file of `featurebank fit`, its out-of-fold predictions beside it.
    target : str, optional
        Column whose classes are counted and coloured; by default the predictor's, ``label``, or the only one.
    features : str, optional
        Feature sets of the map, joined by ``+``; by default the predictor's, else the penultimate one.

    Raises
    ------
    FeatureBankError
        When something that is named is not there, or there is nothing to show.
    """
    bank = bank if isinstance(bank, Bank) else Bank(bank)
    file = None if predictor is None else Path(predictor)
    table = bank.select()
    if not len(table):
        raise BankError(f"{str(bank.path)!r} has no readable image; run `featurebank extract` first")
    if target is not None:
        column_of(table, target)
    loaded = None if file is None else Predictor.load(file)
    outcomes = None
    if loaded is not None and file is not None and loaded.task != "multilabel":
        outcomes = read_outcomes(file.with_suffix(".oof.csv"), table, loaded.classes.tolist(), loaded.task)
    names = _features(bank, loaded, features)
    return Subject(bank, table, names, target or _target(bank, loaded), loaded, file, outcomes)


def _target(bank: Bank, predictor: Predictor | None) -> str | None:
    if predictor is not None:
        return predictor.target if predictor.target in bank.table.columns else None
    try:
        return default_target(bank)
    except ColumnError:
        return None


def _features(bank: Bank, predictor: Predictor | None, features: str | None) -> list[str]:
    """Return the named feature sets, else those of the predictor that the bank has, else the bank's own choice."""
    wanted = [] if predictor is None or features else [each.spec for each in predictor.features]
    own = [each.name for spec in wanted for each in bank.feature_sets if each.spec == spec]
    return chosen_sets(bank, features or own or None)
