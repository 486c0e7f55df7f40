"""AnnData's h5ad: all feature sets side by side in ``X``, the samples in ``obs``, the columns of X in ``var``.

Written after the on-disk specification of anndata (Virshup et al. 2021, anndata: annotated data), with h5py alone, so
that rows are streamed and no library is needed that holds pandas back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
import pandas as pd

from featurebank.bank.formats.collection import KEY, Collection, Values, described, read_facts, restored, spans
from featurebank.bank.formats.hdf5 import cells_of, dataset, opened, put_column, put_text, text_of
from featurebank.errors import CorruptError
from featurebank.images.columns import kind_of

_INDEX = "_index"
_EMPTY = ("obsm", "varm", "obsp", "varp", "layers")


def write(buffer: BinaryIO, collection: Collection, advance: Callable[[int], None]) -> None:
    """Write a collection; see `featurebank.bank.formats.exporting.export_bank`."""
    ends = np.cumsum([0, *(stream.width for stream in collection.streams)])
    frame, text = described(collection, [f"{start}:{stop}" for start, stop in pairwise(ends)])
    dtype = np.result_type(*(stream.dtype for stream in collection.streams))
    with h5py.File(buffer, "w") as file:
        _say(file, "anndata", "0.1.0")
        for name in _EMPTY:
            _say(file.create_group(name), "dict", "0.1.0")
        uns = _say(file.create_group("uns"), "dict", "0.1.0")
        _say(put_text(uns, KEY, text), "string", "0.2.0")
        _put_frame(file, "obs", frame, _row_names(frame))
        _put_frame(file, "var", *_columns_of_x(collection))
        rows = _say(file.create_dataset("X", (len(collection), int(ends[-1])), dtype), "array", "0.2.0")
        start = 0
        for batches in zip(*(stream.batches(collection.at_once) for stream in collection.streams), strict=True):
            count = len(batches[0])
            rows[start : start + count] = np.concatenate([batch.reshape(count, -1) for batch in batches], axis=1)
            start += count
            advance(count * len(batches))


def _say(group: Any, kind: str, version: str) -> Any:
    """Put the type and version on an element, as the specification has it, and return it."""
    group.attrs["encoding-type"], group.attrs["encoding-version"] = kind, version
    return group


def _row_names(frame: pd.DataFrame) -> list[str]:
    """Return the paths, or numbers where two sources share one: names of observations are to be unique."""
    paths = list(frame["path"])
    return paths if len(set(paths)) == len(paths) else [str(row) for row in range(len(paths))]


def _columns_of_x(collection: Collection) -> tuple[pd.DataFrame, list[str]]:
    """Return the feature set of each column of X, and a name for each column."""
    sets = [stream.name for stream in collection.streams for _ in range(stream.width)]
    names = [f"{stream.name}:{column}" for stream in collection.streams for column in range(stream.width)]
    return pd.DataFrame({"feature_set": pd.Series(sets, dtype=object)}), names


def _put_frame(file: h5py.File, name: str, frame: pd.DataFrame, index: list[str]) -> None:
    group = _say(file.create_group(name), "dataframe", "0.2.0")
    group.attrs[_INDEX] = _INDEX
    order = np.array(list(frame.columns), object)
    group.attrs.create("column-order", order, dtype=h5py.string_dtype())
    _say(put_column(group, _INDEX, index), "string-array", "0.2.0")
    for column in frame.columns:
        _put_cells(group, column, frame[column])


def _put_cells(group: h5py.Group, name: str, column: pd.Series) -> None:
    """Write a column; text that repeats, or has gaps, is categorical, as anndata itself makes it."""
    kind, gaps = kind_of(column), column.isna().to_numpy(bool)
    if kind == "float":
        _say(put_column(group, name, column.to_numpy(np.float64, na_value=np.nan)), "array", "0.2.0")
    elif kind == "str":
        _put_texts(group, name, column, gaps)
    else:
        values = column.fillna(False if kind == "bool" else 0).to_numpy(np.bool_ if kind == "bool" else np.int64)
        part = _say(group.create_group(name), "nullable-boolean" if kind == "bool" else "nullable-integer", "0.1.0")
        _say(put_column(part, "values", values), "array", "0.2.0")
        _say(put_column(part, "mask", gaps), "array", "0.2.0")


def _put_texts(group: h5py.Group, name: str, column: pd.Series, gaps: np.ndarray[Any, Any]) -> None:
    codes, words = pd.factorize(column, sort=True)
    if len(words) == len(column) and not gaps.any():
        _say(put_column(group, name, list(column)), "string-array", "0.2.0")
        return
    part = _say(group.create_group(name), "categorical", "0.2.0")
    part.attrs["ordered"] = False
    _say(put_column(part, "codes", codes.astype(np.int32)), "array", "0.2.0")
    _say(put_column(part, "categories", [str(word) for word in words]), "string-array", "0.2.0")


def read(path: Path) -> Collection:
    """Read an h5ad file that `write` wrote; see `restored`."""
    with opened(path) as file:
        facts = read_facts(text_of(dataset(path, file, f"uns/{KEY}")), path)
        names = [name for name in file["obs"] if name != _INDEX]
        frame = pd.DataFrame({name: _cells(path, file, f"obs/{name}") for name in names})
        widths = [int(np.prod(each["shape"], dtype=int)) for each in facts["feature_sets"]]
        if dataset(path, file, "X").shape != (facts["rows"], sum(widths)):
            raise CorruptError(f"{str(path)!r} is damaged: X is not what it lists; make it again")
        shapes = {each["where"]: (facts["rows"], *each["shape"]) for each in facts["feature_sets"]}
        return restored(path, facts, frame, shapes, _rows_of)


def _rows_of(path: Path, fact: Mapping[str, Any], count: int, size: int) -> Iterator[Values]:
    first, last = map(int, fact["where"].split(":"))
    with opened(path) as file:
        rows = dataset(path, file, "X")
        for some in spans(count, size):
            part = rows[some, first:last]
            yield part.astype(fact["dtype"]).reshape(len(part), *fact["shape"])


def _cells(path: Path, file: h5py.File, name: str) -> pd.Series:
    """Return a column of `obs` as objects, missing cells as None."""
    kind = file[name].attrs.get("encoding-type")
    if kind == "categorical":
        words = [*cells_of(dataset(path, file, f"{name}/categories")), None]
        codes = dataset(path, file, f"{name}/codes")[()]
        return pd.Series([words[code] for code in codes], dtype=object)
    if kind in ("nullable-integer", "nullable-boolean"):
        cells = pd.Series(dataset(path, file, f"{name}/values")[()].tolist(), dtype=object)
        return cells.where(~dataset(path, file, f"{name}/mask")[()], None)
    return pd.Series(cells_of(dataset(path, file, name)).tolist(), dtype=object)
