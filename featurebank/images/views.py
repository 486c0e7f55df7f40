"""Views: an image, its flips and rotations, or random changes of it, each embedded like an image of its own.

A view is made from the decoded image, and the backbone's own preprocessing follows. Flips and rotations by 90 degrees
would cost less on what preprocessing gives, but are not exactly the same there: a crop of the middle has one pixel more
on one side when an odd number is cut off, and resizing rounds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from random import Random
from typing import Any

from PIL import Image, ImageEnhance

from featurebank.errors import BankError, near_names

_T = Image.Transpose
_FLIPS = (_T.FLIP_LEFT_RIGHT, _T.FLIP_TOP_BOTTOM, _T.ROTATE_180)
_EXACT: dict[str, tuple[Image.Transpose, ...]] = {
    "none": (),
    "hflip": _FLIPS[:1],
    "flips": _FLIPS,
    "dihedral": (*_FLIPS, _T.TRANSPOSE, _T.ROTATE_90, _T.ROTATE_270, _T.TRANSVERSE),
}
AUGMENT = "augment"
NAMES = (*_EXACT, f"{AUGMENT}:K")
MAX_VIEWS = 256

# What `augment` does; the name stands for these in every fingerprint, so that other values need another name.
ANGLE = math.radians(10)
SMALLEST = 0.8
JITTER = 0.2


def count_views(views: str) -> int:
    """Return how many views a name stands for.

    Parameters
    ----------
    views : str
        ``none``, ``hflip``, ``flips``, ``dihedral`` or ``augment:K``.

    Raises
    ------
    BankError
        When the name is unknown (near names are suggested), or K is no number from 2 to `MAX_VIEWS`.

    Examples
    --------
    >>> [count_views(views) for views in ("none", "hflip", "flips", "dihedral", "augment:5")]
    [1, 2, 4, 8, 5]
    """
    name = str(views)
    if name in _EXACT:
        return 1 + len(_EXACT[name])
    head, _, number = name.partition(":")
    if head != AUGMENT:
        raise BankError(f"no views {name!r}; {near_names(name, NAMES)}")
    if not re.fullmatch("[1-9][0-9]{0,2}", number) or not 2 <= int(number) <= MAX_VIEWS:
        raise BankError(f"views {name!r}; expected {AUGMENT}:K with K from 2 to {MAX_VIEWS}, e.g. {AUGMENT}:8")
    return int(number)


def check_encoded(views: str) -> None:
    """Refuse views that cannot be made of an image which the GPU decodes (`featurebank.images.decoding.EncodedImage`).

    Raises
    ------
    BankError
        When they are random changes.
    """
    if views not in _EXACT:
        raise BankError(
            f"views {views!r} are made on the CPU, and decoder 'nvjpeg' decodes on the GPU; expected "
            f"{', '.join(_EXACT)}: use one of these, or another decoder"
        )


def make_views(image: Any, views: str, digest: bytes) -> Iterator[Any]:
    """Make the views of an image, one at a time; the first is the image as it is.

    Parameters
    ----------
    image : PIL.Image.Image or featurebank.images.decoding.EncodedImage
        Mode RGB; one that is still encoded can be flipped and turned alone, not changed at random.
    views : str
        See `count_views`.
    digest : bytes
        The image's content digest; with the number of the view it seeds a random one, so that this is the same in
        every order, batch, process and machine.

    Examples
    --------
    >>> image = Image.new("RGB", (6, 4))
    >>> [view.size for view in make_views(image, "dihedral", b"")]
    [(6, 4), (6, 4), (6, 4), (6, 4), (4, 6), (4, 6), (4, 6), (4, 6)]
    """
    yield image if views == "none" else image.copy()  # a transform may change in place what it is given
    for method in _EXACT.get(views, ()):
        yield image.transpose(method)
    for number in range(1, 1 if views in _EXACT else count_views(views)):
        yield augment(image, Random(digest + number.to_bytes(2, "big")))


def view_size(size: tuple[int, int], views: str, number: int) -> tuple[int, int]:
    """Return the width and height of a flipped or turned view of an image of a size.

    Examples
    --------
    >>> view_size((6, 4), "dihedral", 3), view_size((6, 4), "dihedral", 4)
    ((6, 4), (4, 6))
    """
    return size[::-1] if number and _EXACT[views][number - 1] not in _FLIPS else size


def undo_view(view: Image.Image, views: str, number: int) -> Image.Image:
    """Turn a picture of what is in a flipped or turned view back to how the image is.

    Parameters
    ----------
    view : PIL.Image.Image
        Of any mode.
    views : str
        Any but ``augment:K``.
    number : int
        The view's, from `make_views`.

    Examples
    --------
    >>> image = Image.new("L", (3, 2))
    >>> image.putdata(list(range(6)))
    >>> views = enumerate(make_views(image, "dihedral", b""))
    >>> all(undo_view(view, "dihedral", number).tobytes() == image.tobytes() for number, view in views)
    True
    """
    if not number:
        return view
    method = _EXACT[views][number - 1]
    return view.transpose({_T.ROTATE_90: _T.ROTATE_270, _T.ROTATE_270: _T.ROTATE_90}.get(method, method))


def augment(image: Image.Image, random: Random) -> Image.Image:
    """Change an image a little: a turned and shifted crop, mirrored half of the time, other colours.

    Parameters
    ----------
    image : PIL.Image.Image
        Mode RGB.
    random : random.Random
        Where the changes are drawn from.

    Returns
    -------
    PIL.Image.Image
        Of the same proportions, but for rounding, and smaller.
    """
    width, height = image.size
    size, matrix = window(width, height, random)
    changed = image.transform(size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    if random.random() < 0.5:
        changed = changed.transpose(_T.FLIP_LEFT_RIGHT)
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        changed = enhance(changed).enhance(random.uniform(1 - JITTER, 1 + JITTER))
    return changed


def window(width: int, height: int, random: Random) -> tuple[tuple[int, int], tuple[float, ...]]:
    """Draw a turned window that lies within an image, so that no pixel has to be made up.

    Its sides are at least `SMALLEST` of the longest that fit; it turns by at most `ANGLE`, and less in a long image,
    where a turned window would have to be small.

    Parameters
    ----------
    width, height : int
        Of the image.
    random : random.Random
        Where the window is drawn from.

    Returns
    -------
    size : tuple of int
        Width and height.
    matrix : tuple of float, length 6
        Takes a point of the window to a point of the image, as `PIL.Image.Image.transform` wants it.
    """
    short, long = sorted((width, height))
    angle = random.uniform(-ANGLE, ANGLE) * short / long
    cos, sin = math.cos(angle), math.sin(angle)
    scale = random.uniform(SMALLEST, 1) / (cos + abs(sin) * long / short)
    w, h = max(1, int(scale * width)), max(1, int(scale * height))
    x = width / 2 + (random.random() - 0.5) * max(0, width - w * cos - h * abs(sin))
    y = height / 2 + (random.random() - 0.5) * max(0, height - h * cos - w * abs(sin))
    return (w, h), (cos, -sin, x - (cos * w - sin * h) / 2, sin, cos, y - (sin * w + cos * h) / 2)


def share_batches(views: int, batch_size: int) -> tuple[int, int]:
    """Return how many images to embed together and how many of their views to put into one forward pass.

    A pass takes at most `batch_size` views, and passes are full, or nearly so.

    Examples
    --------
    >>> share_batches(1, 32), share_batches(4, 32), share_batches(5, 32), share_batches(40, 32)
    ((32, 32), (8, 32), (6, 30), (1, 20))
    """
    if views <= batch_size:
        images = batch_size // views
        return images, images * views
    return 1, math.ceil(views / math.ceil(views / batch_size))
