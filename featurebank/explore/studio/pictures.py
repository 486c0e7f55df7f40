"""The pictures of a bank's contents as JPEG, by their digest: never by a path that a browser names."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict

import numpy as np
from PIL import Image

from featurebank.bank.answers import Answers
from featurebank.bank.images import all_images
from featurebank.errors import BankError

SIZES = (96, 224, 1024)
"""Pixels of the longer side that may be asked for."""
KEPT = 64 << 20
"""Bytes of JPEG that are kept in memory."""


class Pictures:
    """Makes and keeps pictures.

    Parameters
    ----------
    answers : Answers
        Knows the contents and their files.
    """

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._pixels = answers.bank.pixels
        self._kept: OrderedDict[tuple[bytes, int], bytes] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def jpeg(self, digest: bytes, size: int) -> bytes:
        """Return the picture of a content, its longer side at most so many pixels.

        Raises
        ------
        BankError
            When the bank has no such content, or no such size is made.
        ImageError
            When its file is gone or is another one now.
        """
        if size not in SIZES:
            raise BankError(f"a picture of {size} pixels; expected one of {', '.join(map(str, SIZES))}")
        with self._lock:
            if (digest, size) in self._kept:
                self._kept.move_to_end((digest, size))
                return self._kept[digest, size]
        number = self._answers.find(digest)
        if number < 0:
            raise BankError("the bank has no image of this digest; load the page again")
        table = self._answers.samples_of(np.array([number]))
        made = next(all_images(table, lambda image: to_jpeg(image, size), least=size, pixels=self._pixels))
        self._keep((digest, size), made)
        return made

    def _keep(self, key: tuple[bytes, int], made: bytes) -> None:
        with self._lock:
            self._size += len(made) - len(self._kept.get(key, b""))
            self._kept[key] = made
            while self._size > KEPT:
                self._size -= len(self._kept.popitem(last=False)[1])


def to_jpeg(image: Image.Image, size: int) -> bytes:
    """Return an image as JPEG, its longer side at most so many pixels."""
    small = image.copy()
    small.thumbnail((size, size))
    buffer = io.BytesIO()
    small.convert("RGB").save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
