"""Parquet: a column of fixed-size lists a feature set, beside the columns of the samples."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from featurebank.bank.formats.collection import (
    KEY,
    Collection,
    Stream,
    Values,
    described,
    read_facts,
    reading,
    restored,
    stored_dtype,
    tidy_columns,
)
from featurebank.errors import BankError, no_column
from featurebank.images.columns import kind_of

_TYPES = {"int": pa.int64(), "float": pa.float64(), "bool": pa.bool_(), "str": pa.string()}
_MOST_AT_ONCE = 65_536


def write(buffer: BinaryIO, collection: Collection, advance: Callable[[int], None]) -> None:
    """Write a collection, a row group a batch; see `featurebank.bank.formats.exporting.export_bank`."""
    where = [stream.name for stream in collection.streams]
    frame, text = described(collection, where)
    fields = [(name, _TYPES[kind_of(frame[name])]) for name in frame.columns]
    fields += [
        (stream.name, pa.list_(pa.from_numpy_dtype(np.dtype(stream.dtype)), stream.width))
        for stream in collection.streams
    ]
    schema = pa.schema(fields, metadata={KEY: text})
    size = min(collection.at_once, _MOST_AT_ONCE)
    with parquet.ParquetWriter(buffer, schema) as writer:
        start = 0
        for batches in zip(*(stream.batches(size) for stream in collection.streams), strict=True):
            part = frame.iloc[start : start + len(batches[0])]
            columns = [_arrow(part[name], kind) for name, kind in fields[: len(frame.columns)]]
            columns += [_lists(rows, schema.field(name).type) for rows, name in zip(batches, where, strict=True)]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
            start += len(part)
            advance(len(part) * len(batches))


def _arrow(column: pd.Series, kind: pa.DataType) -> pa.Array:
    return pa.array([None if pd.isna(cell) else cell for cell in column], kind)


def _lists(rows: Values, kind: pa.FixedSizeListType) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1), kind.value_type), type=kind)


def read(
    path: Path, *, path_column: str = "path", features: str | None = None, columns: Sequence[str] | None = None
) -> Collection:
    """Read a Parquet file that `write` wrote, or any other with a column of names and one of lists of numbers.

    Parameters
    ----------
    path : Path
    path_column : str, default "path"
        Another tool's column of names.
    features : str, optional
        Another tool's column of lists of numbers; by default the only one.
    columns : sequence of str, optional
        Another tool's columns to keep; by default all.
    """
    with opened(path) as file:
        metadata = file.schema_arrow.metadata or {}
        if KEY.encode() not in metadata:
            return _read_foreign(path, file, path_column, features, columns)
        facts = read_facts(metadata[KEY.encode()], path)
        count = file.metadata.num_rows
        shapes = {each["where"]: (count, *each["shape"]) for each in facts["feature_sets"]}
        names = [name for name in file.schema_arrow.names if name not in shapes]
        return restored(path, facts, read_frame(path, names), shapes, _rows_of)


def _read_foreign(
    path: Path, file: parquet.ParquetFile, path_column: str, features: str | None, columns: Sequence[str] | None
) -> Collection:
    schema = file.schema_arrow
    lists = [field.name for field in schema if _is_numbers(field.type)]
    chosen = [name for name in lists if features in (None, name)]
    if len(chosen) != 1:
        raise BankError(
            f"{str(path)!r} has the columns of numbers {', '.join(map(repr, lists)) or 'none'}; expected one with a "
            "list a row: name it with --features"
        )
    frame = read_frame(path, [name for name in schema.names if name not in lists])
    names, rest = named(frame, path_column, path)
    width = _width(file, chosen[0])
    dtype = stored_dtype(schema.field(chosen[0]).type.value_type.to_pandas_dtype(), f"column {chosen[0]!r}")
    fact = {"where": chosen[0], "shape": [1, width], "dtype": dtype}
    stream = Stream(chosen[0], (1, width), dtype, partial(_rows_of, path, fact, len(names)))
    return Collection(names, tidy_columns(rest, columns, path), [stream], [path])


def named(frame: pd.DataFrame, path_column: str, where: Any) -> tuple[list[bytes], pd.DataFrame]:
    """Return the names in another tool's table, and its other columns."""
    if path_column not in frame.columns:
        raise BankError(f"{no_column(f'{str(where)!r} has', path_column, frame.columns)}: name it with --path-column")
    cells = list(frame[path_column])
    empty = [number for number, cell in enumerate(cells) if pd.isna(cell) or str(cell) == ""]
    if empty:
        raise BankError(f"{str(where)!r} has no {path_column!r} in row {empty[0]}; expected a name in each")
    return [os.fsencode(str(cell)) for cell in cells], frame.drop(columns=path_column)


def _is_numbers(kind: pa.DataType) -> bool:
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return is_list and pa.types.is_floating(kind.value_type)


def _width(file: parquet.ParquetFile, name: str) -> int:
    """Return the length of the first row's list."""
    kind = file.schema_arrow.field(name).type
    if pa.types.is_fixed_size_list(kind):
        return int(kind.list_size)
    first = next(iter(file.iter_batches(1, columns=[name])), None)
    return 0 if first is None or first.column(0)[0].as_py() is None else len(first.column(0)[0])


def read_frame(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Return columns, by default all, as objects, missing cells as None."""
    with opened(path) as file:
        table = file.read(columns=columns)
    return pd.DataFrame({name: pd.Series(table[name].to_pylist(), dtype=object) for name in table.column_names})


def _rows_of(path: Path, fact: Mapping[str, Any], count: int, size: int) -> Iterator[Values]:
    name, width = fact["where"], int(np.prod(fact["shape"], dtype=int))
    with opened(path) as file:
        for batch in file.iter_batches(size, columns=[name]):
            lists = batch.column(0)
            values = lists.flatten()
            if lists.null_count or values.null_count or len(values) != len(lists) * width or not _is_even(lists):
                raise BankError(f"column {name!r} of {str(path)!r} has rows that are not {width} numbers long")
            found = values.to_numpy(zero_copy_only=False)
            yield found.astype(fact["dtype"], copy=False).reshape(len(lists), *fact["shape"])


def _is_even(lists: pa.Array) -> bool:
    return pa.types.is_fixed_size_list(lists.type) or len(set(lists.value_lengths().to_pylist())) <= 1


@contextmanager
def opened(path: Path) -> Iterator[parquet.ParquetFile]:
    """Open a Parquet file of unknown origin; see `reading`."""
    with reading(path, "Parquet"), parquet.ParquetFile(path) as file:
        yield file
