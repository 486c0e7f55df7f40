"""Feature sets: the rows of one feature spec, spread over immutable segments, found by content digest."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featurebank.bank import segment
from featurebank.bank.samples import one_array
from featurebank.bank.segment import Segment
from featurebank.bank.spec import FeatureSpec
from featurebank.errors import BankError
from featurebank.images.reading import read_ahead

VIEWS = ("mean", "first", "all")
PARALLEL_BYTES = 8 << 20
"""Results from this size on are read by a thread a core."""


def encode_rows(
    spec: FeatureSpec, digests: Sequence[bytes], stored: NDArray[Any], made_by: Mapping[str, str] | None = None
) -> memoryview:
    """Return the bytes of a feature segment; see `featurebank.bank.folder.BankFolder.add_stored`."""
    keys = np.frombuffer(b"".join(digests), "u1").reshape(-1, 32)
    return encode_stored(spec.fingerprint, keys, stored, [made_by] if made_by else [])


def encode_stored(
    fingerprint: str,
    digests: NDArray[np.uint8],
    values: NDArray[Any],
    made_by: Sequence[Mapping[str, str]],
    supersedes: Sequence[str] = (),
) -> memoryview:
    """Return the bytes of a feature segment for rows that are already in their stored dtype.

    Parameters
    ----------
    fingerprint : str
        Of the feature set.
    digests : ndarray of uint8, shape (n, 32)
    values : ndarray of float16 or float32, shape (n, views, …)
    made_by : sequence of mapping
        Library versions and devices that computed them.
    supersedes : sequence of str
        Names of the segments that this one replaces.
    """
    meta = {"fingerprint": fingerprint, "made_by": [dict(each) for each in made_by], "supersedes": list(supersedes)}
    return segment.encode("features", meta, {"digest": digests, "values": values})


def to_stored(values: NDArray[np.float32], spec: FeatureSpec) -> NDArray[Any]:
    """Convert embeddings to the stored dtype.

    Raises
    ------
    BankError
        When a value is not finite, or float16 cannot hold it.
    """
    if not np.isfinite(values).all():
        raise BankError(f"{spec.name} gave values that are not finite; expected numbers: check the weights")
    with np.errstate(over="ignore"):
        stored = np.ascontiguousarray(values.astype("<f2" if spec.store == "float16" else "<f4"))
    if not np.isfinite(stored).all():
        raise BankError(
            f"{spec.name} gave {np.abs(values).max():.6g}, more than float16 holds (65504): use --store float32"
        )
    return stored


def as_loaded(values: NDArray[np.float32], spec: FeatureSpec, views: str = "mean") -> NDArray[np.float32]:
    """Return embeddings as `FeatureSet.read` would give them back, rounded to the stored dtype, as flat rows.

    Parameters
    ----------
    values : ndarray of float32, shape (n, views, …)
    spec : FeatureSpec
    views : str, default "mean"
        ``"mean"`` over the views, the ``"first"`` (the identity), or ``"all"`` side by side.

    Returns
    -------
    ndarray of float32, shape (n, d), or (n, views * d) for ``"all"``

    Raises
    ------
    BankError
        When the bank would refuse them; see `to_stored`.
    """
    stored = to_stored(values, spec)
    kept = _reduce(stored.reshape(*stored.shape[:2], -1), views)
    return kept.reshape(len(kept), -1).astype(np.float32)


@dataclass(frozen=True)
class FeatureSet:
    """All rows of one feature spec in a bank.

    Attributes
    ----------
    spec : FeatureSpec
        What decided the numbers.
    name : str
        Its name in this bank, with ``@PREFIX`` where the short name fits several sets.
    segments : tuple of Segment
        The files that hold its rows.
    """

    spec: FeatureSpec
    name: str
    segments: tuple[Segment, ...]
    _opened: dict[int, NDArray[Any]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the spec."""
        return self.spec.fingerprint

    @property
    def rows(self) -> int:
        """Number of distinct contents that have an embedding."""
        return len(self._index)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one row: (views, …); empty when there are no rows."""
        return self.segments[0].shape("values")[1:] if self.segments else ()

    @property
    def dtype(self) -> str:
        """Stored dtype."""
        return self.spec.store

    @property
    def made_by(self) -> list[dict[str, str]]:
        """Library versions and devices that computed the rows, each once."""
        return made_by(self.segments)

    @property
    def width(self) -> int:
        """Number of values of one view."""
        return int(np.prod(self.shape[1:], dtype=int))

    def to_dict(self) -> dict[str, Any]:
        """Return the facts of a feature set that commands print."""
        return {
            "name": self.name,
            "fingerprint": self.fingerprint,
            "rows": self.rows,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "views": self.spec.views,
            "precision": self.spec.precision,
            "decoder": self.spec.preprocessing.get("decoder", "pil"),
            "fit": self.spec.preprocessing.get("framing", "crop"),
            "origin": self.spec.origin,
            "made_by": self.made_by,
        }

    @property
    def digests(self) -> NDArray[np.bytes_]:
        """The distinct contents that have an embedding, sorted."""
        return np.sort(self._index.keys[self._index.first])

    @cached_property
    def _index(self) -> DigestIndex:
        """The distinct digests, each at its first position in the stack of all segments."""
        stacked = [as_keys(digests) for digests in segment.read_each(self.segments, "digest")]
        return DigestIndex(np.concatenate(stacked) if stacked else np.empty(0, "S32"))

    def find(self, digests: NDArray[np.bytes_]) -> NDArray[np.int64]:
        """Return the stacked position of each digest, -1 where the set has no such row.

        Parameters
        ----------
        digests : ndarray of S32, shape (n,)
            From `as_keys`.
        """
        return self._index.find(digests)

    def read(self, digests: NDArray[np.bytes_], views: str = "mean") -> NDArray[np.float32]:
        """Return the embeddings of these contents, in their order.

        Parameters
        ----------
        digests : ndarray of S32, shape (n,)
            From `as_keys`; repeats are fine.
        views : str, default "mean"
            ``"mean"`` over the views, the ``"first"`` (the identity), or ``"all"``.

        Returns
        -------
        ndarray of float32, shape (n, d), or (n, views, d) for ``"all"``

        Raises
        ------
        BankError
            When a digest has no row.
        """
        check_views(views)
        found = self.find(digests)
        if (found < 0).any():
            if self.spec.origin is not None:
                raise BankError(
                    f"{int((found < 0).sum())} of {len(found)} samples have no row: {self.spec.about_origin}; import a "
                    "file that has them"
                )
            views_too = f" --views {self.spec.views}" if self.spec.views != "none" else ""
            views_too += f" --fit {framing}" if (framing := self.spec.preprocessing.get("framing")) else ""
            raise BankError(
                f"{int((found < 0).sum())} of {len(found)} samples have no row in {self.name!r}: run extract again "
                f"with --backbone {self.spec.backbone} --layer {self.spec.layer_name}{views_too}"
            )
        return self.gather(found, views)

    def gather(self, found: NDArray[np.int64], views: str = "mean") -> NDArray[np.float32]:
        """Return the embeddings at stacked positions (`find`), in their order; see `read`.

        Segments are checked, read and converted straight from the file into the result, large results in threads.
        """
        tail = (self.shape[0], self.width) if views == "all" else (self.width,)
        out = np.empty((len(found), *tail), np.float32)
        ends = np.cumsum([0, *(file.shape("digest")[0] for file in self.segments)])
        order = np.argsort(found, kind="stable")
        edges = np.searchsorted(found[order], ends)

        def fill(number: int) -> None:
            here = order[edges[number] : edges[number + 1]]
            rows = self._values(number)[_as_slice(found[here] - ends[number])]  # (rows, views, d)
            out[_as_slice(here)] = _reduce(rows, views)

        wanted = [number for number in range(len(self.segments)) if edges[number] < edges[number + 1]]
        deque(map(fill, wanted) if out.nbytes < PARALLEL_BYTES else read_ahead(fill, wanted), maxlen=0)
        return out

    def close(self) -> None:
        """Let go of the files that are mapped into memory, and of their digests; what is needed is read again."""
        self._opened.clear()
        self.__dict__.pop("_index", None)

    def _values(self, number: int) -> NDArray[Any]:
        """Return a segment's rows, memory-mapped once, shape (rows, views, d)."""
        if number not in self._opened:
            file = self.segments[number]
            rows = file.read("values").view(np.ndarray)  # a memmap's own class makes every slice slower
            self._opened[number] = rows.reshape(len(rows), self.shape[0], self.width)
        return self._opened[number]


class DigestIndex:
    """Where each distinct digest comes first.

    Digests are sorted by their last eight bytes, which differ where digests do; made-up ones that share them are
    sorted whole.

    Parameters
    ----------
    keys : ndarray of S32, shape (n,)
        From `as_keys`.

    Examples
    --------
    >>> index = DigestIndex(as_keys([b"b" * 32, b"a" * 32, b"b" * 32]))
    >>> len(index), index.first.tolist(), index.find(as_keys([b"a" * 32, b"c" * 32])).tolist()
    (2, [0, 1], [1, -1])
    """

    def __init__(self, keys: NDArray[np.bytes_]):
        self.keys = keys
        tails = _tails(keys)
        order = np.argsort(tails)  # not a stable one, which takes four times as long
        is_new = np.append(True, tails[order[1:]] != tails[order[:-1]])[: len(keys)]
        again = np.flatnonzero(~is_new)
        self._is_whole = bool((keys[order[again]] != keys[order[again - 1]]).any())
        firsts = np.minimum.reduceat(order, np.flatnonzero(is_new))
        self._first = np.unique(keys, return_index=True)[1] if self._is_whole else firsts
        self._sorted = self._sortable(keys)[self._first]

    def __len__(self) -> int:
        return len(self._first)

    @property
    def first(self) -> NDArray[np.int64]:
        """The first position of each distinct digest, ascending."""
        return np.sort(self._first)

    def find(self, digests: NDArray[np.bytes_]) -> NDArray[np.int64]:
        """Return the first position of each digest, -1 where there is none, shape (n,)."""
        if not len(self._first):
            return np.full(len(digests), -1)
        places = self._places(digests)
        return np.where(self.keys[places] == digests, places, -1)

    def _places(self, digests: NDArray[np.bytes_]) -> NDArray[np.int64]:
        """Return the only position where each digest can be."""
        sought, slots = self._sortable(digests), np.empty(len(digests), np.int64)
        order = np.argsort(sought)  # one after the other they are near to each other in memory
        slots[order] = np.searchsorted(self._sorted, sought[order])
        return self._first[np.minimum(slots, len(self._first) - 1)]

    def _sortable(self, digests: NDArray[np.bytes_]) -> NDArray[Any]:
        return digests if self._is_whole else _tails(digests)


def _tails(keys: NDArray[np.bytes_]) -> NDArray[np.uint64]:
    return np.ascontiguousarray(np.ascontiguousarray(keys).view("<u8")[3::4])


def _as_slice(positions: NDArray[np.int64]) -> NDArray[np.int64] | slice:
    """Return positions as a slice where they are consecutive: what it takes is not copied first."""
    first, last = int(positions[0]), int(positions[-1])
    is_run = last - first == len(positions) - 1 and bool((np.diff(positions) == 1).all())
    return slice(first, last + 1) if is_run else positions


def check_views(views: str) -> None:
    """Refuse an unknown way to reduce views.

    Raises
    ------
    BankError
        When it is none of `VIEWS`.
    """
    if views not in VIEWS:
        raise BankError(f"views={views!r}; expected one of {', '.join(VIEWS)}")


def _reduce(rows: NDArray[Any], views: str) -> NDArray[Any]:
    """Reduce (n, views, d) over the views."""
    if views == "all":
        return rows
    if views == "first" or rows.shape[1] == 1:
        return rows[:, 0]
    return rows.mean(axis=1, dtype=np.float32)


def made_by(segments: Iterable[Segment]) -> list[dict[str, str]]:
    """Return the library versions and devices that computed the rows of some segments, each once."""
    found = [each for file in segments for each in file.meta.get("made_by", [])]
    return [each for number, each in enumerate(found) if each not in found[:number]]


def as_keys(digests: Any) -> NDArray[np.bytes_]:
    """Return digests as an array that sorts and compares whole, shape (n,), dtype S32.

    Parameters
    ----------
    digests : ndarray of uint8, shape (n, 32), iterable of bytes of length 32, or a `SampleTable`'s column of them
    """
    if isinstance(digests, np.ndarray):
        return np.ascontiguousarray(digests).view("S32").reshape(-1)
    whole = one_array(digests, pa.binary(32))
    return np.frombuffer(whole.buffers()[1], "S32", len(whole), 32 * whole.offset) if len(whole) else np.empty(0, "S32")


def check_segments(segments: Iterable[Segment], fingerprint: str) -> None:
    """Refuse segments that are not all of one feature set.

    Raises
    ------
    CorruptError
        When a segment belongs to another set, lacks an array, or its rows have another shape or dtype.
    """
    first: tuple[Any, ...] | None = None
    for file in segments:
        values, digest = file.shape("values"), file.shape("digest")
        if set(file.names) != {"digest", "values"} or digest != (values[0], 32) or len(values) < 3:
            raise segment.corrupt(file.path, "its arrays are not those of a feature segment")
        if file.meta.get("fingerprint") != fingerprint:
            raise segment.corrupt(file.path, "it belongs to another feature set")
        own = (values[1:], file.dtype("values"))
        first = first or own
        if own != first:
            raise segment.corrupt(file.path, f"its rows are {own}, those of the feature set {first}")
