"""The pipeline as it was before readers and writers of their own: what `bench_pipeline.py` compares with.

Threads read one image at a time, the network's loop writes segments itself, every image is copied once to be turned.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featurebank.backbones.request import Request
from featurebank.bank.features import to_stored
from featurebank.bank.samples import NO_DIGEST
from featurebank.bank.spec import FeatureSpec
from featurebank.errors import ImageError, one_line
from featurebank.extraction.pipeline import Compute
from featurebank.extraction.tracker import Tracker
from featurebank.images.notes import DecodingNotes
from featurebank.images.reading import read_ahead, worker_count
from featurebank.images.views import count_views, share_batches

if TYPE_CHECKING:
    from featurebank.backbones.base import Backbone
    from featurebank.backbones.engine import Engine

AHEAD = 4
"""Batches that may lie read and decoded before the network."""
SEGMENT_ROWS = 4096
SEGMENT_BYTES = 256 << 20
SEGMENT_SECONDS = 30.0


@dataclass
class Item:
    """One sample that was read: its digest, the feature sets that lack it, and its prepared views if any does."""

    position: int
    digest: bytes
    lacking: tuple[FeatureSpec, ...] = ()
    views: list[Any] = field(default_factory=list)
    unseen: float = 0.0
    error: str = ""


class Pipeline:
    """Reads, decodes and embeds pending samples.

    The network is loaded when the first content turns out to be new, and runs only as deep as a batch needs.

    Parameters
    ----------
    request : Request
        The backbone and layers.
    tracker : Tracker
        What is known of the samples, and is told what becomes of them.
    compute : Compute
        How to compute.
    advance : callable
        Called whenever a sample is done.
    """

    def __init__(self, request: Request, tracker: Tracker, compute: Compute, advance: Callable[[], None]):
        self.request = request
        self.tracker = tracker
        self.compute = compute
        self.advance = advance
        self.writer = Writer(tracker)
        self.warnings: list[str] = []
        self.unseen = 0.0
        self._pending: Sequence[int] = []
        self._loading = threading.Lock()
        self._engines: dict[tuple[FeatureSpec, ...], Engine] = {}
        self._damaged: dict[bytes, str] = {}
        self._noted = DecodingNotes()

    def run(self, pending: Sequence[int]) -> None:
        """Settle every pending sample; whatever ends it, what was computed is written."""
        self._pending = pending
        repeats: dict[bytes, list[int]] = {}
        try:
            for specs, batches in groupby(self._batches(pending, repeats), key=self._lacking):
                self._embed(specs, batches)
            self._settle_repeats(repeats)
        finally:
            self.writer.flush()
            self.warnings += [line for engine in self._engines.values() for line in engine.warnings]
            self.warnings += self._noted.lines(self.request.pixels)

    @property
    def engines(self) -> list[str]:
        """The engines that ran, each with its device and batch size."""
        return list(dict.fromkeys(map(str, self._engines.values())))

    def _embed(self, specs: tuple[FeatureSpec, ...], batches: Iterator[list[Item]]) -> None:
        """Embed batches that lack the same feature sets."""
        engine = self._engine(specs)
        prepared = ((batch, [view for item in batch for view in item.views]) for batch in batches)
        for batch, outputs in engine.stream(prepared):
            self._note_damaged(batch)
            for spec, output in zip(specs, outputs, strict=True):
                rows = [row for row, item in enumerate(batch) if spec in item.lacking and not item.error]
                if rows:
                    self.writer.add(spec, [batch[row].digest for row in rows], output[rows], engine.made_by)
            if embedded := [(item.position, item.digest) for item in batch if not item.error]:
                self.writer.settle(embedded)
            for _ in batch:
                self.advance()

    def _note_damaged(self, batch: list[Item]) -> None:
        """Settle the samples whose file turned out not to be decodable when a GPU was to do it."""
        for item in batch:
            item.error = next((error for view in item.views if (error := getattr(view, "error", ""))), "")
            if item.error:
                self._damaged[item.digest] = item.error
                self.tracker.settle(item.position, item.digest, item.error)

    def _lacking(self, batch: list[Item]) -> tuple[FeatureSpec, ...]:
        return tuple(spec for spec in self.tracker.specs if any(spec in item.lacking for item in batch))

    def _batches(self, pending: Sequence[int], repeats: dict[bytes, list[int]]) -> Iterator[list[Item]]:
        """Yield the items to embed, a batch at a time; settle those that need nothing, note repeated contents."""
        batch: list[Item] = []
        for item in self._read_all(pending):
            if item.lacking and item.digest not in repeats:
                repeats[item.digest] = []
                batch.append(item)
                self.unseen += item.unseen
            else:
                self._pass(item, repeats)
            if batch and len(batch) == self.images_at_once:
                yield batch
                batch = []
        if batch:
            yield batch

    def _pass(self, item: Item, repeats: dict[bytes, list[int]]) -> None:
        """Take an item that needs no forward pass."""
        if item.lacking:
            repeats[item.digest].append(item.position)
        else:
            self.tracker.settle(item.position, item.digest, item.error)
        self.advance()

    def _settle_repeats(self, repeats: dict[bytes, list[int]]) -> None:
        for digest, positions in repeats.items():
            error = self._damaged.get(digest, "")
            for position in positions:
                self.tracker.settle(position, digest, error, embedded=not error)

    # --- reading -------------------------------------------------------------------------------------------

    def _read_all(self, pending: Sequence[int]) -> Iterator[Item]:
        """Read and prepare in threads, in order, with a bounded number in flight."""
        workers = worker_count(self.compute.workers)
        return read_ahead(self._read, pending, workers=workers, most=lambda: max(workers, AHEAD * self._known_batch()))

    def _known_batch(self) -> int:
        """Return the images in a batch, 0 as long as the network that decides it is not loaded."""
        return self.__dict__.get("images_at_once", 0)

    def _read(self, position: int) -> Item:
        digest = NO_DIGEST
        try:
            digest, decode = self.tracker.source.read(position)
            (lacking,) = self.tracker.lacking([digest])
            if not lacking:
                return Item(position, digest)
            return Item(position, digest, lacking, *self._prepare(decode, digest, self.tracker.source.paths[position]))
        except ImageError as error:
            return Item(position, digest, error=one_line(error))

    def _prepare(self, decode: Callable[..., Any], digest: bytes, path: bytes | None = None) -> tuple[list[Any], float]:
        """Return the prepared views of an image, and the share of it that the network does not see."""
        image = decode(**self.backbone.opening).copy()  # for the EXIF orientation
        if path is not None:
            self._noted.take(getattr(image, "info", {}).get("featurebank", {}), path)
        views = list(self.backbone.prepare_views(image, self.tracker.specs[0].views, digest))
        return views, self.backbone.unseen(image.size)

    # --- the network ---------------------------------------------------------------------------------------

    @property
    def backbone(self) -> Backbone:
        """The backbone; whichever thread comes first loads it."""
        with self._loading:
            return self.request.load()

    @cached_property
    def images_at_once(self) -> int:
        """Images whose views go into one batch."""
        from featurebank.backbones.devices import choose_batch_size, choose_device

        size = self.compute.batch_size or choose_batch_size(self.backbone, choose_device(self.compute.device))
        return share_batches(count_views(self.tracker.specs[0].views), size)[0]

    def _engine(self, specs: tuple[FeatureSpec, ...]) -> Engine:
        """Return the engine for feature sets."""
        if specs not in self._engines:
            self._engines[specs] = self.compute.open(self.backbone, specs, images=len(self._pending))
        return self._engines[specs]


# --- writing -----------------------------------------------------------------------------------------------


class Writer:
    """Collects rows and writes them as segments, features before the samples that point at them.

    Parameters
    ----------
    tracker : Tracker
        Its bank takes the rows; it is told of each sample that is settled by them.
    """

    def __init__(self, tracker: Tracker):
        self.tracker = tracker
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
            self.tracker.bank.add_features(spec, digests, np.concatenate(batches), self._made_by)
        for position, digest in self._settled:
            self.tracker.settle(position, digest, "", embedded=True)
        if self._settled:
            self.tracker.commit_samples()
        self._rows, self._settled = {}, []
        self._since = time.monotonic()
