"""Preprocessing that belongs to the weights: one resolved description, one implementation."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from featurebank.backbones.framing import FRAMINGS, check_tiles, cut_tiles, fitted, tile_starts, tiled
from featurebank.bank.spec import PIXELS
from featurebank.errors import BackboneError, ImageError
from featurebank.images.decoding import MAX_PIXELS

if TYPE_CHECKING:
    from torch import Tensor

_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}
MODES = ("center", "squash")
DECODERS = ("pil", "tensor", "reduced", "nvjpeg")
ON_TENSORS = ("nearest", "bilinear", "bicubic")
"""Filters that torchvision has for tensors."""
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
    decoder : str
        ``"pil"``: Pillow decodes and resizes. ``"tensor"``: torchvision's filter resizes, up to three times faster and
        within two levels of 255. ``"reduced"``: large JPEG files are decoded at a fraction of their size that is at
        least twice `resize`, several times faster and one or two levels off on average. ``"nvjpeg"``: a CUDA GPU
        decodes JPEG files (`backbones.nvjpeg`), and torchvision's filter resizes them there; all else as ``"pil"``.
    framing : str
        ``"crop"``: the middle, as above. ``"squash"``: the whole image, resized to the crop's height and width.
        ``"pad"``: the whole image within the crop, the rest in the mean colour. ``"tiles"``: overlapping crops of the
        whole image, see `featurebank.backbones.framing`.

    See Also
    --------
    Backbone : The network that it belongs to.

    Examples
    --------
    >>> seen = Preprocessing(256, (224, 224), "bilinear", (0.5,) * 3, (0.5,) * 3)
    >>> seen.target((640, 480)), round(seen.unseen((640, 480)), 2)
    ((341, 256), 0.43)
    """

    resize: int
    crop: tuple[int, int]
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mode: str = "center"
    decoder: str = "pil"
    framing: str = "crop"

    def __post_init__(self) -> None:
        if self.interpolation not in _RESAMPLING or self.mode not in MODES or self.decoder not in DECODERS:
            raise BackboneError(
                f"preprocessing with {self.interpolation!r:.20}, {self.mode!r:.20} and {self.decoder!r:.20}; expected "
                f"one of {', '.join(_RESAMPLING)}, one of {', '.join(MODES)} and one of {', '.join(DECODERS)}"
            )
        if self.decoder in ("tensor", "nvjpeg") and self.interpolation not in ON_TENSORS:
            raise BackboneError(
                f"decoder {self.decoder!r} resizes with one of {', '.join(ON_TENSORS)}, and these weights want "
                f"{self.interpolation!r}; use decoder pil or reduced"
            )
        if self.framing not in FRAMINGS:
            raise BackboneError(f"framing {self.framing!r:.20}; expected one of {', '.join(FRAMINGS)}")
        if self.decoder == "nvjpeg":
            check_tiles(self.framing)
        sides = (self.resize, *self.crop)
        if len(sides) != 3 or not all(type(side) is int and 1 <= side <= MAX_SIDE for side in sides):
            raise BackboneError(
                f"preprocessing that resizes to {self.resize!r:.20} and crops to {self.crop!r:.40}; expected whole "
                f"numbers of pixels, a height and a width of 1 to {MAX_SIDE}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for a feature spec."""
        fields = asdict(self)
        for name, first in (("decoder", "pil"), ("framing", "crop")):  # left out, as before there was a choice
            if fields[name] == first:
                del fields[name]
        return {key: list(value) if isinstance(value, tuple) else value for key, value in fields.items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Preprocessing:
        """Build one from `to_dict`'s dictionary, or a feature spec's, whose pixel rules are left to the backbone.

        Raises
        ------
        BackboneError
            When these are not the fields of one.
        """
        own = {key: value for key, value in values.items() if key != PIXELS}
        given: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in own.items()}
        names = {each.name for each in fields(cls)}
        if not names - {"mode", "decoder", "framing"} <= set(given) <= names:
            raise BackboneError(f"preprocessing with the fields {', '.join(sorted(given))[:80]}; make the file again")
        return cls(**given)

    def with_size(self, size: int | None) -> Preprocessing:
        """Return the same for another input size, if one is named, the share that the crop keeps unchanged."""
        if size is None:
            return self
        resize = max(size, round(self.resize * size / min(self.crop)))
        return replace(self, resize=resize, crop=(size, size))

    @property
    def least_side(self) -> int:
        """What `featurebank.images.decoding.decode` is told to keep of an image's sides; 0 for all."""
        return 2 * self.resize if self.decoder == "reduced" else 0

    def __call__(self, image: Image.Image) -> NDArray[np.uint8]:
        """Resize and crop an RGB image, or cut it into tiles.

        Parameters
        ----------
        image : PIL.Image.Image
            Mode RGB.

        Returns
        -------
        ndarray of uint8, shape ([tiles,] crop height, crop width, 3)
            What the network sees before normalisation.

        Raises
        ------
        ImageError
            When the image is so long that resizing its shorter side makes more than `MAX_PIXELS` pixels.
        """
        target = self.target(image.size)
        if target != image.size:
            image = self._resized(image, target)
        if self.framing == "tiles":
            return cut_tiles(np.asarray(image), self.crop)
        return np.asarray(_center_crop(image, self.crop, self.margin))

    @property
    def margin(self) -> tuple[int, ...]:
        """Colour of what lies outside the image: the mean colour around a padded one, black around one too small."""
        return tuple(round(255 * value) for value in self.mean) if self.framing == "pad" else (0, 0, 0)

    def on_tensor(self, images: Tensor) -> Tensor:
        """Resize and crop RGB images where they are: uint8 (n, 3, h, w) to uint8 (n, crop height, crop width, 3)."""
        from torchvision.transforms.v2 import functional

        resized = self._resized_tensor(images, self.target((images.shape[-1], images.shape[-2])))
        if self.framing == "pad":
            left, top = ((self.crop[1 - i] - resized.shape[-1 - i]) // 2 for i in (0, 1))
            right, bottom = self.crop[1] - resized.shape[-1] - left, self.crop[0] - resized.shape[-2] - top
            resized = functional.pad(resized, [left, top, right, bottom], fill=list(self.margin))
        return functional.center_crop(resized, list(self.crop)).permute(0, 2, 3, 1)

    def window(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """Return the part of an image that the network sees: left, top, right, bottom in the image's own pixels.

        Parameters
        ----------
        size : tuple of int
            Width and height of the image.

        Examples
        --------
        >>> Preprocessing(256, (224, 224), "bilinear", (0.5,) * 3, (0.5,) * 3).window((512, 1024))
        (32.0, 288.0, 480.0, 736.0)
        """
        if self.framing == "tiles":
            return 0.0, 0.0, float(size[0]), float(size[1])
        target = self.target(size)
        ends = [self._span(size[i], target[i], self.crop[1 - i]) for i in (0, 1)]
        return ends[0][0], ends[1][0], ends[0][1], ends[1][1]

    def boxes(self, size: tuple[int, int]) -> list[tuple[float, float, float, float]]:
        """Return what the network sees at a time of an image, in its pixels: the `window`, or each of the tiles."""
        if self.framing != "tiles":
            return [self.window(size)]
        target = self.target(size)
        across, down = size[0] / target[0], size[1] / target[1]
        height, width = self.crop
        return [
            (left * across, top * down, (left + width) * across, (top + height) * down)
            for top in tile_starts(target[1], height)
            for left in tile_starts(target[0], width)
        ]

    def unseen(self, size: tuple[int, int]) -> float:
        """Return the share of an image of a width and height that the network never sees.

        Examples
        --------
        >>> Preprocessing(256, (224, 224), "bilinear", (0.5,) * 3, (0.5,) * 3).unseen((512, 512))
        0.234375
        """
        left, top, right, bottom = self.window(size)
        seen = (min(right, size[0]) - max(left, 0)) * (min(bottom, size[1]) - max(top, 0))
        return 1 - seen / (size[0] * size[1])

    @staticmethod
    def _span(length: int, resized: int, crop: int) -> tuple[float, float]:
        """Return where a crop of the middle begins and ends on one side of an image."""
        start = round((resized - crop) / 2) if resized >= crop else -((crop - resized) // 2)
        return start * length / resized, (start + crop) * length / resized

    def target(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the width and height that an image of a width and height is resized to.

        Raises
        ------
        ImageError
            When that makes more than `MAX_PIXELS` pixels.
        """
        if self.framing == "squash":
            return self.crop[1], self.crop[0]
        if self.framing == "pad":
            return fitted(size, self.crop)
        whole = (1, 1) if self.mode == "squash" else size
        return tiled(whole, self.resize, self.crop) if self.framing == "tiles" else _shorter(whole, self.resize)

    def _resized(self, image: Image.Image, target: tuple[int, int]) -> Image.Image:
        if self.decoder != "tensor":
            return image.resize(target, _RESAMPLING[self.interpolation])
        from torchvision.transforms.v2 import functional

        pixels = self._resized_tensor(functional.pil_to_tensor(image), target)
        return Image.fromarray(pixels.permute(1, 2, 0).numpy())

    def _resized_tensor(self, pixels: Tensor, target: tuple[int, int]) -> Tensor:
        from torchvision.transforms.v2 import functional

        mode = functional.InterpolationMode(self.interpolation)
        resized: Tensor = functional.resize(pixels, [target[1], target[0]], mode, antialias=True)
        return resized


def _shorter(before: tuple[int, int], size: int) -> tuple[int, int]:
    """Return the size at which the shorter side is `size`; the longer is rounded down, as torchvision does."""
    width, height = before
    target = (size, int(size * height / width)) if width <= height else (int(size * width / height), size)
    if target[0] * target[1] > MAX_PIXELS:
        raise ImageError(f"{width}x{height} pixels become {target[0]}x{target[1]} when resized: crop the image first")
    return target


def _center_crop(image: Image.Image, crop: tuple[int, int], margin: tuple[int, ...]) -> Image.Image:
    """Crop the middle (banker's rounding of the corner, as torchvision does); outside the image is the margin."""
    height, width = crop
    if image.size == (width, height):
        return image
    if image.width < width or image.height < height:
        left, top = max(0, (width - image.width) // 2), max(0, (height - image.height) // 2)
        padded = Image.new("RGB", (max(width, image.width), max(height, image.height)), margin)
        padded.paste(image, (left, top))
        image = padded
    top, left = round((image.height - height) / 2), round((image.width - width) / 2)
    return image.crop((left, top, left + width, top + height))
