"""HDF5: ``features/BACKBONE/LAYER`` beside ``samples/path``, ``samples/label``, …."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from featurebank.bank.formats.collection import (
    KEY,
    Collection,
    Values,
    facts_text,
    from_arrays,
    from_frame,
    read_facts,
    reading,
    spans,
    stream_of,
    to_arrays,
    to_frame,
)
from featurebank.errors import CorruptError

_FEATURES, _SAMPLES = "features", "samples"


def write(buffer: BinaryIO, collection: Collection, advance: Callable[[int], None]) -> None:
    """Write a collection; see `featurebank.bank.formats.exporting.export_bank`."""
    frame, table = to_frame(collection.samples)
    where = [f"{_FEATURES}/{stream.name}" for stream in collection.streams]
    with h5py.File(buffer, "w") as file:
        put_text(file, KEY, facts_text(collection, table, where))
        for name, values in to_arrays(frame).items():
            put_column(file, f"{_SAMPLES}/{name}", values)
        for stream, place in zip(collection.streams, where, strict=True):
            shape = (len(collection), *stream.shape)
            rows = file.create_dataset(place, shape, stream.dtype)
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
    """Read the feature sets of an HDF5 file that `write` wrote.

    Raises
    ------
    CorruptError
        When it is damaged, or holds anything else.
    """
    with opened(path) as file:
        facts = read_facts(text_of(dataset(path, file, KEY)), path)
        group = file[_SAMPLES]
        names = [*group]
        columns = {name: cells_of(dataset(path, file, f"{_SAMPLES}/{name}")) for name in names}
        found = from_frame(from_arrays(columns), facts)
        shapes = {each["where"]: dataset(path, file, each["where"]).shape for each in facts["feature_sets"]}
        wrong = [each for each in facts["feature_sets"] if shapes[each["where"]] != (facts["rows"], *each["shape"])]
        if wrong or len(found.paths) != facts["rows"]:
            raise CorruptError(f"{str(path)!r} is damaged: its arrays are not those it lists; make it again")
    streams = [stream_of(each, rows_of(path, each["where"], facts["rows"])) for each in facts["feature_sets"]]
    return Collection(found, streams)


def rows_of(path: Path, name: str, count: int) -> Callable[[int], Iterator[Values]]:
    """Return the `Stream.batches` of a dataset, read as they are asked for."""

    def batches(size: int) -> Iterator[Values]:
        with opened(path) as file:
            rows = dataset(path, file, name)
            for part in spans(count, size):
                yield rows[part]

    return batches


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """Open a file of unknown origin to read; see `reading`."""
    with reading(path, "an export in HDF5"), open(path, "rb") as raw, h5py.File(raw, "r") as file:
        yield file


def dataset(path: Path, file: h5py.File, name: str) -> h5py.Dataset:
    """Return a dataset whose bytes lie in its own file, reached by plain names.

    Raises
    ------
    CorruptError
        When there is none, or it is a link out of the file.
    """
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
