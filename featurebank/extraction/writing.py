"""Writing beside computing: rows become segments in a thread, features before the samples that point at them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurebank.bank.features import to_stored
from featurebank.bank.spec import FeatureSpec
from featurebank.extraction.tracker import Tracker

SEGMENT_BYTES = 256 << 20
SEGMENT_SECONDS = 30.0
IN_FLIGHT = 2
"""Segments that may be written, or wait for it, beside the one that is being filled."""
SMALL = 1 << 20
"""Bytes up to which rows are written at once: that takes no longer than a batch."""


@dataclass
class _Collected:
    """Rows of each feature set in their stored dtype, and the samples whose rows they complete."""

    rows: dict[FeatureSpec, tuple[list[bytes], list[NDArray[Any]]]] = field(default_factory=dict)
    settled: list[tuple[int, bytes]] = field(default_factory=list)
    made_by: Mapping[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of the largest feature set's rows."""
        return max((sum(batch.nbytes for batch in batches) for _, batches in self.rows.values()), default=0)


class Writer:
    """Collects rows and writes them as segments, one after the other, in a thread of its own.

    What goes wrong there is raised at the next call. Whoever has a writer closes it.

    Parameters
    ----------
    tracker : Tracker
        Its bank takes the rows; it is told of each sample that is settled by them.
    rows : int
        Samples at which a segment is written.
    early : bool, default False
        Whether the first rows are written at once, and the next after a second, then two, four …, up to the seconds at
        which a segment is written.
    """

    def __init__(self, tracker: Tracker, rows: int, *, early: bool = False):
        self.tracker = tracker
        self.rows = rows
        self._seconds = 0.0 if early else SEGMENT_SECONDS
        self._collected = _Collected()
        self._since = time.monotonic()
        self._thread: ThreadPoolExecutor | None = None
        self._in_flight: deque[Future[None]] = deque()

    def add(
        self, spec: FeatureSpec, digests: Sequence[bytes], output: NDArray[np.float32], made_by: Mapping[str, str]
    ) -> None:
        """Take rows of one feature set, shape (n, views, …)."""
        stored = to_stored(output, spec)  # may refuse them, and then nothing has been taken
        self._collected.made_by = made_by
        keys, batches = self._collected.rows.setdefault(spec, ([], []))
        batches.append(stored)
        keys += digests

    def settle(self, samples: Sequence[tuple[int, bytes]]) -> None:
        """Take the positions and digests of samples whose rows have all been added; write when there is enough."""
        self._collected.settled += samples
        late = time.monotonic() - self._since > self._seconds
        if len(self._collected.settled) >= self.rows or self._collected.size >= SEGMENT_BYTES or late:
            self.flush()
        self._wait(IN_FLIGHT)

    def flush(self) -> None:
        """Have written what has been collected; a few rows are written when this returns."""
        collected, self._collected = self._collected, _Collected()
        self._since, self._seconds = time.monotonic(), min(SEGMENT_SECONDS, max(1.0, 2 * self._seconds))
        if collected.size <= SMALL and not self._in_flight:
            self._write(collected)
            return
        self._wait(IN_FLIGHT - 1)
        self._thread = self._thread or ThreadPoolExecutor(1, "featurebank-write")
        self._in_flight.append(self._thread.submit(self._write, collected))

    def close(self) -> None:
        """Write the rest, and wait until all is written."""
        try:
            self.flush()
            self._wait(0)
        finally:
            if self._thread is not None:
                self._thread.shutdown()
                self._thread = None

    def _wait(self, most: int) -> None:
        """Wait until so many segments at most are in flight; raise what went wrong with one that is done."""
        while self._in_flight and (len(self._in_flight) > most or self._in_flight[0].done()):
            self._in_flight.popleft().result()

    def _write(self, collected: _Collected) -> None:
        for spec, (digests, batches) in collected.rows.items():
            self.tracker.bank.add_stored(spec, digests, np.concatenate(batches), collected.made_by)
        for position, digest in collected.settled:
            self.tracker.settle(position, digest, "", embedded=True)
        if collected.settled:
            self.tracker.commit_samples()
