"""Pictures small enough for a page: tiles on WebP sheets, the most wanted first, until a budget of bytes is spent."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from featurebank.errors import ImageError
from featurebank.samples import SampleTable
from featurebank.sources import Source, source_of

SIDE = 96
"""Pixels of a tile's longer side."""
ACROSS = 12
"""Tiles in a row, and rows in a sheet."""
BUDGET = 12_000_000
"""Bytes of all sheets; base64 makes them a third larger in the page."""
QUALITY = 70


@dataclass(frozen=True)
class Pictures:
    """Tiles of samples on sheets.

    Attributes
    ----------
    sheets : list of bytes
        WebP images of `ACROSS` × `ACROSS` tiles, `SIDE` pixels each; the last one may have fewer rows.
    tile : ndarray of int32, shape (n,)
        Number of each sample's tile, counted through the sheets row by row; -1 where there is none.
    sizes : ndarray of uint8, shape (tiles, 2)
        Width and height of each picture in the upper left of its tile.
    unread : int
        Samples that were tried whose file is gone, changed or unreadable.
    """

    sheets: list[bytes]
    tile: NDArray[np.int32]
    sizes: NDArray[np.uint8]
    unread: int


def make_pictures(
    table: SampleTable,
    order: Sequence[int],
    *,
    budget: int = BUDGET,
    progress: Callable[[int, int], None] | None = None,
) -> Pictures:
    """Make tiles of the images of a sample table, as many as the budget allows.

    A file whose content is no longer what was embedded gives no tile: the page never shows another picture than the
    one that its numbers are about, and a bank cannot have other files of this machine shown.

    Parameters
    ----------
    table : SampleTable
    order : sequence of int
        Positions of the samples, the most wanted first.
    budget : int, default 12,000,000
        Bytes of all sheets; no sheet is begun once they are reached.
    progress : callable, optional
        Called with (samples done, samples in all).
    """
    sheets: list[bytes] = []
    tile, sizes = np.full(len(table), -1, np.int32), []
    unread = 0
    source, digests = source_of(table), table.rows["digest"].tolist()

    def shrink(row: int) -> Image.Image | None:
        return _shrunk(source, digests[row], row)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(order), ACROSS**2):
            if sum(map(len, sheets)) >= budget:
                break
            part = order[start : start + ACROSS**2]
            found = list(pool.map(shrink, part))
            shown = [(row, image) for row, image in zip(part, found, strict=True) if image is not None]
            unread += len(part) - len(shown)
            if shown:
                rows, small = zip(*shown, strict=True)
                tile[list(rows)] = len(sheets) * ACROSS**2 + np.arange(len(rows))
                sizes += [image.size for image in small] + [(0, 0)] * (ACROSS**2 - len(small))
                sheets.append(_sheet(small))
            if progress is not None:
                progress(start + len(part), len(order))
    if progress is not None and order:
        progress(len(order), len(order))
    return Pictures(sheets, tile, np.array(sizes, np.uint8).reshape(-1, 2), unread)


def webp(image: Image.Image) -> bytes:
    """Return an image as the bytes of a WebP file."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=QUALITY, method=2)
    return buffer.getvalue()


def _shrunk(source: Source, digest: bytes, position: int) -> Image.Image | None:
    """Return a small picture of a sample, None where its file is gone, unreadable, or not what was embedded."""
    try:
        found, decode = source.read(position)
        image = decode(SIDE) if found == digest else None
    except ImageError:
        return None
    if image is not None:
        image.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC, reducing_gap=2.0)
    return image


def _sheet(small: Sequence[Image.Image]) -> bytes:
    sheet = Image.new("RGB", (ACROSS * SIDE, -(-len(small) // ACROSS) * SIDE))
    for number, image in enumerate(small):
        sheet.paste(image, (number % ACROSS * SIDE, number // ACROSS * SIDE))
    return webp(sheet)
