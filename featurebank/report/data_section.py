"""What the page says of the data: counts, columns, classes, balance over splits and folds, failures, copies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featurebank.bank.bank import Bank
from featurebank.bank.samples import FAILED, OK, STATUSES, SampleTable
from featurebank.errors import printable
from featurebank.explore.page import is_number
from featurebank.images.columns import kind_of
from featurebank.images.splits import parts_of

FEW = 20
"""Values of a column up to which the classes are counted in each."""
MOST_LISTED = 100
FOLDS = "folds of the fit"


def describe(bank: Bank, target: str | None, folds: pd.Series | None) -> dict[str, Any]:
    """Return the facts of a bank: its counts, the classes of the target, and the balance over splits and folds."""
    table = bank.table
    status = table.rows["status"].to_numpy()
    readable = _printable(table.take(status == OK))
    values = readable.columns.get(target)
    classes = None if values is None or is_number(values) else values
    parts = _parts(readable, target) | ({} if folds is None else {FOLDS: folds})
    return {
        "counts": {word: int((status == code).sum()) for code, word in enumerate(STATUSES)},
        "sources": sorted(set(readable.rows["source"])),
        "feature_sets": [each.to_dict() for each in bank.feature_sets],
        "columns": [_column(name, column) for name, column in readable.columns.items()],
        "classes": [] if classes is None else _counted(classes),
        "balance": [] if classes is None else [balance(name, classes, part) for name, part in parts.items()],
        "groups": groups(readable.columns, target, classes, sides(readable, folds)),
        "failures": _failures(table.take(status == FAILED)),
        "copies": _copies(readable, values),
    }


def _printable(table: SampleTable) -> SampleTable:
    """Return samples whose text is UTF-8: names of folders need not be, and pandas counts no such text."""
    texts = [name for name, column in table.columns.items() if kind_of(column) == "str"]
    shown = {name: table.columns[name].map(printable, na_action="ignore").astype(object) for name in texts}
    return SampleTable(table.rows, table.columns.assign(**shown))


def _column(name: str, column: pd.Series) -> dict[str, Any]:
    known = column.dropna()
    if not len(known):
        summary = "no value"
    elif is_number(column):
        summary = f"{known.min():g} to {known.max():g}, median {known.median():g}"
    else:
        most = known.value_counts()
        summary = ", ".join(f"{value} ({count})" for value, count in most.head(3).items())
        summary += f" and {len(most) - 3} more" if len(most) > 3 else ""
    return {
        "name": name,
        "kind": kind_of(column),
        "missing": int(column.isna().sum()),
        "distinct": int(known.nunique()),
        "summary": summary,
    }


def _counted(values: pd.Series) -> list[dict[str, Any]]:
    counts = values.value_counts()
    return [
        {"name": str(name), "n": int(count), "share": float(count / counts.sum())} for name, count in counts.items()
    ][:MOST_LISTED]


def _parts(readable: SampleTable, target: str | None) -> dict[str, pd.Series]:
    """Return the columns of few values, among them any split, over which the classes may be out of balance."""
    columns = readable.columns
    return {
        name: columns[name]
        for name in columns
        if name != target and not is_number(columns[name]) and 1 < columns[name].nunique() <= FEW
    }


def sides(readable: SampleTable, folds: pd.Series | None) -> dict[str, pd.Series]:
    """Return what parts samples into those that train and those that test: columns of such words, and the folds."""
    columns = {name: readable.columns[name].dropna() for name in readable.columns}
    named = {
        name: readable.columns[name]
        for name, known in columns.items()
        if known.nunique() > 1 and len(parts_of(map(str, known.unique()))) == known.nunique()
    }
    return named if folds is None else {**named, FOLDS: folds}


def groups(
    columns: pd.DataFrame, target: str | None, classes: pd.Series | None, apart: Mapping[str, pd.Series]
) -> list[dict[str, Any]]:
    """Return how columns of many values that repeat, such as the patient, group the samples.

    ``pure`` are the groups whose samples are of one class, ``torn`` those on two sides of each split.
    """
    named = {name: columns[name] for name in columns if name != target}
    return [_grouped(name, values, classes, apart) for name, values in named.items() if _is_group(values)]


def _is_group(values: pd.Series) -> bool:
    return not pd.api.types.is_float_dtype(values) and FEW < values.nunique() <= values.notna().sum() / 2


def _grouped(name: str, values: pd.Series, classes: pd.Series | None, apart: Mapping[str, pd.Series]) -> dict[str, Any]:
    sizes = values.value_counts()
    return {
        "name": name,
        "n": len(sizes),
        "smallest": int(sizes.min()),
        "median": float(sizes.median()),
        "largest": int(sizes.max()),
        "pure": None if classes is None else int((classes.groupby(values).nunique() <= 1).sum()),
        "torn": {each: int((side.groupby(values).nunique() > 1).sum()) for each, side in apart.items()},
    }


def balance(name: str, classes: pd.Series, split: pd.Series) -> dict[str, Any]:
    """Return how the most frequent classes are spread over the values of a column.

    Examples
    --------
    >>> found = balance("split", pd.Series(["a", "b", "a"]), pd.Series(["x", "x", "y"]))
    >>> [(each["name"], each["shares"]) for each in found["rows"]]
    [('x', [0.5, 0.5]), ('y', [1.0, 0.0])]
    """
    counts = pd.crosstab(split, classes)
    kept = counts.sum().sort_values(ascending=False, kind="stable").index[:FEW]
    rows = [
        {"name": str(value), "n": int(row.sum()), "shares": [float(row[each] / row.sum()) for each in kept]}
        for value, row in counts.iterrows()
    ]
    return {"name": name, "classes": [str(each) for each in kept], "rows": rows}


def _failures(failed: SampleTable) -> dict[str, Any]:
    rows = zip(failed.paths, failed.rows["error"], strict=True)
    listed = [{"path": path, "error": error} for path, error in rows]
    return {"n": len(listed), "listed": listed[:MOST_LISTED]}


def _copies(readable: SampleTable, values: pd.Series | None) -> Mapping[str, int]:
    """Count samples of one content, and contents whose samples carry different values of the target."""
    digests: NDArray[Any] = np.array(readable.rows["digest"].tolist(), object)
    codes, contents = pd.factorize(digests)
    torn = 0 if values is None else int((values.groupby(codes).nunique() > 1).sum())
    return {"repeats": len(codes) - len(contents), "torn": torn}
