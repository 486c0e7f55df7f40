"""HDF5: ``features/BACKBONE/LAYER`` beside ``samples/path``, ``samples/label``, …."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from featurebank.bank.formats.collection import (
    KEY,
    Collection,
    Values,
    described,
    from_arrays,
    read_facts,
    reading,
    restored,
    spans,
    to_arrays,
)
from featurebank.errors import CorruptError


def write(buffer: BinaryIO, collection: Collection, advance: Callable[[int], None]) -> None:
    """Write a collection; see `featurebank.bank.formats.exporting.export_bank`."""
    where = [f"features/{stream.name}" for stream in collection.streams]
    frame, text = described(collection, where)
    with h5py.File(buffer, "w") as file:
        put_text(file, KEY, text)
        for name, values in to_arrays(frame).items():
            put_column(file, f"samples/{name}", values)
        for stream, place in zip(collection.streams, where, strict=True):
            rows = file.create_dataset(place, (len(collection), *stream.shape), stream.dtype)
            start = 0
            for batch in stream.batches(collection.at_once):
                rows[start : start + len(batch)] = batch
                start += len(batch)
                advance(len(batch))


def put_text(group: h5py.Group, name: str, text: str) -> h5py.Dataset:
    """Write one text of any length (an attribute holds 64 kB)."""
    return group.create_dataset(name, data=text, dtype=h5py.string_dtype())


def put_column(group: h5py.Group, name: str, values: Any) -> h5py.Dataset:
    """Write a column: an array of numbers, or a list of texts."""
    if isinstance(values, np.ndarray):
        return group.create_dataset(name, data=values)
    return group.create_dataset(name, data=np.array(values, object), shape=(len(values),), dtype=h5py.string_dtype())


def read(path: Path) -> Collection:
    """Read an HDF5 file that `write` wrote; see `restored`."""
    with opened(path) as file:
        facts = read_facts(text_of(dataset(path, file, KEY)), path)
        columns = {name: cells_of(dataset(path, file, f"samples/{name}")) for name in file["samples"]}
        shapes = {each["where"]: dataset(path, file, each["where"]).shape for each in facts["feature_sets"]}
        return restored(path, facts, from_arrays(columns), shapes, _rows_of)


def _rows_of(path: Path, fact: Mapping[str, Any], count: int, size: int) -> Iterator[Values]:
    with opened(path) as file:
        rows = dataset(path, file, fact["where"])
        for part in spans(count, size):
            yield rows[part]


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """Open a file of unknown origin to read; see `reading`."""
    with reading(path, "an export in HDF5"), open(path, "rb") as raw, h5py.File(raw, "r") as file:
        yield file


def dataset(path: Path, file: h5py.File, name: str) -> h5py.Dataset:
    """Return a dataset whose bytes lie in its own file, reached by plain names; a link is refused."""
    group: Any = file
    for part in name.split("/"):
        link = group.get(part, getlink=True) if isinstance(group, h5py.Group) else None
        if not isinstance(link, h5py.HardLink):
            raise CorruptError(f"{str(path)!r} has no array {name!r} of its own; expected one: make the file again")
        group = group[part]
    if not isinstance(group, h5py.Dataset) or group.external or group.is_virtual:
        raise CorruptError(f"{name!r} of {str(path)!r} is no array of its own; expected one: make the file again")
    return group


def text_of(values: h5py.Dataset) -> str:
    """Return the one text of a dataset."""
    return str(values.asstr("utf-8")[()])


def cells_of(values: h5py.Dataset) -> Any:
    """Return a column: texts as str, numbers as they are."""
    return values.asstr("utf-8")[()] if h5py.check_string_dtype(values.dtype) else values[()]
