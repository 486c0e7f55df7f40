"""THE on-disk format: one immutable HDF5 file of named arrays, written whole, trusted only when it proves itself.

A segment holds a ``header`` (JSON as uint8: what it is, and for each array its dtype, shape and SHA-256) and
the arrays, each contiguous, without filters, links or object types. The root attribute ``sha256`` is that of
the header, so it covers every byte of data, the shapes, the dtypes and the fingerprint, and one array can be
checked without reading the others.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import re
import stat
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from featurebank.bank.spec import canonical_json
from featurebank.errors import BankError, CorruptError, StorageError
from featurebank.storage import files
from featurebank.storage.files import AnyPath
from featurebank.storage.objects import Fetched, ObjectPath
from featurebank.storage.retries import at_once

FORMAT = "featurebank-segment"
VERSION = 1
REPAIR_HINT = "delete it and run extract again"
_HEADER = "header"
_MAX_HEADER = 16 << 20
_CHUNK = 8 << 20
_LISTING_TRIES = 20
_LONGEST_WAIT = 3.0
_ALIGNMENT = 64
_NAME = re.compile(r"[a-z0-9_]+(/[a-z0-9_]+)*")
_DTYPES = ("|u1", "<u4", "<u8", "<i8", "<f2", "<f4", "<f8")


def new_name() -> str:
    """Return a file name for a new segment, unique without asking anyone."""
    return f"{uuid.uuid4().hex}.h5"


def encode(kind: str, meta: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> memoryview:
    """Return the bytes of a segment.

    Parameters
    ----------
    kind : str
        What the segment holds, ``"features"`` or ``"samples"``.
    meta : mapping
        JSON-able facts about all rows (fingerprint, column names, …).
    arrays : mapping of str to ndarray
        Arrays by name; a ``/`` makes a group. Little-endian integers and floats only.

    Examples
    --------
    >>> data = encode("features", {"fingerprint": "ab"}, {"digest": np.zeros((2, 32), "u1")})
    >>> bytes(data[1:4])
    b'HDF'
    """
    header = {
        "kind": kind,
        "meta": dict(meta),
        "arrays": {name: _describe(array) for name, array in arrays.items()},
    }
    text = canonical_json(header)
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver="v108", alignment_threshold=_ALIGNMENT, alignment_interval=_ALIGNMENT) as file:
        file.attrs["format"] = np.bytes_(FORMAT)
        file.attrs["version"] = np.int64(VERSION)
        file.attrs["sha256"] = np.frombuffer(hashlib.sha256(text).digest(), "u1")
        file.create_dataset(_HEADER, data=np.frombuffer(text, "u1"))
        for name, array in arrays.items():
            file.create_dataset(name, data=np.ascontiguousarray(array))
    return buffer.getbuffer()


def _describe(array: NDArray[Any]) -> dict[str, Any]:
    digest = hashlib.sha256(np.ascontiguousarray(array).data if array.size else b"").hexdigest()
    return {"dtype": array.dtype.str, "shape": list(array.shape), "sha256": digest}


@dataclass(frozen=True)
class _Array:
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    sha256: str
    offset: int

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Segment:
    """One validated segment file.

    Attributes
    ----------
    path : Path or ObjectPath
        The file.
    size : int
        Its bytes.
    kind : str
        What it holds.
    meta : dict
        The facts it was written with.
    """

    path: AnyPath
    size: int
    kind: str
    meta: dict[str, Any]
    _arrays: dict[str, _Array]
    _verified: set[str] = field(default_factory=set)

    @property
    def names(self) -> list[str]:
        """Names of the arrays."""
        return list(self._arrays)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of an array, read from the header.

        Raises
        ------
        CorruptError
            When the segment has no such array.
        """
        return self._array(name).shape

    def dtype(self, name: str) -> np.dtype[Any]:
        """Dtype of an array, read from the header.

        Raises
        ------
        CorruptError
            When the segment has no such array.
        """
        return self._array(name).dtype

    def read(self, name: str) -> NDArray[Any]:
        """Return an array, memory-mapped and read-only, after its digest has been checked once.

        What lies on a store is mapped from a cache on this machine; of features only the arrays that are read get
        there.

        Raises
        ------
        CorruptError
            When the array is missing, or its bytes are not the ones that were written.
        """
        array = self._array(name)
        if not all(array.shape):
            return np.empty(array.shape, array.dtype)
        try:
            file, offset = self._on_this_machine(name, array)
            return np.memmap(file, array.dtype, "r", offset, array.shape)
        except FileNotFoundError as error:
            raise BankError(f"{str(self.path)!r} was replaced while it was read: try again") from error
        except (OSError, ValueError) as error:
            if isinstance(error, (CorruptError, StorageError)):
                raise
            raise corrupt(self.path, "it changed while it was read") from error

    def _on_this_machine(self, name: str, array: _Array) -> tuple[Path, int]:
        """Return the file that an array can be mapped from and where it begins there, its digest checked."""
        if not isinstance(self.path, ObjectPath):
            self._verify(name, array)
            return self.path, array.offset
        is_table = self.kind == "samples"  # many small arrays, all of which are read
        start, stop = (0, self.size) if is_table else (array.offset, array.offset + array.nbytes)
        for afresh in (False, True):
            file = files.cached(self.path, start, stop, afresh=afresh)
            status = file.stat()
            copy = f"{name} in {status.st_ino} of {status.st_mtime_ns}"
            if copy in self._verified or _sha256(file, array.offset - start, array.nbytes) == array.sha256:
                self._verified.add(copy)
                return file, array.offset - start
        raise corrupt(self.path, f"the bytes of {name!r} do not match their digest")

    def _verify(self, name: str, array: _Array) -> None:
        """Check an array's bytes against its digest, once; read, not mapped, so that memory stays flat."""
        if name in self._verified:
            return
        if _sha256(self.path, array.offset, array.nbytes) != array.sha256:
            raise corrupt(self.path, f"the bytes of {name!r} do not match their digest")
        self._verified.add(name)

    def verify(self) -> None:
        """Check every array where it lies, whatever a cache has.

        Raises
        ------
        CorruptError
            When bytes are not the ones that were written.
        """
        for name, array in self._arrays.items():
            self._verify(name, array)

    def _array(self, name: str) -> _Array:
        if name not in self._arrays:
            raise corrupt(self.path, f"it has no array {name!r}")
        return self._arrays[name]


def corrupt(path: AnyPath, reason: str) -> CorruptError:
    """Return the error for a damaged file: which, why, and what repairs it."""
    return CorruptError(f"{str(path)!r} is damaged or not a segment: {reason}; {REPAIR_HINT}")


def list_segments(folder: AnyPath, kind: str) -> list[Segment]:
    """Open the current segments of a folder: those that no other one supersedes.

    A compaction may go on meanwhile: the folder is listed twice, since one listing may pass a new file's place before
    it is there and an old one's after it is gone, and everything is listed again when a file has vanished.

    Raises
    ------
    CorruptError
        When a file is not exactly a segment of this kind, or the folder is a link.
    """
    for number in range(_LISTING_TRIES):
        try:
            segments = open_segments(segment_files(folder), kind)
        except FileNotFoundError:
            if isinstance(folder, ObjectPath):
                time.sleep(min(0.05 * 2**number, _LONGEST_WAIT))
            continue
        superseded = {name for file in segments for name in superseded_by(file)}
        return [file for file in segments if file.path.name not in superseded]
    raise BankError(f"the files of {str(folder)!r} keep changing; wait for the other process to end and try again")


def segment_files(folder: AnyPath) -> list[AnyPath]:
    """Return the paths of all segments in a folder, superseded ones included, sorted; none where it is missing.

    Raises
    ------
    CorruptError
        When the folder is a link or a file.
    """
    if isinstance(folder, ObjectPath):
        return sorted(folder.glob("*.h5"))
    try:
        if not stat.S_ISDIR(os.lstat(folder).st_mode):
            raise CorruptError(f"{str(folder)!r} is a link or a file; expected a folder inside the bank: remove it")
    except FileNotFoundError:
        return []
    return sorted({*folder.glob("*.h5"), *folder.glob("*.h5")})


def superseded_by(file: Segment) -> list[str]:
    """Return the names of the files that a segment replaces."""
    return [str(name) for name in file.meta.get("supersedes", [])]


def open_segments(paths: Sequence[AnyPath], kind: str) -> list[Segment]:
    """Open several segments, those on a store at once; see `open_segment`."""
    return _each(lambda path: open_segment(path, kind), paths, paths)


def read_each(segments: Sequence[Segment], name: str) -> list[NDArray[Any]]:
    """Read one array of several segments, those on a store at once; see `Segment.read`."""
    return _each(lambda file: file.read(name), segments, [file.path for file in segments])


def _each(call: Callable[[Any], Any], items: Iterable[Any], places: Iterable[AnyPath]) -> list[Any]:
    on_store = any(isinstance(place, ObjectPath) for place in places)
    return at_once(call, items) if on_store else [call(item) for item in items]


def open_segment(path: AnyPath, kind: str) -> Segment:
    """Open and validate a segment; the result is kept for as long as the file stays the same.

    Parameters
    ----------
    path : Path
        A segment file.
    kind : str
        What it must hold.

    Raises
    ------
    FileNotFoundError
        When the file is gone (a compaction may have removed it).
    CorruptError
        When it is not exactly a segment of this kind.
    """
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise corrupt(path, "it is a link or special file")
    segment = _open(path, status.st_ino, status.st_size, status.st_mtime_ns)
    if segment.kind != kind:
        raise corrupt(path, f"it holds {segment.kind!r}, not {kind!r}")
    return segment


@lru_cache(maxsize=65536)
def _open(path: AnyPath, inode: int, size: int, mtime_ns: int) -> Segment:
    try:
        if isinstance(path, ObjectPath):
            return _open_object(path, size)
        with path.open("rb") as raw, h5py.File(raw, "r") as file:
            return _validate(path, size, file)
    except (FileNotFoundError, CorruptError, StorageError):
        raise
    except Exception as error:  # HDF5 raises many kinds on damaged bytes; each one means the same to the user
        raise corrupt(path, "HDF5 cannot read it") from error


def _open_object(path: ObjectPath, size: int) -> Segment:
    """Open a segment on a store: what HDF5 lacks is fetched between its attempts, never while it holds its lock."""
    raw = Fetched(path, size)
    while True:
        raw.fetch()
        try:
            with h5py.File(raw, "r") as file:
                return _validate(path, size, file)
        except Exception:
            if raw.missing is None:
                raise


def _validate(path: AnyPath, size: int, file: h5py.File) -> Segment:
    _check_attributes(path, file)
    found = dict(_datasets(path, file))
    header = _read_header(path, size, file, found.pop(_HEADER, None))
    if set(found) != set(header["arrays"]):
        raise corrupt(path, "its arrays are not the ones its header lists")
    arrays = {name: _locate(path, size, dataset, header["arrays"][name]) for name, dataset in found.items()}
    return Segment(path, size, header["kind"], header["meta"], arrays)


def _check_attributes(path: AnyPath, file: h5py.File) -> None:
    if set(file.attrs) != {"format", "version", "sha256"}:
        raise corrupt(path, "its attributes are not those of a segment")
    shapes = {name: (file.attrs.get_id(name).shape, file.attrs.get_id(name).dtype.kind) for name in file.attrs}
    if shapes != {"format": ((), "S"), "version": ((), "i"), "sha256": ((32,), "u")}:
        raise corrupt(path, "its attributes are not those of a segment")
    if file.attrs["format"] != FORMAT.encode():
        raise corrupt(path, "its format is not that of a segment")
    if file.attrs["version"] != VERSION:
        raise CorruptError(
            f"{str(path)!r} has segment version {file.attrs['version']}, this featurebank reads {VERSION}: upgrade it"
        )


def _datasets(path: AnyPath, group: h5py.Group, prefix: str = "") -> Iterator[tuple[str, h5py.Dataset]]:
    """Walk the hard links of the file; anything else is refused before it is followed."""
    for raw in group.id:
        name = prefix + raw.decode("ascii", "replace")
        if not _NAME.fullmatch(name):
            raise corrupt(path, f"it has a member {name!r}")
        if group.id.links.get_info(raw).type != h5py.h5l.TYPE_HARD:
            raise corrupt(path, f"{name!r} is a soft or external link")
        member = group[raw]
        if isinstance(member, h5py.Dataset):
            yield name, member
        elif isinstance(member, h5py.Group) and name.count("/") < 2 and len(member) and not member.attrs:
            yield from _datasets(path, member, name + "/")
        else:
            raise corrupt(path, f"{name!r} is neither an array nor a group of arrays")


def _read_header(path: AnyPath, size: int, file: h5py.File, dataset: h5py.Dataset | None) -> dict[str, Any]:
    if dataset is None or dataset.ndim != 1 or dataset.shape[0] > _MAX_HEADER:
        raise corrupt(path, "its header is missing or too large")
    _locate(path, size, dataset, {"dtype": "|u1", "shape": list(dataset.shape), "sha256": ""})
    text = dataset[()].tobytes()
    if hashlib.sha256(text).digest() != file.attrs["sha256"].tobytes():
        raise corrupt(path, "its header does not match its digest")
    header = json.loads(text)
    if set(header) != {"kind", "meta", "arrays"} or not isinstance(header["meta"], dict):
        raise corrupt(path, "its header is not that of a segment")
    return header


def _locate(path: AnyPath, size: int, dataset: h5py.Dataset, described: dict[str, Any]) -> _Array:
    """Check that a dataset is plain, contiguous bytes inside this file, and say where."""
    plist = dataset.id.get_create_plist()
    if plist.get_layout() != h5py.h5d.CONTIGUOUS or plist.get_external_count() or plist.get_nfilters():
        raise corrupt(path, f"{dataset.name!r} is not stored as plain contiguous bytes in this file")
    if dataset.attrs:
        raise corrupt(path, f"{dataset.name!r} carries attributes")
    found = (dataset.dtype.str, list(dataset.shape))
    if found[0] not in _DTYPES or found != (described["dtype"], described["shape"]):
        raise corrupt(path, f"{dataset.name!r} is {found}, its header says otherwise")
    offset = dataset.id.get_offset()
    nbytes = math.prod(dataset.shape) * dataset.dtype.itemsize  # h5py's own product wraps around at 2**63
    if nbytes and (offset is None or offset + nbytes > size):
        raise corrupt(path, f"{dataset.name!r} does not lie inside the file")
    return _Array(dataset.dtype, dataset.shape, described["sha256"], offset or 0)


def _sha256(path: AnyPath, offset: int, size: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        while size and (chunk := file.read(min(size, _CHUNK))):
            digest.update(chunk)
            size -= len(chunk)
    return digest.hexdigest()
