"""Framing: which part of an image the network is given, and in how many pieces.

``crop`` is what the weights were tested with: the middle of the image, whose border is never seen. ``squash`` gives the
whole image without its proportions, ``pad`` the whole image with its proportions and a margin, ``tiles`` overlapping
pieces of the whole image, whose features are averaged.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurebank.errors import BackboneError

FRAMINGS = ("crop", "squash", "pad", "tiles")
OVERLAP = 8
"""Neighbouring tiles share at least one part in so many of their side."""
MOST_TILES = 8
"""Tiles along a side; an image that is longer is squashed along it."""


def check_tiles(framing: str | None) -> None:
    """Refuse tiles of images that the GPU decodes.

    Raises
    ------
    BackboneError
        When they are asked for.
    """
    if framing == "tiles":
        raise BackboneError(
            "decoder 'nvjpeg' makes no tiles; expected --fit crop, squash or pad: use one, or another --decoder"
        )


def fitted(size: tuple[int, int], crop: tuple[int, int]) -> tuple[int, int]:
    """Return the largest width and height of an image's proportions that lie within a crop (height, width).

    Examples
    --------
    >>> fitted((400, 200), (224, 224)), fitted((1, 1000), (224, 224))
    ((224, 112), (1, 224))
    """
    scale = min(crop[1] / size[0], crop[0] / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def tiled(size: tuple[int, int], resize: int, crop: tuple[int, int]) -> tuple[int, int]:
    """Return the width and height at which an image is cut into tiles: the shorter side `resize`, none too long.

    Examples
    --------
    >>> tiled((400, 200), 256, (224, 224)), tiled((1, 1000), 256, (224, 224))
    ((512, 256), (256, 1596))
    """
    longest = [side + (MOST_TILES - 1) * (side - side // OVERLAP) for side in (crop[1], crop[0])]
    target = [int(resize * side / min(size)) for side in size]
    width, height = (min(max(target[i], crop[1 - i]), longest[i]) for i in (0, 1))
    return width, height


def tile_starts(length: int, size: int) -> list[int]:
    """Return where the tiles of a size begin along a side, the first at its start, the last at its end.

    Examples
    --------
    >>> tile_starts(256, 224), tile_starts(224, 224), tile_starts(512, 224)
    ([0, 32], [0], [0, 144, 288])
    """
    shared = size // OVERLAP
    count = max(1, math.ceil((length - shared) / (size - shared)))
    return [round(start) for start in np.linspace(0, length - size, count)]


def cut_tiles(pixels: NDArray[np.uint8], crop: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the tiles of an image (height, width, 3) row by row, shape (tiles, crop height, crop width, 3)."""
    tops, lefts = (tile_starts(pixels.shape[i], crop[i]) for i in (0, 1))
    return np.stack([pixels[top : top + crop[0], left : left + crop[1]] for top in tops for left in lefts])


def flatten_tiles(prepared: Any) -> tuple[Any, NDArray[np.int64] | None]:
    """Return the tiles of prepared images one after the other, and how many are of each; None for images of one piece.

    Examples
    --------
    >>> tiles, counts = flatten_tiles([np.zeros((4, 8, 8, 3)), np.zeros((2, 8, 8, 3))])
    >>> len(tiles), counts.tolist()
    (6, [4, 2])
    """
    if not len(prepared) or getattr(prepared[0], "ndim", 3) != 4:
        return prepared, None
    return [tile for tiles in prepared for tile in tiles], np.array([len(tiles) for tiles in prepared])


def average_tiles(rows: NDArray[np.float32], counts: NDArray[np.int64] | None) -> NDArray[np.float32]:
    """Return the mean over the tiles of each image.

    Examples
    --------
    >>> average_tiles(np.array([[1.0], [3.0], [5.0]], np.float32), np.array([2, 1])).tolist()
    [[2.0], [5.0]]
    """
    if counts is None:
        return rows
    sums = np.add.reduceat(rows, np.cumsum(counts) - counts, axis=0)
    return np.asarray(sums / counts.reshape(-1, *[1] * (rows.ndim - 1)), np.float32)
