"""Preprocessing that belongs to the weights: one resolved description, one implementation."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from featurebank.errors import BackboneError, ImageError
from featurebank.images import MAX_PIXELS

_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}
MODES = ("center", "squash")
MAX_SIDE = 8192
"""The longest side of a network's input in pixels; a predictor's file may ask for any, and memory is its square."""


@dataclass(frozen=True)
class Preprocessing:
    """Resize, crop and normalisation of one set of weights, resolved to numbers.

    Parameters
    ----------
    resize : int
        Length in pixels of the shorter side after resizing.
    crop : tuple of int
        Height and width in pixels of what the network sees.
    interpolation : str
        ``"bilinear"``, ``"bicubic"``, …: Pillow's antialiased filters.
    mean, std : tuple of float
        Of the three channels, on the scale 0..1.
    mode : str
        ``"center"`` keeps the proportions; ``"squash"`` resizes both sides to `resize`. Both crop the middle.
    """

    resize: int
    crop: tuple[int, int]
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mode: str = "center"

    def __post_init__(self) -> None:
        if self.interpolation not in _RESAMPLING or self.mode not in MODES:
            raise BackboneError(
                f"preprocessing with {self.interpolation!r} and {self.mode!r}; "
                f"expected one of {', '.join(_RESAMPLING)} and one of {', '.join(MODES)}"
            )

        sides = (self.resize, *self.crop)
        if len(sides) != 3 or not all(type(side) is int and 1 <= side <= MAX_SIDE for side in sides):
            raise BackboneError(
                f"preprocessing that resizes to {self.resize!r:.20} and crops to {self.crop!r:.40}; expected whole "
                f"numbers of pixels, a height and a width of 1 to {MAX_SIDE}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for a feature spec."""
        fields = asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in fields.items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Preprocessing:
        """Build one from `to_dict`'s dictionary."""
        fields: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        return cls(**fields)

    def with_size(self, size: int) -> Preprocessing:
        """Return the same for another input size, the share that the crop keeps unchanged."""
        resize = max(size, round(self.resize * size / min(self.crop)))
        return replace(self, resize=resize, crop=(size, size))

    def __call__(self, image: Image.Image) -> NDArray[np.uint8]:
        """Resize and crop an RGB image.

        Parameters
        ----------
        image : PIL.Image.Image
            Mode RGB.

        Returns
        -------
        ndarray of uint8, shape (crop height, crop width, 3)
            What the network sees before normalisation.

        Raises
        ------
        ImageError
            When the image is so long that resizing its shorter side makes more than `MAX_PIXELS` pixels.
        """
        method = _RESAMPLING[self.interpolation]
        if self.mode == "squash":
            image = image.resize((self.resize, self.resize), method)
        else:
            image = _resize_shorter(image, self.resize, method)
        return np.asarray(_center_crop(image, self.crop))


def _resize_shorter(image: Image.Image, size: int, method: Image.Resampling) -> Image.Image:
    """Resize so that the shorter side is `size`; the longer is rounded down, as torchvision does."""
    width, height = image.size
    target = (size, int(size * height / width)) if width <= height else (int(size * width / height), size)
    if target[0] * target[1] > MAX_PIXELS:
        raise ImageError(f"{width}x{height} pixels become {target[0]}x{target[1]} when resized: crop the image first")
    return image if target == image.size else image.resize(target, method)


def _center_crop(image: Image.Image, crop: tuple[int, int]) -> Image.Image:
    """Crop the middle (banker's rounding of the corner, as torchvision does); outside the image it is black."""
    height, width = crop
    if image.width < width or image.height < height:
        left, top = max(0, (width - image.width) // 2), max(0, (height - image.height) // 2)
        padded = Image.new("RGB", (max(width, image.width), max(height, image.height)))
        padded.paste(image, (left, top))
        image = padded
    top, left = round((image.height - height) / 2), round((image.width - width) / 2)
    return image.crop((left, top, left + width, top + height))
