"""What other banks hold, copied into one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from featurebank.bank.folder import BankFolder
from featurebank.bank.segment import Segment
from featurebank.errors import BankError
from featurebank.images.reading import Progress, read_ahead
from featurebank.storage import files
from featurebank.storage.files import AnyPath

Copy = tuple[Segment, AnyPath]
"""A segment, and where it goes."""


def merge(
    bank: BankFolder,
    others: Sequence[str | os.PathLike[str] | BankFolder],
    *,
    progress: Progress | None = None,
) -> dict[str, int]:
    """Copy what other banks hold into a bank: feature sets, samples and their columns.

    Segments are immutable and their names unique, so a merge that was interrupted is finished by the same call, and
    one that is done costs nothing the second time. Of a sample that several banks have, the row that was written last
    wins; contents that several have are kept once by the next compaction.

    Parameters
    ----------
    bank : BankFolder
        It gets the rows; others may go on reading and writing it.
    others : sequence of path-like or BankFolder
        They stay as they are.
    progress : callable, optional
        Called with (files copied, files to copy).

    Returns
    -------
    dict
        ``copied`` files, their ``bytes``, and files that were ``there`` already.

    Raises
    ------
    BankError
        When there is no other bank, or one of them is the bank itself.
    CorruptError
        When a file of another bank is damaged; what was copied before is whole.
    StorageError
        When the file system refuses.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> merge(BankFolder.create(folder + "/all.bank"), [BankFolder.create(folder + "/one.bank")])
    {'copied': 0, 'bytes': 0, 'there': 0}
    """
    opened = [each if isinstance(each, BankFolder) else BankFolder(each) for each in others]
    if not opened:
        raise BankError("no bank to merge; name one at least")
    if any(files.is_same(each.path, bank.path) for each in opened):
        raise BankError(f"{str(bank.path)!r} is merged into itself; name other banks")
    samples = [copy for other in opened for copy in _samples(bank, other)]  # listed first, and copied last:
    features = [copy for other in opened for copy in _features(bank, other)]  # the rows that samples point at are there
    wanted = [_new(batch) for batch in (features, samples)]
    total = sum(map(len, wanted))
    sizes: list[int] = []
    for batch in wanted:
        for written in read_ahead(_copy, batch):
            sizes.append(written)
            if progress is not None:
                progress(len(sizes), total)
    for other in opened:
        for source in other.table.rows["source"].unique():
            if not bank.named_options(source):
                bank.keep_named_options(source, other.named_options(source))
    return {"copied": len(sizes), "bytes": sum(sizes), "there": len(features) + len(samples) - len(sizes)}


def _new(copies: list[Copy]) -> list[Copy]:
    """Return the copies that are not there yet, each once where several banks have it."""
    return [(file, to) for to, file in {to: file for file, to in copies}.items() if not to.exists()]


def _features(bank: BankFolder, other: BankFolder) -> Iterator[Copy]:
    for each in other.feature_sets:
        bank.add_spec(each.spec)
        for request in other.requests_of(each.spec):
            bank.add_spec(each.spec, request)
        for file in each.segments:
            yield file, bank.feature_folder(each.spec) / file.path.name


def _samples(bank: BankFolder, other: BankFolder) -> Iterator[Copy]:
    for file in other.sample_segments():
        yield file, bank.path / "samples" / file.path.name


def _copy(copy: Copy) -> int:
    """Check every byte of a segment and copy it; return its size."""
    file, to = copy
    try:
        file.verify()
        path = file.path
        data = np.memmap(path, "u1", "r").data if isinstance(path, Path) else memoryview(path.read_bytes())
    except FileNotFoundError as error:
        raise BankError(f"{str(file.path)!r} was replaced while it was read: try again") from error
    files.commit(to, data)
    return len(data)
