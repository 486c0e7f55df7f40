"""What every format is written from and read into: samples by name, and feature sets as streams of rows."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featurebank import __version__
from featurebank.bank.spec import FeatureSpec
from featurebank.errors import BankError, CorruptError, FeatureBankError, no_column
from featurebank.images.columns import kind_of, tidy
from featurebank.images.reading import Progress

FORMAT, VERSION = "featurebank-export", 1
KEY = "featurebank"
"""Under this name every file that is written here says what it holds, as JSON."""
OWN = ("source", "path", "digest")
BATCH_BYTES = 64 << 20
DTYPES = ("float16", "float32")

Values = NDArray[Any]


@dataclass(frozen=True)
class Stream:
    """The rows of one feature set, a batch at a time.

    Attributes
    ----------
    name : str
        ``BACKBONE/LAYER[:POOL]``, or what the file calls it.
    shape : tuple of int
        Shape of one row: (views, …).
    dtype : str
        ``"float16"`` or ``"float32"``.
    batches : callable
        Number of rows to iterator of arrays (m, views, …) of this dtype, in the order of the samples.
    spec : FeatureSpec, optional
        What decided the numbers; other tools' files know none.
    requests : list of dict
        What the user asked for, see `featurebank.Bank.requests_of`.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    batches: Callable[[int], Iterator[Values]]
    spec: FeatureSpec | None = None
    requests: list[dict[str, Any]] = field(default_factory=list)

    @property
    def width(self) -> int:
        """Number of values of one row, all views together."""
        return int(np.prod(self.shape, dtype=int))

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self.width * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Collection:
    """Samples in the order of a file, and the feature sets that have a row for each.

    Attributes
    ----------
    paths : list of n bytes
        Name of each sample, as the file system's bytes.
    columns : DataFrame
        The user's columns, `featurebank.images.columns.tidy`.
    streams : list of Stream
    files : list of Path
        What another tool's features were read from.
    sources : list of n str, optional
        Source of each sample; other tools' files know none.
    digests : list of n bytes of length 32, optional
        Content digest of each sample, likewise.
    """

    paths: list[bytes]
    columns: pd.DataFrame
    streams: list[Stream]
    files: list[Path] = field(default_factory=list)
    sources: list[str] | None = None
    digests: list[bytes] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def at_once(self) -> int:
        """Rows of all sets together that make a batch of about `BATCH_BYTES`."""
        return max(1, BATCH_BYTES // max(1, sum(stream.row_bytes for stream in self.streams)))


@contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Read a file of unknown origin; whatever a library says of damaged bytes is one `CorruptError`."""
    try:
        yield
    except FeatureBankError:
        raise
    except Exception as error:  # libraries raise many kinds, each of which means the same to the user
        raise CorruptError(f"{str(path)!r} cannot be read as {kind}: make it again") from error


def spans(count: int, size: int) -> Iterator[slice]:
    """Yield slices of so many rows, the last one shorter.

    Examples
    --------
    >>> list(spans(5, 3)), list(spans(0, 3))
    ([slice(0, 3, None), slice(3, 5, None)], [])
    """
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def counting(progress: Progress | None, total: int) -> Callable[[int], None]:
    """Return what is told of rows as they are done, and tells how many are done of all."""
    done = 0

    def advance(rows: int) -> None:
        nonlocal done
        done += rows
        if progress is not None:
            progress(done, total)

    return advance


def stored_dtype(dtype: Any, where: str) -> str:
    """Return the dtype that a bank keeps such numbers in: float32 for all but float16."""
    found = np.dtype(dtype)
    if found.kind != "f":
        raise BankError(f"{where} holds {found}; expected floating-point numbers")
    return "float16" if found == np.float16 else "float32"


# --- the table ---------------------------------------------------------------------------------------------


def described(collection: Collection, where: Sequence[str]) -> tuple[pd.DataFrame, str]:
    """Return the samples as columns that every format can hold, and what a file written here says under `KEY`.

    Parameters
    ----------
    collection : Collection
    where : sequence of str
        What the file calls each feature set.

    Returns
    -------
    frame : DataFrame
        ``source, path, digest`` (hexadecimal) and the user's columns: ``Int64``, ``Float64``, ``boolean`` or object of
        str and None. Text that is no Unicode, or holds a zero byte, is escaped.
    text : str
        JSON: the feature sets, what it takes to make the columns whole again, format and version.
    """
    frame, table = _plain_frame(collection)
    feature_sets = [
        {
            "name": stream.name,
            "where": place,
            "shape": list(stream.shape),
            "dtype": stream.dtype,
            "spec": None if stream.spec is None else stream.spec.to_dict(),
            "requests": stream.requests,
        }
        for stream, place in zip(collection.streams, where, strict=True)
    ]
    head = {"format": FORMAT, "version": VERSION, "written_by": f"featurebank {__version__}", "rows": len(collection)}
    return frame, json.dumps({**head, "feature_sets": feature_sets, **table})


def _plain_frame(collection: Collection) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the columns, and facts: each one's name here, user's name and kind, and the ``odd`` cells as they are."""
    own: dict[str, list[Any]] = {"path": [os.fsdecode(path) for path in collection.paths]}
    if collection.sources is not None and collection.digests is not None:
        own = {"source": collection.sources, **own, "digest": [digest.hex() for digest in collection.digests]}
    names = _safe_names(list(collection.columns))
    texts = {name: pd.Series(cells, dtype=object) for name, cells in own.items()}
    columns = {names[name]: collection.columns[name].reset_index(drop=True) for name in collection.columns}
    facts: dict[str, Any] = {
        "columns": [[names[name], name, kind_of(collection.columns[name])] for name in collection.columns]
    }
    facts["odd"] = {}
    whole = {**texts, **columns}
    for name, column in whole.items():
        if kind_of(column) == "str":
            cells = [None if pd.isna(cell) else cell for cell in column]
            odd = {str(row): cell for row, cell in enumerate(cells) if cell is not None and _is_odd(cell)}
            shown = [_escaped(cell) if cell is not None and _is_odd(cell) else cell for cell in cells] if odd else cells
            whole[name] = pd.Series(shown, dtype=object)
            facts["odd"] |= {name: odd} if odd else {}
    return pd.DataFrame(whole, index=range(len(collection.paths))), facts


def restored(
    path: Path,
    facts: Mapping[str, Any],
    frame: pd.DataFrame,
    shapes: Mapping[str, tuple[int, ...]],
    rows_of: Callable[[Path, Mapping[str, Any], int, int], Iterator[Values]],
) -> Collection:
    """Return what a file of `described` holds.

    Parameters
    ----------
    path : Path
    facts : mapping
        From `read_facts`.
    frame : DataFrame
        Its columns as objects, missing cells as None.
    shapes : mapping of str to tuple of int
        Shape (n, …) of the array of each feature set, by what the file calls it.
    rows_of : callable
        Path, the facts of a feature set, number of rows in all and at a time -> iterator of rows.
    """
    whole = {str(name): frame[name].astype(object) for name in frame.columns}
    for name, cells in facts["odd"].items():
        for row, cell in cells.items():
            whole[name].iloc[int(row)] = cell
    columns = {str(bank): _column(whole[name], kind) for name, bank, kind in facts["columns"]}
    count, listed = facts["rows"], {each["where"]: tuple(each["shape"]) for each in facts["feature_sets"]}
    if len(frame) != count or dict(shapes) != {name: (count, *shape) for name, shape in listed.items()}:
        raise CorruptError(f"{str(path)!r} is damaged: its arrays are not those it lists; make it again")
    return Collection(
        paths=[os.fsencode(path) for path in whole["path"]],
        columns=pd.DataFrame(columns, index=range(len(frame))),
        streams=[_stream(each, partial(rows_of, path, each, count)) for each in facts["feature_sets"]],
        sources=list(whole["source"]),
        digests=[_digest(text) for text in whole["digest"]],
    )


def _column(cells: pd.Series, kind: str) -> pd.Series:
    plain = [None if pd.isna(cell) else cell for cell in cells]
    dtypes = {"int": "Int64", "float": "Float64", "bool": "boolean"}
    return pd.Series(plain, dtype=dtypes.get(kind, object))


def _digest(text: Any) -> bytes:
    digest = bytes.fromhex(str(text))
    if len(digest) != 32:
        raise ValueError(f"a content digest of {len(digest)} bytes")
    return digest


def _is_odd(text: str) -> bool:
    """Say whether some format cannot hold a text: bytes that are not UTF-8, or a zero."""
    return (not text.isascii() and any("\ud800" <= each <= "\udfff" for each in text)) or "\0" in text


def _escaped(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def _safe_names(names: Sequence[str]) -> dict[str, str]:
    """Return a name for each user's column that is none of our own, no path in a file, and told from the others."""
    safe: dict[str, str] = {}
    for name in names:
        text = _escaped(name).replace("/", "_").replace(".", "_")
        while text in (*OWN, KEY) or text in safe.values():
            text += "_"
        safe[name] = text
    return safe


def read_facts(text: Any, path: Any) -> dict[str, Any]:
    """Return the facts that a file carries."""
    try:
        facts: dict[str, Any] = json.loads(text)
        is_known = facts["format"] == FORMAT and facts["version"] == VERSION
    except (ValueError, TypeError, KeyError) as error:
        raise CorruptError(f"{str(path)!r} is damaged, or no export of featurebank: make it again") from error
    if not is_known:
        found = f"{facts['format']!r} {facts['version']}"
        raise CorruptError(f"{str(path)!r} is {found}; this reads {FORMAT!r} {VERSION}: upgrade")
    return facts


def _stream(fact: Mapping[str, Any], batches: Callable[[int], Iterator[Values]]) -> Stream:
    """Return the stream of one of the feature sets that a file's facts list, refused where it is none."""
    if fact["dtype"] not in DTYPES or not fact["shape"]:
        raise CorruptError(
            f"feature set {str(fact['name'])[:80]!r} of {str(fact['dtype'])[:20]!r}: make the file again"
        )
    spec = None if fact["spec"] is None else FeatureSpec.from_dict(fact["spec"])
    shape = tuple(int(side) for side in fact["shape"])
    return Stream(str(fact["name"]), shape, fact["dtype"], batches, spec, list(fact["requests"]))


# --- columns as arrays -------------------------------------------------------------------------------------


def to_arrays(frame: pd.DataFrame) -> dict[str, Any]:
    """Return columns as plain arrays; ``NAME.missing`` says where a cell of anything but a float is missing."""
    arrays: dict[str, Any] = {}
    for name, column in frame.items():
        kind, gaps = kind_of(column), column.isna().to_numpy(bool)
        if kind == "float":
            arrays[str(name)] = column.to_numpy(np.float64, na_value=np.nan)
            continue
        fill: Any = {"int": 0, "bool": False}.get(kind, "")
        cells = [fill if gap else cell for cell, gap in zip(column, gaps, strict=True)]
        arrays[str(name)] = cells if kind == "str" else np.array(cells, {"int": np.int64, "bool": np.bool_}[kind])
        if gaps.any():
            arrays[f"{name}.missing"] = gaps
    return arrays


def from_arrays(arrays: Mapping[str, Any]) -> pd.DataFrame:
    """Return the columns that `to_arrays` made arrays of."""
    columns = {}
    for name in [name for name in arrays if not name.endswith(".missing")]:
        cells = pd.Series(np.asarray(arrays[name]).tolist(), dtype=object)
        gaps = arrays.get(f"{name}.missing")
        columns[name] = cells if gaps is None else cells.where(~np.asarray(gaps, bool), None)
    return pd.DataFrame(columns)


def tidy_columns(frame: pd.DataFrame, chosen: Sequence[str] | None, where: Any) -> pd.DataFrame:
    """Return the columns of another tool's table that a bank is to keep."""
    absent = [name for name in chosen or () if name not in frame.columns]
    if absent:
        raise BankError(f"{no_column(f'{str(where)!r} has', absent[0], frame.columns)}: name one of them")
    return tidy(frame if chosen is None else frame[list(chosen)])
