"""How many images a forward pass may take, and how a library says that it ran out of memory; without torch."""

from __future__ import annotations

from featurebank.storage.memory import physical_memory

LARGEST_BATCH = 32
"""Images in a forward pass on a CPU at most."""
LIVE_LAYERS = 6
"""Tensors of the largest layer's size that one image keeps alive at once, rounded up from what was measured."""
MEMORY_SHARE = 0.25


def fitting_batch(floats: int, memory: int | None = None, most: int = LARGEST_BATCH) -> int:
    """Return how many images a forward pass may take: a power of two, by the memory that there is.

    The largest layer is counted `LIVE_LAYERS` times in float32, and a quarter of the memory may go there.

    Parameters
    ----------
    floats : int
        Numbers in the largest layer of one image.
    memory : int, optional
        Bytes; by default all of this machine's.
    most : int, default 32

    Examples
    --------
    >>> fitting_batch(64 * 112 * 112, 1 << 30), fitting_batch(64 * 112 * 112, 10 << 20)
    (8, 1)
    """
    available = physical_memory() if memory is None else memory
    fitting = max(1, int(MEMORY_SHARE * available / (floats * 4 * LIVE_LAYERS)))
    return min(most, 1 << (fitting.bit_length() - 1))


def says_out_of_memory(error: Exception) -> bool:
    """Say whether an error means that memory ran out, by its kind or its words.

    Examples
    --------
    >>> says_out_of_memory(MemoryError()), says_out_of_memory(ValueError("no"))
    (True, False)
    """
    text = str(error).lower()
    is_said = "alloc_failed" in text or ("memory" in text and ("allocate" in text or "out of" in text))
    return isinstance(error, MemoryError) or is_said
