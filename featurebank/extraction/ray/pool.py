"""The workers of a job, and what the first of them says of the network, so that only workers load it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from featurebank.backbones.request import Request
from featurebank.bank.spec import FeatureSpec
from featurebank.errors import ClusterError, one_line
from featurebank.extraction.pipeline import Compute
from featurebank.extraction.ray.cluster import machines, plan_pool
from featurebank.extraction.ray.worker import Worker

_LOG = logging.getLogger(__name__)
BATCH = {"cpu": 32, "cuda": 256}
"""Images that a shard is a multiple of: the largest batch on the device."""
REASON = 200
"""Characters of what Ray says of a lost worker that are shown."""


class WorkerPool:
    """Starts the workers of an extraction.

    Parameters
    ----------
    ray : module
        Connected to the cluster.
    request : Request
        What workers load; a backbone that has a name is loaded where it is used.
    compute : Compute
        How they compute; its device is what the user asked for; each worker computes on that of the pool.

    Attributes
    ----------
    size : PoolSize
        How many workers the cluster has room for.
    batch_size : int
        Images that a shard is a multiple of.

    Raises
    ------
    DeviceError, ClusterError
        See `featurebank.extraction.ray.cluster.plan_pool`.
    """

    def __init__(self, ray: Any, request: Request, compute: Compute):
        self.ray = ray
        self.size = plan_pool(machines(ray), compute.device)
        self.batch_size = compute.batch_size or BATCH[self.size.device]
        backbone = request.backbone if isinstance(request.backbone, str) else request.load()  # goes as one on the CPU
        asked = replace(request, backbone=backbone, loaded=None)
        threads = compute.workers or max(1, self.size.cpus)
        own = replace(compute, device=self.size.device, workers=threads, backend="local")
        self._given = ray.put(asked), own
        self._actor = ray.remote(Worker).options(
            num_cpus=self.size.cpus, num_gpus=self.size.gpus, max_concurrency=2, scheduling_strategy="SPREAD"
        )
        self._first: Any = None

    def start_worker(self) -> Any:
        """Return a worker: the one that was asked for specs, as long as it is not at work, or a new one."""
        worker, self._first = self._first, None
        return worker or self._actor.remote(*self._given)

    def spec(self, layer: str) -> FeatureSpec:
        """Return the feature spec of a layer, as a worker of the cluster sees it.

        Raises
        ------
        BackboneError, LayerError
            When there is no such backbone or layer.
        ClusterError
            When the worker is lost.
        """
        if self._first is None:
            _LOG.info("a first worker starts, and loads the network")
            self._first = self.start_worker()
        try:
            spec: FeatureSpec = self.ray.get(self._first.spec.remote(layer))
        except self.ray.exceptions.RayTaskError as error:  # raised by our own code, there
            raise error.cause from error
        except self.ray.exceptions.RayError as error:
            raise ClusterError(
                f"a worker was lost while it loaded the network ({last_words(error)}); expected featurebank, and "
                "memory for the network, on every machine of the Ray cluster"
            ) from error
        return spec


class RemoteRequest(Request):
    """A request whose backbone only workers load.

    Parameters
    ----------
    request : Request
        Names its backbone.
    pool : callable
        Returns the pool; called when the bank does not know a layer from an earlier request.
    """

    def __init__(self, request: Request, pool: Callable[[], WorkerPool]):
        super().__init__(**vars(request))
        self._pool = pool

    def spec(self, layer: str) -> FeatureSpec:
        """Return the feature spec of one layer, from a worker."""
        return self._pool().spec(layer)


def last_words(error: Exception) -> str:
    """Return the end of an error's text, where Ray says why, from a whole word on."""
    text = one_line(error)
    return text if len(text) <= REASON else "… " + text[-REASON:].partition(" ")[2]
