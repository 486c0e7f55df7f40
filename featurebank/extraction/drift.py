"""How far embeddings are from others of the same images: stored ones, or those computed in float32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurebank.bank.bank import Bank
from featurebank.bank.spec import FeatureSpec
from featurebank.topmodels.formatting import score_text, signed_text

AGREEMENT = {"fp32": 5e-3, "fp16": 2e-2, "bf16": 1e-1}
"""Largest relative difference between old and new rows of one image, by precision: ten times the rounding to float16;
of what is computed in fewer bits, more than compiled code and plain code differ by (4e-2 were seen in bf16)."""
RIDGE_FOLDS = 5


def compare_with_stored(
    bank: Bank, spec: FeatureSpec, keys: NDArray[np.bytes_], output: NDArray[np.float32]
) -> list[str]:
    """Return a warning when stored rows and rows computed now differ by more than rounding.

    Parameters
    ----------
    bank : Bank
        Holds rows of some of the images.
    spec : FeatureSpec
        Their feature set.
    keys : ndarray of bytes, shape (n,)
        Digests of the images that were computed now.
    output : ndarray of float32, shape (n, views, …)
        Their embeddings.
    """
    each = bank.feature_set_of(spec)
    there = each.find(keys) >= 0
    if not there.any():
        return []
    old = each.read(keys[there], "all").reshape(int(there.sum()), -1)
    largest = float(relative_distances(output[there], old).max())
    most = AGREEMENT[spec.precision]
    if largest <= most:
        return []
    return [
        f"rows of {spec.name} computed now differ from stored ones by {largest:.1e} (relative; expected below "
        f"{most:g}): libraries or the device changed; extract into a new bank to have rows of one kind"
    ]


@dataclass(frozen=True)
class Drift:
    """How far the embeddings of one layer at a reduced precision are from those in float32.

    Attributes
    ----------
    feature_set, precision : str
        Which embeddings.
    images : int
        How many images were compared.
    mean, largest : float
        Of 1 - cos between the two embeddings of an image.
    score_fp32, score : float or None
        Cross-validated accuracy of a ridge classifier on either, where labels exist.
    """

    feature_set: str
    precision: str
    images: int
    mean: float
    largest: float
    score_fp32: float | None
    score: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        text = (
            f"{self.precision} against fp32 on {self.images} images, {self.feature_set}: 1-cos {self.mean:.1e} on "
            f"average, {self.largest:.1e} at most"
        )
        if self.score is None or self.score_fp32 is None:
            return text
        before, after = (score_text(score, "accuracy") for score in (self.score_fp32, self.score))
        return (
            f"{text}; quick ridge score {before} -> {after} ({signed_text(self.score - self.score_fp32, 'accuracy')})"
        )


def measure_drift(
    spec: FeatureSpec, exact: NDArray[np.float32], reduced: NDArray[np.float32], labels: Sequence[Any] | None
) -> Drift:
    """Compare embeddings at a reduced precision with those in float32.

    Parameters
    ----------
    spec : FeatureSpec
        The feature set of the reduced ones.
    exact, reduced : ndarray of float32, shape (n, …)
        Embeddings of the same images.
    labels : sequence of n labels, or None
        For the ridge scores; with fewer than two images of two classes there are none.

    Examples
    --------
    >>> from featurebank.backbones.base import Backbone
    >>> from featurebank.backbones.preprocessing import Preprocessing
    >>> import torch
    >>> half = Preprocessing(8, (8, 8), "bilinear", (0.5,) * 3, (0.5,) * 3)
    >>> net = Backbone.from_module(torch.nn.Flatten(), name="tiny", version="1", transform=half)
    >>> rows = np.eye(4, 192, dtype="float32")
    >>> measure_drift(net.spec("logits", precision="bf16"), rows, rows, list("abab")).largest
    0.0
    """
    a, b = (rows.reshape(len(rows), -1).astype(np.float64) for rows in (exact, reduced))
    lengths = np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-24)
    away = np.maximum(0.0, 1 - (a * b).sum(1) / lengths)
    score_fp32, score = (_ridge_score(rows, labels) for rows in (a, b))
    return Drift(spec.name, spec.precision, len(a), float(away.mean()), float(away.max()), score_fp32, score)


def relative_distances(found: NDArray[Any], expected: NDArray[Any]) -> NDArray[np.float64]:
    """Return the distance of each row from the expected one, over that one's length, shape (n,)."""
    a, b = (rows.reshape(len(rows), -1).astype(np.float64) for rows in (found, expected))
    distances: NDArray[np.float64] = np.linalg.norm(a - b, axis=1) / np.maximum(np.linalg.norm(b, axis=1), 1e-12)
    return distances


def _ridge_score(rows: NDArray[np.float64], labels: Sequence[Any] | None) -> float | None:
    """Return a ridge classifier's cross-validated accuracy, None where no class can be in two folds."""
    if labels is None:
        return None
    from sklearn.linear_model import RidgeClassifierCV
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.pipeline import make_pipeline

    from featurebank.topmodels.scaling import FlooredScaler

    _, codes = np.unique([str(label) for label in labels], return_inverse=True)
    counts = np.bincount(codes)
    kept = counts[codes] >= 2
    if (counts >= 2).sum() < 2:
        return None
    folds = StratifiedKFold(min(RIDGE_FOLDS, int(counts[counts >= 2].min())), shuffle=True, random_state=0)
    model = make_pipeline(FlooredScaler(), RidgeClassifierCV(np.logspace(0, 6, 7)))
    return float(cross_val_score(model, rows[kept], codes[kept], cv=folds).mean())
