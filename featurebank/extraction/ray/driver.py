"""The driver of an extraction over a cluster: deals shards out, and does those of lost workers again."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache, partial
from typing import Any

import numpy as np

from featurebank.backbones.request import Request
from featurebank.bank.samples import NO_DIGEST
from featurebank.errors import ImageError, SourceError, counted, one_line
from featurebank.extraction.pipeline import AGREEMENT_SAMPLES, Compute, Unseen
from featurebank.extraction.ray.cluster import check_address, connected, import_ray, machines
from featurebank.extraction.ray.pool import RemoteRequest, WorkerPool, last_words
from featurebank.extraction.ray.queue import Shard, ShardQueue, make_shards
from featurebank.extraction.ray.worker import Job, ShardReport, ShardTask
from featurebank.extraction.tracker import Embed, ExtractReport, Tracker
from featurebank.images.reading import Progress
from featurebank.images.sources import Source

_LOG = logging.getLogger(__name__)
LOOKS = 1.0
"""Seconds between two looks at how far the workers are."""
SECONDS_TO_WRITE = 60.0
"""How long workers that are told to end may take to write what they have."""


def check(source: Source, compute: Compute) -> None:
    """Refuse what can never be had even when nothing is left to compute.

    Raises
    ------
    SourceError
        When the images lie in the memory of this process.
    NotInstalledError, ClusterError
        When Ray is not installed, or nothing answers at the address.
    """
    if source.get_image is not None:
        raise SourceError("images in memory are not on other machines; --backend ray takes a folder, manifest or paths")
    import_ray()
    check_address(compute.ray_address)


@contextmanager
def on_ray(request: Request, compute: Compute) -> Iterator[tuple[Request, Embed]]:
    """Yield a request, and what embeds on a Ray cluster; it is joined when first needed, and left at the end.

    This process loads no backbone that has a name: the first worker says what feature sets it leads to.
    """
    with ExitStack() as stack:
        pool = cache(lambda: WorkerPool(stack.enter_context(connected(compute.ray_address)), request, compute))
        asked = RemoteRequest(request, pool) if isinstance(request.backbone, str) else request
        yield asked, partial(_embed, pool)


def _embed(
    get_pool: Callable[[], WorkerPool], tracker: Tracker, progress: Progress | None, report: ExtractReport
) -> None:
    """Embed the pending samples of a tracker on the machines of a Ray cluster, and note in the report how.

    Workers read, embed and write; through the driver go lists of paths and counts. Plain actors, not Ray Data: its
    tasks say nothing before a block is out, and it repeats a task that costs its worker without end.

    Raises
    ------
    ClusterError
        When the cluster cannot be joined, or keeps losing its workers.
    FeatureBankError
        What a worker raised, for instance when a value does not fit float16; what was finished is kept.
    """
    pending = tracker.pending()
    if not pending:
        return
    pool = get_pool()
    dispatch = Dispatch(pool, tracker, progress)
    dispatch.run(make_shards(tracker.source.paths, pending, pool.size.workers, pool.batch_size))
    _note_failed(tracker, dispatch.queue.failed)
    tracker.read_back([position for position in pending if not tracker.done[position]])
    _fill(report, tracker, dispatch)


def _job(tracker: Tracker) -> Job:
    """Return what workers are told when they begin."""
    path = tracker.bank.path
    bank = str(path.absolute() if isinstance(path, os.PathLike) else path)  # an address is the same everywhere
    return Job(tracker.specs, bank, tracker.source.root, tracker.verify)


class Dispatch:
    """Keeps every worker of a cluster busy with one shard, until all are finished.

    Parameters
    ----------
    pool : WorkerPool
        Hires the workers.
    tracker : Tracker
        Knows the samples that shards are made of.
    progress : callable or None
        Called with (images done, images in all).

    Attributes
    ----------
    queue : ShardQueue
    workers : int
        How many work at a time.
    outcomes : list of ShardReport
        Of each finished shard.
    """

    def __init__(self, pool: WorkerPool, tracker: Tracker, progress: Progress | None):
        self.ray, self.pool, self.tracker, self.progress = pool.ray, pool, tracker, progress
        self.outcomes: list[ShardReport] = []
        self.queue = ShardQueue(deque(), pool.size.workers)
        self._job = self.ray.put(_job(tracker))
        self._samples = np.flatnonzero(tracker.done & (tracker.errors == ""))[:AGREEMENT_SAMPLES]
        self._busy: dict[Any, tuple[Any, Shard | None]] = {}
        self._idle: list[Any] = []
        self._shown = 0
        self._has_room = True
        self.workers = 0

    def run(self, shards: list[Shard]) -> None:
        """Have every shard done; whatever ends it, workers write what they have."""
        self.queue.waiting.extend(shards)
        self.workers = min(self.pool.size.workers, len(shards))
        total = sum(map(len, shards))
        _LOG.info("workers to start: %d; each loads the network before its first image", self.workers)
        try:
            for _ in range(self.workers):
                self._start_worker()
            while self.queue.waiting or any(shard is not None for _, shard in self._busy.values()):
                ready, _ = self.ray.wait(list(self._busy), timeout=LOOKS)
                for reference in ready:
                    self._take(reference)
                self._look_for_room()
                self._show(total)
        finally:
            self._dismiss()

    def _start_worker(self) -> None:
        worker = self.pool.start_worker()
        self._busy[worker.start.remote(self._job)] = worker, None

    def _take(self, reference: Any) -> None:
        """Take what a worker has to say, and give it more to do."""
        worker, shard = self._busy.pop(reference)
        try:
            outcome = self.ray.get(reference)
        except self.ray.exceptions.RayTaskError as error:  # raised by our own code, there
            raise error.cause from error
        except self.ray.exceptions.RayError as error:
            self._lose(worker, shard, last_words(error))
            return
        if shard is not None:
            self.queue.finish(shard)
            self.outcomes.append(outcome)
            self.tracker.leave_out(outcome.written)
        self._idle.append(worker)
        self._deal()

    def _lose(self, worker: Any, shard: Shard | None, reason: str) -> None:
        """Put another worker in the place of one that is lost, or that only cannot be reached."""
        self._kill(worker)
        self.queue.lose(shard, reason)
        _LOG.warning("a worker was lost (%s); another starts in its place", reason)
        self._start_worker()
        self._deal()

    def _deal(self) -> None:
        while self._idle and self.queue.waiting:
            worker, shard = self._idle.pop(), self.queue.waiting.popleft()
            self._busy[worker.settle.remote(self._part(shard))] = worker, shard

    def _look_for_room(self) -> None:
        """Say that no machine has room for a worker any longer; Ray then waits for one, and says nothing."""
        if any(shard is not None for _, shard in self._busy.values()):
            return
        needed = {"CPU": self.pool.size.cpus, "GPU": self.pool.size.gpus}
        rooms = machines(self.ray)
        has_room = any(all(each.get(kind, 0) >= count for kind, count in needed.items()) for each in rooms)
        if self._has_room and not has_room:
            _LOG.warning(
                "no machine of the Ray cluster has room for a worker any longer; waiting for one to join it. Ctrl-C "
                "ends the run; what is finished is kept"
            )
        self._has_room = has_room

    def _part(self, shard: Shard) -> ShardTask:
        """Return a shard as a worker needs it, with a few samples that the pipeline compares stored rows of."""
        source, known = self.tracker.part(np.concatenate([self._samples, shard.positions]))
        return ShardTask(source, known, shard.is_new)

    def _show(self, total: int) -> None:
        """Tell how many images are done: in finished shards, and in those that workers are at."""
        if self.progress is None:
            return
        at_work = {worker.done.remote(): len(shard) for worker, shard in self._busy.values() if shard is not None}
        answered = self.ray.wait(list(at_work), num_returns=len(at_work), timeout=LOOKS)[0] if at_work else []
        done = self.queue.finished
        for reference in answered:
            with suppress(self.ray.exceptions.RayError):
                done += min(self.ray.get(reference) - len(self._samples), at_work[reference])
        self._shown = max(self._shown, done)  # what a lost worker had not written is done again
        self.progress(self._shown, total)

    def _dismiss(self) -> None:
        """Have workers that are still at work write what they have, and end all."""
        at_work = [reference for reference, (_, shard) in self._busy.items() if shard is not None]
        for reference in at_work:
            self._busy[reference][0].stop.remote()
        try:
            if at_work:
                self.ray.wait(at_work, num_returns=len(at_work), timeout=SECONDS_TO_WRITE)
        finally:
            for worker in [*self._idle, *(worker for worker, _ in self._busy.values())]:
                self._kill(worker)

    def _kill(self, worker: Any) -> None:
        with suppress(self.ray.exceptions.RayError):
            self.ray.kill(worker)


def _note_failed(tracker: Tracker, positions: list[int]) -> None:
    """Settle the samples that cost their worker every time as failed, so that only a change of the file tries again."""
    for position in positions:
        error = "every worker that took it was lost: it may need more memory than there is, or break a decoder"
        digest = NO_DIGEST
        try:
            digest, _ = tracker.source.read(position)
        except ImageError as unreadable:
            error = one_line(unreadable)
        tracker.settle(position, digest, error)


def _fill(report: ExtractReport, tracker: Tracker, dispatch: Dispatch) -> None:
    """Note in the report what the workers said, each thing once."""
    outcomes, lost = dispatch.outcomes, dispatch.queue.lost
    engines = dict.fromkeys(line for each in outcomes for line in each.engines)
    report.engines = [f"{line}, {counted(dispatch.workers, 'worker')}" for line in engines]
    report.drift = next((each.drift for each in outcomes if each.drift), [])
    report.unseen = sum((each.unseen for each in outcomes), Unseen()).share
    tracker.warnings += dict.fromkeys(line for each in outcomes for line in each.warnings)
    if lost:
        workers = counted(lost, "worker was", "workers were")
        tracker.warnings.append(f"{workers} lost; what was under way there was done again by others")
