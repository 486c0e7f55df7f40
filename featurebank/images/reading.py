"""The images of a source, read and decoded in threads, a bounded number ahead."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from PIL import Image

from featurebank.errors import ImageError
from featurebank.images.sources import Source

Progress = Callable[[int, int], None]
AHEAD = 64
"""Images that may be decoded before they are used."""
_Made = TypeVar("_Made")


def read_images(
    source: Source,
    make: Callable[[Image.Image], _Made],
    *,
    digests: Sequence[bytes] | None = None,
    least: int = 0,
    progress: Progress | None = None,
) -> Iterator[_Made | ImageError]:
    """Yield what a function makes of each image, in the order of the source; an error in place of one it cannot have.

    Parameters
    ----------
    source : Source
        From `featurebank.scan`, or `featurebank.bank.images.source_of` for the samples of a bank.
    make : callable
        Takes an RGB image; runs in a thread.
    digests : sequence of bytes, optional
        The contents that the images must have.
    least : int, default 0
        See `featurebank.images.decoding.decode`.
    progress : callable, optional
        Called with (images done, images in all).
    """
    count = len(source.paths)

    def work(position: int) -> _Made | ImageError:
        try:
            digest, decode = source.read(position)
            if digests is not None and digest != digests[position]:
                raise ImageError("changed since it was extracted")
            return make(decode(least))
        except ImageError as error:
            name = os.fsdecode(source.paths[position])
            remedy = "" if digests is None else "; extract its source again, with --root FOLDER if it moved"
            return ImageError(f"{name!r}: {error}{remedy}")

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        submitted = (pool.submit(work, position) for position in range(count))
        waiting = deque(islice(submitted, AHEAD))
        try:
            for done in range(1, count + 1):
                made = waiting.popleft().result()
                waiting.extend(islice(submitted, 1))
                if progress is not None:
                    progress(done, count)
                yield made
        finally:
            for future in waiting:
                future.cancel()
