"""Activations at the cut, kept in the bank: a feature set like any other, read row by row while a network trains."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from random import Random
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featurebank.backbones.base import Backbone
from featurebank.backbones.capture import Capture
from featurebank.backbones.preprocessing import Preprocessing
from featurebank.backbones.request import Request
from featurebank.bank.bank import Bank
from featurebank.bank.features import FeatureSet, as_keys
from featurebank.errors import ImageError, counted
from featurebank.extraction.pipeline import Compute, Pipeline
from featurebank.extraction.tracker import Tracker
from featurebank.finetuning.augmentation import parse
from featurebank.finetuning.cut import layer_at
from featurebank.images.reading import Progress, naming, read_ahead
from featurebank.images.sources import Source
from featurebank.images.views import MAX_VIEWS, count_views, make_views
from featurebank.storage import files

Rows = NDArray[np.int64]
Plan = Iterable[tuple[Rows, Rows]]
"""Batches: numbers of the images, and of the view of each."""


class Activations(Protocol):
    """Where the rows come from: activations in a bank, or live images."""

    views: int

    def __len__(self) -> int: ...

    def draw(self, random: np.random.Generator, count: int) -> Rows:
        """Draw what is done to each of `count` images: the number of a view, or a seed."""

    def stream(self, plan: Plan) -> Iterator[Tensor]:
        """Yield a batch, float32 of shape (n, …), for each pair of rows and draws."""


class CachedActivations:
    """The activations of images, and of their views, from a feature set of a layer without pooling.

    The images have the numbers of their places in `digests`, 32 bytes each.

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
        self._values = [file.read("values").view(np.ndarray) for file in stored.segments]  # (rows, views, …)
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
            parts = zip(self._segment[rows], self._row[rows], views, strict=True)
            stored = np.stack([self._values[segment][row, view] for segment, row, view in parts])
            yield torch.from_numpy(stored).float()


def split(values: NDArray[Any], size: int) -> list[NDArray[Any]]:
    """Cut an array into parts of a size, the last one smaller.

    Examples
    --------
    >>> split(np.arange(5), 2)
    [array([0, 1]), array([2, 3]), array([4])]
    """
    return [values[start : start + size] for start in range(0, len(values), size)]


def digests_of(source: Source) -> list[bytes]:
    """Read every sample of a source and return its content digest.

    Raises
    ------
    ImageError
        When one cannot be read.
    """
    digests = []
    for position, path in enumerate(source.paths):
        with naming(os.fsdecode(path)):
            digests.append(source.read(position)[0])
    return digests


def fill(
    bank: Bank,
    request: Request,
    source: Source,
    digests: Sequence[bytes],
    compute: Compute,
    progress: Progress | None = None,
) -> list[str]:
    """Compute the rows of one layer that a bank lacks, and no samples; return what the reader should know.

    Raises
    ------
    ImageError
        When an image of the source cannot be read, or its content is no longer the one in `digests`.
    """
    (spec,) = request.specs(bank)
    if not bank.missing(spec, digests):
        return []
    request.register(bank)
    with files.locked(bank.feature_folder(spec) / ".lock"):  # of workers that want the same, the first computes it
        first = {digest: position for position, digest in reversed(list(enumerate(digests)))}
        positions = sorted(first[digest] for digest in bank.missing(spec, digests))
        if not positions:
            return []
        tracker = _RowsOnly(source.take(positions), bank, [spec], verify=True)
        done = itertools.count(1)
        pipeline = Pipeline(request, tracker, compute, lambda: progress and progress(next(done), len(positions)))
        pipeline.run(range(len(positions)))
        _check_read(tracker, [digests[position] for position in positions])
        return pipeline.warnings


class _RowsOnly(Tracker):
    """Knows what became of each sample, and writes nothing about it into the bank."""

    def commit_samples(self) -> None:
        """Do nothing: the samples are there already, or are no samples of the bank."""


def _check_read(tracker: Tracker, expected: Sequence[bytes]) -> None:
    changed = "changed since it was extracted: run `featurebank extract` again"
    errors = [
        (path, error or changed)
        for path, error, digest, known in zip(
            tracker.source.paths, tracker.errors, tracker.digests, expected, strict=True
        )
        if error or digest != known
    ]
    if errors:
        path, error = errors[0]
        raise ImageError(
            f"{len(errors)} of {counted(len(expected), 'image')} cannot be used; {os.fsdecode(path)!r}: {error}"
        )


AHEAD = 3
"""Batches that may lie ready before the network."""
_SEEDS = 1 << 48


class LiveActivations:
    """The input of the module at the cut for images that are read when they are needed.

    What is done to an image is a number: below `views` it is that fixed view, the same as in a bank; from
    `featurebank.images.views.MAX_VIEWS` on it is the seed of a random change. The frozen part runs without gradients.

    Parameters
    ----------
    backbone : Backbone
    module : str
        From `featurebank.finetuning.cut.find_cut`; empty for the images themselves.
    source : Source
    digests : sequence of bytes
        The contents of the images, in the order of the source; a file that holds another one now is an error.
    augment : str
        See `featurebank.finetuning.augmentation.parse`.
    views : str
        The fixed views.
    """

    def __init__(
        self,
        backbone: Backbone,
        module: str,
        source: Source,
        digests: Sequence[bytes],
        *,
        augment: str,
        views: str,
        device: torch.device,
        workers: int | None,
    ):
        self.backbone, self.source, self.digests = backbone, source, list(digests)
        self.views = count_views(views)
        self._names, self._augment = views, parse(augment)
        self.device, self.workers = device, workers
        wanted = [(layer_at(backbone, module), "none")] if module else []
        self._capture = Capture(backbone.network_on(device), wanted) if module else None

    def __len__(self) -> int:
        return len(self.digests)

    def draw(self, random: np.random.Generator, count: int) -> Rows:
        """Draw the seed of a random change for each of `count` images."""
        return random.integers(MAX_VIEWS, _SEEDS, count)

    def stream(self, plan: Plan) -> Iterator[Tensor]:
        """Yield what goes in at the cut for each batch, float32 of shape (n, …), on the device."""
        plan = list(plan)
        draws = chain.from_iterable(zip(*batch, strict=True) for batch in plan)
        most = AHEAD * max((len(rows) for rows, _ in plan), default=1)
        prepared = read_ahead(lambda each: self._prepare(*map(int, each)), draws, workers=self.workers, most=most)
        for rows, _ in plan:
            yield self._run(list(islice(prepared, len(rows))))

    def _prepare(self, row: int, draw: int) -> Any:
        """Read one image and return the changed one, preprocessed."""
        with naming(os.fsdecode(self.source.paths[row])):
            digest, decode = self.source.read(row)
            if digest != self.digests[row]:
                raise ImageError("changed since it was extracted: run `featurebank extract` again")
            image = decode(**self.backbone.opening_on_cpu)
        if draw >= MAX_VIEWS:
            return self.backbone.prepare(self._augment(image.copy(), Random(digest + draw.to_bytes(8, "big"))))
        return self.backbone.prepare(next(islice(make_views(image, self._names, digest), draw, None)))

    def _run(self, prepared: list[Any]) -> Tensor:
        images = self._normalised(prepared).contiguous(memory_format=torch.channels_last)  # (n, 3, h, w)
        if self._capture is None:
            return images
        with torch.no_grad():
            return self._capture(images)[0]

    def _normalised(self, prepared: list[Any]) -> Tensor:
        preprocessing = self.backbone.preprocessing
        if not isinstance(preprocessing, Preprocessing):
            return torch.stack([image.detach().float() for image in prepared]).to(self.device)
        pixels: NDArray[np.uint8] = np.stack(prepared)  # (n, h, w, 3)
        scaled = torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2).float() / 255
        mean, std = (
            torch.tensor(values, device=self.device).view(1, 3, 1, 1)
            for values in (preprocessing.mean, preprocessing.std)
        )
        return (scaled - mean) / std
