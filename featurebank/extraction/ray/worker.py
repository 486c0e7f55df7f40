"""A worker: one backbone in a process of its own on any machine, which settles one shard after the other."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, field
from typing import Any

from featurebank.backbones.request import Request
from featurebank.bank.bank import Bank
from featurebank.bank.features import FeatureSet
from featurebank.bank.spec import FeatureSpec
from featurebank.errors import ClusterError
from featurebank.extraction.pipeline import Compute, Pipeline, Unseen
from featurebank.extraction.tracker import Known, Tracker
from featurebank.images.sources import Source


@dataclass(frozen=True)
class Job:
    """What all workers of an extraction are told when it begins.

    Attributes
    ----------
    specs : list of FeatureSpec
        The feature sets, as the bank knows them.
    bank : str
        The bank: its path, the same on every machine, or its address.
    root : str
        The folder of the source: its path, the same on every machine, or its address.
    verify : bool
        Whether unchanged files are read again.
    """

    specs: list[FeatureSpec]
    bank: str
    root: str
    verify: bool


@dataclass(frozen=True)
class ShardTask:
    """One shard as a worker needs it.

    Attributes
    ----------
    source : Source
        Its samples, and a few that the bank has already.
    known : tuple of (SampleTable, set of str)
        See `featurebank.extraction.tracker.Known`.
    is_new : bool
        Whether no worker has had any of them.
    """

    source: Source
    known: Known
    is_new: bool


@dataclass(frozen=True)
class ShardReport:
    """What a worker says of a shard, beside what it wrote: nothing of the size of the shard.

    Attributes
    ----------
    engines, warnings, drift, unseen
        See `featurebank.extraction.tracker.ExtractReport`.
    written : list of str
        Names of its segments of samples, which no other worker has to read.
    """

    engines: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    drift: list[dict[str, Any]] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    unseen: Unseen = field(default_factory=Unseen)


class Worker:
    """Settles shards by featurebank's own pipeline, and writes their rows straight into the bank.

    Ray runs `settle` in one thread, and `done` and `stop` meanwhile in another.

    Parameters
    ----------
    request : Request
        The backbone and layers.
    compute : Compute
        How it computes.
    """

    def __init__(self, request: Request, compute: Compute):
        self.request, self.compute = request, compute
        self._pipeline: Pipeline | None = None
        self._sets: list[FeatureSet] = []
        self._done = 0
        self._is_stopped = False

    def spec(self, layer: str) -> FeatureSpec:
        """Return the feature spec of one layer; the backbone stays loaded."""
        self.compute.check(self.request)
        return self.request.spec(layer)

    def start(self, job: Job) -> None:
        """Look whether this machine has what the job needs, and load the backbone.

        Raises
        ------
        DeviceError, EngineError, NotInstalledError
            See `featurebank.extraction.pipeline.Compute.check`.
        ClusterError
            When this machine sees another bank, not the images, or other weights than the bank's.
        """
        self.compute.check(self.request)
        self.job = job
        for folder in (job.root, job.bank):
            if os.path.isabs(folder) and not os.path.isdir(folder):  # an address needs no mount
                raise _lacking(folder)
        self.bank = Bank(job.bank)
        for spec in job.specs:
            file = self.bank.feature_folder(spec) / "spec.json"
            if not file.is_file():
                raise _lacking(str(file))
        expected = {spec.fingerprint for spec in job.specs}
        for own in map(self.request.spec, self.request.layers):
            if own.fingerprint not in expected:
                raise ClusterError(
                    f"machine {platform.node()!r} of the Ray cluster has another {own.name} than the bank; expected "
                    "the same weights and the same featurebank on all machines: install them there"
                )

    def settle(self, part: ShardTask) -> ShardReport:
        """Read, embed and write the samples of a shard that the bank does not have."""
        if not self._sets or not part.is_new:
            self._sets = [self.bank.feature_set_of(spec) for spec in self.job.specs]
        tracker = Tracker(part.source, self.bank, self.job.specs, self.job.verify, known=part.known, sets=self._sets)
        pending = tracker.pending()
        self._done = len(part.source.paths) - len(pending)
        pipeline = self._turn_to(tracker)
        try:
            pipeline.run(pending)
            tracker.commit_samples()
        except KeyboardInterrupt:  # the driver's: whatever ends a run, the pipeline writes what it has
            pass
        drift = [each.to_dict() for each in pipeline.drift]
        return ShardReport(pipeline.engines, pipeline.warnings, drift, tracker.written, pipeline.unseen)

    def done(self) -> int:
        """Return how many samples of the present shard are settled."""
        return self._done

    def stop(self) -> None:
        """End the present shard after the batch that is in the network."""
        self._is_stopped = True

    def _turn_to(self, tracker: Tracker) -> Pipeline:
        """Return the one pipeline of this worker, whose network stays loaded from shard to shard."""
        if self._pipeline is None:
            self._pipeline = Pipeline(self.request, tracker, self.compute, self._advance)
        else:
            self._pipeline.turn_to(tracker)
        return self._pipeline

    def _advance(self) -> None:
        self._done += 1
        if self._is_stopped:
            raise KeyboardInterrupt


def _lacking(path: str) -> ClusterError:
    return ClusterError(
        f"machine {platform.node()!r} of the Ray cluster has no {path!r}; the images and the bank must lie under the "
        "same path on all machines: mount them there, or use object storage"
    )
