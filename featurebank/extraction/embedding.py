"""Images to embeddings for those who keep no samples: extractors and predictors read and compute as `extract` does."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featurebank.backbones.batches import pinned
from featurebank.bank.samples import NO_DIGEST
from featurebank.errors import ImageError
from featurebank.extraction.preparing import Images, Item, Preparer
from featurebank.images.items import is_path, picture_of
from featurebank.images.listing import read_image
from featurebank.images.reading import Progress
from featurebank.storage.objects import is_address

if TYPE_CHECKING:
    from featurebank.backbones.engine import Engine
    from featurebank.backbones.exported.engine import ExportedEngine

Outputs = list[NDArray[np.float32]]
"""Of one engine, for each of its specs, shape (n, views, …)."""


@dataclass(frozen=True)
class ImageList:
    """Images in a list, to be read as those of a source are (`featurebank.extraction.preparing.Images`).

    Parameters
    ----------
    items : sequence of path-like, bytes, PIL images, arrays, pairs or dicts
        See `featurebank.images.listing.read_image`.
    """

    items: Sequence[Any]

    def read(self, position: int) -> tuple[bytes, Callable[..., Any]]:
        """Read an image once."""
        return read_image(self.items[position])

    def place(self, position: int) -> str | None:
        """Return the path or the address of an image, None for one in memory."""
        with suppress(ImageError):
            item = picture_of(self.items[position])
            if is_path(item):
                name = os.fsdecode(item)
                return name if is_address(name) else os.path.abspath(name)
        return None

    def path(self, position: int) -> bytes:
        """Return the path of an image, or what it is."""
        item = self.items[position]
        return os.fsencode(item) if is_path(item) else type(item).__name__.encode()


class ImageEmbedder:
    """Embeds images by one or several engines, each of which is given every image.

    Parameters
    ----------
    engines : sequence of Engine
        Their backbones open images in one way (`Backbone.opening`).
    images : Images
        What to embed.
    count : int
        How many.

    Attributes
    ----------
    errors : list of str
        Why each image could not be read; "" for those that have a row.
    digests : list of bytes
        The content of each.
    warnings : list of str
        What the reader of the embeddings should know, once all are done.
    """

    def __init__(self, engines: Sequence[Engine | ExportedEngine], images: Images, count: int):
        self.engines, self.images = engines, images
        self.errors, self.digests = [""] * count, [NO_DIGEST] * count
        self.warnings: list[str] = []

    def outputs(self, progress: Progress | None = None) -> Iterator[list[Outputs]]:
        """Yield the rows of batch after batch, in the order of the images, for each engine."""
        done = 0
        with self._preparer() as prepare:
            for batch, outputs in self._through(self._batches(prepare(range(len(self.errors))))):
                for item in batch:
                    self.errors[item.position] = _damage(item)
                rows = [row for row, item in enumerate(batch) if not self.errors[item.position]]
                is_whole = len(rows) == len(batch)
                yield outputs if is_whole else [[part[rows] for part in each] for each in outputs]
                done = batch[-1].position + 1
                if progress is not None:
                    progress(done, len(self.errors))
        if progress is not None and done < len(self.errors):
            progress(len(self.errors), len(self.errors))
        said = [line for engine in self.engines for line in engine.warnings]
        self.warnings = [*said, *prepare.notes.lines(self.engines[0].backbone.pixels)]

    def _preparer(self) -> Preparer:
        preparations = [(engine.backbone, engine.specs[0].views) for engine in self.engines]
        return Preparer(
            self.images,
            lambda: preparations,
            batch=lambda: self._at_once,
            pin=lambda memory: pinned(memory, self.engines[0].device.type),
        )

    @property
    def _at_once(self) -> int:
        return min(engine.images_at_once for engine in self.engines)

    def _batches(self, items: Iterable[Item]) -> Iterator[list[Item]]:
        """Yield the images that could be read, a batch at a time; note the others."""
        batch: list[Item] = []
        for item in items:
            self.errors[item.position], self.digests[item.position] = item.error, item.digest
            if not item.error:
                batch.append(item)
            if len(batch) == self._at_once:
                yield batch
                batch = []
        if batch:
            yield batch

    def _through(self, batches: Iterator[list[Item]]) -> Iterator[tuple[list[Item], list[Outputs]]]:
        """Have one engine after the other embed batches."""
        done: Iterator[tuple[list[Item], list[Outputs]]] = ((batch, []) for batch in batches)
        for number, engine in enumerate(self.engines):
            done = _embedded(engine, number, done)
        return done


def _embedded(
    engine: Engine | ExportedEngine, number: int, batches: Iterator[tuple[list[Item], list[Outputs]]]
) -> Iterator[tuple[list[Item], list[Outputs]]]:
    """Add the rows of one more engine."""
    given = (((batch, done), [view for item in batch for view in item.views[number]]) for batch, done in batches)
    for (batch, done), outputs in engine.stream(given):
        yield batch, [*done, outputs]


def _damage(item: Item) -> str:
    """Return why an image that a GPU was to decode could not be."""
    return next((error for views in item.views for view in views if (error := getattr(view, "error", ""))), "")
