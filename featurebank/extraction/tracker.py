"""The tracker of one extraction: what became of each sample of a source, and the sample rows that say so."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass, field
from functools import reduce
from itertools import compress
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featurebank.bank import repair_hints, samples
from featurebank.bank.bank import Bank
from featurebank.bank.features import FeatureSet, as_keys
from featurebank.bank.samples import FAILED, GONE, NO_DIGEST, OK, SampleTable
from featurebank.bank.spec import FeatureSpec
from featurebank.errors import BankError, counted, printable
from featurebank.extraction.other_writers import OtherWriters
from featurebank.images.columns import overlay, row_hashes
from featurebank.images.reading import Progress
from featurebank.images.sources import Source

Known = tuple[SampleTable, Set[str]]
"""What a bank knows of some samples, and the names of the segments of samples that say nothing else of them."""


@dataclass(repr=False)
class ExtractReport:
    """What one run of `extract` did.

    Attributes
    ----------
    samples, embedded, reused, failed : int
        ``samples == embedded + reused + failed``; `embedded` went through the network, or share their content
        with one that did in this run.
    gone : int
        Samples marked gone because the whole source no longer has them.
    failures : list of dict
        ``path`` and ``error`` of each unreadable image.
    ignored : dict of str to int
        Files left out because their suffix is not that of an image, by suffix, and folders that systems make, by name
        and a slash.
    notes : list of str
        What was understood of the source that its user may not expect.
    feature_sets : list of dict
        Name, fingerprint, rows, shape and dtype of each feature set asked for.
    labels : dict of str to int
        Samples of each class where the folders' names are the labels; ``""`` for those in no class folder.
    repaired : list of str
        Damaged files that were set aside, so that their rows were made again, and what that costs.
    warnings : list of str
        What the reader of the features should know.
    engines : list of str
        What computed: engine, device, batch size; empty when nothing was missing.
    readers : str
        What read and decoded: threads, with the reason, or processes.
    drift : list of dict
        At a reduced precision: how far each layer is from float32 (`featurebank.extraction.drift.Drift`).
    unseen : float, optional
        Share of the embedded images' area that the network never saw, on average (`extract`, ``framing``); None where
        nothing was embedded.
    seconds : float
        Wall time of the run.
    """

    samples: int = 0
    embedded: int = 0
    reused: int = 0
    failed: int = 0
    gone: int = 0
    failures: list[dict[str, str]] = field(default_factory=list)
    ignored: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    feature_sets: list[dict[str, Any]] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    repaired: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    engines: list[str] = field(default_factory=list)
    readers: str = ""
    drift: list[dict[str, Any]] = field(default_factory=list)
    unseen: float | None = None
    seconds: float = 0.0

    @property
    def images_per_second(self) -> float:
        """Embedded images a second of wall time."""
        return self.embedded / self.seconds if self.seconds else 0.0

    def about_failures(self) -> str:
        """Say how many images could not be read, and why the first of them."""
        count = f"{self.failed} of {self.samples}" if self.failed < self.samples else f"none of the {self.samples}"
        verb = "could not be read" if self.failed < self.samples else "could be read"
        first = self.failures[0]
        return f"{count} images {verb}; first: {printable(first['path'])}: {printable(first['error'])}"

    def __repr__(self) -> str:
        counts = f"{self.embedded} embedded, {self.reused} reused, {self.failed} failed"
        return f"ExtractReport({counted(self.samples, 'sample')}: {counts}, {self.seconds:.1f} s)"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that ``featurebank extract --json`` prints."""
        return {**self.__dict__, "images_per_second": self.images_per_second}


class Tracker:
    """What one run knows: the source, the sample table before it, and what became of each sample.

    Parameters
    ----------
    source : Source
        The samples to settle.
    bank : Bank
        Where their rows go.
    specs : sequence of FeatureSpec
        The feature sets that a settled sample has a row in.
    verify : bool
        Whether unchanged files are read again.
    known : tuple of (SampleTable, set of str), optional
        What the bank knows of the samples, and the names of the segments that need not be read for that any more; by
        default all its samples are read.
    sets : sequence of FeatureSet, optional
        The feature sets with the rows that they have; by default they are opened.
    """

    def __init__(
        self,
        source: Source,
        bank: Bank,
        specs: Sequence[FeatureSpec],
        verify: bool,
        *,
        known: Known | None = None,
        sets: Sequence[FeatureSet] | None = None,
    ):
        self.source = source
        self.bank = bank
        self.verify = verify
        count = len(source.paths)
        files = bank.sample_segments()
        self.table, seen = known or (bank.table_of(files), {file.path.name for file in files})
        self.before = self.table.find(source.name, source.paths)
        self.digests = np.full(count, NO_DIGEST, object)
        self.errors = np.full(count, "", object)
        self.done = np.zeros(count, bool)
        self.embedded = np.zeros(count, bool)
        self.committed = np.zeros(count, bool)
        self._others = OtherWriters(bank, source, self.table, seen, self.before, self.committed)
        self.row_hashes = row_hashes(source.columns)
        self.warnings: list[str] = []
        self.written: list[str] = []  # names of segments of samples
        self.specs = list(specs)
        self._sets = [bank.feature_set_of(spec) for spec in specs] if sets is None else list(sets)

    def lacking(self, digests: Sequence[bytes]) -> list[tuple[FeatureSpec, ...]]:
        """Return for each content the feature sets asked for that have no row of it."""
        keys = as_keys(digests)
        absent = np.array([each.find(keys) < 0 for each in self._sets])
        return [tuple(compress(self.specs, here)) for here in absent.T]

    def known(self) -> NDArray[np.bytes_]:
        """Return the digests of the contents that all feature sets asked for have a row of, sorted."""
        return reduce(np.intersect1d, [each.digests for each in self._sets])

    def pending(self) -> list[int]:
        """Return the samples to read; those whose file is unchanged and embedded are settled here."""
        known, same = self._known()
        old = self.table.rows.iloc[self.before[known]]
        digests, errors = old["digest"].to_numpy(), old["error"].to_numpy()
        keys = as_keys(old["digest"])
        present = np.logical_and.reduce([each.find(keys) >= 0 for each in self._sets])
        failed = errors != ""
        undecodable = failed & (digests != NO_DIGEST)  # a file that could not even be read is tried again
        kept = same & (undecodable | (present & ~failed))
        here = known[kept]
        self.digests[here], self.errors[here], self.done[here] = digests[kept], errors[kept], True
        self.committed[here] = self._rows_stand(old[kept], here)
        return [int(position) for position in np.flatnonzero(~self.done)]

    def _rows_stand(self, old: pd.DataFrame, here: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Say which rows of unchanged files need no new one: nothing that the source says of them has changed."""
        status = np.where(old["error"].to_numpy() == "", OK, FAILED)
        stands: NDArray[np.bool_] = old["status"].to_numpy() == status
        stands &= old["row_hash"].to_numpy() == self.row_hashes[here]
        stands &= old["root"].to_numpy() == self.source.root
        return stands

    def unchanged(self) -> list[bytes]:
        """Return the digests of the readable samples whose file is as the table knows it."""
        known, same = self._known()
        old = self.table.rows.iloc[self.before[known[same]]]
        return [digest for digest, error in zip(old["digest"].to_numpy(), old["error"], strict=True) if not error]

    def _known(self) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the samples that the table knows, and whether the file of each is unchanged."""
        known = np.flatnonzero(self.before >= 0)
        old = self.table.rows.iloc[self.before[known]]
        same = old["size"].to_numpy() == self.source.sizes[known]
        same &= old["mtime_ns"].to_numpy() == self.source.mtimes[known]
        return known, same & (self.source.get_image is None) & (not self.verify)

    def settle(self, position: int | np.integer[Any], digest: bytes, error: str, *, embedded: bool = False) -> None:
        """Record what became of a sample."""
        self.digests[position], self.errors[position], self.embedded[position] = digest, error, embedded
        self.done[position] = True  # the last: from here on a thread may write it

    def part(self, positions: NDArray[np.int64]) -> tuple[Source, Known]:
        """Return some of the samples for another process to settle, and what is known of them."""
        before = self.before[positions]
        return self.source.take(positions), (self.table.take(before[before >= 0]), set(self._others.seen))

    def leave_out(self, segments: Iterable[str]) -> None:
        """Never read some segments of samples: those that this run wrote, here or elsewhere, of settled samples."""
        self._others.seen.update(segments)

    def read_back(self, positions: Sequence[int]) -> None:
        """Settle samples by the rows that other processes have written of them in this run.

        Raises
        ------
        BankError
            When the bank has no such rows.
        """
        which, table = np.asarray(positions, np.int64), self.bank.table
        found = table.find(self.source.name, [self.source.paths[i] for i in which])
        old = table.rows.iloc[found[found >= 0]]
        digests, errors, keys = old["digest"].to_numpy(), old["error"].to_numpy(), as_keys(old["digest"])
        is_read = errors == ""
        there = np.logical_and.reduce([self.bank.feature_set_of(spec).find(keys) >= 0 for spec in self.specs])
        lost = len(which) - int((there | ~is_read).sum())
        if lost:
            what = counted(lost, "sample that was embedded has", "samples that were embedded have")
            raise BankError(f"{what} no rows in the bank: run extract again")
        lacked = np.logical_or.reduce([each.find(keys) < 0 for each in self._sets])
        self.digests[which], self.errors[which], self.embedded[which] = digests, errors, lacked & is_read
        self.done[which] = self.committed[which] = True

    def updates(self, which: NDArray[np.int64] | None = None) -> tuple[SampleTable, int]:
        """Return the rows that differ from the bank's table as it is now, and that table's newest stamp.

        They are those of some settled samples, by default of all that have not been written.
        """
        self._others.read()
        which = self._unwritten() if which is None else which
        is_known, old = self._others.rows_now(which)
        fresh = self._rows(which)
        columns = self.source.columns.iloc[which].reset_index(drop=True)
        changed = np.ones(len(which), bool)
        if old is not None:
            said, known = old.rows["row_hash"].to_numpy(), old.columns
            same_columns = is_known & (said == self.row_hashes[which])
            if self.source.earlier is not None:
                earlier = self.source.earlier.iloc[which].reset_index(drop=True)
                said_earlier = is_known & (said == row_hashes(earlier))
                known, same_columns = _corrections(known, earlier, said_earlier), same_columns | said_earlier
            columns = _merge_columns(known, columns, is_known, same_columns)
            changed = ~is_known | _row_differs(old.rows, fresh)
        return SampleTable(fresh, columns).take(changed), self._others.newest

    def _rows(self, which: NDArray[np.int64]) -> pd.DataFrame:
        errors = [self.errors[i] for i in which]
        return samples.make_table(
            {
                "source": [self.source.name] * len(which),
                "root": [self.source.root] * len(which),
                "path": [self.source.paths[i] for i in which],
                "digest": [self.digests[i] for i in which],
                "size": self.source.sizes[which].tolist(),
                "mtime_ns": self.source.mtimes[which].tolist(),
                "status": [FAILED if error else OK for error in errors],
                "error": errors,
                "row_hash": self.row_hashes[which].tolist(),
                "stamp": [0] * len(which),
            },
            pd.DataFrame(index=range(len(which))),
        ).rows

    def commit_samples(self) -> None:
        """Write what became of the samples so far, under the bank's lock."""
        which = self._unwritten()  # others may be settled meanwhile: a thread writes while the next are embedded
        if not len(which):
            return
        with self.bank.locked():
            table, newest = self.updates(which)
            self.written += self.bank.add_samples(table, newest=newest)
            self.leave_out(self.written)
            self.committed[which] = True

    def _unwritten(self) -> NDArray[np.int64]:
        return np.flatnonzero(self.done & ~self.committed)

    def finish(self) -> None:
        """Write the last rows, and mark what is gone from a source that was listed whole."""
        self.commit_samples()
        if self.gone.any():
            with self.bank.locked():
                table = self.bank.table
                mask = self._gone_in(table)
                gone = table.take(mask)
                rows = gone.rows.assign(status=np.uint8(GONE))
                self.bank.add_samples(SampleTable(rows, gone.columns), newest=table.newest_stamp)

    @property
    def gone(self) -> NDArray[np.bool_]:
        """Rows of the table before this run that the whole source no longer has, shape (rows,)."""
        return self._gone_in(self.table)

    def _gone_in(self, table: SampleTable) -> NDArray[np.bool_]:
        if not self.source.whole:
            return np.zeros(len(table), bool)
        rows, here = table.rows, table.find(self.source.name, self.source.paths)
        gone: NDArray[np.bool_] = rows["source"].to_numpy() == self.source.name
        gone &= rows["status"].to_numpy() != GONE
        gone[here[here >= 0]] = False
        return gone

    def fill(self, report: ExtractReport) -> None:
        """Put into a report what became of the samples."""
        report.failures = [
            {"path": os.fsdecode(path), "error": error}
            for path, error in zip(self.source.paths, self.errors, strict=True)
            if error
        ]
        report.samples, report.embedded = len(self.source.paths), int(self.embedded.sum())
        report.failed = len(report.failures)
        report.reused = report.samples - report.embedded - report.failed
        report.gone, report.ignored = int(self.gone.sum()), self.source.ignored
        report.labels, report.notes, report.warnings = self.labels(), self.source.notes, self.warnings

    def labels(self) -> dict[str, int]:
        """Count the samples of each class folder, in the order of their names; empty for any other source."""
        if not self.source.class_folders:
            return {}
        return dict(sorted(Counter(self.source.columns["label"].fillna("")).items()))

    def about_missing_sources(self) -> list[str]:
        """Say which other sources of the bank are no longer there; see `featurebank.bank.repair_hints`."""
        contents = {digest for digest, error in zip(self.digests, self.errors, strict=True) if not error}
        root = self.source.root if repair_hints.is_named(self.source.name) else ""
        return repair_hints.about_missing_sources(self.bank, self.table, self.source.name, root, contents, self.specs)


def _corrections(old: pd.DataFrame, earlier: pd.DataFrame, said_earlier: NDArray[np.bool_]) -> pd.DataFrame:
    """Return the bank's columns without what an earlier release read of the source itself."""
    own = {name: said_earlier & (old[name].astype(object) == earlier[name]) for name in earlier if name in old}
    return old.assign(**{name: old[name].mask(is_own) for name, is_own in own.items()})


def _merge_columns(
    old: pd.DataFrame, new: pd.DataFrame, known: NDArray[np.bool_], same_columns: NDArray[np.bool_]
) -> pd.DataFrame:
    """Lay the source's columns over the bank's, except where the source said the same before (a label corrected
    since then stays corrected)."""
    kept = pd.DataFrame({name: old[name].where(known) for name in old.columns}, index=old.index)
    given = new.copy()
    for name in given.columns:
        if name in kept:
            given[name] = given[name].mask(same_columns & kept[name].notna().to_numpy())
    return overlay(kept, given)


def _row_differs(old: pd.DataFrame, new: pd.DataFrame) -> NDArray[np.bool_]:
    names = [name for name in samples.FIELDS if name != "stamp"]
    return np.logical_or.reduce([old[name].to_numpy() != new[name].to_numpy() for name in names])


Embed = Callable[[Tracker, Progress | None, ExtractReport], None]
"""What embeds the pending samples of a tracker, tells how far it is, and notes in the report how."""
