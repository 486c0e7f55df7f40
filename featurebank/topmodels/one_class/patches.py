"""Where an image is strange: distances of the places of its maps from a bounded set of normal ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter
from sklearn.base import BaseEstimator
from sklearn.cluster import kmeans_plusplus
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from featurebank.errors import TopModelError
from featurebank.topmodels.folds import tie
from featurebank.topmodels.one_class.conformal import Conformal, least_rate, least_units
from featurebank.topmodels.scaling import FlooredScaler

Maps = NDArray[np.float32]
CORESET = 2048
DRAWN = 16_384
"""Patches that the coreset is chosen from: with their 128 dimensions, 8 MB."""
DIMENSIONS = 128
IMAGES = 256
"""The most images that patches are drawn from, and again that say how far a normal patch may lie."""
AT_ONCE = 16
NEIGHBOURHOOD = 3


class PatchMemory(BaseEstimator):
    """Distance of each place of a map from the nearest of some normal patches.

    PatchCore (Roth et al. 2022, Towards total recall in industrial anomaly detection) with bounded memory: each place
    is averaged with its eight neighbours, standardised and reduced to 128 dimensions; of 16,384 patches of at most 256
    images k-means++ (Arthur and Vassilvitskii 2007) chooses 2,048 that lie far apart. Other images say how far a patch
    of a normal image may lie: `limit_` is the conformal threshold of their largest distances, so that the expected
    share of normal images with any place beyond it is at most `false_alarms`.

    Parameters
    ----------
    size : int, default 2048
        Patches that are kept.
    false_alarms : float, default 0.01
        Or the least that the images can promise.
    random_state : int, default 0

    Attributes
    ----------
    reduce_ : Pipeline
    nearest_ : NearestNeighbors
    usual_ : float
        Median distance of a normal patch.
    limit_ : float
    promised_ : float
        The rate that `limit_` keeps.

    Examples
    --------
    >>> maps = np.random.default_rng(0).normal(size=(60, 3, 4, 4)).astype("float32")
    >>> memory = PatchMemory(false_alarms=0.1).fit(lambda rows: maps[rows], 60)
    >>> strange = np.zeros((1, 3, 4, 4), "float32")
    >>> strange[:, :, 2, 1] = 30
    >>> bool(memory.maps(strange)[0, 2, 1] > 1)
    True
    """

    def __init__(self, size: int = CORESET, *, false_alarms: float = 0.01, random_state: int = 0):
        self.size = size
        self.false_alarms = false_alarms
        self.random_state = random_state

    def fit(self, read: Callable[[NDArray[np.int64]], Maps], count: int, groups: Any = None) -> PatchMemory:
        """Choose patches of normal images and learn how far others may lie.

        Parameters
        ----------
        read : callable
            Numbers of images to their maps, shape (n, channels, h, w).
        count : int
            Number of images.
        groups : array-like, shape (count,), optional
            Images of one group are not on both sides.

        Raises
        ------
        TopModelError
            When there are fewer than four images (or groups).
        """
        random = np.random.default_rng(self.random_state)
        learned, others = _parted(np.arange(count) if groups is None else tie(groups), self.false_alarms, random)
        drawn = np.concatenate([_some(maps, DRAWN // len(learned), random) for maps in _batches(read, learned)])
        width = min(DIMENSIONS, drawn.shape[1], len(drawn))
        reduce = PCA(width, svd_solver="randomized", random_state=self.random_state)
        self.reduce_ = Pipeline([("scale", FlooredScaler()), ("reduce", reduce)])
        patches = self.reduce_.fit_transform(drawn)
        size = min(self.size, len(np.unique(patches, axis=0)))
        kept, _ = kmeans_plusplus(patches, size, random_state=self.random_state, n_local_trials=1)
        self.nearest_ = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(kept)
        far = np.concatenate([self.distances(maps).reshape(len(maps), -1) for maps in _batches(read, others)])
        self.promised_ = max(self.false_alarms, least_rate(len(others)))
        self.limit_ = -Conformal().fit(-far.max(axis=1)).threshold(self.promised_)
        self.usual_ = float(np.median(far))
        return self

    def distances(self, maps: Maps) -> NDArray[np.float64]:
        """Return how far each place of maps (n, channels, h, w) lies from the patches that are kept, (n, h, w)."""
        n, _, height, width = maps.shape
        found = self.nearest_.kneighbors(self.reduce_.transform(_patches(maps)))[0]
        return found.reshape(n, height, width)

    def maps(self, maps: Maps) -> NDArray[np.float32]:
        """Return the distances on a scale on which 0 is usual, or less, and 1 is the limit, shape (n, h, w)."""
        check_is_fitted(self, "limit_")
        reach = max(self.limit_ - self.usual_, float(np.finfo(np.float32).tiny))
        return np.maximum((self.distances(maps) - self.usual_) / reach, 0).astype(np.float32)

    def check(self) -> None:
        """Refuse parts that do not fit together: a file may hold anything.

        Raises
        ------
        TopModelError
            When they do not.
        """
        numbers = [vars(self).get(name) for name in ("usual_", "limit_")]
        parts = (
            isinstance(vars(self).get("reduce_"), Pipeline),
            isinstance(vars(self).get("nearest_"), NearestNeighbors),
        )
        if not all(parts) or not all(isinstance(each, float) and np.isfinite(each) for each in numbers):
            raise TopModelError("what says where an image is strange holds other parts; expected one that was fitted")


def _parted(
    groups: NDArray[np.int64], rate: float, random: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return images to draw patches from, and one of each other group: enough for the rate, if two thirds can be."""
    units = random.permutation(int(groups.max(initial=-1)) + 1)
    if len(units) < 4:
        raise TopModelError(f"maps of {len(units)} normal images, or groups of them; expected at least 4")
    wanted = min(max(least_units(rate), len(units) // 3), 2 * len(units) // 3)
    others = units[: min(wanted, max(IMAGES, least_units(rate)))]
    learned = np.flatnonzero(np.isin(groups, units[wanted:][:IMAGES]))
    first = np.unique(groups, return_index=True)[1]
    return random.permutation(learned)[:IMAGES], first[others]


def _batches(read: Callable[[NDArray[np.int64]], Maps], rows: NDArray[np.int64]) -> Iterator[Maps]:
    for start in range(0, len(rows), AT_ONCE):
        yield read(rows[start : start + AT_ONCE])


def _patches(maps: Maps) -> NDArray[np.float32]:
    """Return the places of maps, each averaged with its neighbours, shape (n * h * w, channels)."""
    smooth = uniform_filter(maps, (1, 1, NEIGHBOURHOOD, NEIGHBOURHOOD), mode="nearest")
    return np.ascontiguousarray(smooth.transpose(0, 2, 3, 1)).reshape(-1, maps.shape[1])


def _some(maps: Maps, each: int, random: np.random.Generator) -> NDArray[np.float32]:
    """Return about so many patches of each image, drawn."""
    patches = _patches(maps)
    return patches[random.permutation(len(patches))[: max(1, each) * len(maps)]]
