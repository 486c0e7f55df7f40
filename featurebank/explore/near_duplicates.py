"""Duplicates: files of one content, and copies that were resized, re-compressed, mirrored or turned."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from featurebank.bank.bank import Bank, BankLike
from featurebank.bank.images import all_images
from featurebank.bank.neighbours import close_pairs, groups_of, near_duplicate_pairs, unit_rows
from featurebank.bank.samples import SampleTable
from featurebank.explore.embedding import distinct_contents
from featurebank.images.pixels import PLAIN, PixelRules
from featurebank.images.progress import shown
from featurebank.images.reading import Progress

SIDE = 24
"""Pixels on each side of the thumbnails that are compared."""
SIMILAR = 0.993
"""Least correlation of two thumbnails that makes a copy. Copies at 0.4 of the size in JPEG 50, mirrored or turned, stay
above 0.996; of the 3.4 million pairs of solar cells 14 reach the limit, and they show one cell photographed twice."""
PRIOR = 100
"""How many grey images the mean thumbnail is taken to stand on beside those there are: few images say little of it."""
BLANK = 3.0
"""Contrast in levels of 255 below which a thumbnail shows nothing that could be compared."""
_VERIFIED = 4096
COLUMNS = ["group", "kind", "source", "path", "similarity"]

Pairs = NDArray[np.int64]
Thumbnails = NDArray[Any]


def duplicates(bank: BankLike, *, features: str | None = None, progress: Progress | None = None) -> pd.DataFrame:
    """Find samples that show the same picture.

    Two files of one content are exact duplicates. Two images are near-duplicates where small thumbnails of them, the
    collection's mean thumbnail taken off, agree in one of the eight views (mirrored and turned by right angles). No
    pair is missed: candidates are pairs whose means over the views are close, which for every such pair they are.

    Parameters
    ----------
    bank : path-like or Bank
        Its images must be where they were extracted from; each is read once.
    features : str, optional
        A feature set. Then images whose embeddings are nearly parallel (`featurebank.bank.neighbours.THRESHOLD`) are
        listed as alike too: shifted, cropped or photographed again, though in a narrow domain also just similar.
    progress : callable, optional
        Called with (images done, images in all).

    Returns
    -------
    DataFrame
        ``group`` (from 0), ``kind`` (the closest tie of the sample to another of its group: ``exact``, ``near`` or
        ``alike``), ``source, path`` and ``similarity`` (1 for the same content, else the thumbnails' correlation or
        the embeddings' cosine), sorted by group and path.

    Raises
    ------
    ImageError
        When an image can no longer be read.
    FeatureSetError
        When the bank has no such feature set.

    See Also
    --------
    similar : The nearest of one image.
    fit : ``groups="@near-duplicates"`` keeps them together.

    Examples
    --------
    >>> found = duplicates("photos.bank")
    >>> sorted(found.columns)
    ['group', 'kind', 'path', 'similarity', 'source']
    """
    bank = Bank.of(bank)
    table = bank.select()
    first, contents = distinct_contents(table)
    distinct = table.take(first)
    ties = {"near": near_pairs(thumbnails_of(distinct, shown(progress, "pictures"), bank.pixels))}
    if features is not None:
        ties["alike"] = _alike(bank, features, distinct)
    return _listed(table, contents, len(first), ties)


def thumbnails_of(table: SampleTable, progress: Progress | None = None, pixels: PixelRules = PLAIN) -> Thumbnails:
    """Return a small picture of every sample by some pixel rules, uint8 of shape (n, SIDE, SIDE, 3)."""
    made = np.zeros((len(table), SIDE, SIDE, 3), np.uint8)
    for number, each in enumerate(all_images(table, _thumbnail, least=4 * SIDE, pixels=pixels, progress=progress)):
        made[number] = each
    return made


def _thumbnail(image: Image.Image) -> Thumbnails:
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def near_pairs(thumbnails: Thumbnails, similar: float = SIMILAR) -> tuple[Pairs, NDArray[np.float32]]:
    """Return the pairs of thumbnails (m, 2) that agree in one of the eight views, and their correlation (m,)."""
    some = np.flatnonzero(np.concatenate([_flat(part).std(axis=1) for part in _parts(thumbnails)]) >= BLANK)
    mean = _mean(thumbnails[some])
    # A mean over the views is a projection: of unit vectors at correlation c it is at most 2 - 2c apart, squared.
    projected = np.concatenate([_projected(_compared(part, mean)) for part in _parts(thumbnails[some])])
    candidates = some[close_pairs(projected, 2 - 2 * similar)]
    parts = [_agreement(thumbnails, mean, part) for part in _parts(candidates)]
    agreement = np.concatenate(parts) if parts else np.empty(0, np.float32)
    return candidates[agreement >= similar], agreement[agreement >= similar]


def _parts(rows: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yield rows a bounded number at a time, an empty array as it is."""
    for start in range(0, max(len(rows), 1), _VERIFIED):
        yield rows[start : start + _VERIFIED]


def _flat(arrays: NDArray[Any]) -> NDArray[Any]:
    """Return arrays (n, …) as rows (n, d), no rows too."""
    return arrays.reshape(len(arrays), math.prod(arrays.shape[1:]))


def _views(pictures: Thumbnails) -> list[Thumbnails]:
    """Return the eight mirrored and turned views of square pictures (n, side, side, 3)."""
    turned = (pictures, pictures.swapaxes(1, 2))
    return [each[:, ::down, ::right] for each in turned for down in (1, -1) for right in (1, -1)]


def _symmetric(pictures: Thumbnails) -> Thumbnails:
    """Return the mean of square pictures over their views, of the same shape."""
    return np.asarray(sum(_views(pictures)) / 8)


def _standardised(pictures: Thumbnails) -> Thumbnails:
    """Return pictures at mean 0 and deviation 1, float32."""
    found = pictures.astype(np.float32)
    found -= found.mean(axis=(1, 2, 3), keepdims=True)
    found /= np.maximum(found.std(axis=(1, 2, 3), keepdims=True), 1e-6)
    return found


def _mean(pictures: Thumbnails) -> Thumbnails:
    """Return what the pictures of a collection have in common, the same in all views, shape (1, side, side, 3)."""
    total = sum(_standardised(part).sum(axis=0, dtype=np.float64) for part in _parts(pictures))
    return (_symmetric(np.asarray(total)[None]) / (len(pictures) + PRIOR)).astype(np.float32)


def _compared(pictures: Thumbnails, mean: Thumbnails) -> Thumbnails:
    """Return what sets pictures apart from the collection, at length 1."""
    own = _standardised(pictures) - mean
    return unit_rows(_flat(own)).reshape(own.shape)


def _projected(compared: Thumbnails) -> NDArray[np.float32]:
    """Return the mean over the views in an orthonormal basis, one value for each set of cells that views exchange."""
    mean = _symmetric(compared)
    side = mean.shape[1]
    corner = np.array([(i, j) for j in range((side + 1) // 2) for i in range(j + 1)])
    numbers = np.arange(side * side, dtype=np.float64).reshape(1, side, side, 1)
    orbits = [len({float(view[0, i, j, 0]) for view in _views(numbers)}) for i, j in corner]
    cells = mean[:, corner[:, 0], corner[:, 1]] * np.sqrt(orbits)[None, :, None]
    return _flat(cells).astype(np.float32)


def _agreement(thumbnails: Thumbnails, mean: Thumbnails, pairs: Pairs) -> NDArray[np.float32]:
    """Return the best correlation of the pictures of each pair over the views of the first, shape (m,)."""
    one, other = (_compared(thumbnails[pairs[:, side]], mean) for side in (0, 1))
    found: NDArray[np.float32] = np.max([np.einsum("nhwc,nhwc->n", view, other) for view in _views(one)], axis=0)
    return found


def _alike(bank: Bank, features: str, table: SampleTable) -> tuple[Pairs, NDArray[np.float32]]:
    """Return the pairs whose embeddings are nearly parallel, and their cosines."""
    unit = unit_rows(bank.features(features, table))
    pairs = near_duplicate_pairs(unit)
    return pairs, np.einsum("nd,nd->n", unit[pairs[:, 0]], unit[pairs[:, 1]])


def _listed(
    table: SampleTable, contents: NDArray[np.int64], count: int, ties: dict[str, tuple[Pairs, NDArray[np.float32]]]
) -> pd.DataFrame:
    """Return the samples that have a duplicate; ties are between contents, from the closest kind on."""
    kind, similarity = np.full(count, "", object), np.zeros(count)
    for name, (pairs, values) in ties.items():
        best = np.zeros(count)
        np.maximum.at(best, pairs.ravel(), np.repeat(values, 2))
        new = (kind == "") & (best > 0)
        kind[new], similarity[new] = name, best[new]
    shared = np.bincount(contents, minlength=count) > 1
    kind[shared], similarity[shared] = "exact", 1.0
    groups = groups_of(np.concatenate([pairs for pairs, _ in ties.values()]), count)
    rows = np.flatnonzero(kind[contents] != "")
    facts = {
        "group": pd.factorize(groups[contents[rows]])[0],
        "kind": kind[contents[rows]],
        "similarity": similarity[contents[rows]],
    }
    frame = table.take(rows).names().assign(**facts)[COLUMNS]
    return frame.sort_values("group", kind="stable", ignore_index=True)
