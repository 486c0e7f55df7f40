"""Rows on their way into a bank: collected, and written as segments before they grow old or many."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurebank.bank.features import to_stored
from featurebank.bank.spec import FeatureSpec
from featurebank.extraction.ledger import Ledger

SEGMENT_ROWS = 4096
SEGMENT_BYTES = 256 << 20
SEGMENT_SECONDS = 30.0


class Writer:
    """Collects rows and writes them as segments, features before the samples that point at them.

    Parameters
    ----------
    ledger : Ledger
        Its bank takes the rows; it is told of each sample that is settled by them.
    """

    def __init__(self, ledger: Ledger):
        self.ledger = ledger
        self._rows: dict[FeatureSpec, tuple[list[bytes], list[NDArray[Any]]]] = {}
        self._settled: list[tuple[int, bytes]] = []
        self._made_by: Mapping[str, str] = {}
        self._since = time.monotonic()

    def add(
        self, spec: FeatureSpec, digests: Sequence[bytes], output: NDArray[np.float32], made_by: Mapping[str, str]
    ) -> None:
        """Take rows of one feature set, shape (n, views, …)."""
        stored = to_stored(output, spec)  # may refuse them, and then nothing has been taken
        self._made_by = made_by
        keys, batches = self._rows.setdefault(spec, ([], []))
        batches.append(stored)
        keys += digests

    def settle(self, samples: Sequence[tuple[int, bytes]]) -> None:
        """Take the positions and digests of samples whose rows have all been added; write when there is enough."""
        self._settled += samples
        size = max(sum(batch.nbytes for batch in batches) for _, batches in self._rows.values())
        late = time.monotonic() - self._since > SEGMENT_SECONDS
        if len(self._settled) >= SEGMENT_ROWS or size >= SEGMENT_BYTES or late:
            self.flush()

    def flush(self) -> None:
        """Write what has been collected."""
        for spec, (digests, batches) in self._rows.items():
            self.ledger.bank.add_features(spec, digests, np.concatenate(batches), self._made_by)
        for position, digest in self._settled:
            self.ledger.settle(position, digest, "", embedded=True)
        if self._settled:
            self.ledger.commit_samples()
        self._rows, self._settled = {}, []
        self._since = time.monotonic()
