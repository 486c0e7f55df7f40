"""A Ray cluster: joining one or starting a local one, and how many workers it has room for."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from featurebank.errors import ClusterError, DeviceError, NotInstalledError, install_hint, one_line

CORES = 8
"""Most cores of a worker without a GPU: one network gains little from more, and several workers gain all of it."""
SECONDS_TO_ANSWER = 5.0
TOKENS = "a cluster that asks for a token wants RAY_AUTH_MODE=token, and the cluster's ~/.ray/auth_token here"
FOUND_BY_RAY = ("auto", "local")


@contextmanager
def connected(address: str | None = None) -> Iterator[Any]:
    """Join a Ray cluster, or start one on this machine, and leave it at the end; one that is joined already is used.

    Parameters
    ----------
    address : str, optional
        ``HOST:PORT`` of a running cluster, or ``"auto"`` for the one that this machine belongs to; by default a
        cluster of this machine alone, which ends with the context.

    Yields
    ------
    module
        ``ray``.

    Raises
    ------
    NotInstalledError
        When Ray is not installed.
    ClusterError
        When nothing answers at the address, or what answers is not a cluster of this version of Ray.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield ray
        return
    check_address(address)
    own = {} if address else {"include_dashboard": False}
    if not address:  # its workers are what this process would do itself: no less urgent, as Ray's are by default
        os.environ.setdefault("RAY_worker_niceness", "0")
    try:
        ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **own)
    except Exception as error:  # Ray has no base for what goes wrong here
        asks = f"; {TOKENS}" if address and "RAY_AUTH_MODE" not in os.environ else ""
        raise ClusterError(
            f"cannot join a Ray cluster at {address or 'this machine'}: {one_line(error)[:200]}{asks}"
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def import_ray() -> Any:
    """Return the module ``ray``.

    Raises
    ------
    NotInstalledError
        When it is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise NotInstalledError(f"--backend ray needs Ray: {install_hint('ray')}") from error
    return ray


def check_address(address: str | None) -> None:
    """Refuse an address that nothing answers at, before Ray tries for long.

    Raises
    ------
    ClusterError
        When it does not answer, or is no address.
    """
    if address is None or address in FOUND_BY_RAY:
        return
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdigit():
        raise ClusterError(f"Ray address {address!r}; expected HOST:PORT of a running cluster, or auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), SECONDS_TO_ANSWER).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(
            f"no Ray cluster answers at {address!r} ({one_line(error)}); start one with `ray start --head`, or leave "
            "--ray-address out to use this machine"
        ) from error


def machines(ray: Any) -> list[Mapping[str, float]]:
    """Return Ray's resources of each machine that is alive, ``{"CPU": 8.0, "GPU": 1.0, …}``."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


@dataclass(frozen=True)
class PoolSize:
    """The workers that a cluster has room for.

    Attributes
    ----------
    workers : int
        How many.
    cpus, gpus : int
        What each of them holds.
    """

    workers: int
    cpus: int
    gpus: int

    @property
    def device(self) -> str:
        """The device that each worker computes on."""
        return "cuda" if self.gpus else "cpu"


def plan_pool(machines: Sequence[Mapping[str, float]], device: str) -> PoolSize:
    """Return the workers for a device: one a GPU, or one for up to `CORES` cores of a CPU.

    Parameters
    ----------
    machines : sequence of mappings
        See `machines`.
    device : str
        ``"cpu"``, ``"cuda"``, or ``"auto"``: GPUs where the cluster has any.

    Raises
    ------
    DeviceError
        When the device is not in the cluster.
    ClusterError
        When it has no cores for a worker.

    Examples
    --------
    >>> plan_pool([{"CPU": 16.0}, {"CPU": 4.0}], "auto")
    PoolSize(workers=5, cpus=4, gpus=0)
    >>> plan_pool([{"CPU": 16.0, "GPU": 2.0}, {"CPU": 64.0}], "auto")
    PoolSize(workers=2, cpus=8, gpus=1)
    """
    if device not in ("auto", "cpu", "cuda"):
        raise DeviceError(f"device {device!r} with --backend ray; expected auto, cpu or cuda: Ray deals out the GPUs")
    room = [(int(each.get("CPU", 0)), int(each.get("GPU", 0))) for each in machines]
    with_gpu = [(cpus, gpus) for cpus, gpus in room if gpus]
    if device == "cuda" and not with_gpu:
        raise DeviceError("device 'cuda' is on no machine of the Ray cluster; use --device cpu or auto")
    if device != "cpu" and with_gpu:
        return PoolSize(sum(gpus for _, gpus in with_gpu), min(cpus // gpus for cpus, gpus in with_gpu), 1)
    cores = [cpus for cpus, _ in room if cpus]
    if not cores:
        raise ClusterError("the Ray cluster has no cores for a worker; start its machines with --num-cpus above 0")
    each = min(CORES, *cores)
    return PoolSize(sum(cpus // each for cpus in cores), each, 0)
