"""Where images are strange: normal patches of the cached maps of a bank."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurebank.bank.bank import Bank
from featurebank.bank.features import as_keys
from featurebank.bank.maps import map_sets
from featurebank.bank.samples import SampleTable
from featurebank.predictor.features import predictor_features
from featurebank.predictor.patch_maps import PatchMaps, arranged
from featurebank.topmodels.one_class.patches import PatchMemory


def patch_maps(
    bank: Bank,
    normals: SampleTable,
    groups: NDArray[Any] | None,
    names: Sequence[str],
    rate: float,
    random_state: int,
) -> tuple[PatchMaps | None, dict[str, bytes]]:
    """Return what says where an image is strange, and tensors for its file; None where no maps are cached.

    Parameters
    ----------
    bank : Bank
    normals : SampleTable
        The rows that are learned from.
    groups : ndarray, shape (n,), or None
    names : sequence of str
        The feature sets of the model, whose backbone is preferred.
    rate : float
        Of normal images in which some place may be marked.
    random_state : int
    """
    sets = map_sets(bank, bank.feature_set(names[0]).spec.backbone)
    if not sets:
        return None, {}
    features, tensors = predictor_features(bank, sets, "first")
    opened = [bank.feature_set(name) for name in sets]
    shapes = [each.shape[1:] for each in opened]
    keys = as_keys(normals.rows["digest"])

    def read(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        return arranged([each.read(keys[rows], "first") for each in opened], features, shapes)

    memory = PatchMemory(false_alarms=rate, random_state=random_state).fit(read, len(keys), groups)
    return PatchMaps(features, shapes, memory), tensors
