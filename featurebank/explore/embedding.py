"""Which feature sets and rows of a bank to look at, and images embedded just as theirs were."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featurebank.bank.bank import Bank
from featurebank.bank.defaults import candidate_features
from featurebank.bank.features import as_keys
from featurebank.bank.loading import ROWS_AT_ONCE
from featurebank.bank.samples import SampleTable
from featurebank.bank.spec import FeatureSpec
from featurebank.errors import BankError
from featurebank.images.reading import ImageLike

if TYPE_CHECKING:
    from featurebank.backbones.base import Backbone


def chosen_sets(bank: Bank, features: str | Sequence[str] | None) -> list[str]:
    """Return the feature sets that are looked at together; by default the penultimate layer, or the first pooled."""
    if features is None:
        pooled = [names[0] for names in candidate_features(bank, None)]
        return sorted(pooled, key=lambda name: "/penultimate" not in name)[:1]
    given = [features] if isinstance(features, str) else features
    return [name for names in candidate_features(bank, given) for name in names]


def distinct_contents(table: SampleTable) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first row of each content, shape (m,), and the number of the content of every row, shape (n,)."""
    _, first, contents = np.unique(as_keys(table.rows["digest"]), return_index=True, return_inverse=True)
    return first, contents


def blocks_of(bank: Bank, names: Sequence[str]) -> Iterator[NDArray[np.float32]]:
    """Yield the rows of `Bank.load`, a bounded number at once."""
    found: Iterator[NDArray[np.float32]] = bank.iter_batches(names, batch_size=ROWS_AT_ONCE)
    return found


def moments(blocks: Iterable[NDArray[np.float32]]) -> tuple[int, NDArray[np.float64], NDArray[np.float64]]:
    """Return the number of rows that come in blocks, their mean (d,) and their covariance (d, d).

    Examples
    --------
    >>> n, mean, covariance = moments([np.array([[1.0, 0.0]]), np.array([[3.0, 4.0]])])
    >>> n, mean.tolist(), covariance.tolist()
    (2, [2.0, 2.0], [[1.0, 2.0], [2.0, 4.0]])
    """
    n, total, second = 0, np.zeros(1), np.zeros((1, 1))
    start: NDArray[np.float64] | None = None
    for X in blocks:
        start = X.mean(axis=0, dtype=np.float64) if start is None else start  # near the mean, little cancels out
        rows = X - start
        n, total, second = n + len(X), total + rows.sum(axis=0), second + rows.T @ rows
    assert start is not None
    off = total / n
    return n, start + off, second / n - np.outer(off, off)


def embed_like(
    bank: Bank, names: Sequence[str], images: Sequence[ImageLike], backbone: Backbone | None = None
) -> NDArray[np.float32]:
    """Embed images as the rows of feature sets were, side by side, with the bank's own backbone; shape (n, d).

    A feature set of your own module needs the backbone. One that is not here, or is another one now, is a BankError.
    """
    from featurebank.extraction.transformer import FeatureExtractor

    parts = []
    for spec in (bank.feature_set(name).spec for name in names):
        own = (backbone or _backbone_of(bank, spec)).with_pixels(spec.pixels)
        options: dict[str, Any] = {"store": spec.store, "views": spec.views, "precision": spec.precision}
        if own.spec(spec.layer_name, **options) != spec:
            raise BankError(
                f"the backbone {own.name} here is not the one that made {spec.name!r}: its weights or preprocessing "
                "differ; bring the one it was extracted with"
            )
        parts.append(FeatureExtractor(own, layer=spec.layer_name, **options).transform(images))
    return np.concatenate(parts, axis=1)


def _backbone_of(bank: Bank, spec: FeatureSpec) -> Backbone:
    """Load the backbone that a feature set was last asked for with."""
    from featurebank.backbones.request import Request

    if spec.origin is not None:
        raise BankError(f"{spec.about_origin}: look with a feature set that was extracted")
    request = Request.last(bank, spec)
    if request is None:
        raise BankError(f"{spec.name!r} was made by a module of your own: give it as backbone=")
    return request.load(allow_download=False)
