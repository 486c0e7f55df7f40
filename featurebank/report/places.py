"""Where the samples lie on each map, and which maps are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurebank.explore import project
from featurebank.explore.projection import LEAST
from featurebank.report.subject import Subject

NAMES = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}
TSNE_ROWS = 10_000
"""Samples up to which t-SNE is drawn without being asked for: a quarter of a minute for 2,600 on one core."""


def default_methods(count: int) -> list[str]:
    """Return the maps that are drawn of so many samples when none is named."""
    return ["tsne", "pca"] if count <= TSNE_ROWS else ["pca"]


def places(subject: Subject, methods: Sequence[str], seed: int) -> dict[str, NDArray[Any]]:
    """Return the places of the samples, float64 of shape (n, 2), by the name of each map.

    Fewer samples than a map takes all lie in one place.
    """
    if len(subject.table) < LEAST:
        return {"none": np.zeros((len(subject.table), 2))}
    frames = {NAMES[each]: project(subject.bank, subject.features, each, random_state=seed) for each in methods}
    return {name: frame[["x", "y"]].to_numpy() for name, frame in frames.items()}


def map_note(subject: Subject, methods: Sequence[str]) -> str:
    """Return what is to be said about maps that were not drawn."""
    if len(subject.table) < LEAST:
        return f"A map takes {LEAST} images."
    if len(subject.table) <= TSNE_ROWS or set(methods) & {"tsne", "umap"}:
        return ""
    return f"t-SNE of more than {TSNE_ROWS} images takes long; --map tsne draws it all the same."
