"""The images of a bank's samples, read and decoded in threads, a bounded number ahead."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from PIL import Image

from featurebank.errors import ImageError
from featurebank.samples import SampleTable
from featurebank.sources import source_of

Progress = Callable[[int, int], None]
AHEAD = 64
"""Images that may be decoded before they are used."""
_Made = TypeVar("_Made")


def read_images(
    table: SampleTable, make: Callable[[Image.Image], _Made], *, least: int = 0, progress: Progress | None = None
) -> Iterator[_Made]:
    """Yield what a function makes of each image, in the order of the table.

    Parameters
    ----------
    table : SampleTable
        Samples whose files are where they were last extracted from.
    make : callable
        Takes an RGB image; runs in a thread.
    least : int, default 0
        See `featurebank.images.decode`.
    progress : callable, optional
        Called with (images done, images in all).

    Raises
    ------
    ImageError
        When an image cannot be read, or its file is no longer what it was.
    """
    source, digests = source_of(table), list(table.rows["digest"])

    def work(position: int) -> _Made:
        try:
            digest, decode = source.read(position)
            if digest != digests[position]:
                raise ImageError("changed since it was extracted")
            return make(decode(least))
        except ImageError as error:
            name = os.fsdecode(source.paths[position])
            remedy = "extract its source again, with --root FOLDER if it moved"
            raise ImageError(f"{name!r}: {error}; {remedy}") from error

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        submitted = (pool.submit(work, position) for position in range(len(digests)))
        waiting = deque(islice(submitted, AHEAD))
        try:
            for done in range(1, len(digests) + 1):
                made = waiting.popleft().result()
                waiting.extend(islice(submitted, 1))
                if progress is not None:
                    progress(done, len(digests))
                yield made
        finally:
            for future in waiting:
                future.cancel()
