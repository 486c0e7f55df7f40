"""From pending samples to rows: what is read and prepared goes through the network, in order, and is written."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, groupby
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featurebank.backbones.batches import pinned
from featurebank.backbones.opening import device_type, fitting_size, open_engine
from featurebank.backbones.request import Request
from featurebank.bank.features import as_keys
from featurebank.bank.spec import FeatureSpec
from featurebank.errors import ImageError
from featurebank.extraction.drift import Drift, compare_with_stored, measure_drift
from featurebank.extraction.preparing import Item, Preparer
from featurebank.extraction.tracker import Tracker
from featurebank.extraction.writing import Writer
from featurebank.images.views import count_views, share_batches

if TYPE_CHECKING:
    from mmap import mmap

    from featurebank.backbones.base import Backbone
    from featurebank.backbones.engine import Engine
    from featurebank.backbones.exported.engine import ExportedEngine

Outputs = tuple[list[Item], list[tuple[FeatureSpec, NDArray[np.float32], Mapping[str, str]]]]
"""A batch, and of each feature set its rows and what made them."""
AGREEMENT_SAMPLES = 4
DRIFT_SAMPLES = 32
SEGMENT_ROWS = 4096


@dataclass(frozen=True)
class Compute:
    """How to compute: nothing of it changes the embeddings by more than 1e-4.

    Parameters
    ----------
    device, engine : str, default "auto"
        See `featurebank.backbones.engine.Engine`.
    batch_size : int, optional
        Views in a forward pass; by default as many as memory allows.
    workers : int, optional
        Threads that read and decode; by default one a core.
    backend : str, default "local"
        ``"local"``: this process; ``"ray"``: the machines of a Ray cluster (`featurebank.extraction.ray`).
    ray_address : str, optional
        A running Ray cluster; by default one is started on this machine.
    early : bool, default False
        Whether the first rows are written at once and the next ever more seldom, for who waits for them: some more
        files.
    """

    device: str = "auto"
    engine: str = "auto"
    batch_size: int | None = None
    workers: int | None = None
    backend: str = "local"
    ray_address: str | None = None
    early: bool = False

    def check(self, request: Request) -> None:
        """Refuse a device, an engine or a decoder that this machine does not have; what always is costs nothing.

        Raises
        ------
        DeviceError, EngineError, NotInstalledError
            When what was named cannot be had.
        """
        is_on_gpu = request.decoder == "nvjpeg"
        if is_on_gpu or self.device not in ("auto", "cpu") or self.engine not in ("auto", "eager"):
            from featurebank.backbones.devices import choose_device, choose_engine
            from featurebank.backbones.nvjpeg import check_device

            device = choose_device(self.device)
            choose_engine(self.engine, device.type, request.precision)
            if is_on_gpu:
                check_device(device)

    def open(
        self, backbone: Backbone, specs: Sequence[FeatureSpec], *, images: int, pad: bool = True
    ) -> Engine | ExportedEngine:
        """Return the engine that computes feature sets of so many images."""
        how: dict[str, Any] = {"device": self.device, "engine": self.engine, "batch_size": self.batch_size}
        return open_engine(backbone, specs, images=images, pad=pad, **how)


@dataclass
class Unseen:
    """How much of the images that were embedded the network never saw, added up.

    Examples
    --------
    >>> (Unseen(0.5, 1) + Unseen(0.0, 3)).share
    0.125
    """

    total: float = 0.0
    images: int = 0

    def __add__(self, other: Unseen) -> Unseen:
        return Unseen(self.total + other.total, self.images + other.images)

    @property
    def share(self) -> float | None:
        """The mean share of an image; None where there was none."""
        return self.total / self.images if self.images else None


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

    Attributes
    ----------
    warnings : list of str
        What the reader of the features should know.
    unseen : Unseen
        What of the images the network never saw.
    readers : str
        What read and decoded, once it has run.
    drift : list of Drift
        At a reduced precision: how far each layer is from float32.
    """

    def __init__(self, request: Request, tracker: Tracker, compute: Compute, advance: Callable[[], None]):
        self.request = request
        self.tracker = tracker
        self.compute = compute
        self.advance = advance
        self.writer = Writer(tracker, SEGMENT_ROWS, early=compute.early)
        self.warnings: list[str] = []
        self.drift: list[Drift] = []
        self.unseen = Unseen()
        self.readers = ""
        self._pending: Sequence[int] = []
        self._loading = threading.Lock()
        self._backbone: Backbone | None = None
        self._engines: dict[tuple[FeatureSpec, ...], Engine | ExportedEngine] = {}
        self._compared: set[FeatureSpec] = set()
        self._damaged: dict[bytes, str] = {}

    def turn_to(self, tracker: Tracker) -> None:
        """Take samples of another tracker of the same feature sets next; the network stays loaded."""
        self.tracker, self.writer = tracker, Writer(tracker, SEGMENT_ROWS, early=self.compute.early)
        self.warnings, self.drift, self.unseen = [], [], Unseen()

    def run(self, pending: Sequence[int]) -> None:
        """Settle every pending sample; whatever ends it, what was computed is written."""
        self._pending = pending
        repeats: dict[bytes, list[int]] = {}
        with self._preparer() as prepare:
            try:
                for specs, batches in groupby(self._batches(prepare(pending), repeats), key=self._lacking):
                    self._embed(specs, batches)
                self.writer.close()  # the rows that the repeats point at
                self._settle_repeats(repeats)
            finally:
                self.writer.close()
                self.warnings += [line for engine in self._engines.values() for line in engine.warnings]
                self.warnings += prepare.notes.lines(self.request.pixels)
                self.readers = str(prepare)

    def _preparer(self) -> Preparer:
        """Return what reads and prepares the samples of the tracker."""
        return Preparer(
            self.tracker.source,
            lambda: [(self.backbone, self.tracker.specs[0].views)],
            lacking=self.tracker.lacking,
            known=self.tracker.known,
            batch=lambda: self.__dict__.get("images_at_once", 0),  # as long as no network is loaded
            workers=self.compute.workers,
            pin=self._pinned,
        )

    def _pinned(self, memory: mmap) -> AbstractContextManager[None]:
        return pinned(memory, device_type(self.compute.device))

    @property
    def engines(self) -> list[str]:
        """The engines that ran, each with its device and batch size."""
        return list(dict.fromkeys(map(str, self._engines.values())))

    def _embed(self, specs: tuple[FeatureSpec, ...], batches: Iterator[list[Item]]) -> None:
        """Embed batches that lack the same feature sets."""
        for batch, outputs in self._outputs(specs, batches):
            self._note_damaged(batch)
            for spec, output, made_by in outputs:
                rows = [row for row, item in enumerate(batch) if spec in item.lacking and not item.error]
                if rows:
                    self.writer.add(spec, [batch[row].digest for row in rows], output[rows], made_by)
            if embedded := [(item.position, item.digest) for item in batch if not item.error]:
                self.writer.settle(embedded)
            for _ in batch:
                self.advance()

    def _outputs(self, specs: tuple[FeatureSpec, ...], batches: Iterator[list[Item]]) -> Iterator[Outputs]:
        """Yield batches with what the network makes of them."""
        engine = self._engine(specs)
        prepared = ((batch, [view for item in batch for view in item.views[0]]) for batch in batches)
        for batch, outputs in engine.stream(prepared):
            yield batch, [(spec, output, engine.made_by) for spec, output in zip(specs, outputs, strict=True)]

    def _note_damaged(self, batch: list[Item]) -> None:
        """Settle the samples whose file turned out not to be decodable when a GPU was to do it."""
        for item in batch:
            item.error = next((error for view in item.views[0] if (error := getattr(view, "error", ""))), "")
            if item.error:
                self._damaged[item.digest] = item.error
                self.tracker.settle(item.position, item.digest, item.error)

    def _lacking(self, batch: list[Item]) -> tuple[FeatureSpec, ...]:
        return tuple(spec for spec in self.tracker.specs if any(spec in item.lacking for item in batch))

    def _batches(self, items: Iterator[Item], repeats: dict[bytes, list[int]]) -> Iterator[list[Item]]:
        """Yield the items to embed, a batch at a time; settle those that need nothing, note repeated contents."""
        batch: list[Item] = []
        for item in items:
            if item.lacking and item.digest not in repeats:
                repeats[item.digest] = []
                batch.append(item)
                self.unseen += Unseen(item.unseen, 1)
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

    # --- the network ---------------------------------------------------------------------------------------

    @property
    def backbone(self) -> Backbone:
        """The backbone; whichever thread comes first loads it."""
        with self._loading:
            if self._backbone is None:
                self._backbone = self.request.known_by(self.tracker.specs[0])
            return self._backbone

    @cached_property
    def batch_size(self) -> int:
        """Views in a forward pass, for all engines: what is read ahead fits what they take."""
        how: dict[str, Any] = {"device": self.compute.device, "engine": self.compute.engine}
        specs, images = self.tracker.specs, len(self._pending)
        return self.compute.batch_size or fitting_size(self.backbone, specs, images=images, **how)

    @cached_property
    def images_at_once(self) -> int:
        """Images whose views go into one batch."""
        return share_batches(count_views(self.tracker.specs[0].views), self.batch_size)[0]

    def _engine(self, specs: tuple[FeatureSpec, ...]) -> Engine | ExportedEngine:
        """Return the engine for feature sets; with the first one, a few images are looked at."""
        is_first = not self._engines
        if specs not in self._engines:
            compute = replace(self.compute, batch_size=self.batch_size)
            self._engines[specs] = compute.open(self.backbone, specs, images=len(self._pending))
            self._compare_with_stored(self._engines[specs])
        if is_first:
            self._measure_drift(self._engines[specs])
        return self._engines[specs]

    def _compare_with_stored(self, engine: Engine | ExportedEngine) -> None:
        """Have the engine embed a few images that the bank has already, and say so where the rows no longer agree."""
        known = np.flatnonzero(self.tracker.done)
        read = self._read_again([int(i) for i in known if not self.tracker.errors[i]][:AGREEMENT_SAMPLES])
        if not read:
            return
        keys = as_keys([item.digest for item in read])
        outputs = engine.embed_views(chain.from_iterable(item.views[0] for item in read))
        for spec, output in zip(engine.specs, outputs, strict=True):
            if spec not in self._compared:
                self.warnings += compare_with_stored(self.tracker.bank, spec, keys, output)
        self._compared |= set(engine.specs)

    def _measure_drift(self, engine: Engine | ExportedEngine) -> None:
        """Where a reduced precision is asked for, embed images from all over the source in float32 as well."""
        specs = engine.specs
        if specs[0].precision == "fp32":
            return
        count = min(DRIFT_SAMPLES, len(self._pending))
        read = self._read_again([self._pending[i] for i in np.linspace(0, len(self._pending) - 1, count, dtype=int)])
        if not read:
            return
        columns = self.tracker.source.columns
        labels = [columns["label"].iloc[item.position] for item in read] if "label" in columns else None
        exact = self._embed_plainly([replace(spec, precision="fp32") for spec in specs], read)
        reduced = engine.embed_views(chain.from_iterable(item.views[0] for item in read))
        pairs = zip(specs, exact, reduced, strict=True)
        self.drift = [measure_drift(spec, full, reduced, labels) for spec, full, reduced in pairs]

    def _read_again(self, positions: Sequence[int]) -> list[Item]:
        """Read and prepare samples for a comparison; what cannot be read now is left to the run itself."""
        prepare = self._preparer()
        prepare.lacking = lambda digests: [tuple(self.tracker.specs)] * len(digests)
        items = []
        for position in positions:
            with suppress(ImageError):
                if self.backbone.decoder == "nvjpeg":
                    self.tracker.source.read(position)[1]()  # what is damaged shows here, not among others on the GPU
                items.append(prepare.read(position))
        return [item for item in items if not item.error]

    def _embed_plainly(self, specs: Sequence[FeatureSpec], items: Sequence[Item]) -> list[NDArray[np.float32]]:
        plain = replace(self.compute, engine="eager", batch_size=self.batch_size)
        engine = plain.open(self.backbone, specs, images=len(self._pending), pad=False)
        return engine.embed_views(chain.from_iterable(item.views[0] for item in items))
