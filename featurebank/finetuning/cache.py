"""Activations at the cut, kept in the bank: a feature set like any other, read row by row while a network trains."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featurebank.bank.bank import Bank
from featurebank.bank.features import FeatureSet, as_keys
from featurebank.errors import ImageError
from featurebank.extraction.ledger import Ledger
from featurebank.extraction.pipeline import Compute, Pipeline
from featurebank.extraction.request import Ask
from featurebank.images.sources import Source
from featurebank.storage import files

Rows = NDArray[np.int64]
Plan = Iterable[tuple[Rows, Rows]]
"""Batches: numbers of the images, and of the view of each."""


class Cached:
    """The activations of images, and of their views, from a feature set of a bank.

    Parameters
    ----------
    stored : FeatureSet
        Of a layer without pooling.
    digests : sequence of n bytes of length 32
        The contents, in the order in which their numbers are used.

    Attributes
    ----------
    views : int
        Number of views of each image.

    Raises
    ------
    BankError
        When a content has no row.
    """

    def __init__(self, stored: FeatureSet, digests: Sequence[bytes]):
        keys = as_keys(digests)
        found = stored.find(keys)
        if (found < 0).any():
            stored.read(keys)  # whose error says what is missing, and what to run
        self.views = stored.shape[0]
        self._values = [_plain(file.read("values")) for file in stored.segments]  # each (rows, views, …)
        starts = np.cumsum([0, *map(len, self._values)])
        self._segment = np.searchsorted(starts, found, "right") - 1
        self._row = found - starts[self._segment]

    def __len__(self) -> int:
        return len(self._row)

    def draw(self, random: np.random.Generator, count: int) -> Rows:
        """Draw the number of a view for each of `count` images."""
        return random.integers(0, self.views, count)

    def stream(self, plan: Plan) -> Iterator[Tensor]:
        """Yield the activations of each batch, float32 of shape (n, …)."""
        for rows, views in plan:
            yield self.batch(rows, views)

    def batch(self, rows: Rows, views: Rows) -> Tensor:
        """Return one batch, float32 of shape (n, …)."""
        parts = zip(self._segment[rows], self._row[rows], views, strict=True)
        stored = np.stack([self._values[segment][row, view] for segment, row, view in parts])
        return torch.from_numpy(stored).float()


def digests_of(source: Source) -> list[bytes]:
    """Read every sample of a source and return its content digest.

    Raises
    ------
    ImageError
        When one cannot be read.
    """
    digests = []
    for position in range(len(source.paths)):
        try:
            digests.append(source.read(position)[0])
        except ImageError as error:
            raise ImageError(f"{os.fsdecode(source.paths[position])!r}: {error}") from error
    return digests


def fill(
    bank: Bank,
    wanted: Ask,
    source: Source,
    digests: Sequence[bytes],
    compute: Compute,
    progress: Callable[[int, int], None] | None = None,
) -> list[str]:
    """Compute the rows that a bank lacks; it gets feature rows, never samples.

    Parameters
    ----------
    bank : Bank
    wanted : Ask
        The backbone and one layer of it.
    source : Source
        Where the images can be read.
    digests : sequence of bytes
        The content of each sample of the source, as it was known before.
    compute : Compute
    progress : callable, optional
        Called with (images done, images in all).

    Returns
    -------
    list of str
        What the reader should know.

    Raises
    ------
    ImageError
        When an image cannot be read, or is no longer what it was.
    """
    (spec,) = wanted.specs(bank)
    if not bank.missing(spec, digests):
        return []
    wanted.register(bank)
    with files.locked(bank.feature_folder(spec) / ".lock"):  # of workers that want the same, the first computes it
        return _fill(bank, wanted, source, digests, compute, progress)


def _fill(
    bank: Bank,
    wanted: Ask,
    source: Source,
    digests: Sequence[bytes],
    compute: Compute,
    progress: Callable[[int, int], None] | None,
) -> list[str]:
    specs = wanted.specs(bank)
    first = {digest: position for position, digest in reversed(list(enumerate(digests)))}
    positions = sorted(first[digest] for digest in bank.missing(specs[0], digests))
    if not positions:
        return []
    ledger = _RowsOnly(source.take(positions), bank, specs, verify=True)
    done = itertools.count(1)
    pipeline = Pipeline(wanted, ledger, compute, lambda: progress and progress(next(done), len(positions)))
    pipeline.run(range(len(positions)))
    _check_read(ledger, [digests[position] for position in positions])
    return pipeline.warnings


class _RowsOnly(Ledger):
    """Knows what became of each sample, and writes nothing about it into the bank."""

    def commit_samples(self) -> None:
        """Do nothing: the samples are there already, or are no samples of the bank."""


def _check_read(ledger: Ledger, expected: Sequence[bytes]) -> None:
    changed = "changed since it was extracted: run `featurebank extract` again"
    errors = [
        (path, error or changed)
        for path, error, digest, known in zip(ledger.source.paths, ledger.errors, ledger.digests, expected, strict=True)
        if error or digest != known
    ]
    if errors:
        path, error = errors[0]
        raise ImageError(f"{len(errors)} of {len(expected)} images cannot be used; {os.fsdecode(path)!r}: {error}")


def bytes_needed(shape: Sequence[int], views: int, images: int, store: str) -> int:
    """Return the bytes on disk that the activations of images take.

    Examples
    --------
    >>> bytes_needed((112, 14, 14), 8, 1000, "float16")
    351232000
    """
    size: Any = np.dtype(store).itemsize
    return int(np.prod([*shape, views, images, size], dtype=np.int64))


def _plain(mapped: NDArray[Any]) -> NDArray[Any]:
    """Return a memory-mapped array without its class, which makes every slice slower."""
    return mapped.view(np.ndarray)
