"""NPZ: an array a feature set, one a column, for `numpy.load`; not compressed, so that it is written as it comes."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO

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
    to_arrays,
)
from featurebank.bank.formats.npy import read_header, read_rows


def write(buffer: BinaryIO, collection: Collection, advance: Callable[[int], None]) -> None:
    """Write a collection; see `featurebank.bank.formats.exporting.export_bank`."""
    frame, text = described(collection, [stream.name for stream in collection.streams])
    arrays = {KEY: np.array(text)}
    arrays |= {name: np.array(values, None if len(values) else str) for name, values in to_arrays(frame).items()}
    with zipfile.ZipFile(buffer, "w", allowZip64=True) as archive:
        for name, array in arrays.items():
            with _member(archive, name) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
        for stream in collection.streams:
            with _member(archive, stream.name) as member:
                shape, descr = (len(collection), *stream.shape), np.dtype(stream.dtype).newbyteorder("<").str
                header = {"descr": descr, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_2_0(member, header)
                for batch in stream.batches(collection.at_once):
                    member.write(np.ascontiguousarray(batch).data)
                    advance(len(batch))


def _member(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    return archive.open(f"{name}.npy", "w", force_zip64=True)


def read(path: Path) -> Collection:
    """Read an NPZ file that `write` wrote; see `restored`."""
    with _opened(path) as archive:
        facts = read_facts(_array(archive, KEY)[()], path)
        shapes = {each["where"]: _shape(archive, each["where"]) for each in facts["feature_sets"]}
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        arrays = {name: _array(archive, name) for name in names if name not in (KEY, *shapes)}
        return restored(path, facts, from_arrays(arrays), shapes, _rows_of)


def _rows_of(path: Path, fact: Mapping[str, Any], count: int, size: int) -> Iterator[Values]:
    with _opened(path) as archive, archive.open(f"{fact['where']}.npy") as member:
        yield from read_rows(member, size)


def _shape(archive: zipfile.ZipFile, name: str) -> tuple[int, ...]:
    with archive.open(f"{name}.npy") as member:
        return read_header(member)[0]


def _array(archive: zipfile.ZipFile, name: str) -> Any:
    with archive.open(f"{name}.npy") as member:
        return np.lib.format.read_array(member, allow_pickle=False)


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    with reading(path, "an export in NPZ"), zipfile.ZipFile(path) as archive:
        yield archive
