"""The range of a source: which values are black and white in all its images, stated by their headers or measured."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurebank.errors import ImageError, one_line
from featurebank.images import decoding
from featurebank.images.deep_files import read_deep_file
from featurebank.images.pixels import Limits, PixelRules, as_text
from featurebank.images.reading import read_ahead
from featurebank.images.sources import Source
from featurebank.images.tiff import needs_tifffile, read_values
from featurebank.images.tiff_pages import first_alone, is_tiff, look
from featurebank.images.values import deep_values, pick_channels

SAMPLE = 100
"""Images that are looked at, from all over a source."""
VALUES = 1 << 16
"""Values of each, from all over it."""
TAILS = (0.01, 99.99)
"""Percentiles that become black and white."""
_SIXTEEN_BITS = 1 << 15
_LEAST_SPAN = 64 * 257
"""What integers have to span at least so that the full range gives them 64 grey levels."""
_NEVER_DEEP = frozenset((".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".bmp", ".webp", ".gif", ".heic", ".heif", ".hif"))
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class SourceRange:
    """What is black and white in a source.

    Attributes
    ----------
    limits : tuple of float or None
        None: the full range of 16 bits, or there is nothing to choose: no image has more than 8, or all are blank.
    deep, looked_at : int
        How many of the images that were looked at have more than 8 bits, and how many those were.
    is_stated : bool
        Whether the files' headers say so; measured otherwise.
    """

    limits: Limits | None = None
    deep: int = 0
    looked_at: int = 0
    is_stated: bool = False

    def __str__(self) -> str:
        if not self.deep:
            return ""
        how = "as the files' headers say" if self.is_stated else f"measured on {self.deep} images"
        if self.limits is None:
            return f"range: full; values of more than 8 bits fill 0..65535 ({how})"
        low, high = as_text(self.limits).split("..")
        return f"range: {low} is black and {high} white in images of more than 8 bits, {how}; --range decides otherwise"


def measure_range(source: Source, rules: PixelRules, *, workers: int | None = None) -> SourceRange:
    """Look at some images of a source and say what is black and white in all of them.

    Files of formats that have 8 bits alone are not read. Where all headers state how many bits are in use, that is the
    range; otherwise it is what all but one value in ten thousand at either end lie in. Integers that use the highest of
    16 bits, and not a narrow part of them, have the full range. Of a source with integers and floating point, the more
    frequent kind decides.

    Parameters
    ----------
    source : Source
    rules : PixelRules
        Which pages and channels are seen.
    workers : int, optional
        Threads; by default one a core.
    """
    may_be_deep = [
        position
        for position, path in enumerate(source.paths)
        if source.get_image is not None or os.path.splitext(os.fsdecode(path))[1].lower() not in _NEVER_DEEP
    ]
    if not may_be_deep:
        return SourceRange()
    count = min(SAMPLE, len(may_be_deep))
    chosen = [may_be_deep[i] for i in np.linspace(0, len(may_be_deep) - 1, count, dtype=int)]
    read = read_ahead(lambda position: _look_at(source, position, rules), chosen, workers=workers)
    found = [each for each in read if each is not None]
    if not found:
        return SourceRange(looked_at=count)
    (is_float, _), *_ = Counter(values.dtype.kind == "f" for values, _ in found).most_common()
    alike = [(values, bits) for values, bits in found if (values.dtype.kind == "f") == is_float]
    bits = [bits for _, bits in alike if bits is not None]
    if len(bits) == len(alike):
        return SourceRange((0, (1 << max(bits)) - 1), len(found), count, True)
    low, high = _tails(np.concatenate([values for values, _ in alike]))
    if low == high:
        return SourceRange(looked_at=count)
    is_full = not is_float and low >= 0 and _SIXTEEN_BITS <= high < 2 * _SIXTEEN_BITS and high - low >= _LEAST_SPAN
    limits = None if is_full else PixelRules(range=(low, high)).limits
    return SourceRange(limits, len(found), count)


def _tails(values: NDArray[Any]) -> Limits:
    """Return what all but a few values lie in, whole numbers for integers; (0, 0) where there are no values."""
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, TAILS) if finite.size else (0.0, 0.0)
    if low == high and finite.size:  # a few bright spots on black are all that there is to see
        low, high = finite.min(), finite.max()
    return (float(low), float(high)) if values.dtype.kind == "f" else (float(np.floor(low)), float(np.ceil(high)))


def _look_at(source: Source, position: int, rules: PixelRules) -> tuple[NDArray[Any], int | None] | None:
    """Return some values of an image and the bits that its header states; None for one of 8 bits, or not readable."""
    try:
        found = read_deep(source.item(position), rules)
    except ImageError:  # said when it is embedded
        return None
    if found is None:
        return None
    values, bits = found[0].reshape(-1), found[1]
    is_true = bits is not None and values.max(initial=0) < 1 << bits
    return values[:: max(1, values.size // VALUES)], bits if is_true else None


def read_deep(item: Any, rules: PixelRules) -> tuple[NDArray[Any], int | None] | None:
    """Return the values seen of an image of more than 8 bits as it holds them, and the bits that its header states.

    Those are the values of the channels that are chosen, or else of all but the one that says how opaque a pixel is.

    Parameters
    ----------
    item : bytes, PIL image or array
    rules : PixelRules
        Which pages and channels are seen.

    Returns
    -------
    tuple of ndarray and (int or None), or None for an image of 8 bits

    Raises
    ------
    ImageError
        When it cannot be read.
    """
    if not isinstance(item, bytes):
        values = deep_values(decoding.unwrap(item))
        return None if values is None else (_seen(values, rules, values.shape[2:] == (4,)), None)
    if is_tiff(item):
        return _read_deep_tiff(item, rules)
    if item.startswith(_PNG) and item[24:25] != b"\x10":
        return None
    values = _read_by_pillow(item)
    if values is None:
        return None
    return _seen(values, rules, values.ndim == 3 and values.shape[2] in (2, 4)), _png_bits(item)


def _read_deep_tiff(data: bytes, rules: PixelRules) -> tuple[NDArray[Any], int | None] | None:
    stack = look(data)
    first = stack.pages[0]
    if not first.is_deep:
        return None
    if needs_tifffile(stack, rules.with_range((0, 1))):
        values = read_values(data, stack, rules, decoding.MAX_PIXELS)
        return _seen(values, rules, first.keeps_alpha(values)), stack.stated_bits
    found = _read_by_pillow(first_alone(data, stack))
    return None if found is None else (_seen(found, rules), stack.stated_bits)


def _seen(values: NDArray[Any], rules: PixelRules, has_alpha: bool = False) -> NDArray[Any]:
    """Return the values of what is seen: opacity has another range."""
    return pick_channels(values[:, :, :-1] if has_alpha and rules.channels is None else values, rules.channels)


def _read_by_pillow(data: bytes) -> NDArray[Any] | None:
    try:
        with decoding.open_bounded(data) as image:
            deep = read_deep_file(data, image, is_full=False)
            image.load()
            return deep_values(image) if deep is None else deep
    except ImageError:
        raise
    except Exception as error:  # decoders raise many kinds on damaged bytes
        raise ImageError(f"cannot be decoded: {one_line(error)}") from error


def _png_bits(data: bytes) -> int | None:
    """Return the significant bits that a PNG file of 16 bits states, where they are fewer."""
    at = data.find(b"sBIT", 0, 4096) if data.startswith(_PNG) else -1
    length = int.from_bytes(data[at - 4 : at], "big") if at > 0 else 0
    bits = max(data[at + 4 : at + 4 + length], default=0) if 0 < length <= 4 else 0
    return bits if 0 < bits < 16 else None
