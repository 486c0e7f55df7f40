"""Batches as a network takes them: prepared images in one piece, without a copy where they lie in one already."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from mmap import mmap
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray


def stacked(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Return arrays as one, a copy unless they lie one after the other in shared memory; that lasts as long as they do.

    Parameters
    ----------
    arrays : sequence of n ndarrays of one shape and dtype

    Returns
    -------
    ndarray, shape (n, …)

    Examples
    --------
    >>> memory = mmap(-1, 4096)
    >>> rows = np.frombuffer(memoryview(memory), np.uint8)[:12].reshape(3, 2, 2)
    >>> np.shares_memory(stacked(list(rows)), rows), np.shares_memory(stacked(list(rows[::2])), rows)
    (True, False)
    """
    first, step = arrays[0], arrays[0].nbytes
    memory, start = _memory(first), first.__array_interface__["data"][0]
    is_whole = memory is not None and first.flags.c_contiguous
    for number, each in enumerate(arrays):
        if not is_whole:
            return np.stack(arrays)
        is_whole = each.__array_interface__["data"][0] == start + number * step and _memory(each) is memory
    return as_strided(first, (len(arrays), *first.shape), (step, *first.strides)) if is_whole else np.stack(arrays)


def _memory(array: NDArray[Any]) -> mmap | None:
    """Return the shared memory that an array lies in."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    found = base.obj if isinstance(base, memoryview) else None
    return found if isinstance(found, mmap) else None


@contextmanager
def pinned(memory: mmap, device: str) -> Iterator[None]:
    """Register shared memory with CUDA, if that is the device, for copies from it to need no other memory.

    Where CUDA refuses, each batch is copied once more on its way.
    """
    if device != "cuda":
        yield
        return
    import torch

    runtime, whole = torch.cuda.cudart(), np.frombuffer(memory, np.uint8)
    is_registered = int(runtime.cudaHostRegister(whole.ctypes.data, whole.nbytes, 0)) == 0
    try:
        yield
    finally:
        if is_registered:
            torch.cuda.synchronize()
            runtime.cudaHostUnregister(whole.ctypes.data)
