"""What keeps a bank healthy: verify, set damaged files aside, compact, prune."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurebank.bank import features, sample_segments, samples, segment
from featurebank.bank.features import DigestIndex, as_keys
from featurebank.bank.folder import BankFolder
from featurebank.bank.samples import SampleTable
from featurebank.bank.segment import REPAIR_HINT, Segment
from featurebank.bank.spec import FeatureSpec
from featurebank.errors import BankError, CorruptError
from featurebank.images.reading import read_ahead
from featurebank.storage import files
from featurebank.storage.files import AnyPath

GRACE = 3600.0
"""Seconds that a superseded file stays for those who still read it."""
BRIEF = 60.0
"""Seconds that a superseded file of a few samples stays."""
MERGED_BYTES = 256 << 20

Damage = tuple[AnyPath, CorruptError]
Keep = Callable[[NDArray[np.bytes_]], NDArray[np.bool_]]


# --- damage ------------------------------------------------------------------------------------------------


def verify(bank: BankFolder) -> list[dict[str, str]]:
    """Check every file of a bank, every byte; see `featurebank.Bank.verify`."""
    found = [*_damaged_specs(bank), *_damaged_tables(bank), *_damaged_features(sorted(bank.path.glob("features/*")))]
    return [{"file": str(file), "problem": str(error)} for file, error in found]


def set_damaged_tables_aside(bank: BankFolder) -> list[str]:
    """Rename damaged sample segments and specs to ``NAME.damaged``, so that `extract` makes them again.

    Returns
    -------
    list of str
        What was damaged and what that costs, a line each.

    Raises
    ------
    StorageError
        When the file system refuses.
    """
    with suppress(CorruptError):
        _ = bank.table  # reads every byte of it, and is kept for whoever asks next
        return _set_aside(bank, _damaged_specs(bank))
    return _set_aside(bank, [*_damaged_specs(bank), *_damaged_tables(bank)])


def set_damaged_features_aside(bank: BankFolder, specs: Iterable[FeatureSpec]) -> list[str]:
    """Rename damaged segments of some feature sets to ``NAME.damaged``; see `set_damaged_tables_aside`."""
    return _set_aside(bank, _damaged_features(bank.feature_folder(spec) for spec in specs))


def _set_aside(bank: BankFolder, damage: Iterable[Damage]) -> list[str]:
    found = list(damage)
    if found:
        with bank.locked():
            for file, _ in found:
                files.set_aside(file)
    return [_aftermath(file, error) for file, error in found]


def _aftermath(file: AnyPath, error: CorruptError) -> str:
    """Say what was damaged, where it is now, and what becomes of what it held."""
    if file.parent.name == "samples":
        then = (
            "its samples are listed again when their sources are extracted; labels that were attached by hand and lay "
            "in it are lost: attach them again with `featurebank label`"
        )
    elif file.name == "spec.json":
        then = "it is written again when its feature set is asked for, and nothing is lost"
    else:
        then = "its rows are computed again from the images, when their sources are extracted; no label is lost"
    reason = str(error).removesuffix(REPAIR_HINT).rstrip(":; ")
    return f"{reason}; set aside as {file.name + '.damaged'!r}: {then}"


def _damaged_specs(bank: BankFolder) -> Iterator[Damage]:
    """Yield each damaged spec with its error."""
    paths: list[AnyPath] = [*bank.path.glob("features/*/spec.json")]
    for file in sorted(paths, key=str):
        yield from _check(bank.read_spec, file)


def _damaged_tables(bank: BankFolder) -> Iterator[Damage]:
    """Yield each damaged sample segment with its error."""
    for file in segment.segment_files(bank.path / "samples"):
        yield from _check(_check_samples, file)


def _damaged_features(folders: Iterable[AnyPath]) -> Iterator[Damage]:
    """Yield each damaged segment of some feature sets with its error; they are hashed by a thread a core."""
    paths = [file for folder in folders for file in segment.segment_files(folder)]
    for damage in read_ahead(lambda file: list(_check(_check_features, file)), paths):
        yield from damage


def _check_samples(file: AnyPath) -> None:
    opened = segment.open_segment(file, "samples")
    opened.verify()
    sample_segments.decode_table(opened)


def _check_features(file: AnyPath) -> None:
    opened = segment.open_segment(file, "features")
    opened.verify()
    features.check_segments([opened], file.parent.name)


def _check(check: Callable[[AnyPath], Any], file: AnyPath) -> Iterator[Damage]:
    with suppress(FileNotFoundError):  # a compaction removed it meanwhile
        try:
            check(file)
        except CorruptError as error:
            yield file, error


# --- compaction --------------------------------------------------------------------------------------------


def compact(bank: BankFolder, *, grace: float = GRACE) -> dict[str, int]:
    """Merge small segments into larger ones, and remove the files that earlier merges replaced.

    A merged segment lists what it supersedes, so a reader never sees a row twice or not at all; the old files go
    once they have been superseded for `grace` seconds. Stamps of samples are preserved.

    Parameters
    ----------
    bank : BankFolder
    grace : float, default 3600
        Seconds that a superseded file stays for those who still read it.

    Returns
    -------
    dict
        ``merged`` and ``removed``: how many files.

    Raises
    ------
    StorageError
        When the file system refuses; the bank is as it was.
    """
    with bank.locked():
        merged = _compact_samples(bank)
        for each in bank.feature_sets:
            for segments in _batches(each.segments):
                merged += _rewrite(bank.feature_folder(each.spec), each.fingerprint, segments)
        return {"merged": merged, "removed": _remove_superseded(bank, grace)}


def prune(bank: BankFolder, *, grace: float = GRACE, source: str | os.PathLike[str] | None = None) -> dict[str, int]:
    """Drop embeddings of contents that no present sample has; a source that is named is marked gone before.

    Parameters
    ----------
    bank : BankFolder
    grace : float, default 3600
        Segments younger than this many seconds are left alone: their samples may be on their way.
    source : path-like, optional
        A folder, a manifest or another key of a source that the bank is to forget. Its samples come back, with their
        labels, when it is extracted again.

    Returns
    -------
    dict
        ``rows`` dropped and superseded files ``removed``; with a source, the samples marked ``gone`` as well.

    Raises
    ------
    BankError
        When the bank has no such source.
    StorageError
        When the file system refuses; the bank is as it was.
    """
    with bank.locked():
        gone = {} if source is None else {"gone": _mark_gone(bank, os.fspath(source))}
        wanted = DigestIndex(as_keys(bank.table.readable().rows["digest"]))

        def keep(keys: NDArray[np.bytes_]) -> NDArray[np.bool_]:
            return wanted.find(keys) >= 0

        dropped = 0
        for each in bank.feature_sets:
            for file in each.segments:
                lost = int((~keep(as_keys(file.read("digest")))).sum())
                if lost and _age(file.path) >= grace:
                    _rewrite(bank.feature_folder(each.spec), each.fingerprint, [file], keep)
                    dropped += lost
        return {**gone, "rows": dropped, "removed": _remove_superseded(bank, grace)}


def _mark_gone(bank: BankFolder, source: str) -> int:
    """Mark every sample of a source gone, under the bank's lock; return how many were not."""
    table = bank.table
    known = sorted(set(table.rows["source"]))
    name = source if source in known else os.path.abspath(source)
    if name not in known:
        have = ", ".join(map(repr, known)) or "none"
        raise BankError(f"no source {source!r} in {str(bank.path)!r}; expected one of its own: {have}")
    rows = table.rows
    present = table.take(((rows["source"] == name) & (rows["status"] != samples.GONE)).to_numpy())
    gone = present.rows.assign(status=np.uint8(samples.GONE))
    bank.add_samples(SampleTable(gone, present.columns), newest=table.newest_stamp)
    return len(present)


def compact_small(bank: BankFolder, rows: int, *, grace: float = BRIEF) -> int:
    """Merge the sample segments of at most so many rows, as answers one by one leave them; the others stay.

    Parameters
    ----------
    bank : BankFolder
    rows : int
    grace : float, default 60
        Seconds that a superseded file of samples stays for those who still read it: a table is read in moments, and a
        reader who finds a file gone lists them again.

    Returns
    -------
    int
        How many files were merged.

    Raises
    ------
    StorageError
        When the file system refuses; the bank is as it was.
    """
    with bank.locked():
        found = segment.list_segments(bank.path / "samples", "samples")
        merged = _merge_samples(bank, [file for file in found if file.shape("stamp")[0] <= rows])
        _remove_replaced(bank.path / "samples", "samples", grace)
        return merged


def _compact_samples(bank: BankFolder) -> int:
    return _merge_samples(bank, segment.list_segments(bank.path / "samples", "samples"))


def _merge_samples(bank: BankFolder, segments: list[Segment]) -> int:
    """Write the newest rows of some sample segments as one that supersedes them; return how many files."""
    if len(segments) < 2:
        return 0
    folder = bank.path / "samples"
    table = samples.merge(sample_segments.decode_table(file) for file in segments)
    files.commit(folder / segment.new_name(), sample_segments.encode_table(table, _replaced(folder, segments)))
    return len(segments)


def _batches(segments: Iterable[Segment]) -> Iterator[list[Segment]]:
    """Yield groups of at least two segments that together stay below `MERGED_BYTES`, the smallest first."""
    batch: list[Segment] = []
    size = 0
    for file in sorted(segments, key=lambda file: file.path.stat().st_size):
        own = file.path.stat().st_size
        if size + own > MERGED_BYTES:
            if len(batch) > 1:
                yield batch
            batch, size = [], 0
        batch, size = [*batch, file], size + own
    if len(batch) > 1:
        yield batch


def _rewrite(folder: AnyPath, fingerprint: str, segments: list[Segment], keep: Keep | None = None) -> int:
    """Write the rows of some segments as one that supersedes them, each digest once; return how many files."""
    stored = list(read_ahead(lambda file: (file.read("digest"), file.read("values")), segments))  # checks every byte
    digests = np.concatenate([each for each, _ in stored])
    keys = as_keys(digests)
    rows = DigestIndex(keys).first
    rows = rows[keep(keys[rows])] if keep else rows
    values = np.concatenate([each for _, each in stored])
    if len(rows) < len(values):
        digests, values = digests[rows], values[rows]
    made_by = features.made_by(segments)
    data = features.encode_stored(fingerprint, digests, values, made_by, _replaced(folder, segments))
    files.commit(folder / segment.new_name(), data)
    return len(segments)


def _replaced(folder: AnyPath, segments: list[Segment]) -> list[str]:
    """Return the names of these segments and of what they superseded and is still there."""
    here = {path.name for path in segment.segment_files(folder)}
    names = {file.path.name for file in segments}
    return sorted(names | {name for file in segments for name in segment.superseded_by(file) if name in here})


def _remove_superseded(bank: BankFolder, grace: float) -> int:
    folders = [(bank.path / "samples", "samples"), *((f, "features") for f in bank.path.glob("features/*"))]
    return sum(_remove_replaced(folder, kind, grace) for folder, kind in folders)


def _remove_replaced(folder: AnyPath, kind: str, grace: float) -> int:
    """Remove the files of a folder that were superseded, and what killed writers left; return how many of the first."""
    removed = 0
    for file in segment.list_segments(folder, kind):
        if _age(file.path) >= grace:
            old = [folder / name for name in segment.superseded_by(file) if "/" not in name]
            removed += sum(path.exists() for path in old)
            for path in old:
                files.remove(path)
    for path in folder.glob(f"{files.TEMP_PREFIX}*"):  # left by a writer that was killed
        if _age(path) >= max(grace, GRACE):
            files.remove(path)
    return removed


def _age(path: AnyPath) -> float:
    """Return the seconds since a file was written; a store's clock may be ahead of ours."""
    return max(0.0, time.time() - path.stat().st_mtime)
