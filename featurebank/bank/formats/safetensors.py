"""Safetensors: a tensor a feature set, the columns of the samples as JSON lists in the metadata."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd

from featurebank.bank.formats.collection import (
    KEY,
    Collection,
    Values,
    described,
    read_facts,
    reading,
    restored,
    spans,
)
from featurebank.errors import BankError
from featurebank.images.columns import kind_of

MOST_HEADER = 100_000_000
"""Bytes of a header that safetensors reads."""
_DTYPES = {"float16": "F16", "float32": "F32"}


def write(buffer: BinaryIO, collection: Collection, advance: Callable[[int], None]) -> None:
    """Write a collection; see `featurebank.bank.formats.exporting.export_bank`."""
    buffer.write(_header(collection))
    for stream in collection.streams:
        for batch in stream.batches(collection.at_once):
            buffer.write(np.ascontiguousarray(batch).data)
            advance(len(batch))


def _header(collection: Collection) -> bytes:
    """Return the length of the header and the header: where each tensor lies, and the metadata."""
    frame, text = described(collection, [stream.name for stream in collection.streams])
    metadata = {name: json.dumps(_cells(frame[name])) for name in frame.columns}
    header: dict[str, Any] = {"__metadata__": {KEY: text, **metadata}}
    start = 0
    for stream in collection.streams:
        end = start + len(collection) * stream.row_bytes
        shape = [len(collection), *stream.shape]
        header[stream.name] = {"dtype": _DTYPES[stream.dtype], "shape": shape, "data_offsets": [start, end]}
        start = end
    data = json.dumps(header).encode()
    data += b" " * (-len(data) % 8)
    if len(data) > MOST_HEADER:
        raise BankError(
            f"the names of {len(collection)} samples take {len(data)} bytes, safetensors reads {MOST_HEADER}: use "
            "--to parquet"
        )
    return len(data).to_bytes(8, "little") + data


def _cells(column: pd.Series) -> list[Any]:
    kinds: dict[str, Any] = {"int": int, "float": float, "bool": bool}
    plain = kinds.get(kind_of(column), str)
    return [None if pd.isna(cell) else plain(cell) for cell in column]


def read(path: Path) -> Collection:
    """Read a safetensors file that `write` wrote; see `restored`."""

    with _opened(path) as file:
        metadata = file.metadata() or {}
        facts = read_facts(metadata.pop(KEY, None), path)
        frame = {name: pd.Series(json.loads(cells), dtype=object) for name, cells in metadata.items()}
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        return restored(path, facts, pd.DataFrame(frame), shapes, _rows_of)


def _rows_of(path: Path, fact: Mapping[str, Any], count: int, size: int) -> Iterator[Values]:
    with _opened(path) as file:
        rows = file.get_slice(fact["where"])
        for part in spans(count, size):
            yield rows[part]


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    from safetensors import safe_open

    with reading(path, "an export in safetensors"), safe_open(path, "np") as file:
        yield file
