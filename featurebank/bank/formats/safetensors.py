"""Safetensors: a tensor a feature set, the columns of the samples as JSON lists in the metadata."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd

from featurebank.bank.formats.collection import (
    KEY,
    Collection,
    Values,
    facts_text,
    from_frame,
    read_facts,
    reading,
    spans,
    stream_of,
    to_frame,
)
from featurebank.errors import BankError, CorruptError
from featurebank.images.columns import kind_of

MOST_HEADER = 100_000_000
"""Bytes of a header that safetensors reads."""
_DTYPES = {"float16": "F16", "float32": "F32"}


def write(buffer: BinaryIO, collection: Collection, advance: Callable[[int], None]) -> None:
    """Write a collection; see `featurebank.bank.formats.exporting.export_bank`.

    Raises
    ------
    BankError
        When there are so many samples that their names do not fit the header.
    """
    buffer.write(_header(collection))
    for stream in collection.streams:
        for batch in stream.batches(collection.at_once):
            buffer.write(np.ascontiguousarray(batch).data)
            advance(len(batch))


def _header(collection: Collection) -> bytes:
    """Return the length of the header and the header: where each tensor lies, and the metadata."""
    frame, table = to_frame(collection.samples)
    where = [stream.name for stream in collection.streams]
    metadata = {name: json.dumps(_cells(frame[name])) for name in frame.columns}
    header: dict[str, Any] = {"__metadata__": {KEY: facts_text(collection, table, where), **metadata}}
    start = 0
    for stream in collection.streams:
        end = start + len(collection) * stream.row_bytes
        shape = [len(collection), *stream.shape]
        header[stream.name] = {"dtype": _DTYPES[stream.dtype], "shape": shape, "data_offsets": [start, end]}
        start = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MOST_HEADER:
        raise BankError(
            f"the names of {len(collection)} samples take {len(text)} bytes, safetensors reads {MOST_HEADER}: use "
            "--to parquet"
        )
    return len(text).to_bytes(8, "little") + text


def _cells(column: pd.Series) -> list[Any]:
    kinds: dict[str, Any] = {"int": int, "float": float, "bool": bool}
    plain = kinds.get(kind_of(column), str)
    return [None if pd.isna(cell) else plain(cell) for cell in column]


def read(path: Path) -> Collection:
    """Read the feature sets of a safetensors file that `write` wrote.

    Raises
    ------
    CorruptError
        When it is damaged, or holds anything else.
    """
    from safetensors import safe_open

    with reading(path, "an export in safetensors"):
        with safe_open(path, "np") as file:
            metadata = file.metadata() or {}
            facts = read_facts(metadata.pop(KEY, None), path)
            frame = {name: pd.Series(json.loads(cells), dtype=object) for name, cells in metadata.items()}
            shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
        found = from_frame(pd.DataFrame(frame), facts)
        listed = {each["where"]: [facts["rows"], *each["shape"]] for each in facts["feature_sets"]}
        if shapes != listed or len(found.paths) != facts["rows"]:
            raise CorruptError(f"{str(path)!r} is damaged: its tensors are not those it lists; make it again")
    return Collection(found, [stream_of(each, _rows_of(path, each, facts["rows"])) for each in facts["feature_sets"]])


def _rows_of(path: Path, fact: dict[str, Any], count: int) -> Callable[[int], Iterator[Values]]:
    def batches(size: int) -> Iterator[Values]:
        from safetensors import safe_open

        with safe_open(path, "np") as file:
            rows = file.get_slice(fact["where"])
            for part in spans(count, size):
                yield rows[part]

    return batches
