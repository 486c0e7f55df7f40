"""Synthetic photographs, and copies of them as they come about: resized, re-compressed, mirrored, turned."""

import io

import numpy as np
from pictures import jpeg
from PIL import Image

T = Image.Transpose


def photograph(seed, width=160, height=120):
    """Make a picture of smooth colours with a few sharp shapes on it, drawn from a seed."""
    random = np.random.default_rng(seed)
    coarse = random.integers(30, 226, (6, 8, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    for _ in range(4):
        left, top = int(random.integers(0, width - 20)), int(random.integers(0, height - 20))
        box = (left, top, left + int(random.integers(8, 40)), top + int(random.integers(8, 40)))
        image.paste(tuple(random.integers(0, 256, 3).tolist()), box)
    return image


def recompressed(image, quality):
    """Save as JPEG and read again."""
    return Image.open(io.BytesIO(jpeg(image, quality=quality))).convert("RGB")


def scaled(image, factor):
    """Resize both sides."""
    return image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BICUBIC)


COPIES = {
    "resized": lambda image: scaled(image, 0.6),
    "recompressed": lambda image: recompressed(image, 50),
    "mirrored": lambda image: image.transpose(T.FLIP_LEFT_RIGHT),
    "upside_down": lambda image: image.transpose(T.FLIP_TOP_BOTTOM),
    "turned": lambda image: image.transpose(T.ROTATE_90),
    "all": lambda image: recompressed(scaled(image.transpose(T.ROTATE_270).transpose(T.FLIP_LEFT_RIGHT), 0.5), 60),
}
