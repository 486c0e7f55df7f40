"""An exported network that is open: pixels in, embeddings out, computed by ONNX Runtime alone."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurebank.backbones.exported import cache
from featurebank.backbones.exported.cache import Found
from featurebank.errors import EngineError, one_line
from featurebank.storage.cores import usable_cores

TOLERANCE = 1e-4
"""Largest relative distance of a row: from plain float32 PyTorch when exported, from the record when opened."""


class ExportedNetwork:
    """A network that ONNX Runtime computes on the CPU, looked at once more when it is opened.

    Parameters
    ----------
    found : Found
        See `featurebank.backbones.exported.cache.find`.

    Raises
    ------
    EngineError
        When the graph is not the one of the record, cannot be opened, or gives other numbers for the known input.
    """

    def __init__(self, found: Found):
        self.path, self.record, self._outputs = found
        self._session = open_session(self._graph())
        names = [output.name for output in self._session.get_outputs()]
        self._names = [names[number] for number in self._outputs]
        self._input = self._session.get_inputs()[0].name
        self._check()
        cache.used(self.path)

    @property
    def is_apart(self) -> bool:
        """Whether a row's bits do not depend on the batch that it is computed in, here as where that was found."""
        return self.record.apart == here()

    def run(self, pixels: NDArray[Any]) -> list[NDArray[np.float32]]:
        """Embed a batch.

        Parameters
        ----------
        pixels : ndarray of uint8, shape (n, height, width, 3)
            Or what the network was exported with.

        Returns
        -------
        list of ndarray of float32, each of shape (n, …)
        """
        outputs: list[NDArray[np.float32]] = self._session.run(self._names, {self._input: pixels})
        return outputs

    def _graph(self) -> bytes:
        try:
            graph = self.path.read_bytes()
        except OSError as error:
            raise self._unfit(error.strerror or one_line(error)) from error
        if hashlib.sha256(graph).hexdigest() != self.record.graph:
            raise self._unfit("its digest is another one")
        return graph

    def _check(self) -> None:
        """Refuse a network that gives other numbers for the known input than it gave when it was exported."""
        try:
            found = self.run(self.record.known)
        except Exception as error:  # ONNX Runtime has many kinds
            raise self._unfit(one_line(error)[:100]) from error
        expected = [self.record.outputs[number] for number in self._outputs]
        off = max(map(distance, found, expected))
        if not off <= TOLERANCE:
            raise self._unfit(f"it is {off:.1e} off what it gave when it was exported")

    def _unfit(self, why: str) -> EngineError:
        return EngineError(f"the exported network {self.path.name!r} does not fit: {why}")


def open_session(graph: bytes) -> Any:
    """Return a session of ONNX Runtime on the CPU.

    Raises
    ------
    EngineError
        When it cannot be opened.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = thread_count()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # decoding wants the cores meanwhile
    options.log_severity_level = 3  # of its warnings none is for the user
    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has many kinds
        raise EngineError(
            f"engine 'onnx' cannot run this network here ({one_line(error)[:160]}): use --engine eager"
        ) from error


def thread_count() -> int:
    """Return the threads that a network computes on: as many as torch takes where it is loaded, or would take."""
    torch = sys.modules.get("torch")
    if torch is not None:
        return min(int(torch.get_num_threads()), usable_cores())
    asked = next(filter(None, map(os.environ.get, ("OMP_NUM_THREADS", "MKL_NUM_THREADS"))), "")
    return min(int(asked), usable_cores()) if asked.isdecimal() and int(asked) else usable_cores()


def here() -> dict[str, Any]:
    """Return what a row's bits may depend on beside the graph: the library, the machine and the threads."""
    return {"onnxruntime": version("onnxruntime"), "machine": platform.machine(), "threads": thread_count()}


def distance(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """Return the largest relative distance of the rows that both have; infinite where one is no number.

    Examples
    --------
    >>> distance(np.array([[3.0, 4.5]]), np.array([[3.0, 4.0], [0.0, 0.0]]))
    0.1
    """
    count = min(len(found), len(expected))
    one, other = (np.asarray(rows[:count], np.float64).reshape(count, -1) for rows in (found, expected))
    if one.shape != other.shape:
        return float("inf")
    lengths = np.maximum(np.linalg.norm(other, axis=1), 1e-12)
    return float(np.nan_to_num(np.linalg.norm(one - other, axis=1) / lengths, nan=np.inf).max(initial=0.0))


def same_apart(run: Any, batch: NDArray[Any], counts: Sequence[int]) -> bool:
    """Say whether the rows of a batch keep their bits when fewer of them are computed together."""
    together = run(batch)
    for count in counts:
        parts = [run(batch[start : start + count]) for start in range(0, len(batch), count)]
        if not all(map(np.array_equal, map(np.concatenate, zip(*parts, strict=True)), together)):
            return False
    return True
