"""Cached maps (``LAYER:none``): what a layer gives at each place of an image, brought to one layout and one grid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from featurebank.bank.folder import BankFolder


def as_maps(values: NDArray[np.float32], layout: str, prefix: int) -> NDArray[np.float32]:
    """Bring maps and square grids of tokens to (n, channels, h, w)."""
    if layout == "NCHW":
        return values
    if layout != "NHWC":
        values = values[:, prefix:]  # (n, cells, channels)
        side = round(values.shape[1] ** 0.5)
        shape = (side, side) if side * side == values.shape[1] else (1, values.shape[1])
        values = values.reshape(values.shape[0], *shape, values.shape[2])
    return values.swapaxes(2, 3).swapaxes(1, 2)  # NHWC to NCHW


def stacked(maps: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return maps (n, channels, h, w) of several layers with their channels side by side, on the finest grid."""
    from scipy.ndimage import zoom

    height, width = (max(each.shape[axis] for each in maps) for axis in (2, 3))
    same = [
        each
        if each.shape[2:] == (height, width)
        else zoom(each, (1, 1, height / each.shape[2], width / each.shape[3]), order=1, mode="nearest", grid_mode=True)
        for each in maps
    ]
    return same[0] if len(same) == 1 else np.concatenate(same, axis=1)


def map_sets(bank: BankFolder, backbone: str | None = None) -> list[str]:
    """Return the names of the feature sets that are maps without random views, all of one backbone."""
    found = [
        each
        for each in bank.feature_sets
        if each.spec.pool == "none" and each.spec.layout != "vector" and not each.spec.views.startswith("augment")
    ]
    chosen = backbone if any(each.spec.backbone == backbone for each in found) else None
    first = chosen or (found[0].spec.backbone if found else None)
    return [each.name for each in found if each.spec.backbone == first]
