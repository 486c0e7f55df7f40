"""Occlusion: how much a decision falls when a part of the image is covered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageStat

from featurebank.images.reading import Progress

if TYPE_CHECKING:
    from featurebank.backbones.base import Backbone
    from featurebank.predictor.predictor import Predictor

SHARE = 6
"""A cover's side is this part of what the network sees; it moves by half of that."""
AT_ONCE = 16
Box = tuple[int, int, int, int]


def occlusion_map(
    predictor: Predictor,
    image: Image.Image,
    decide: Callable[[NDArray[np.float32]], NDArray[np.float64]],
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Return how much a decision falls where the image is covered in its mean colour, shape (height, width).

    Zeiler and Fergus (2014), Visualizing and understanding convolutional networks. A pixel gets the mean over the
    covers that it lies under. `decide` takes embeddings (n, d) to decisions (n,).
    """
    covers = list(_covers(window_of(predictor.backbone_of(predictor.features[0]), image.size), image.size))
    mean = tuple(round(value) for value in ImageStat.Stat(image).mean)
    before = float(decide(predictor.embed([image]))[0])
    total = np.zeros((image.height, image.width), np.float32)
    times = np.zeros_like(total)
    for start in range(0, len(covers), AT_ONCE):
        some = covers[start : start + AT_ONCE]
        after = decide(predictor.embed([_covered(image, box, mean) for box in some]))
        for (left, top, right, bottom), value in zip(some, after, strict=True):
            total[top:bottom, left:right] += before - value
            times[top:bottom, left:right] += 1
        if progress is not None:
            progress(start + len(some), len(covers))
    return np.asarray(total / np.maximum(times, 1), np.float32)


def _covers(window: tuple[float, float, float, float], size: tuple[int, int]) -> Iterator[Box]:
    """Yield boxes that overlap by half and cover all of the image that the network sees."""
    ends = [(max(0, int(window[i])), min(size[i], round(window[i + 2]))) for i in (0, 1)]
    spans = [_spans(*each) for each in ends]
    for top, bottom in spans[1]:
        for left, right in spans[0]:
            yield left, top, right, bottom


def _spans(start: int, stop: int) -> list[tuple[int, int]]:
    """Return overlapping parts of a range, by their starts and ends.

    Examples
    --------
    >>> _spans(0, 12)[:3], _spans(0, 12)[-1], len(_spans(0, 12))
    ([(0, 2), (1, 3), (2, 4)], (10, 12), 11)
    """
    step = (stop - start) / (2 * SHARE)
    edges = [start + round(number * step) for number in range(2 * SHARE + 1)]
    return [(a, max(b, a + 1)) for a, b in zip(edges, edges[2:], strict=False)]


def _covered(image: Image.Image, box: Box, colour: Any) -> Image.Image:
    covered = image.copy()
    covered.paste(colour, box)
    return covered


def window_of(backbone: Backbone, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return the part of an image that a network sees, in its pixels; all of it for a transform of your own."""
    from featurebank.backbones.preprocessing import Preprocessing

    if isinstance(backbone.preprocessing, Preprocessing):
        return backbone.preprocessing.window(size)
    return 0.0, 0.0, float(size[0]), float(size[1])
