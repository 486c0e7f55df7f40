"""What keeps a bank healthy: verify, set damaged files aside, compact, prune."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurebank.bank import features, samples, segment
from featurebank.bank.bank import GRACE, Bank, newest_stamp, segment_name
from featurebank.bank.features import DigestIndex, as_keys
from featurebank.bank.samples import SampleTable
from featurebank.bank.segment import REMEDY, Segment
from featurebank.bank.spec import FeatureSpec
from featurebank.errors import BankError, CorruptError
from featurebank.storage import files as storage
from featurebank.storage.files import Place

MERGED_BYTES = 256 << 20

Damage = tuple[Place, CorruptError]
Keep = Callable[[NDArray[np.bytes_]], NDArray[np.bool_]]


# --- damage ------------------------------------------------------------------------------------------------


def verify(bank: Bank) -> list[dict[str, str]]:
    """Check every file of a bank, every byte.

    Returns
    -------
    list of dict
        ``file`` and ``problem`` (with the remedy) of each damaged file; empty when all is well.
    """
    found = [*_damaged_specs(bank), *_damaged_tables(bank), *_damaged_features(sorted(bank.path.glob("features/*")))]
    return [{"file": str(file), "problem": str(error)} for file, error in found]


def set_damaged_tables_aside(bank: Bank) -> list[str]:
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


def set_damaged_features_aside(bank: Bank, specs: Iterable[FeatureSpec]) -> list[str]:
    """Rename damaged segments of some feature sets to ``NAME.damaged``; see `set_damaged_tables_aside`."""
    return _set_aside(bank, _damaged_features(bank.feature_folder(spec) for spec in specs))


def _set_aside(bank: Bank, damage: Iterable[Damage]) -> list[str]:
    found = list(damage)
    if found:
        with bank.locked():
            for file, _ in found:
                storage.set_aside(file)
    return [_aftermath(file, error) for file, error in found]


def _aftermath(file: Place, error: CorruptError) -> str:
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
    reason = str(error).removesuffix(REMEDY).rstrip(":; ")
    return f"{reason}; set aside as {file.name + '.damaged'!r}: {then}"


def _damaged_specs(bank: Bank) -> Iterator[Damage]:
    """Yield each damaged spec with its error."""
    files: list[Place] = [*bank.path.glob("features/*/spec.json")]
    for file in sorted(files, key=str):
        yield from _check(bank.read_spec, file)


def _damaged_tables(bank: Bank) -> Iterator[Damage]:
    """Yield each damaged sample segment with its error."""
    for file in segment.segment_files(bank.path / "samples"):
        yield from _check(_check_samples, file)


def _damaged_features(folders: Iterable[Place]) -> Iterator[Damage]:
    """Yield each damaged segment of some feature sets with its error; they are hashed by a thread a core."""
    files = [file for folder in folders for file in segment.segment_files(folder)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for damage in pool.map(lambda file: list(_check(_check_features, file)), files):
            yield from damage


def _check_samples(file: Place) -> None:
    opened = segment.open_segment(file, "samples")
    opened.verify()
    samples.decode_table(opened)


def _check_features(file: Place) -> None:
    opened = segment.open_segment(file, "features")
    opened.verify()
    features.check_segments([opened], file.parent.name)


def _check(check: Callable[[Place], Any], file: Place) -> Iterator[Damage]:
    with suppress(FileNotFoundError):  # a compaction removed it meanwhile
        try:
            check(file)
        except CorruptError as error:
            yield file, error


# --- compaction --------------------------------------------------------------------------------------------


def compact(bank: Bank, *, grace: float = GRACE) -> dict[str, int]:
    """Merge small segments into larger ones, and remove the files that earlier merges replaced.

    A merged segment lists what it supersedes, so a reader never sees a row twice or not at all; the old files go
    once they have been superseded for `grace` seconds. Stamps of samples are preserved.

    Parameters
    ----------
    bank : Bank
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
            for files in _batches(each.segments):
                merged += _rewrite(bank.feature_folder(each.spec), each.fingerprint, files)
        return {"merged": merged, "removed": _remove_superseded(bank, grace)}


def prune(bank: Bank, *, grace: float = GRACE, source: str | os.PathLike[str] | None = None) -> dict[str, int]:
    """Drop embeddings of contents that no present sample has; a source that is named is marked gone before.

    Parameters
    ----------
    bank : Bank
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
        wanted = DigestIndex(as_keys(bank.select().rows["digest"]))

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


def _mark_gone(bank: Bank, source: str) -> int:
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
    bank.add_samples(SampleTable(gone, present.columns), newest=newest_stamp(table))
    return len(present)


def _compact_samples(bank: Bank) -> int:
    folder = bank.path / "samples"
    files = segment.list_segments(folder, "samples")
    if len(files) < 2:
        return 0
    table = samples.merge(samples.decode_table(file) for file in files)
    storage.commit(folder / segment_name(), samples.encode_table(table, _replaced(folder, files)))
    return len(files)


def _batches(files: Iterable[Segment]) -> Iterator[list[Segment]]:
    """Yield groups of at least two segments that together stay below `MERGED_BYTES`, the smallest first."""
    batch: list[Segment] = []
    size = 0
    for file in sorted(files, key=lambda file: file.path.stat().st_size):
        own = file.path.stat().st_size
        if size + own > MERGED_BYTES:
            if len(batch) > 1:
                yield batch
            batch, size = [], 0
        batch, size = [*batch, file], size + own
    if len(batch) > 1:
        yield batch


def _rewrite(folder: Place, fingerprint: str, files: list[Segment], keep: Keep | None = None) -> int:
    """Write the rows of some segments as one that supersedes them, each digest once; return how many files."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # each file's bytes are checked, by a thread a core
        stored = list(pool.map(lambda file: (file.read("digest"), file.read("values")), files))
    digests = np.concatenate([each for each, _ in stored])
    keys = as_keys(digests)
    rows = DigestIndex(keys).first
    rows = rows[keep(keys[rows])] if keep else rows
    values = np.concatenate([each for _, each in stored])
    if len(rows) < len(values):
        digests, values = digests[rows], values[rows]
    made_by = features.made_by(files)
    data = features.encode_stored(fingerprint, digests, values, made_by, _replaced(folder, files))
    storage.commit(folder / segment_name(), data)
    return len(files)


def _replaced(folder: Place, files: list[Segment]) -> list[str]:
    """Return the names of these segments and of what they superseded and is still there."""
    here = {path.name for path in segment.segment_files(folder)}
    names = {file.path.name for file in files}
    return sorted(names | {name for file in files for name in segment.superseded_by(file) if name in here})


def _remove_superseded(bank: Bank, grace: float) -> int:
    removed = 0
    for folder, kind in [(bank.path / "samples", "samples"), *((f, "features") for f in bank.path.glob("features/*"))]:
        for file in segment.list_segments(folder, kind):
            if _age(file.path) >= grace:
                old = [folder / name for name in segment.superseded_by(file) if "/" not in name]
                removed += sum(path.exists() for path in old)
                for path in old:
                    storage.remove(path)
        for path in folder.glob(f"{storage.TEMP_PREFIX}*"):  # left by a writer that was killed
            if _age(path) >= max(grace, GRACE):
                storage.remove(path)
    return removed


def _age(path: Place) -> float:
    """Return the seconds since a file was written; a store's clock may be ahead of ours."""
    return max(0.0, time.time() - path.stat().st_mtime)
