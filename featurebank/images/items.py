"""Items of lists, Datasets and tables as people have them: the picture in one, and what else it says."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from featurebank.errors import ImageError
from featurebank.images import decoding
from featurebank.images.arrow import BYTES, IMAGE_COLUMNS
from featurebank.images.path_columns import PATH_COLUMNS

_FILE_KEYS = {BYTES, "path"}


def is_path(value: Any) -> bool:
    """Say whether a value is the path of a file."""
    return isinstance(value, (str, os.PathLike))


def is_file(value: Any) -> bool:
    """Say whether a value is a file as `datasets` keeps one: a dict of its bytes and its path."""
    return isinstance(value, Mapping) and BYTES in value and set(value) <= _FILE_KEYS


def is_picture(value: Any) -> bool:
    """Say whether a value is an image in memory, by its kind: a PIL image, pixels, a file's bytes, or such a dict."""
    if isinstance(value, (bytes, bytearray, memoryview, BytesIO)):
        return _opens(picture_of(value))
    is_pixels = isinstance(value, np.ndarray) or decoding.is_tensor(value)
    return isinstance(value, Image.Image) or is_file(value) or (is_pixels and value.ndim in (2, 3))


def _opens(data: bytes) -> bool:
    try:
        return bool(decoding.decode(data))
    except ImageError:
        return False


def picture_of(item: Any) -> Any:
    """Return what is to be read of an item: of a pair its image, or else the first, of a dict its image, or the item.

    Raises
    ------
    ImageError
        When a dict has no image.

    Examples
    --------
    >>> picture_of(("a.png", "cat")), picture_of({"label": 3, "path": "b.png"})
    ('a.png', 'b.png')
    >>> picture_of({"image": {"bytes": b"...", "path": "c.png"}, "label": 0})
    b'...'
    """
    if isinstance(item, (tuple, list)) and item:
        return picture_of(item[_picture_at(item)])
    if is_file(item):
        return picture_of(item["path"] if item[BYTES] is None and item.get("path") else item[BYTES])
    if isinstance(item, Mapping):
        return picture_of(item[picture_key(item)])
    if isinstance(item, BytesIO):
        return item.getvalue()
    return bytes(item) if isinstance(item, (bytearray, memoryview)) else item


def _picture_at(item: Sequence[Any]) -> int:
    """Return where a tuple has its picture: first, where nothing in it is one by its kind."""
    return next((at for at, each in enumerate(item) if isinstance(each, bytes) or is_picture(each)), 0)


def picture_key(item: Mapping[str, Any]) -> str:
    """Return the key of a dict's image, or of its path.

    Raises
    ------
    ImageError
        When it has none, or several of which none has a usual name.
    """
    lowered = {str(key).lower(): key for key in reversed(list(item))}
    usual = [lowered[name] for name in IMAGE_COLUMNS if name in lowered]
    found = [key for key in usual if isinstance(item[key], bytes) or is_picture(item[key])][:1]
    found = found or [key for key, value in item.items() if is_picture(value)]
    found = found or [lowered[name] for name in PATH_COLUMNS if name in lowered and is_path(item[lowered[name]])][:1]
    if len(found) != 1:
        keys = ", ".join(map(repr, item))
        raise ImageError(f"a dict of {keys} has {len(found) or 'no'} images; expected one, under the key 'image'")
    return found[0]


def facts_of(item: Any) -> dict[str, Any]:
    """Return what an item says beside its image: of a pair the other as ``label``, of a dict what is one value.

    Examples
    --------
    >>> facts_of(("a.png", "cat")), facts_of({"path": "b.png", "age": np.int64(3), "box": [1, 2]})
    ({'label': 'cat'}, {'age': 3})
    """
    if isinstance(item, Mapping) and not is_file(item):
        return _values_of({key: value for key, value in item.items() if key != picture_key(item)})
    if not isinstance(item, (tuple, list)) or len(item) < 2:
        return {}
    at = _picture_at(item)
    rest = [each for other, each in enumerate(item) if other != at and not isinstance(each, Image.Image)]
    if rest and isinstance(rest[0], Mapping):
        return _values_of(rest[0])
    return {"label": plain(rest[0])} if rest else {}


def _values_of(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is one value of a dict."""
    plainly = {str(key): plain(value) for key, value in item.items()}
    return {key: value for key, value in plainly.items() if not _is_container(value)}


def _is_container(value: Any) -> bool:
    is_one = isinstance(value, (list, tuple, set, Mapping, bytes, Image.Image))
    return is_one or getattr(value, "ndim", 0) > 0


def plain(value: Any) -> Any:
    """Return a number of numpy or torch, or an array of one, as one of Python's, anything else as it is."""
    is_one = hasattr(value, "item") and tuple(getattr(value, "shape", (0,))) in ((), (1,))
    return value.item() if is_one else value
