"""How a photo is turned: the orientation tag of its EXIF block, read leniently and never written back."""

from __future__ import annotations

from PIL import Image

_Turn = Image.Transpose
_ORIENTATION = 0x0112
TURNS = {
    2: _Turn.FLIP_LEFT_RIGHT,
    3: _Turn.ROTATE_180,
    4: _Turn.FLIP_TOP_BOTTOM,
    5: _Turn.TRANSPOSE,
    6: _Turn.ROTATE_270,
    7: _Turn.TRANSVERSE,
    8: _Turn.ROTATE_90,
}
SWAPS_SIDES = (_Turn.TRANSPOSE, _Turn.TRANSVERSE, _Turn.ROTATE_90, _Turn.ROTATE_270)
_CARRIERS = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")
"""The entries of `PIL.Image.Image.info` that may name an orientation."""


def turn_of(image: Image.Image) -> Image.Transpose | None:
    """Return what turns an image to how it is shown, None where it lies right.

    A tag of any integer type counts, as in libexif; one that is text, or out of 1..8, does not. Without an EXIF
    orientation that of an XMP block counts. A block that cannot be read says nothing.

    Examples
    --------
    >>> image = Image.new("RGB", (6, 4))
    >>> image.getexif()[0x0112] = 6
    >>> turn_of(image).name, turn_of(Image.new("RGB", (6, 4)))
    ('ROTATE_270', None)
    """
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # Pillow's reader raises many kinds on damaged blocks, and each means the same
        return None
    if isinstance(value, bytes):  # the type BYTE
        value = int.from_bytes(value, "big")
    return TURNS.get(value)


def turned(image: Image.Image) -> Image.Image:
    """Return a loaded image as it is shown: itself, or turned, without what names its orientation."""
    turn = turn_of(image)
    if turn is None:
        return image
    shown = image.transpose(turn)
    for name in _CARRIERS:
        shown.info.pop(name, None)
    return shown
