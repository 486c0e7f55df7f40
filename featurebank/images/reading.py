"""Images of every kind opened in one way, and read in threads ahead of their use, a bounded number at a time."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar, overload

from numpy.typing import NDArray
from PIL import Image

from featurebank.errors import ImageError
from featurebank.images import decoding
from featurebank.images.decoding import EncodedImage
from featurebank.images.items import picture_of
from featurebank.images.listing import read_image
from featurebank.images.pixels import PLAIN, PixelRules
from featurebank.images.sources import Source
from featurebank.storage.cores import usable_cores

Progress = Callable[[int, int], None]
ImageLike = str | os.PathLike[str] | bytes | Image.Image | NDArray[Any]
"""What can be opened as an image: a path, a file's bytes, a PIL image, or an array of uint8."""
AHEAD = 64
"""Images that may be decoded before they are used."""
_Item = TypeVar("_Item")
_Made = TypeVar("_Made")


@overload
def open_image(
    item: Any, *, least: int = 0, pixels: PixelRules = PLAIN, digest: bytes | None = None
) -> tuple[Image.Image, bytes]: ...


@overload
def open_image(
    item: Any, *, least: int = 0, on_gpu: bool, pixels: PixelRules = PLAIN, digest: bytes | None = None
) -> tuple[Image.Image | EncodedImage, bytes]: ...


def open_image(
    item: Any, *, least: int = 0, on_gpu: bool = False, pixels: PixelRules = PLAIN, digest: bytes | None = None
) -> tuple[Image.Image | EncodedImage, bytes]:
    """Open an image of any kind: return it in RGB, and its content digest.

    Parameters
    ----------
    item : path-like, bytes, PIL image, uint8 array or tensor
        A file by its path, the bytes of one, or an image in memory.
    least : int, default 0
        See `featurebank.images.decoding.decode`.
    on_gpu : bool, default False
        See `featurebank.images.decoding.decode_or_leave`.
    pixels : PixelRules, optional
        What is black and white in more than 8 bits, and which pages and channels are seen.
    digest : bytes, optional
        The digest as it was computed before; a file must still have it.

    Raises
    ------
    ImageError
        When the image cannot be read, or its file has another digest now.
    """
    item = picture_of(item)
    if digest is not None and not isinstance(item, (str, os.PathLike, bytes)):
        return decoding.as_image(item, pixels), digest
    with naming(item):
        found, decode = read_image(item)
        if digest not in (None, found):
            raise ImageError("changed while it was read: try again")
        return decode(least=least, on_gpu=on_gpu, pixels=pixels), found


def image_digest(item: Any) -> bytes:
    """Return the content digest of an image of any kind; see `open_image`.

    Raises
    ------
    ImageError
        When the image cannot be read.
    """
    with naming(item):
        return read_image(item)[0]


@contextmanager
def naming(item: Any) -> Iterator[None]:
    """Have an `ImageError` name the image that it is about, where this has a path."""
    try:
        yield
    except ImageError as error:
        if isinstance(item, (str, os.PathLike)):
            raise ImageError(f"{os.fspath(item)!r}: {error}") from error
        raise


def worker_count(wanted: int | None = None) -> int:
    """Return how many threads read: as many as are wanted, by default one for each core that this process may use."""
    return wanted or usable_cores()


def read_ahead(
    work: Callable[[_Item], _Made],
    items: Iterable[_Item],
    *,
    workers: int | None = None,
    most: int | Callable[[], int] = AHEAD,
    name: str = "featurebank-read",
) -> Generator[_Made, None, None]:
    """Yield what a function makes of each item, in their order, made in threads before it is needed.

    When the caller stops early, by an error or by Ctrl-C, what was not begun is cancelled.

    Parameters
    ----------
    work : callable
        Runs in a thread.
    items : iterable
        Taken one by one, as there is room.
    workers : int, optional
        Threads; see `worker_count`.
    most : int or callable, default 64
        How many items may be in work or ready at a time; a callable is asked anew before each.
    name : str
        What the threads' names begin with.
    """
    items = iter(items)
    waiting: deque[Future[_Made]] = deque()
    with ThreadPoolExecutor(worker_count(workers), name) as pool:
        try:
            while True:
                room = (most() if callable(most) else most) - len(waiting)
                waiting.extend(pool.submit(work, item) for item in islice(items, max(0, room)))
                if not waiting:
                    return
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def read_images(
    source: Source,
    make: Callable[[Image.Image], _Made],
    *,
    digests: Sequence[bytes] | None = None,
    least: int = 0,
    pixels: PixelRules = PLAIN,
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
    pixels : PixelRules, optional
        The pixel rules of the features that the images go with.
    progress : callable, optional
        Called with (images done, images in all).
    """
    count = len(source.paths)

    def work(position: int) -> _Made | ImageError:
        try:
            digest, decode = source.read(position)
            if digests is not None and digest != digests[position]:
                raise ImageError("changed since it was extracted")
            return make(decode(least=least, pixels=pixels))
        except ImageError as error:
            name = os.fsdecode(source.paths[position])
            hint = "" if digests is None else "; extract its source again, with --root FOLDER if it moved"
            return ImageError(f"{name!r}: {error}{hint}")

    for done, made in enumerate(read_ahead(work, range(count)), 1):
        if progress is not None:
            progress(done, count)
        yield made
