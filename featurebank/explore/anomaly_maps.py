"""Where an image is unlike normal ones: maps of a predictor that learned from normal images, and masks of them."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from featurebank.errors import PredictorError
from featurebank.explore.image_map import ActivationMap, unfolded
from featurebank.images.reading import ImageLike, open_image

if TYPE_CHECKING:
    from featurebank.predictor.predictor import Predictor

LIMIT = 1.0
"""Places of a map above it are marked: the promised share of normal images has any."""
NO_MAPS = (
    "this predictor holds no maps of normal images, which say where an image is strange: extract some (--layer "
    "LAYER:none) and fit again with --normal"
)


def anomaly_map(
    predictor: Predictor, image: ImageLike, label: object = None, method: str = "auto", *, score: float | None = None
) -> ActivationMap:
    """Show where an image is unlike normal ones; see `featurebank.explain`.

    Each place of the cached layers is compared with the nearest patch of normal images
    (`featurebank.topmodels.one_class.patches.PatchMemory`).

    Returns
    -------
    ActivationMap
        0 is usual, and 1 the limit: the promised share of normal images has a place above it.

    Raises
    ------
    PredictorError
        When the predictor holds no maps of normal images; or a class or another method is asked for.
    """
    task = predictor.single
    if label is not None or method != "auto":
        raise PredictorError("this predictor learned from normal images: its maps have no class and no other method")
    if task.patches is None:
        raise PredictorError(NO_MAPS)
    features = task.patches.features
    opened, _ = open_image(image, pixels=features[0].spec.pixels)
    embedder = predictor.embedder_of(features)
    cells = task.patches.memory.maps(task.patches.arranged(embedder.embed_all([opened])))
    backbone = embedder.backbone_of(features[0])
    found = np.maximum(unfolded(cells[0].astype(np.float64), 0, backbone, features[0], opened), 0)
    said = float(task.model.score_samples(predictor.embed([opened]))[0]) if score is None else score
    name = "anomaly" if said < task.model.offset_ else task.normal
    return ActivationMap(found, opened, name, said, "patches", [cells.astype(np.float64)])


def masks(predictor: Predictor, images: Sequence[ImageLike]) -> Iterator[bytes]:
    """Yield a mask of each image as PNG, in its own size: white where it is unlike normal images beyond the limit.

    Raises
    ------
    PredictorError
        When the predictor holds no maps of normal images.
    """
    for image in images:
        found = anomaly_map(predictor, image, score=0.0)  # the mask needs none
        buffer = io.BytesIO()
        Image.fromarray(mask_of(found.map)).save(buffer, "PNG")
        yield buffer.getvalue()


def mask_of(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return 255 where a map is above the limit, and 0 elsewhere.

    Examples
    --------
    >>> mask_of(np.array([[0.5, 1.5]], np.float32))
    array([[  0, 255]], dtype=uint8)
    """
    return np.where(values > LIMIT, 255, 0).astype(np.uint8)


def mask_names(paths: Sequence[str]) -> list[str]:
    """Return the names of the masks of image files: their paths from the folder that they share, and a suffix.

    Examples
    --------
    >>> mask_names(["/new/a/1.jpg", "/new/2.jpg"])
    ['a/1.jpg.mask.png', '2.jpg.mask.png']
    """
    full = [os.path.abspath(path) for path in paths]
    shared = os.path.commonpath([os.path.dirname(path) for path in full]) if full else ""
    return [os.path.relpath(path, shared).replace(os.sep, "/") + ".mask.png" for path in full]
