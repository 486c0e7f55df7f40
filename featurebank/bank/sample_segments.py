"""Sample segments: a sample table as the bytes of a file, and back; a path that leaves its root is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featurebank.bank import segment
from featurebank.bank.samples import BYTES, NO_DIGEST, NUMBERS, OK, STATUSES, SampleTable, make_table
from featurebank.bank.segment import Segment
from featurebank.images.columns import KINDS, kind_of
from featurebank.images.dataframes import pd

_STORED = {"row_hash": "origin"}
"""Columns that are called otherwise in a segment."""
_SLASH = ord("/")


def encode_table(table: SampleTable, supersedes: Sequence[str] = ()) -> memoryview:
    """Return the bytes of a sample segment."""
    rows = table.rows
    sources, codes = _pairs(rows["source"], rows["root"])
    arrays: dict[str, NDArray[Any]] = {
        "source": codes,
        "digest": np.frombuffer(b"".join(rows["digest"].to_numpy()), "u1").reshape(-1, 32),
        **{_STORED.get(name, name): rows[name].to_numpy(dtype) for name, dtype in NUMBERS.items()},
        **_strings("path", rows["path"].to_numpy(object)),
        **_strings("error", _encode_texts(rows["error"])),
    }
    for number, name in enumerate(table.columns):
        arrays |= _encode_column(f"columns/{number}", table.columns[name])
    meta = {
        "sources": sources,
        "columns": [[name, kind_of(table.columns[name])] for name in table.columns],
        "supersedes": list(supersedes),
    }
    return segment.encode("samples", meta, arrays)


def _pairs(first: pd.Series, second: pd.Series) -> tuple[list[tuple[str, str]], NDArray[np.uint32]]:
    """Return the distinct pairs of texts, sorted, and the number of each row's."""
    (one, ones), (two, twos) = (pd.factorize(each.to_numpy(object)) for each in (first, second))
    found, codes = np.unique(one * max(len(twos), 1) + two, return_inverse=True)
    pairs = [(str(ones[number // len(twos)]), str(twos[number % len(twos)])) for number in found]
    order = sorted(range(len(pairs)), key=pairs.__getitem__)
    return [pairs[number] for number in order], np.argsort(order).astype("<u4")[codes]


def _strings(name: str, texts: Any) -> dict[str, NDArray[Any]]:
    """Return the arrays that hold bytes of any length: all of them, and where each begins."""
    found = pa.array(texts, pa.large_binary())
    _, offsets, data = found.buffers()
    ends = np.zeros(1, "<i8") if not len(found) else np.frombuffer(offsets, "<i8", len(found) + 1)
    size = int(ends[-1])
    return {f"{name}/data": np.frombuffer(data, "u1", size) if size else np.empty(0, "u1"), f"{name}/offsets": ends}


def _encode_texts(column: pd.Series) -> NDArray[Any]:
    """Encode texts, each distinct one once; a missing one is empty."""
    codes, texts = pd.factorize(column.to_numpy(object))
    return _objects([*map(encode_text, texts), b""])[codes]


def _encode_column(name: str, column: pd.Series) -> dict[str, NDArray[Any]]:
    mask = {f"{name}/mask": column.isna().to_numpy("u1")}
    kind = kind_of(column)
    if kind == "str":
        return mask | _strings(name, _encode_texts(column))
    return mask | {f"{name}/data": column.fillna(False if kind == "bool" else 0).to_numpy(KINDS[kind][0])}


def encode_text(text: str) -> bytes:
    """Encode text as UTF-8, lone surrogates (undecodable file-name bytes) included."""
    return text.encode("utf-8", "surrogatepass")


def decode_table(file: Segment) -> SampleTable:
    """Read a sample segment.

    Raises
    ------
    CorruptError
        When its arrays do not make a table.
    """
    try:
        return _decode(file)
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise segment.corrupt(file.path, "its arrays do not make a sample table") from error


def _decode(file: Segment) -> SampleTable:
    count = file.shape("stamp")[0]
    sources, roots = (_objects([str(pair[side]) for pair in file.meta["sources"]]) for side in (0, 1))
    codes = _read(file, "source", "<u4", count)
    digests = _read(file, "digest", "|u1", count, 32)
    fields: dict[str, Any] = {
        name: _read(file, _STORED.get(name, name), dtype, count) for name, dtype in NUMBERS.items()
    }
    if np.any(fields["status"] >= len(STATUSES)):
        raise ValueError("unknown status")
    fields |= {
        "source": sources[codes],
        "root": roots[codes],
        "digest": pa.Array.from_buffers(BYTES["digest"], count, [None, pa.py_buffer(digests)]),
        "path": _read_strings(file, "path", count),
        "error": _read_texts(file, "error", count),
    }
    if _may_leave_root(file):
        _check_paths(fields)
    columns = {
        str(name): _read_column(file, f"columns/{number}", str(kind), count)
        for number, (name, kind) in enumerate(file.meta["columns"])
    }
    return make_table(fields, pd.DataFrame(columns, index=range(count)))


def _may_leave_root(file: Segment) -> bool:
    """Say whether a path is empty, absolute or has two dots somewhere, by a look at the bytes of all of them."""
    data, offsets = np.array(file.read("path/data")), np.array(file.read("path/offsets"))
    is_odd = b".." in data.tobytes() or (offsets[1:] == offsets[:-1]).any()
    return bool(is_odd or (data[offsets[:-1]] == _SLASH).any())


def _check_paths(fields: dict[str, Any]) -> None:
    """Refuse a path that is empty or leaves its root; a manifest's bad row, kept for its error, may have one."""
    paths = fields["path"].to_pylist()
    for number in [number for number, path in enumerate(paths) if not path or path[0] == _SLASH or b".." in path]:
        path, has_root = paths[number], bool(fields["root"][number])
        was_refused = fields["digest"][number].as_py() == NO_DIGEST and fields["status"][number] != OK
        if not was_refused and (not path or (has_root and _leaves_root(path))):
            raise ValueError("a path that leaves its root")


def _leaves_root(path: bytes) -> bool:
    return path.startswith(b"/") or b".." in path.split(b"/")


def _read(file: Segment, name: str, dtype: str, *shape: int) -> NDArray[Any]:
    if file.shape(name) != shape or file.dtype(name).str != dtype:
        raise ValueError(f"{name} has another shape or dtype")
    return np.array(file.read(name))


def _read_strings(file: Segment, name: str, count: int) -> pa.LargeBinaryArray:
    offsets = _read(file, f"{name}/offsets", "<i8", count + 1)
    data = _read(file, f"{name}/data", "|u1", *file.shape(f"{name}/data")[:1])
    if offsets[0] != 0 or offsets[-1] != len(data) or np.any(np.diff(offsets) < 0):
        raise ValueError(f"{name} has offsets outside its data")
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), count, [None, pa.py_buffer(offsets), pa.py_buffer(data)])


def _read_texts(file: Segment, name: str, count: int) -> NDArray[Any]:
    """Return texts as objects, shape (n,); those that are equal are one object, since labels and errors repeat."""
    found = _read_strings(file, name, count).dictionary_encode()
    texts = [text.decode("utf-8", "surrogatepass") for text in found.dictionary.to_pylist()]
    return _objects(texts)[found.indices.to_numpy()]


def _objects(values: Sequence[Any]) -> NDArray[Any]:
    return np.fromiter(values, object, len(values))


def _read_column(file: Segment, name: str, kind: str, count: int) -> pd.Series:
    mask = _read(file, f"{name}/mask", "|u1", count).astype(bool)
    if kind == "str":
        cells = _read_texts(file, name, count)
        cells[mask] = None
        return pd.Series(cells, dtype=object)
    stored, dtype = KINDS[kind]
    values = pd.Series(_read(file, f"{name}/data", stored, count)).astype(dtype)
    values[mask] = pd.NA
    return values
