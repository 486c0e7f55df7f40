"""What the page says of the map: coordinates, columns to colour by, and the pictures of the samples."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from featurebank.bank.images import images_of
from featurebank.bank.samples import SampleTable, column_of
from featurebank.errors import counted
from featurebank.explore import project
from featurebank.explore.page import encode_points, to_base64
from featurebank.explore.projection import LEAST
from featurebank.images.pixels import PLAIN, PixelRules
from featurebank.images.reading import Progress
from featurebank.report.inputs import Inputs

NAMES = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}
TSNE_ROWS = 10_000
"""Samples up to which t-SNE is drawn without being asked for: a quarter of a minute for 2,600 on one core."""
SIDE = 96
"""Pixels of a tile's longer side."""
ACROSS = 12
"""Tiles in a row, and rows in a sheet."""
BUDGET = 12_000_000
"""Bytes of all sheets; base64 makes them a third larger in the page."""
QUALITY = 70


def default_methods(count: int) -> list[str]:
    """Return the maps that are drawn of so many samples when none is named."""
    return ["tsne", "pca"] if count <= TSNE_ROWS else ["pca"]


def coordinates(inputs: Inputs, methods: Sequence[str], random_state: int) -> dict[str, NDArray[Any]]:
    """Return the coordinates of the samples, float64 of shape (n, 2), by the name of each map.

    Fewer samples than a map takes all lie at one point.
    """
    if len(inputs.table) < LEAST:
        return {"none": np.zeros((len(inputs.table), 2))}
    frames = {NAMES[each]: project(inputs.bank, inputs.features, each, random_state=random_state) for each in methods}
    return {name: frame[["x", "y"]].to_numpy() for name, frame in frames.items()}


def map_note(inputs: Inputs, methods: Sequence[str]) -> str:
    """Return what is to be said about maps that were not drawn."""
    if len(inputs.table) < LEAST:
        return f"A map takes {LEAST} images."
    if len(inputs.table) <= TSNE_ROWS or set(methods) & {"tsne", "umap"}:
        return ""
    return f"t-SNE of more than {TSNE_ROWS} images takes long; --map tsne draws it all the same."


def map_facts(inputs: Inputs, maps: Mapping[str, NDArray[Any]], note: str, pictures: Pictures) -> dict[str, Any]:
    """Return the facts of the page's map: ``features, map_note, pictures, points, sheets``."""
    shown, count = int((pictures.tile >= 0).sum()), len(pictures.tile)
    gone = counted(
        pictures.unread, "file is gone, changed or was never one", "files are gone, changed or were never files"
    )
    lost = f"; {gone}" if pictures.unread else ""
    lacking = "" if shown == count else f"{shown} of {count} images have a picture here{lost}."
    table = inputs.table
    points = encode_points(table.rows["source"], table.paths, maps, _columns(inputs), _cells(inputs))
    return {
        "features": " + ".join(inputs.features),
        "map_note": f"{note} {lacking}".strip(),
        "pictures": shown,
        "points": points | encode_pictures(pictures),
        "sheets": [base64.b64encode(sheet).decode() for sheet in pictures.sheets],
    }


def encode_pictures(pictures: Pictures) -> dict[str, Any]:
    """Return what the page's script needs to know of pictures, in place of what `encode_points` says of none."""
    tile, sizes = to_base64(pictures.tile.astype("<i4")), to_base64(pictures.sizes)
    return {"tile": tile, "sizes": sizes, "side": SIDE, "across": ACROSS}


def _columns(inputs: Inputs) -> dict[str, pd.Series]:
    """Return what points can be coloured by: the target, what the model said of it, the bank's columns, the folds."""
    own = inputs.table.columns
    names = sorted(own, key=lambda name: name != inputs.target)
    columns = {name: own[name] for name in names[:1]}
    found = inputs.oof
    if found is not None and found.classes:
        columns["predicted, out of fold"] = inputs.spread([found.classes[code] for code in found.predicted])
        columns["outcome"] = inputs.spread(np.where(found.wrong, "wrong", "right"))
        if found.confidence is not None:
            columns["confidence"] = inputs.spread(found.confidence).astype("Float64")
    elif found is not None:
        columns["predicted, out of fold"] = inputs.spread(found.predicted).astype("Float64")
    columns |= {name: own[name] for name in names[1:]}
    if found is not None:
        columns["fold"] = inputs.spread([str(fold) if fold >= 0 else None for fold in found.fold])
    source = column_of(inputs.table, "source")
    return columns | ({"source": source} if source.nunique() > 1 or not columns else {})


def _cells(inputs: Inputs) -> dict[str, NDArray[np.int64]]:
    """Return the row and column of the confusion matrix that each sample is in, -1 for none."""
    found = inputs.oof
    if found is None or not found.classes:
        return {}
    cells = {name: np.full(len(inputs.table), -1) for name in ("true", "predicted")}
    cells["true"][found.row], cells["predicted"][found.row] = found.true, found.predicted
    return cells


# --- pictures: tiles on WebP sheets, the most wanted first, until a budget of bytes is spent ----------------


@dataclass(frozen=True)
class Pictures:
    """Tiles of samples on sheets, WebP images of `ACROSS` × `ACROSS` tiles of `SIDE` pixels.

    Attributes
    ----------
    tile : ndarray of int32, shape (n,)
        Number of each sample's tile, counted through the sheets row by row; -1 where there is none.
    sizes : ndarray of uint8, shape (tiles, 2)
        Width and height of each picture in the upper left of its tile.
    unread : int
        Samples that were tried whose file is gone, changed or unreadable.
    """

    sheets: list[bytes]
    tile: NDArray[np.int32]
    sizes: NDArray[np.uint8]
    unread: int


def make_pictures(
    table: SampleTable,
    order: Sequence[int],
    *,
    budget: int = BUDGET,
    pixels: PixelRules = PLAIN,
    progress: Progress | None = None,
) -> Pictures:
    """Make tiles of samples, the first of the order first, until the sheets have as many bytes as the budget.

    A file whose content is no longer what was embedded gives no tile: the page never shows another picture than the
    one that its numbers are about, and a bank cannot have other files of this machine shown.
    """
    wanted = table.take(list(order))
    found = images_of(wanted, _shrunk, least=SIDE, pixels=pixels, progress=progress)
    pairs = zip(order, found, strict=True)
    sheets: list[bytes] = []
    tile, sizes, unread = np.full(len(table), -1, np.int32), [], 0
    while sum(map(len, sheets)) < budget and (part := list(islice(pairs, ACROSS**2))):
        shown = [(row, image) for row, image in part if isinstance(image, Image.Image)]
        unread += len(part) - len(shown)
        if shown:
            rows, small = zip(*shown, strict=True)
            tile[list(rows)] = len(sheets) * ACROSS**2 + np.arange(len(rows))
            sizes += [image.size for image in small] + [(0, 0)] * (ACROSS**2 - len(small))
            sheets.append(_sheet(small))
    if progress is not None and order:
        progress(len(order), len(order))
    return Pictures(sheets, tile, np.array(sizes, np.uint8).reshape(-1, 2), unread)


def _shrunk(image: Image.Image) -> Image.Image:
    image.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC, reducing_gap=2.0)
    return image


def _sheet(small: Sequence[Image.Image]) -> bytes:
    sheet = Image.new("RGB", (ACROSS * SIDE, -(-len(small) // ACROSS) * SIDE))
    for number, image in enumerate(small):
        sheet.paste(image, (number % ACROSS * SIDE, number // ACROSS * SIDE))
    buffer = io.BytesIO()
    sheet.save(buffer, "WEBP", quality=QUALITY, method=2)
    return buffer.getvalue()
