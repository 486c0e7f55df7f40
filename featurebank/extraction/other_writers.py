"""Other writers: what other processes write to a bank's sample table while a run goes on."""

from __future__ import annotations

from collections.abc import Set

import numpy as np
from numpy.typing import NDArray

from featurebank.bank import sample_segments, samples
from featurebank.bank.bank import Bank
from featurebank.bank.samples import SampleTable
from featurebank.images.sources import Source


class OtherWriters:
    """What was written to the sample table since a run began; each new segment is read once, and no other.

    Parameters
    ----------
    bank : Bank
    source : Source
        The samples of the run.
    table : SampleTable
        The one before the run.
    seen : set of str
        Names of the segments that are never read: of those that table was read from, to begin with.
    before : ndarray of int64, shape (n,)
        Row of each sample in it, -1 for none.
    committed : ndarray of bool, shape (n,)
        Whose rows the run has written; the caller changes it.

    Attributes
    ----------
    seen : set of str
        Names of the segments that are not read any more.
    newest : int
        The highest stamp that was seen.
    """

    def __init__(
        self,
        bank: Bank,
        source: Source,
        table: SampleTable,
        seen: Set[str],
        before: NDArray[np.int64],
        committed: NDArray[np.bool_],
    ):
        self.bank, self.source, self.committed = bank, source, committed
        self.newest = table.newest_stamp
        self.seen = set(seen)
        self._tables = [table]
        self._number = np.zeros(len(source.paths), np.int64)  # the table that has a sample's row
        self._row = before.copy()
        self._positions: dict[bytes, int] = {}

    def read(self) -> None:
        """Read the segments that are new since the last time."""
        for file in self.bank.sample_segments():
            if file.path.name not in self.seen:
                self.seen.add(file.path.name)
                self._take(sample_segments.decode_table(file))

    def _take(self, table: SampleTable) -> None:
        """Remember where a table has newer rows of samples that are still to be written."""
        self.newest = max(self.newest, table.newest_stamp)
        self._positions = self._positions or {path: i for i, path in enumerate(self.source.paths)}
        own = np.flatnonzero(table.rows["source"].to_numpy() == self.source.name)
        there = [self._positions.get(path, -1) for path in table.rows["path"].to_numpy()[own]]
        positions, stamps = np.array(there, np.int64), table.rows["stamp"].to_numpy()[own]
        is_wanted = (positions >= 0) & ~self.committed[positions]
        is_wanted &= stamps >= self._stamps(positions)
        positions, rows = positions[is_wanted], own[is_wanted]
        if len(rows):
            self._number[positions], self._row[positions] = len(self._tables), rows
            self._tables.append(table)

    def _stamps(self, positions: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Return the stamps of the newest rows that are known of some samples, 0 for none."""
        stamps = np.zeros(len(positions), np.uint64)
        for number, table in enumerate(self._tables):
            here = (self._number[positions] == number) & (self._row[positions] >= 0)
            stamps[here] = table.rows["stamp"].to_numpy()[self._row[positions[here]]]
        return stamps

    def rows_now(self, which: NDArray[np.int64]) -> tuple[NDArray[np.bool_], SampleTable | None]:
        """Say which samples have a row, and return the newest of each; None where no sample has one.

        The row of a sample that has none is that of another.
        """
        is_known = self._row[which] >= 0
        if not is_known.any():
            return is_known, None
        known = which[is_known]
        used = np.unique(self._number[known])
        parts = [known[self._number[known] == number] for number in used]
        stacked = samples.stack([self._tables[n].take(self._row[part]) for n, part in zip(used, parts, strict=True)])
        place = np.zeros(len(self._row), np.int64)
        place[np.concatenate(parts)] = np.arange(len(known))
        return is_known, stacked.take(place[which])
