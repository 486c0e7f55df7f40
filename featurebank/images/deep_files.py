"""Files in colours of more than 8 bits, of which Pillow gives the high bytes alone: the values that they hold."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile

from featurebank.errors import ImageError, install_hint

_LARGEST = 65535
_SIZES = b"\xff\x4f\xff\x51"
"""How the part of a JPEG 2000 file begins that says how large it is, and how many bits its components have."""
_COMPONENTS, _BITS = 40, 42


def read_deep_file(data: bytes, image: Image.Image, *, is_full: bool) -> NDArray[Any] | None:
    """Return the values of an opened file in colours of 16 bits, None for any other.

    Parameters
    ----------
    data : bytes
        The whole file.
    image : PIL.Image.Image
        As Pillow opened it, not loaded.
    is_full : bool
        Whether the full range is to be seen, for which Pillow's grey levels are as good, except for JPEG 2000: of that
        white becomes black by them, and the values are grey levels here.

    Returns
    -------
    ndarray of uint8 or uint16, shape (height, width, channels), or None

    Raises
    ------
    ImageError
        When it is a JPEG 2000 file and what reads it is not installed.
    """
    if image.format == "JPEG2000":
        return _read_jpeg_2000(data, is_full)
    if is_full:
        return None
    return _read_png(data, image) if isinstance(image, PngImageFile) else _read_ppm(data, image)


def _read_png(data: bytes, image: PngImageFile) -> NDArray[Any] | None:
    raw = image.tile[0][3] if len(image.tile) == 1 else None
    if raw not in ("RGB;16B", "RGBA;16B", "LA;16B"):
        return None
    with PngImageFile(io.BytesIO(data)) as again:  # not Image.open, whose own limit of pixels is another
        if raw == "LA;16B":  # opened as RGBA: its four bytes a pixel are read as such
            again.tile = [again.tile[0]._replace(args="RGBA")]
            pairs = np.asarray(again).astype(np.uint16)
            return pairs[:, :, ::2] << 8 | pairs[:, :, 1::2]
        again.tile = [again.tile[0]._replace(args=f"{raw[:-1]}L")]
        return np.asarray(image).astype(np.uint16) << 8 | np.asarray(again)


def _read_ppm(data: bytes, image: Image.Image) -> NDArray[Any] | None:
    """Return the values of a binary PPM file of all 16 bits; of fewer, Pillow makes grey levels rightly."""
    tile = image.tile[0] if isinstance(image, PpmImageFile) and len(image.tile) == 1 else None
    if tile is None or tile[0] != "ppm" or tile[3] != ("RGB", _LARGEST):
        return None
    width, height = image.size
    return np.frombuffer(data, ">u2", width * height * 3, tile[2]).astype(np.uint16).reshape(height, width, 3)


def _read_jpeg_2000(data: bytes, is_full: bool) -> NDArray[Any] | None:
    start = data.find(_SIZES)
    components, bits = data[start + _COMPONENTS + 1], (data[start + _BITS] & 0x7F) + 1
    if components < 2 or bits <= 8:
        return None
    try:
        from imagecodecs import jpeg2k_decode
    except ImportError as error:
        raise ImageError(
            f"a JPEG 2000 file in colours of {bits} bits, which needs imagecodecs: {install_hint('microscopy')}"
        ) from error
    values: NDArray[Any] = jpeg2k_decode(data)
    if not is_full:
        return values
    half = 1 << (bits - 9)
    return np.minimum((values.astype(np.uint32) + half) >> (bits - 8), 255).astype(np.uint8)
