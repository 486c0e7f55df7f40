"""Where the images of a one-class predictor are strange: the maps that are looked at, and the normal patches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featurebank.bank.maps import as_maps, stacked
from featurebank.predictor.features import PredictorFeature
from featurebank.topmodels.one_class.patches import PatchMemory


@dataclass(frozen=True)
class PatchMaps:
    """The feature sets whose maps are compared with normal ones.

    Attributes
    ----------
    features : list of PredictorFeature
        Of one backbone, unpooled.
    shapes : list of tuple of int
        Shape of one view of each, as the network gives it.
    memory : PatchMemory
    """

    features: Sequence[PredictorFeature]
    shapes: Sequence[tuple[int, ...]]
    memory: PatchMemory

    def arranged(self, parts: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return flat rows of each feature set (n, d) as the maps that the memory takes, (n, channels, h, w)."""
        return arranged(parts, self.features, self.shapes)


def arranged(
    parts: Sequence[NDArray[np.float32]], features: Sequence[PredictorFeature], shapes: Sequence[tuple[int, ...]]
) -> NDArray[np.float32]:
    """Return flat rows of feature sets (n, d), given the shape of each, as maps on one grid, (n, channels, h, w)."""
    return stacked(
        [
            as_maps(part.reshape(len(part), *shape), each.spec.layout, each.spec.prefix)
            for part, each, shape in zip(parts, features, shapes, strict=True)
        ]
    )
