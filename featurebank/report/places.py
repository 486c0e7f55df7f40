"""Where the samples lie on each map, and which maps are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurebank.report.subject import Subject

NAMES = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}
TSNE_ROWS = 10_000
"""Samples up to which t-SNE is drawn without being asked for: about half a minute for 2,600 on one core."""


def default_methods(count: int) -> list[str]:
    """Return the maps that are drawn of so many samples when none is named."""
    return ["tsne", "pca"] if count <= TSNE_ROWS else ["pca"]


def places(subject: Subject, methods: Sequence[str], seed: int) -> dict[str, NDArray[np.float64]]:
    """Return the places of the samples, shape (n, 2), by the name of each map."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    X = subject.bank.features(subject.features, subject.table)
    out: dict[str, Any] = {}
    for method in methods:
        if method == "pca":
            out[NAMES[method]] = PCA(2, random_state=seed).fit_transform(X)
        else:
            Z = PCA(min(50, *X.shape), random_state=seed).fit_transform(X)
            out[NAMES[method]] = TSNE(perplexity=min(30, (len(X) - 1) / 3), random_state=seed).fit_transform(Z)
    return out


def map_note(subject: Subject, methods: Sequence[str]) -> str:
    """Return what is to be said about maps that were not drawn."""
    if len(subject.table) <= TSNE_ROWS or set(methods) & {"tsne", "umap"}:
        return ""
    return f"t-SNE of more than {TSNE_ROWS} images takes long; --map tsne draws it all the same."
