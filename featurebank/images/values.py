"""From values to grey levels: images of more than 8 bits, and of other than one or three channels, become RGB."""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from featurebank.errors import ImageError
from featurebank.images.pixels import Limits, PixelRules

_LARGEST = 65535
_DEEP_TYPES = frozenset(np.dtype(name).type for name in ("u2", "i2", "u4", "i4", "f2", "f4", "f8"))


def deep_values(item: Any) -> NDArray[Any] | None:
    """Return the values of a loaded image or an array of more than 8 bits, None for any other."""
    if isinstance(item, Image.Image):
        item = np.asarray(item) if item.mode == "F" or item.mode.startswith("I") else None
    is_deep = isinstance(item, np.ndarray) and item.dtype.type in _DEEP_TYPES and item.ndim in (2, 3) and item.size
    return item if is_deep else None


def values_digest(values: NDArray[Any]) -> bytes:
    """Return the SHA-256 of values that have no file: of their type, shape and bytes."""
    head = f"{values.dtype.str} {values.shape}\n".encode()
    return hashlib.sha256(head + np.ascontiguousarray(values).tobytes()).digest()


def as_rgb(values: NDArray[Any], rules: PixelRules, *, has_alpha: bool = False) -> Image.Image:
    """Turn values into an RGB image by the pixel rules.

    Parameters
    ----------
    values : ndarray, shape (height, width) or (height, width, channels)
    rules : PixelRules
    has_alpha : bool, default False
        Whether the last channel says how opaque a pixel is; it is put on white, unless channels are named.

    Raises
    ------
    ImageError
        When the values have no range, or the channels have to be named.

    Examples
    --------
    >>> as_rgb(np.array([[0, 4095]], "uint16"), PixelRules(range=(0, 4095))).getpixel((1, 0))
    (255, 255, 255)
    """
    if has_alpha and rules.channels is None:
        opaque = _opacity(values[:, :, -1])
        colours = as_rgb(values[:, :, :-1], rules)
        white = Image.new("RGB", colours.size, "white")
        on_white = Image.composite(colours, white, Image.fromarray(opaque))
        note_of(on_white).update(note_of(colours))
        return on_white
    levels = to_levels(pick_channels(values, rules.channels), rules.limits)
    if levels.ndim == 3 and levels.shape[2] == 2:
        levels = np.dstack([levels, np.zeros_like(levels[:, :, 0])])
    image = Image.fromarray(np.ascontiguousarray(levels))
    image = image if image.mode == "RGB" else image.convert("RGB")
    if values.dtype != np.uint8:
        note_of(image).update(levels=int(levels.max()) - int(levels.min()) + 1, clipped=_clipped(values, rules.limits))
    return image


def note_of(image: Image.Image) -> dict[str, Any]:
    """Return what is noted of how an image was decoded, for `featurebank.images.notes`; it can be added to."""
    found: dict[str, Any] = image.info.setdefault("featurebank", {})
    return found


def _clipped(values: NDArray[Any], limits: Limits | None) -> float:
    """Return the share of the values that lies outside of the limits, from some of the rows and columns."""
    if limits is None:
        return 0.0
    some = values[::4, ::4]
    return float(np.mean((some < limits[0]) | (some > limits[1])))


def _opacity(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Return levels of opacity, which is whole at a type's largest value, or at 1."""
    if values.dtype.kind == "f":
        return to_levels(values, (0, 1))
    return to_levels(values, (0, int(np.iinfo(values.dtype).max)))


def to_levels(values: NDArray[Any], limits: Limits | None) -> NDArray[np.uint8]:
    """Turn the values of one image into grey levels; those of 8 bits are levels already.

    Parameters
    ----------
    values : ndarray of integers or floats, shape (height, width) or (height, width, channels)
    limits : tuple of float or None
        What becomes 0 and 255; None: 0 and 65535.

    Raises
    ------
    ImageError
        When there are no limits and the values are floating point, or outside 0..65535.

    Examples
    --------
    >>> to_levels(np.array([[0, 2048, 4095, 9999]], "uint16"), (0, 4095))
    array([[  0, 128, 255, 255]], dtype=uint8)
    >>> to_levels(np.array([[0, 128, 129, 65535]], "uint16"), None)
    array([[  0,   0,   1, 255]], dtype=uint8)
    """
    if values.dtype == np.uint8:
        return values
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    if limits is None:
        return _full(values)
    if values.dtype.kind in "ui" and values.dtype.itemsize <= 2:  # a table is several times faster
        every = np.arange(1 << 8 * values.dtype.itemsize, dtype=f"u{values.dtype.itemsize}")
        return np.asarray(_stretch(every.view(values.dtype), limits)[values.view(every.dtype)])
    return _stretch(values, limits)


def _full(values: NDArray[Any]) -> NDArray[np.uint8]:
    bits = 8 * values.dtype.itemsize
    what = "floating-point" if values.dtype.kind == "f" else f"signed {bits}-bit" if bits == 8 else f"{bits}-bit"
    has_none = values.dtype.kind == "f" or bits == 8
    if has_none or (values.size and (values.min() < 0 or values.max() > _LARGEST)):
        outside = "" if has_none else f" outside 0..{_LARGEST}"
        raise ImageError(
            f"{what} pixels{outside} have no fixed range: say what is black and white with --range auto or LOW..HIGH "
            "(range=…), or save it as 8 or 16 bits"
        )
    if values.ndim == 3 and values.shape[2] > 1:  # the high byte, as Pillow has it for colours
        return (values >> 8).astype(np.uint8)
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)  # 65535 = 255 * 257, rounded to the nearest


def _stretch(values: NDArray[Any], limits: Limits) -> NDArray[np.uint8]:
    low, high = limits
    exact: NDArray[Any] = values.astype(np.float64 if values.dtype.itemsize > 2 else np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = (exact - low) * (255 / (high - low))
    return np.asarray(np.rint(np.clip(np.nan_to_num(scaled, nan=0.0), 0, 255)).astype(np.uint8))


def pick_channels(values: NDArray[Any], channels: tuple[int, ...] | Literal["mean"] | None) -> NDArray[Any]:
    """Return the channels that are seen.

    Parameters
    ----------
    values : ndarray, shape (height, width) or (height, width, channels)
    channels : tuple of int, "mean" or None

    Returns
    -------
    ndarray, shape (height, width) or (height, width, 2 or 3)

    Raises
    ------
    ImageError
        When there is no such channel, or none are named where there are neither one nor three.

    Examples
    --------
    >>> five = np.arange(10).reshape(1, 2, 5)
    >>> pick_channels(five, (4, 0)).tolist(), pick_channels(five, "mean").tolist()
    ([[[4, 0], [9, 5]]], [[2, 7]])
    """
    planes = values[:, :, None] if values.ndim == 2 else values
    count = planes.shape[2]
    if channels is None and count not in (1, 3):
        raise ImageError(f"{count} channels; expected one or three: choose with --channels, e.g. 0,1,2 or mean")
    if channels == "mean":
        mean = planes.mean(axis=2)
        return np.asarray(mean if values.dtype.kind == "f" else np.rint(mean).astype(values.dtype))
    if channels is not None:
        if max(channels) >= count:
            raise ImageError(f"no channel {max(channels)} among {count}; the first is 0: choose others with --channels")
        planes = planes[:, :, list(channels)]
    return planes[:, :, 0] if planes.shape[2] == 1 else planes
