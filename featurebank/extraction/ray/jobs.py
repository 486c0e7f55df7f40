"""The joblib tasks of a search, done by a Ray cluster."""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from joblib import parallel_config
from joblib.parallel import ThreadingBackend
from threadpoolctl import threadpool_limits

from featurebank.extraction.ray.cluster import connected

KEPT = 16
"""Arguments that lie in the cluster's object store for tasks to come."""
_SMALL = (bool, int, float, str, bytes, type(None))


@contextmanager
def jobs_on_ray(address: str | None = None) -> Iterator[None]:
    """Have a Ray cluster do the joblib tasks of what is fitted inside: `fit`, `TopModelSearchCV`, scikit-learn's own.

    ``n_jobs=-1`` then means all cores of the cluster. With as many jobs, scores are those of the same fit without it.

    Parameters
    ----------
    address : str, optional
        See `featurebank.extraction.ray.cluster.connected`.

    Raises
    ------
    NotInstalledError, ClusterError
        When Ray is not installed, or the cluster cannot be joined.

    See Also
    --------
    featurebank.fit : What it is mostly used for.

    Examples
    --------
    >>> from featurebank import fit
    >>> with jobs_on_ray():
    ...     result = fit("photos.bank", features="penultimate", models=["svm"])
    >>> result.report["best"]["model"]
    'svm'
    """
    with connected(address) as ray, parallel_config(backend=RayThreads(ray)):
        yield


class RayThreads(ThreadingBackend):
    """joblib's threads, each of which waits for one task at a time that a Ray worker does.

    Ray's own backend (`ray.util.joblib`) cannot give results as they come, which every search needs for its progress
    and its time limit, copies all rows into each task, and starts its workers anew for each call. Here rows go to the
    object store once, and Ray does a task again whose worker was lost.

    Parameters
    ----------
    ray : module
        Connected to a cluster.
    """

    supports_sharedmem = False

    def __init__(self, ray: Any, **options: Any):
        super().__init__(**options)
        self._ray = ray
        self._remote = ray.remote(_call).options(scheduling_strategy="SPREAD")
        self._store = _Store(ray)
        self._waited_for: set[Any] = set()

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return the number of jobs; a negative one counts from all cores of the cluster."""
        if n_jobs is None or n_jobs >= 0:
            return int(super().effective_n_jobs(n_jobs))
        return max(1, int(self._ray.cluster_resources().get("CPU", 1)) + 1 + n_jobs)

    def submit(self, func: Any, callback: Callable[[Any], None] | None = None) -> Any:
        """Have a thread wait for the tasks of `func`, one after the other."""
        return super().submit(lambda: [self._do(*task) for task in func.items], callback)

    def terminate(self) -> None:
        """End the threads, and the tasks that nobody waits for any longer."""
        for reference in list(self._waited_for):
            self._ray.cancel(reference)
        super().terminate()
        self._store.clear()

    def _do(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        if hasattr(func, "__self__"):
            func, args = func.__func__, (func.__self__, *args)  # type: ignore[attr-defined]
        reference = self._remote.remote(func, dict(kwargs), *map(self._store.put, args))
        self._waited_for.add(reference)
        try:
            result, messages = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None
        finally:
            self._waited_for.discard(reference)
        for message in messages:
            warnings.warn(message, stacklevel=2)
        return result


def _call(func: Callable[..., Any], kwargs: Mapping[str, Any], *args: Any) -> tuple[Any, list[Warning]]:
    """Do a task on one core, as a thread of a search would; return its result and what it warned about."""
    with threadpool_limits(1), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = func(*args, **kwargs)
    return result, [each.message for each in caught if isinstance(each.message, Warning)]


class _Store:
    """The last arguments of tasks, each in the object store once."""

    def __init__(self, ray: Any):
        self._ray = ray
        self._kept: OrderedDict[int, tuple[Any, Any]] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, value: Any) -> Any:
        """Return a reference to a value; a small one itself."""
        if isinstance(value, _SMALL):
            return value
        with self._lock:
            if id(value) not in self._kept:
                self._kept[id(value)] = value, self._ray.put(value)  # the value is kept, so no other gets its id
            self._kept.move_to_end(id(value))
            reference = self._kept[id(value)][1]
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
            return reference

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._kept.clear()
