"""Parquet files with images inside, as `datasets` and pandas write them: what they hold, and reading one image.

An image is a row of its file. It goes by the file name beside its bytes where these names tell the rows apart, else by
its number: ``train.parquet/cat.jpg``, ``train.parquet/0017``. A file is read a few rows at a time, in order; what lies
elsewhere costs reading its row group up to there.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from featurebank.errors import ImageError, SourceError, StorageError, one_line
from featurebank.images import decoding, formats
from featurebank.images.arrow import BYTES, IMAGE_COLUMNS, choose_column, file_paths, holds_bytes, user_columns
from featurebank.storage.files import AnyPath
from featurebank.storage.objects import ObjectPath

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow.parquet as pq

SUFFIXES = formats.PARQUET
ROWS = 16
"""Rows that are read at once."""
KEPT_BLOCKS = 4
KEPT_FILES = 4
BUFFER = 1 << 20
"""Bytes that are fetched at once; without it, or with ``pre_buffer``, Arrow takes a whole row group."""
LARGEST_GROUP = 256 << 20
"""Bytes of a row group above which rows go by their number: reading them in the order of their paths is then fast."""
_SEEN: dict[ObjectPath, Any] = {}
"""What a store said of a file when it was listed last; it is not asked for every image."""


class ImageColumn:
    """The images in a column of a Parquet file; threads take turns at reading it.

    Parameters
    ----------
    file : pyarrow.parquet.ParquetFile
    name : str
        The column's.

    Attributes
    ----------
    rows : dict of str to int
        The row of each image, by the name that it has in this file.
    """

    def __init__(self, file: pq.ParquetFile, name: str):
        self.file, self.name = file, name
        counts = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
        self._starts = [0, *accumulate(counts)]
        self.rows = {each: row for row, each in enumerate(self._file_names() or self._numbers())}
        self._turn = threading.Lock()
        self._blocks: deque[tuple[int, pa.Array]] = deque(maxlen=KEPT_BLOCKS)
        self._stream: Iterator[pa.RecordBatch] = iter(())
        self._group, self._next = -1, 0

    def _file_names(self) -> list[str]:
        """Return the file names beside the bytes, or nothing where they do not name the rows."""
        kind, file = self.file.schema_arrow.field(self.name).type, self.file
        sizes = [file.metadata.row_group(number).total_byte_size for number in range(file.num_row_groups)]
        if not pa.types.is_struct(kind) or kind.get_field_index("path") < 0 or max(sizes, default=0) > LARGEST_GROUP:
            return []
        names = [cell and cell["path"] for cell in file.read(columns=[f"{self.name}.path"])[self.name].to_pylist()]
        return names if all(names) and len(set(names)) == len(names) else []

    def _numbers(self) -> list[str]:
        count = self._starts[-1]
        return [str(row).zfill(len(str(count - 1))) for row in range(count)]

    def columns(self) -> pd.DataFrame:
        """Return the file's columns without those of bytes, as a bank stores them."""
        others = [field.name for field in self.file.schema_arrow if not holds_bytes(field.type)]
        return user_columns(self.file.read(columns=others), len(self.rows))

    def read(self, row: int) -> bytes:
        """Return the bytes of the image in a row.

        Raises
        ------
        ImageError
            When there are none.
        OSError, ValueError
            When the file is damaged.
        """
        with self._turn:
            while (block := self._block_with(row)) is None:
                self._advance(row)
        start, cells = block
        cell = cells[row - start].as_py()
        data = cell.get(BYTES) if isinstance(cell, dict) else cell
        if data is None:
            at = f", only the path {cell['path']!r}" if isinstance(cell, dict) and cell.get("path") else ""
            hint = ": give a table of the paths, or in Python the Dataset itself" * bool(at)
            raise ImageError(f"row {row} holds no image{at}{hint}")
        return bytes(data)

    def _block_with(self, row: int) -> tuple[int, pa.Array] | None:
        return next((block for block in self._blocks if 0 <= row - block[0] < len(block[1])), None)

    def _advance(self, row: int) -> None:
        """Read the next rows, on the way to this one."""
        group = bisect_right(self._starts, row) - 1
        if group != self._group or row < self._next:
            self._group, self._next = group, self._starts[group]
            self._stream = self.file.iter_batches(ROWS, row_groups=[group], columns=[self.name], use_threads=False)
        batch = next(self._stream)
        self._blocks.append((self._next, batch.column(0)))
        self._next += len(batch)
        if self._next == self._starts[group + 1]:
            self._stream = iter(())  # a page of images is large


def open_images(path: AnyPath, column: str | None = None, *, afresh: bool = False) -> ImageColumn | None:
    """Return a column of images of a Parquet file, or None where there is none (it is a table of paths, for instance).

    Parameters
    ----------
    path : path
    column : str, optional
        By default the only one, or the one with a usual name (`featurebank.images.arrow.IMAGE_COLUMNS`).
    afresh : bool, default False
        Whether a store is asked again what became of the file.

    Raises
    ------
    SourceError
        When there are several, and none has a usual name.
    OSError, ValueError
        When it is no Parquet file.
    """
    status = None if afresh or not isinstance(path, ObjectPath) else _SEEN.get(path)
    status = status or path.stat()
    if isinstance(path, ObjectPath):
        _SEEN[path] = status
    return _open(path, column, status.st_size, status.st_mtime_ns)


@lru_cache(KEPT_FILES)
def _open(path: AnyPath, column: str | None, size: int, mtime_ns: int) -> ImageColumn | None:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(
        path.open("rb") if isinstance(path, ObjectPath) else path, buffer_size=BUFFER, pre_buffer=False
    )
    found = _image_columns(file) if column is None else [each for each in _byte_columns(file) if each == column]
    column = choose_column(found, repr(str(path))) if found else None
    return None if column is None else ImageColumn(file, column)


def _image_columns(file: pq.ParquetFile) -> list[str]:
    """Return the columns that hold images: structs with bytes, or else plain bytes that are images."""
    names = _byte_columns(file)
    structs = [name for name in names if pa.types.is_struct(file.schema_arrow.field(name).type)]
    return structs or [name for name in names if name.lower() in IMAGE_COLUMNS or _has_image(file, name)]


def _byte_columns(file: pq.ParquetFile) -> list[str]:
    """Return the columns of bytes; not those of files that are given by their paths alone."""
    return [field.name for field in file.schema_arrow if holds_bytes(field.type) and not _has_paths_alone(file, field)]


def _has_paths_alone(file: pq.ParquetFile, field: pa.Field) -> bool:
    if not pa.types.is_struct(field.type):
        return False
    batches = file.iter_batches(ROWS, columns=[field.name])
    return all(file_paths(pa.chunked_array([batch.column(0)])) is not None for batch in batches)


def _has_image(file: pq.ParquetFile, column: str) -> bool:
    """Say whether the first cell of a column of bytes is an image."""
    batch = next(file.iter_batches(1, columns=[column]), None)
    try:
        return batch is not None and bool(decoding.decode(batch.column(0)[0].as_py() or b""))
    except ImageError:
        return False


def own_images(path: AnyPath) -> ImageColumn | None:
    """Return the column of images that a file has when none is named, or None where one must be."""
    try:
        return open_images(path)
    except SourceError:
        return None


def read_row(path: AnyPath, name: str) -> bytes:
    """Return the bytes of an image in a Parquet file, by its name there; of a column that was named, ``COLUMN/NAME``.

    Raises
    ------
    FileNotFoundError
        When there is no such file.
    ImageError
        When it has no such image, or cannot be read any more.
    """
    try:
        images, row = own_images(path), name
        if images is None or row not in images.rows:
            column, _, row = name.partition("/")
            images = open_images(path, column)
        if images is not None and row in images.rows:
            return images.read(images.rows[row])
    except (StorageError, ImageError, FileNotFoundError):
        raise
    except (OSError, ValueError, StopIteration, pa.ArrowException) as error:
        raise ImageError(f"cannot be read: {one_line(error)}") from error
    raise ImageError(f"the Parquet file has no image {name!r}")
