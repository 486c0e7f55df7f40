"""A picture of what a network sees of an image."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from featurebank.backbones.base import Backbone
from featurebank.backbones.preprocessing import Preprocessing
from featurebank.errors import BackboneError

HEIGHT = 448
GAP = 8
"""Pixels between the image and what the network is given of it."""
FRAME = (230, 80, 0)


def preview(backbone: Backbone, image: Image.Image) -> bytes:
    """Draw an image with what the network never sees faded, and beside it the network's input, as a PNG file.

    Parameters
    ----------
    backbone : Backbone
    image : PIL.Image.Image
        Mode RGB; see `featurebank.images.reading.open_image`.

    Raises
    ------
    BackboneError
        When the backbone has a transform of your own, which does not say what it takes.
    """
    how = backbone.preprocessing
    if not isinstance(how, Preprocessing):
        raise BackboneError("a transform of your own does not say what it takes of an image: look at its result")
    pieces = np.atleast_1d(how(image)).reshape(-1, *how.crop, 3)
    columns = len({left for left, *_ in how.boxes(image.size)})
    parts = [_marked(image, how), _sheet(pieces, columns)]
    whole = Image.new("RGB", (sum(each.width for each in parts) + GAP, max(each.height for each in parts)), "white")
    whole.paste(parts[0], (0, 0))
    whole.paste(parts[1], (parts[0].width + GAP, 0))
    file = io.BytesIO()
    whole.save(file, "PNG")
    return file.getvalue()


def _marked(image: Image.Image, how: Preprocessing) -> Image.Image:
    """Return the image, `HEIGHT` high, faded where no box of the network's lies, with a frame around each box."""
    scale = HEIGHT / image.height
    shown = image.resize((max(1, round(image.width * scale)), HEIGHT))
    marked = Image.blend(shown, Image.new("RGB", shown.size, "white"), 0.7)
    limits = (0, 0, shown.width, HEIGHT)
    boxes = [tuple(round(edge * scale) for edge in box) for box in how.boxes(image.size)]
    inside = [(*map(max, box[:2], limits[:2]), *map(min, box[2:], limits[2:])) for box in boxes]
    for left, top, right, bottom in inside:
        marked.paste(shown.crop((left, top, right, bottom)), (left, top))
    draw = ImageDraw.Draw(marked)
    for left, top, right, bottom in inside:
        draw.rectangle((left, top, right - 1, bottom - 1), outline=FRAME, width=2)
    return marked


def _sheet(pieces: NDArray[np.uint8], columns: int) -> Image.Image:
    """Return inputs of the network side by side, in so many columns."""
    height, width = pieces.shape[1:3]
    rows = len(pieces) // columns
    sheet = Image.new("RGB", (columns * (width + GAP) - GAP, rows * (height + GAP) - GAP), "white")
    for number, piece in enumerate(pieces):
        row, column = divmod(number, columns)
        sheet.paste(Image.fromarray(piece), (column * (width + GAP), row * (height + GAP)))
    return sheet
