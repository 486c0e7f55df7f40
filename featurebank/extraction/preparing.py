"""From images to prepared views, in order and ahead of the network: in threads, or in processes where that pays.

Threads share Python's one lock with the network's loop: on many cores, they cannot decode as fast as a GPU computes.
Processes take a moment to start, and can read what has a path or an address alone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from featurebank.backbones.preprocessing import Preprocessing
from featurebank.bank.samples import NO_DIGEST
from featurebank.errors import ImageError, one_line
from featurebank.extraction.reader import Answer
from featurebank.extraction.readers import ReaderError, Readers, Views, task_size
from featurebank.images.notes import DecodingNotes
from featurebank.images.reading import read_ahead, worker_count
from featurebank.images.views import count_views
from featurebank.storage.memory import available_memory

if TYPE_CHECKING:
    from mmap import mmap

    from featurebank.backbones.base import Backbone

AHEAD = 4
"""Batches that may lie read and decoded before the network."""
HELD = 3
"""Batches more that are put together, computed and taken apart meanwhile."""
LEAST_IMAGES = 1000
"""Images from which processes are worth their start."""
LEAST_CORES = 4
"""Cores, or workers, from which threads hinder one another."""
MEMORY_SHARE = 0.125
"""Share of the memory that is available which processes may share with this one."""
ON_PROCESSES = ("pil", "reduced")
"""Decoders that need no torch."""


class Images(Protocol):
    """What images are read from: a `featurebank.images.sources.Source`, or a list of them."""

    def read(self, position: int) -> tuple[bytes, Callable[..., Any]]:
        """Read an image once: return its digest, and what decodes it; see `Source.read`."""

    def place(self, position: int) -> str | None:
        """Return the path or the address that any process can read an image by, None for one that has none."""

    def path(self, position: int) -> bytes:
        """Return what an image is called."""


@dataclass
class Item:
    """One image that was read: its digest, what lacks it, and a sequence of views for each preparation if any does."""

    position: int
    digest: bytes
    lacking: tuple[Any, ...] = ()
    views: Sequence[Any] = field(default_factory=list)
    unseen: float = 0.0
    error: str = ""
    noted: dict[str, Any] = field(default_factory=dict)


class Preparer:
    """Reads, hashes, decodes and prepares images; whoever has one closes it.

    Parameters
    ----------
    images : Images
    preparations : callable
        Gives the backbones that prepare images, each with its views; called when the first image is to be decoded.
    batch : callable
        Gives the images in a batch, 0 as long as that is not decided.
    lacking : callable, optional
        Digests to what lacks each of these contents; one that nothing lacks is not decoded. By default all are.
    known : callable, optional
        Gives the sorted digests of the contents that nothing lacks, so that a process can tell.
    workers : int, optional
        Threads or processes; see `featurebank.images.reading.worker_count`.
    pin : callable, optional
        Makes a context of the memory that processes share, in which a GPU copies from it faster.

    Attributes
    ----------
    notes : DecodingNotes
        What was noted of the images.
    """

    def __init__(
        self,
        images: Images,
        preparations: Callable[[], Sequence[tuple[Backbone, str]]],
        *,
        batch: Callable[[], int],
        lacking: Callable[[Sequence[bytes]], list[tuple[Any, ...]]] = lambda digests: [(True,)] * len(digests),
        known: Callable[[], NDArray[np.bytes_]] = lambda: np.empty(0, "S32"),
        workers: int | None = None,
        pin: Callable[[mmap], AbstractContextManager[None]] = lambda _: nullcontext(),
    ):
        self.images, self.preparations, self.lacking, self.known = images, preparations, lacking, known
        self.batch, self.pin = batch, pin
        self.workers = worker_count(workers)
        self.notes = DecodingNotes()
        self._reason = "nothing was decoded"
        self._readers: Readers | None = None
        self._is_chosen = False
        self._reading: Generator[list[Item], None, None] | None = None
        self._held = ExitStack()

    def __str__(self) -> str:
        if self._readers is not None:
            return f"{self.workers} reader processes"
        return f"{self.workers} threads" + (f" ({self._reason})" if self._reason else "")

    def __enter__(self) -> Preparer:
        return self

    def __exit__(self, *_: object) -> None:
        with self._held:  # once the threads that use them are at rest
            if self._reading is not None:
                self._reading.close()

    def __call__(self, positions: Sequence[int]) -> Iterator[Item]:
        """Yield the images at some positions, in their order, with a bounded number in flight."""
        self._reading = read_ahead(self._work, self._tasks(positions), workers=self.workers, most=self._most)
        for items in self._reading:
            for item in items:
                self.notes.take(item.noted, self.images.path(item.position))
                yield item

    def read(self, position: int) -> Item:
        """Read and prepare one image here and now."""
        digest = NO_DIGEST
        try:
            digest, decode = self.images.read(position)
            (lacking,) = self.lacking([digest])
            if not lacking:
                return Item(position, digest)
            preparations = self.preparations()
            image = decode(**preparations[0][0].opening)
            views = [list(backbone.prepare_views(image, each, digest)) for backbone, each in preparations]
            noted = getattr(image, "info", {}).get("featurebank", {})
            return Item(position, digest, lacking, views, preparations[0][0].unseen(image.size), noted=noted)
        except ImageError as error:
            return Item(position, digest, error=one_line(error))

    def _work(self, task: Sequence[int]) -> list[Item]:
        """Read a task of images, in a process where there are any."""
        places, readers = [self.images.place(position) for position in task], self._readers
        if readers is not None and None not in places:
            try:
                answers = readers.prepare([place for place in places if place is not None])
            except ReaderError as error:
                self._readers, self._reason = None, f"{error}"
                answers = None
            if answers is not None:
                return self._items(task, answers)
        return [self.read(position) for position in task]

    def _items(self, task: Sequence[int], answers: Sequence[tuple[Answer, Views]]) -> list[Item]:
        """Return what a process has read; what it could not judge is read here."""
        digests = [bytes.fromhex(answer["digest"]) or NO_DIGEST for answer, _ in answers]
        items = []
        found = zip(task, digests, self.lacking(digests), answers, strict=True)
        for position, digest, lacking, (answer, views) in found:
            is_prepared = "unseen" in answer
            if "error" in answer:
                items.append(Item(position, digest, error=answer["error"]))
            elif "again" in answer or (lacking and not is_prepared):
                items.append(self.read(position))
            elif lacking:
                items.append(Item(position, digest, lacking, views, answer["unseen"], noted=answer["noted"]))
            else:
                items.append(Item(position, digest))
        return items

    def _tasks(self, positions: Sequence[int]) -> Iterator[list[int]]:
        """Deal the positions out, more at a time once there are processes."""
        rest, left = iter(positions), len(positions)
        while task := list(islice(rest, self._task(left))):
            left -= len(task)
            yield task

    def _task(self, left: int) -> int:
        """Return how many images the next task has, of so many that are left."""
        if not self._is_chosen and self.batch():
            self._is_chosen = True
            self._choose(left)
        return 1 if self._readers is None else self._readers.task

    def _most(self) -> int:
        """Return how many tasks may be in work or ready."""
        images = AHEAD * self.batch()
        return (
            max(self.workers, images) if self._readers is None else max(2 * self.workers, images // self._readers.task)
        )

    def _choose(self, left: int) -> None:
        """Decide once what reads the images that are left."""
        preparations = self.preparations()
        held = (AHEAD + HELD) * self.batch() + 3 * self.workers * task_size(preparations)
        self._reason = why_threads(preparations, left, self.workers, held)
        if not self._reason:
            try:
                readers = Readers(preparations, held, self.known())
            except OSError as error:
                self._reason = f"no memory to share: {one_line(error)}"
                return
            self._held.enter_context(self.pin(readers.memory))
            self._held.callback(readers.close)
            self._readers = readers


def why_threads(preparations: Sequence[tuple[Backbone, str]], images: int, workers: int, held: int) -> str:
    """Say why images are read in threads here; nothing where processes pay.

    Parameters
    ----------
    preparations : sequence of (Backbone, str)
        What prepares images, each with its views.
    images : int
        How many wait.
    workers : int
        How many threads or processes there would be.
    held : int
        How many images processes would hold in memory.
    """
    if workers < LEAST_CORES:
        return f"fewer than {LEAST_CORES} cores or workers"
    if images < LEAST_IMAGES:
        return f"fewer than {LEAST_IMAGES} images"
    if os.name != "posix" or not sys.executable or getattr(sys, "frozen", False):
        return "this Python cannot start another one that shares memory with it"
    backbones = [backbone for backbone, _ in preparations]
    if not all(isinstance(each.preprocessing, Preprocessing) and each.decoder in ON_PROCESSES for each in backbones):
        return "the transform or the decoder needs this process"
    if any(each.framing == "tiles" for each in backbones):
        return "images have differing numbers of tiles"
    size = sum(3 * int(np.prod(backbone.input_size)) * count_views(views) for backbone, views in preparations)
    return "views of this size take too much memory" if held * size > MEMORY_SHARE * available_memory() else ""
