"""The sample table: one row a sample, the highest stamp winning; its columns as plain arrays."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from featurebank.errors import BankError, ColumnError, no_column
from featurebank.images.columns import concat_columns, kind_of
from featurebank.images.dataframes import pd
from featurebank.images.matching import near_path

OK, FAILED, GONE = range(3)
STATUSES = ("ok", "failed", "gone")
NO_DIGEST = bytes(32)
FIELDS = ("source", "root", "path", "digest", "size", "mtime_ns", "status", "error", "row_hash", "stamp")
NUMBERS = {"size": "<i8", "mtime_ns": "<i8", "status": "|u1", "row_hash": "<u8", "stamp": "<u8"}
BYTES = {"path": pa.large_binary(), "digest": pa.binary(32)}
_RANDOM_BITS = 12


@dataclass(frozen=True)
class SampleTable:
    """Rows of samples and, aligned with them, the user's columns.

    Attributes
    ----------
    rows : DataFrame
        One row a sample with the columns `FIELDS`; ``path`` and ``digest`` are bytes in Arrow arrays, which a
        million Python objects would be slow to make and large to hold (a digest of zeros where the file was never
        read), ``status`` an index into `STATUSES`, ``row_hash`` a hash of the columns that the source gave,
        ``stamp`` the order of writing.
    columns : DataFrame
        The user's columns: ``Int64``, ``Float64``, ``boolean`` or object of str, missing values allowed.
    """

    rows: pd.DataFrame
    columns: pd.DataFrame

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, which: Any) -> SampleTable:
        """Return the rows at these positions, or where a boolean mask holds; this table where it holds everywhere."""
        if isinstance(which, np.ndarray) and which.dtype.kind == "b" and which.all():
            return self
        return SampleTable(
            self.rows.iloc[which].reset_index(drop=True), self.columns.iloc[which].reset_index(drop=True)
        )

    @property
    def paths(self) -> list[str]:
        """The paths as text; bytes that are not UTF-8 are surrogates, as everywhere in Python."""
        return [os.fsdecode(path) for path in self.rows["path"].to_numpy()]

    @property
    def newest_stamp(self) -> int:
        """The highest stamp, 0 for a table without rows."""
        return int(self.rows["stamp"].max()) if len(self) else 0

    def readable(self) -> SampleTable:
        """Return the samples whose image could be read and is still there."""
        return self.take((self.rows["status"] == OK).to_numpy())

    def names(self) -> pd.DataFrame:
        """Return what tables about samples begin with: ``source, path``, which pandas' own text could not all hold."""
        return pd.DataFrame({"source": self.rows["source"].to_numpy(), "path": self.paths}, dtype=object)

    def find(self, source: str, paths: Sequence[bytes]) -> NDArray[np.int64]:
        """Return the position of each path of a source, -1 where it has none, shape (n,)."""
        of_source = np.flatnonzero(self.rows["source"].to_numpy() == source)
        there = self.rows["path"].to_numpy()[of_source]
        if len(there) == len(paths) and list(there) == list(paths):  # a folder in which no file came or went
            return of_source
        positions = dict(zip(there, of_source, strict=True))
        return np.fromiter((positions.get(path, -1) for path in paths), np.int64, len(paths))


def rows_of(table: SampleTable, names: pd.DataFrame) -> NDArray[np.int64]:
    """Return the position of each sample that a table's columns ``source`` and ``path`` name, -1 where it is not."""
    where = {key: row for row, key in enumerate(zip(table.rows["source"], table.paths, strict=True))}
    keys = zip(names["source"], names["path"], strict=True)
    return np.fromiter((where.get(key, -1) for key in keys), np.int64, len(names))


def column_of(table: SampleTable, name: str) -> pd.Series:
    """Return a user's column, or one of featurebank's own (``source``, ``path``).

    Raises
    ------
    ColumnError
        When there is no such column.
    """
    if name in table.columns:
        return table.columns[name]
    if name in ("source", "path"):
        return pd.Series([os.fsdecode(value) for value in table.rows[name]], dtype=object)
    lacking = no_column("the bank has", name, table.columns)
    raise ColumnError(f"{lacking}: name one of them, or add it with `featurebank label`")


def values_of(table: SampleTable, name: str) -> NDArray[Any]:
    """Return a column without missing values as a plain array: text, int64, float64 or bool.

    Raises
    ------
    ColumnError
        When there is no such column, or it has missing values.
    """
    column = column_of(table, name)
    if column.isna().any():
        raise ColumnError(
            f"column {name!r} has {int(column.isna().sum())} missing values; fill them with `featurebank label`"
        )
    if column.dtype == object:
        return np.array(list(column), dtype=str)
    dtype = {"int": "int64", "float": "float64", "bool": "bool"}[kind_of(column)]
    return column.to_numpy(dtype, copy=True)  # the caller's to change; the table is not


def weights_of(table: SampleTable, name: str) -> NDArray[np.float64]:
    """Return a column of sample weights.

    Raises
    ------
    ColumnError
        When there is no such column, it is no number, or a value is missing, negative or infinite.
    """
    if kind_of(column_of(table, name)) not in ("int", "float"):
        raise ColumnError(f"column {name!r} is no column of numbers, so it cannot weight samples")
    weights = values_of(table, name).astype(float)
    if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.any()):
        raise ColumnError(f"column {name!r} holds negative, infinite or only zero weights; expected numbers from 0 up")
    return weights


def positions_of(table: SampleTable, paths: Sequence[Any], sources: Sequence[str] | None = None) -> list[int]:
    """Return the position of each path, of the source that is named for it where sources are."""
    where: dict[Any, list[int]] = {}
    for position, (source, path) in enumerate(zip(table.rows["source"], table.rows["path"].to_numpy(), strict=True)):
        where.setdefault(path if sources is None else (source, path), []).append(position)
    keys = [os.fsencode(path) for path in paths]
    found = [where.get(key, []) for key in (keys if sources is None else zip(sources, keys, strict=True))]
    for path, positions, source in zip(paths, found, sources or [""] * len(found), strict=True):
        if not positions:
            raise BankError(_unknown_path(table, str(path), source))
        if len(positions) > 1:
            raise BankError(
                f"path {str(path)!r} is in {len(positions)} sources of the bank; expected one: name it in a column "
                "'source' of the labels, as `featurebank info BANK --samples` lists it"
            )
    return [positions[0] for positions in found]


def _unknown_path(table: SampleTable, path: str, source: str) -> str:
    """Return the message about a path that the bank, or the source named with it, does not have."""
    elsewhere = table.rows["source"][table.rows["path"] == os.fsencode(path)]
    if len(elsewhere):
        return f"path {path!r} is not in source {source!r}; expected one of {', '.join(map(repr, elsewhere))}"
    near = near_path(path, table.rows["path"])
    hint = f"did you mean {near!r}? " if near else ""
    return f"path {path!r} is not in the bank; {hint}`featurebank info BANK --samples` lists its paths"


def make_table(fields: dict[str, Sequence[Any]], columns: pd.DataFrame) -> SampleTable:
    """Build a table from plain sequences, one for each of `FIELDS`.

    Parameters
    ----------
    fields : dict
        A sequence of the same length for each of `FIELDS`.
    columns : DataFrame
        The user's columns, already `tidy`.
    """
    rows = {
        name: _bytes(name, fields[name]) if name in BYTES else pd.Series(fields[name], dtype=NUMBERS.get(name, object))
        for name in FIELDS
    }
    return SampleTable(pd.DataFrame(rows), columns.reset_index(drop=True))


def _bytes(name: str, values: Any) -> pd.Series:
    """Return a column of bytes as one Arrow array."""
    return pd.Series(pd.arrays.ArrowExtensionArray(one_array(values, BYTES[name])))


def one_array(values: Any, kind: pa.DataType) -> pa.Array:
    """Return values as one Arrow array; those that lie in Arrow arrays already are not copied unless in several."""
    found = values if isinstance(values, pa.Array) else pa.array(values, kind)
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found


def other_contents(table: SampleTable, known: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the rows whose content no known row has, each content once: at the first row that has it."""
    digests = table.rows["digest"]
    return np.flatnonzero(~(digests.isin(digests[known]) | digests.duplicated()).to_numpy())


def empty_table() -> SampleTable:
    """Return a table without rows."""
    return make_table({name: [] for name in FIELDS}, pd.DataFrame())


def merge(tables: Iterable[SampleTable]) -> SampleTable:
    """Return the newest row of each sample, sorted by (source, path bytes)."""
    tables = sorted((table for table in tables if len(table)), key=lambda table: int(table.rows["stamp"].iloc[0]))
    if not tables:
        return empty_table()
    stacked = stack(tables)
    rows, columns = stacked.rows, stacked.columns
    if _is_sorted(rows):  # as one run over a source leaves it
        return SampleTable(rows, columns)
    rows = rows.sort_values("stamp", kind="stable").drop_duplicates(["source", "path"], keep="last")
    order = rows.sort_values(["source", "path"], kind="stable").index.to_numpy()
    return SampleTable(rows.loc[order].reset_index(drop=True), columns.iloc[order].reset_index(drop=True))


def stack(tables: Sequence[SampleTable]) -> SampleTable:
    """Return the rows of tables one after the other."""
    columns = concat_columns([table.columns for table in tables])
    if len(tables) == 1:
        return SampleTable(tables[0].rows, columns)
    rows = pd.concat([table.rows for table in tables], ignore_index=True)
    return SampleTable(rows.assign(**{name: _bytes(name, rows[name]) for name in BYTES}), columns)


def _is_sorted(rows: pd.DataFrame) -> bool:
    """Say whether every sample is there once, in order."""
    source, path = rows["source"].to_numpy(), pa.array(rows["path"])
    is_same = source[1:] == source[:-1]
    is_later = pc.less(path[:-1], path[1:]).to_numpy(zero_copy_only=False)
    return bool((np.where(is_same, is_later, False) | (source[:-1] < source[1:])).all())


def next_stamp(newest: int) -> int:
    """Return a stamp above every one seen: microseconds in the high bits, a random tail in the low ones.

    Parameters
    ----------
    newest : int
        The highest stamp of the table, 0 for an empty one.
    """
    microseconds = max(time.time_ns() // 1000, (newest >> _RANDOM_BITS) + 1)
    return (microseconds << _RANDOM_BITS) | secrets.randbits(_RANDOM_BITS)
