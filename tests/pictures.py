"""Pictures as the bytes of image files, shared by the tests."""

import io

import numpy as np
from PIL import Image


def encode(image, format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def jpeg(image, **options):
    return encode(image, "JPEG", **{"quality": 95, **options})


def png(number):
    """A PNG of seeded noise, 40x40."""
    return encode(Image.fromarray(np.random.default_rng(number).integers(0, 256, (40, 40, 3), dtype=np.uint8)))
