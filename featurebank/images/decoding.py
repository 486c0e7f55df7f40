"""From bytes to pixels: the pixel policy, safe decoding, and the content digest."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from featurebank.errors import ImageError, one_line
from featurebank.images.deep_files import read_deep_file
from featurebank.images.formats import open_format
from featurebank.images.orientation import SWAPS_SIDES, TURNS, turn_of, turned
from featurebank.images.pixels import PLAIN, PixelRules
from featurebank.images.tiff import needs_tifffile, not_read, read_values
from featurebank.images.tiff_pages import first_alone, is_tiff, look
from featurebank.images.values import as_rgb, deep_values, note_of

PIXEL_POLICY = 1
"""Version of the rules below; it is part of every feature spec."""

MAX_PIXELS = 1 << 27
"""The most pixels that an image may declare: 134 million, so that a 108-megapixel camera's photos are in."""
ANIMATED = ("GIF", "PNG", "WEBP", "AVIF")
"""Formats with moving images, of which the first frame is seen."""
_OPENING = threading.Lock()
_END_OF_IMAGE, _START_OF_SCAN = b"\xff\xd9", b"\xff\xda"


def content_digest(data: bytes) -> bytes:
    """Return the SHA-256 of a file's bytes, 32 bytes long: the key of its embeddings."""
    return hashlib.sha256(data).digest()


def pixel_digest(image: Image.Image) -> bytes:
    """Return the SHA-256 of an RGB image that has no file: of its size and pixels."""
    return hashlib.sha256(b"RGB %d %d\n" % image.size + image.tobytes()).digest()


@dataclass(eq=False)
class EncodedImage:
    """A JPEG file that a GPU is to decode; its views share its bytes (`featurebank.backbones.nvjpeg`).

    Parameters
    ----------
    data : bytes
        The whole file.
    size : tuple of int
        Width and height as it is shown.
    orientation : tuple of PIL.Image.Transpose
        What its EXIF orientation asks for.
    turns : tuple of PIL.Image.Transpose
        What turns it into this view, after that.
    error : str
        Why it could not be decoded, once that was tried.
    """

    data: bytes
    size: tuple[int, int]
    orientation: tuple[Image.Transpose, ...] = ()
    turns: tuple[Image.Transpose, ...] = ()
    error: str = ""

    def copy(self) -> EncodedImage:
        """Return it: nothing changes it in place."""
        return self

    def transpose(self, method: Image.Transpose) -> EncodedImage:
        """Return a view of it, as `PIL.Image.Image.transpose` does."""
        size = self.size[::-1] if method in SWAPS_SIDES else self.size
        return replace(self, size=size, turns=(*self.turns, method))


def decode(data: bytes, least: int = 0, pixels: PixelRules = PLAIN) -> Image.Image:
    """Decode an image file's bytes to RGB under the pixel policy.

    EXIF rotation is applied, 16 bits are scaled to 8, floating point needs a range, transparency is composited on
    white, CMYK and the rest are converted, and an animation gives its first frame.

    Parameters
    ----------
    data : bytes
        A whole file of one of the formats of `featurebank.images.formats`.
    least : int, default 0
        When above 0, a JPEG is decoded at a half, a quarter or an eighth of its size, as long as no side falls below
        this many pixels: much faster, and not the same as resizing it from its full size.
    pixels : PixelRules, optional
        What is black and white in more than 8 bits, and which pages and channels are seen.

    Returns
    -------
    PIL.Image.Image
        Mode RGB.

    Raises
    ------
    ImageError
        When the bytes are not such an image, are cut short, or declare more than `MAX_PIXELS` pixels.

    See Also
    --------
    featurebank.extract : Decodes by the same rules.

    Examples
    --------
    >>> import io
    >>> file = io.BytesIO()
    >>> Image.new("L", (6, 4), 200).save(file, "PNG")
    >>> decode(file.getvalue()).getpixel((0, 0))
    (200, 200, 200)
    """
    if not data:
        raise ImageError("the file is empty")
    try:
        if is_tiff(data):
            return _decode_tiff(data, pixels)
        with open_bounded(data) as image:
            if least and image.format in ("JPEG", "MPO"):  # others would give a thumbnail
                image.draft("RGB", (least, least))
            deep = read_deep_file(data, image, is_full=pixels.limits is None)
            image.load()
            if deep is not None:
                return _turn_back(as_rgb(deep, pixels, has_alpha=deep.shape[2] in (2, 4)), turn_of(image))
            is_moving = image.format in ANIMATED and getattr(image, "is_animated", False)
            found = to_rgb(image, pixels)
            note_of(found).update({"frames": True} if is_moving else {})
            return found
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(f"declares more than {MAX_PIXELS} pixels; expected at most that: make it smaller") from error
    except Exception as error:  # decoders raise many kinds on damaged bytes; each means the same to the user
        raise ImageError(f"cannot be decoded: {one_line(error)}") from error


def _decode_tiff(data: bytes, pixels: PixelRules) -> Image.Image:
    """Decode a TIFF file by Pillow where that is right, by tifffile elsewhere."""
    stack = look(data)
    is_chosen = pixels.pages is not None or pixels.channels is not None
    if stack.channels > 1 and not is_chosen:
        raise ImageError(
            f"a stack of {stack.channels} channels, one a page; choose with --channels, e.g. 0,1,2 or mean, or with "
            "--pages first, mean, max or each"
        )
    if needs_tifffile(stack, pixels):
        first = stack.pages[0]
        values = read_values(data, stack, pixels, MAX_PIXELS)
        found = as_rgb(values, pixels, has_alpha=first.keeps_alpha(values))
        found = _turn_back(found, TURNS.get(first.orientation))
    else:
        try:
            opened = open_bounded(first_alone(data, stack))
        except ImageError as error:
            raise not_read(stack.pages[0]) from error
        with opened as image:
            image.load()
            found = to_rgb(image, pixels)
    note_of(found).update({} if is_chosen or len(stack.pages) == 1 else {"pages": len(stack.pages)})
    note_of(found).update({"channels": stack.channels} if stack.channels > 1 and pixels.channels is None else {})
    return found


def _turn_back(image: Image.Image, turn: Image.Transpose | None) -> Image.Image:
    """Return an image as it is shown, with what was noted of it."""
    if turn is None:
        return image
    shown = image.transpose(turn)
    note_of(shown).update(note_of(image))
    return shown


def find_jpeg(data: bytes) -> EncodedImage | None:
    """Return a file as one that a GPU may decode, or None where the pixel policy needs more than nvJPEG does.

    nvJPEG gets whole JPEG files in grey or YCbCr. CMYK and RGB colours, files that are cut short or damaged in their
    headers, and all other formats are for `decode`.

    Examples
    --------
    >>> import io
    >>> file = io.BytesIO()
    >>> Image.new("RGB", (6, 4)).save(file, "JPEG")
    >>> find_jpeg(file.getvalue()).size, find_jpeg(file.getvalue()[:-2])
    ((6, 4), None)
    """
    try:
        with open_bounded(data) as image:
            if not _suits_nvjpeg(image, data):
                return None
            turn = turn_of(image)
            found = EncodedImage(data, image.size)
    except Exception:  # whatever is wrong with it, `decode` says so
        return None
    return found if turn is None else replace(found.transpose(turn), orientation=(turn,), turns=())


def decode_or_leave(
    data: bytes, least: int = 0, on_gpu: bool = False, pixels: PixelRules = PLAIN
) -> Image.Image | EncodedImage:
    """Return an image file as a GPU takes it where that is asked for and can be, decoded otherwise (`decode`)."""
    found = find_jpeg(data) if on_gpu and pixels.channels is None else None
    return decode(data, least, pixels) if found is None else found


def _suits_nvjpeg(image: Image.Image, data: bytes) -> bool:
    """Say whether the header is that of a JPEG file in grey or YCbCr, and the last scan has an end."""
    if image.format != "JPEG" or data.rfind(_END_OF_IMAGE) < data.rfind(_START_OF_SCAN):
        return False
    channels = [each[0] for each in getattr(image, "layer", [])]
    is_ycbcr = image.mode == "RGB" and channels == [1, 2, 3] and image.info.get("adobe_transform", 1) == 1
    return image.mode == "L" or is_ycbcr


def open_bounded(data: bytes) -> Image.Image:
    """Open an image under our limit, and load it where Pillow's own limit would warn again while loading."""
    with _own_limit() as pillows:
        image = open_format(data)
        if image.width * image.height > MAX_PIXELS:  # a plug-in's, which Pillow does not look at
            raise Image.DecompressionBombError
        if pillows is not None and image.width * image.height > pillows:
            image.load()
    return image


class _HardLimit(int):
    """A limit at which Pillow raises; at a plain number it only warns, and raises at twice as many pixels."""

    def __rmul__(self, factor: int) -> int:
        return int(self)


@contextmanager
def _own_limit() -> Iterator[int | None]:
    """Put `MAX_PIXELS` in the place of Pillow's limit, which is one for all threads, and yield that."""
    with _OPENING:
        pillows = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = _HardLimit(MAX_PIXELS)
        try:
            yield pillows
        finally:
            Image.MAX_IMAGE_PIXELS = pillows


def to_rgb(image: Image.Image, pixels: PixelRules = PLAIN) -> Image.Image:
    """Bring a loaded image, which may be returned itself, to RGB under the pixel policy (see `decode`).

    Raises
    ------
    ImageError
        When its values have no fixed range and the rules give none, or it lacks a channel that they name.
    """
    image = turned(image)
    deep = deep_values(image)
    if deep is not None:
        return as_rgb(deep, pixels)
    is_clear = image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info
    rgb = _on_white(image) if is_clear else image if image.mode == "RGB" else image.convert("RGB")
    if pixels.channels is None:
        return rgb
    return as_rgb(np.asarray(image if image.mode == "L" else rgb), pixels)


def _on_white(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, "white")
    return Image.alpha_composite(white, rgba).convert("RGB")


def from_array(array: NDArray[Any], pixels: PixelRules = PLAIN) -> Image.Image:
    """Turn an array into an RGB image.

    Parameters
    ----------
    array : ndarray, shape (height, width), (height, width, 3) or (height, width, 4)
        Grey, RGB or RGBA pixels: uint8, or 16 or 32 bits, or floating point. Other channels have to be named.
    pixels : PixelRules, optional
        What is black and white in more than 8 bits, and which channels are seen.

    Raises
    ------
    ImageError
        When the dtype or the shape is another, or the values need a range that the rules do not give.

    Examples
    --------
    >>> from_array(np.zeros((4, 6), "uint8")).size
    (6, 4)
    """
    array = np.asarray(array)
    channels = 1 if array.ndim == 2 else array.shape[2] if array.ndim == 3 else 0
    is_known = array.dtype == np.uint8 or deep_values(array) is not None
    if not is_known or not array.size or not (channels in (1, 3, 4) or (channels and pixels.channels)):
        raise ImageError(
            f"an array of {array.dtype} with shape {array.shape}; expected uint8, uint16 or float "
            "(height, width[, 3 or 4]), or with channels= any number of channels"
        )
    return as_rgb(array, pixels, has_alpha=channels == 4)


def as_image(item: Any, pixels: PixelRules = PLAIN) -> Image.Image:
    """Turn a PIL image, an array or tensor, or an (image, label) pair into an RGB image.

    Raises
    ------
    ImageError
        When it is none of these.
    """
    item = unwrap(item)
    return to_rgb(item.copy(), pixels) if isinstance(item, Image.Image) else from_array(item, pixels)


def is_tensor(item: Any) -> bool:
    """Say whether something is a tensor of torch; files have a `detach` too."""
    return hasattr(item, "detach") and hasattr(item, "ndim")


def unwrap(item: Any) -> Image.Image | NDArray[Any]:
    """Return the PIL image, or the array (height, width[, channels]), that an item in memory is or holds.

    Raises
    ------
    ImageError
        When it is none of a PIL image, an array, a tensor, or a pair of one of these and a label.
    """
    if isinstance(item, (tuple, list)) and item:
        return unwrap(item[0])
    if isinstance(item, Image.Image):
        return item
    if is_tensor(item):  # CxHxW to HxWxC
        item = item.detach().cpu()
        item = (item.float() if "bfloat16" in str(item.dtype) else item).numpy()
        if item.ndim == 3:
            item = item[0] if len(item) == 1 else item.transpose(1, 2, 0)
    if isinstance(item, np.ndarray):
        return item
    raise ImageError(f"a {type(item).__name__} is no image; expected a PIL image or a uint8 array")
