"""A column that probably says which rows belong together, where nobody named one: patients, slides, videos."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

from featurebank.errors import shell_word
from featurebank.fitting.training_data import TrainingData
from featurebank.images import formats
from featurebank.images.columns import kind_of
from featurebank.images.dataframes import pd
from featurebank.images.splits import parts_of

NAMES = frozenset(
    (
        *("patient", "patients", "patientin", "patienten", "paciente", "subject", "person", "participant", "proband"),
        *("case", "fall", "donor", "animal", "mouse", "slide", "specimen", "sample", "lesion", "plate", "wafer", "lot"),
        *("batch", "stack", "video", "clip", "scene", "series", "study", "exam", "individual"),
    )
)
"""Words in the names of columns of groups."""
FEW, MANY = 3, 8
"""Values from which a column of such a name, and one of any name, may be groups: fewer are sites, or other classes."""
_WORD = re.compile(r"[A-Z]?[^\W\d_A-Z]+|[A-Z]+")


def about_groups(rows: TrainingData, taken: Iterable[str]) -> str | None:
    """Say which column probably holds groups, whose images would lie on both sides of the folds; None for none.

    Parameters
    ----------
    rows : TrainingData
    taken : iterable of str
        Columns that are known to be something else: targets, splits.
    """
    columns = rows.table.columns
    found = [(name, columns[name]) for name in columns if name not in set(taken) and _is_repeated(columns[name])]
    likely = [
        (not _is_called_so(name), -column.nunique(), name) for name, column in found if _is_likely(name, column, rows)
    ]
    if not likely:
        return None
    _, count, name = min(likely)
    values = f"column {name!r} names {-count} values in {len(rows.y)} rows"
    return f"{values}; if rows of one belong together, use --groups {shell_word(name)}, which keeps them in one fold."


def _is_repeated(column: pd.Series) -> bool:
    """Say whether each value of a column of words or whole numbers is in several rows, and not all are the same."""
    if kind_of(column) not in ("str", "int") or column.isna().any():
        return False
    counts = column.value_counts()
    return len(counts) >= FEW and int(counts.min()) > 1


def _is_likely(name: str, column: pd.Series, rows: TrainingData) -> bool:
    """Say whether a column that is repeated holds groups, by its name or by what it holds."""
    if _is_called_so(name):
        return True
    values = column.unique()
    if len(values) < MANY or len(parts_of(map(str, values))) == len(values):
        return False
    if kind_of(column) == "int":
        return _is_of_one_class(column, rows)
    return not any("/" in value or value.lower().endswith(tuple(formats.SUFFIXES)) for value in map(str, values))


def _is_called_so(name: str) -> bool:
    return any(word.casefold() in NAMES for word in _WORD.findall(name))


def _is_of_one_class(column: pd.Series, rows: TrainingData) -> bool:
    """Say whether all rows of a value have the same label, as those of a patient have, and ages do not."""
    if rows.y.ndim > 1:
        return False
    classes = pd.Series(np.unique(rows.y, return_inverse=True)[1])
    return int(classes.groupby(column.to_numpy()).nunique().max()) == 1
