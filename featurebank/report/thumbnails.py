"""Pictures small enough for a page: tiles on WebP sheets, the most wanted first, until a budget of bytes is spent."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from featurebank.bank.images import images_of
from featurebank.bank.samples import SampleTable
from featurebank.images.reading import Progress

SIDE = 96
"""Pixels of a tile's longer side."""
ACROSS = 12
"""Tiles in a row, and rows in a sheet."""
BUDGET = 12_000_000
"""Bytes of all sheets; base64 makes them a third larger in the page."""
QUALITY = 70


@dataclass(frozen=True)
class Pictures:
    """Tiles of samples on sheets, WebP images of `ACROSS` × `ACROSS` tiles of `SIDE` pixels.

    Attributes
    ----------
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
    progress: Progress | None = None,
) -> Pictures:
    """Make tiles of samples, the first of the order first, until the sheets have as many bytes as the budget.

    A file whose content is no longer what was embedded gives no tile: the page never shows another picture than the
    one that its numbers are about, and a bank cannot have other files of this machine shown.
    """
    wanted = table.take(list(order))
    found = images_of(wanted, _shrunk, least=SIDE, progress=progress)
    pairs = zip(order, found, strict=True)
    sheets: list[bytes] = []
    tile, sizes, unread = np.full(len(table), -1, np.int32), [], 0
    while sum(map(len, sheets)) < budget and (part := list(islice(pairs, ACROSS**2))):
        shown = [(row, image) for row, image in part if isinstance(image, Image.Image)]
        unread += len(part) - len(shown)
        if shown:
            rows, small = zip(*shown, strict=True)
            tile[list(rows)] = len(sheets) * ACROSS**2 + np.arange(len(rows))
            sizes += [image.size for image in small] + [(0, 0)] * (ACROSS**2 - len(small))
            sheets.append(_sheet(small))
    if progress is not None and order:
        progress(len(order), len(order))
    return Pictures(sheets, tile, np.array(sizes, np.uint8).reshape(-1, 2), unread)


def _shrunk(image: Image.Image) -> Image.Image:
    image.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC, reducing_gap=2.0)
    return image


def _sheet(small: Sequence[Image.Image]) -> bytes:
    sheet = Image.new("RGB", (ACROSS * SIDE, -(-len(small) // ACROSS) * SIDE))
    for number, image in enumerate(small):
        sheet.paste(image, (number % ACROSS * SIDE, number // ACROSS * SIDE))
    buffer = io.BytesIO()
    sheet.save(buffer, "WEBP", quality=QUALITY, method=2)
    return buffer.getvalue()
