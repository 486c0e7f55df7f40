"""NumPy: one ``.npy`` file of rows beside a table of names, and what other formats' arrays are read with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from featurebank.bank.formats.collection import Collection, Stream, Values, stored_dtype, tidy_columns
from featurebank.bank.formats.parquet import named
from featurebank.errors import BankError, CorruptError, SourceError
from featurebank.images.path_columns import find_path_column
from featurebank.images.table_options import TableOptions
from featurebank.images.tables import MANIFESTS, read_table


def read(
    path: Path,
    *,
    samples: Path | None = None,
    path_column: str | None = None,
    columns: Sequence[str] | None = None,
    **options: Any,
) -> Collection:
    """Read a matrix of features and the table that names its rows, in the same order.

    Parameters
    ----------
    path : Path
        A ``.npy`` file, shape (n, d), (n, tokens, d) or (n, channels, height, width).
    samples : Path, optional
        CSV, Parquet or JSON Lines table; by default the one of the same stem beside it.
    path_column : str, optional
        Its column of names; by default ``"path"`` or the like.
    columns : sequence of str, optional
        Its other columns to keep; by default all.
    **options
        Of `featurebank.images.table_options.TableOptions`.
    """
    table = samples or _beside(path)
    frame = read_table(table, TableOptions(**options), path_column=path_column)
    names, rest = named(frame, find_path_column(frame, path_column) or path_column or "path", table)
    stream = npy_stream("features", [path], [len(names)])
    return Collection(names, tidy_columns(rest, columns, table), [stream], [path, table])


def _beside(path: Path) -> Path:
    """Return the table of the same stem."""
    found = next((file for end in MANIFESTS if (file := path.with_suffix(end)).is_file()), None)
    if found is None:
        raise SourceError(
            f"no names beside {str(path)!r}; expected {path.with_suffix('.csv').name!r} with a column path and a row "
            "for each of its rows: name another table with --samples"
        )
    return found


def npy_stream(name: str, files: Sequence[Path], counts: Sequence[int]) -> Stream:
    """Return the rows of ``.npy`` files, one after the other, as one feature set of one view."""
    heads = [head_of(file) for file in files]
    for file, (shape, dtype), count in zip(files, heads, counts, strict=True):
        if shape[0] != count:
            raise BankError(f"{str(file)!r} has {shape[0]} rows for {count} names; expected as many")
        if (shape[1:], dtype) != (heads[0][0][1:], heads[0][1]):
            raise BankError(
                f"{str(file)!r} has rows of {shape[1:]} {dtype}, the first file of {heads[0][0][1:]} {heads[0][1]}: "
                "keep them apart"
            )
    stored = stored_dtype(heads[0][1], repr(str(files[0])))
    return Stream(name, row_shape(heads[0][0], files[0]), stored, partial(_rows_of, files, stored))


def row_shape(shape: tuple[int, ...], where: Any) -> tuple[int, ...]:
    """Return the shape of a row of one view in an array (n, …)."""
    if len(shape) not in (2, 3, 4) or not all(shape[1:]):
        raise BankError(
            f"{str(where)!r} has the shape {shape}; expected (n, d), (n, tokens, d) or (n, channels, height, width)"
        )
    return (1, *shape[1:])


def head_of(file: Path) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return shape and dtype of the array in a file; see `read_header`."""
    try:
        with open(file, "rb") as member:
            return read_header(member)
    except OSError as error:
        raise SourceError(f"{str(file)!r} cannot be read: {error.strerror}; expected a .npy file") from error


def _rows_of(files: Sequence[Path], dtype: str, size: int) -> Iterator[Values]:
    for file in files:
        with open(file, "rb") as member:
            for rows in read_rows(member, size):
                yield rows[:, None].astype(dtype, copy=False)


def read_rows(member: IO[bytes], size: int) -> Iterator[Values]:
    """Yield the rows of an array in numpy's format from an open file, `size` at a time."""
    shape, dtype = read_header(member)
    for start in range(0, shape[0], size):
        rows = (min(size, shape[0] - start), *shape[1:])
        wanted = int(np.prod(rows, dtype=int)) * dtype.itemsize
        data = member.read(wanted)
        if len(data) != wanted:
            raise CorruptError(f"an array of {shape[0]} rows ends in row {start}: make the file again")
        yield np.frombuffer(data, dtype).reshape(rows)


def read_header(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return shape and dtype of an array in numpy's format, and leave the file at its first value."""
    try:
        version = np.lib.format.read_magic(member)
        reader = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, is_fortran, dtype = reader(member)
    except (ValueError, KeyError) as error:
        raise CorruptError("an array that is not in numpy's format: make the file again") from error
    if is_fortran and len(shape) > 1:
        raise CorruptError("an array in Fortran's order; expected row after row: save numpy.ascontiguousarray(X)")
    if dtype.hasobject or not shape:
        raise CorruptError(f"an array of {dtype} with shape {shape}; expected rows of plain numbers")
    return shape, dtype
