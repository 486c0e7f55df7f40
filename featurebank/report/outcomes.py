"""Out-of-fold predictions read back from the CSV that lies beside a predictor, matched with the bank's samples."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featurebank.bank.samples import SampleTable
from featurebank.errors import PredictorError, one_line

_DEFUSED = re.compile(r"^'(?='*[=+\-@\t\r])")


@dataclass(frozen=True)
class Outcomes:
    """What a model said of each sample when the sample was in a test part; with repeated folds, the first time.

    Attributes
    ----------
    row : ndarray of int64, shape (m,)
        Position of the sample in the table.
    fold : ndarray of int64, shape (m,)
    true, predicted : ndarray, shape (m,)
        Codes of classes (int64), or numbers (float64).
    proba : ndarray of float64, shape (m, k), or None
        Out-of-fold probabilities, NaN where the fold lacked a class.
    classes : list of str
        Names of the classes, empty for numbers.
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


def read_outcomes(path: Path, table: SampleTable, classes: list[Any], task: str) -> Outcomes | None:
    """Read the out-of-fold predictions of a fit.

    Parameters
    ----------
    path : Path
        ``STEM.oof.csv`` as ``featurebank fit`` writes it.
    table : SampleTable
        The bank's samples now; predictions about others are left out.
    classes : list
        The predictor's classes, in its order.
    task : str
        ``"classification"`` or ``"regression"``.

    Returns
    -------
    Outcomes or None
        None when there is no such file.

    Raises
    ------
    PredictorError
        When the file is not such a table, or of another predictor or bank.
    """
    if not path.is_file():
        return None
    try:
        found = _outcomes(_read(path), table, classes, task)
    except (OSError, ValueError, LookupError) as error:
        raise PredictorError(
            f"{str(path)!r} is not what `featurebank fit` wrote with this predictor: {one_line(error)[:120]}; fit again"
        ) from error
    if not len(found.row):
        raise PredictorError(f"{str(path)!r} is about no sample of this bank; give the predictor that was fitted on it")
    return found


def _outcomes(frame: pd.DataFrame, table: SampleTable, classes: list[Any], task: str) -> Outcomes:
    known = {
        (_spelt(source), _spelt(path)): number
        for number, (source, path) in enumerate(zip(table.rows["source"], table.paths, strict=True))
    }
    row = np.array([known.get(key, -1) for key in zip(frame["source"], frame["path"], strict=True)], np.int64)
    keep = (row >= 0) & ~pd.Series(row).duplicated().to_numpy()
    frame, row = frame[keep], row[keep]
    fold = frame["fold"].astype(np.int64).to_numpy()
    if task == "regression":
        true, said = (frame[name].astype(float).to_numpy() for name in ("true", "predicted"))
        return Outcomes(row, fold, true, said, None, [])
    code = {_spelt(name): number for number, name in enumerate(classes)}
    true, said = (np.array([code[cell] for cell in frame[name]], np.int64) for name in ("true", "predicted"))
    columns = [f"proba_{_spelt(name)}" for name in classes]
    has_proba = set(columns) <= set(frame.columns)
    proba = frame[columns].replace("", "nan").astype(float).to_numpy() if has_proba else None
    return Outcomes(row, fold, true, said, proba, [str(name) for name in classes])


def _read(path: Path) -> pd.DataFrame:
    """Return the cells of a CSV of featurebank's: formulas as they were before they were defused, spelt alike."""
    frame = pd.read_csv(path, dtype=object, keep_default_na=False, encoding_errors="surrogateescape")
    return pd.DataFrame({_spelt(name): [_spelt(_DEFUSED.sub("", cell)) for cell in frame[name]] for name in frame})


def _spelt(text: Any) -> str:
    """Return text in the one spelling that names are compared in: what is not Unicode is escaped."""
    return str(text).encode("utf-8", "backslashreplace").decode()
