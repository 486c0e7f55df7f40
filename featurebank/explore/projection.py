"""Embeddings in two dimensions, for looking at."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featurebank.bank.bank import Bank, BankLike
from featurebank.bank.samples import column_of
from featurebank.errors import BankError, ColumnError, NotInstalledError, counted, install_hint, near_names, renamed
from featurebank.explore.embedding import blocks_of, chosen_sets, moments

METHODS = ("pca", "tsne", "umap")
COMPONENTS = 50
"""Principal components that t-SNE and UMAP start from."""
LEAST = 3
"""Samples that a map takes."""


@renamed(seed="random_state")
def project(
    bank: BankLike,
    features: str | Sequence[str] | None = None,
    method: str = "pca",
    *,
    columns: Sequence[str] = (),
    random_state: int = 0,
    n_jobs: int = 1,
) -> pd.DataFrame:
    """Lay the samples of a bank out in two dimensions, the same in every run.

    The columns of the embeddings are standardised first. PCA is exact; t-SNE (van der Maaten and Hinton 2008) and UMAP
    (McInnes, Healy and Melville 2018) start from its first 50 components and keep neighbours together, while distances
    between far groups and the sizes of groups mean little in them.

    Parameters
    ----------
    bank : path-like or Bank
    features : str or sequence of str, optional
        One feature set, or several side by side; by default the penultimate layer, or the first pooled set.
    method : str, default "pca"
        ``"pca"``, ``"tsne"`` or ``"umap"``.
    columns : sequence of str
        Columns of the bank to add.
    random_state : int, default 0
        Of UMAP; PCA, and t-SNE that starts from it, draw nothing.
    n_jobs : int, default 1
        Cores of t-SNE; -1 for all.

    Returns
    -------
    DataFrame
        ``source, path, x, y`` (float64) of every sample that can be loaded, and the columns.

    Raises
    ------
    BankError
        When there are fewer than three samples, or the method is unknown.
    ColumnError
        When there is no such column, or it is called as one of the above.
    NotInstalledError
        When UMAP is asked for and not installed.

    See Also
    --------
    featurebank.explore.plot_map : Draw the points.
    map_page : The same as a page.

    Examples
    --------
    >>> points = project("photos.bank", method="pca", columns=["label"])
    >>> points[["x", "y", "label"]].shape
    (24, 3)
    """
    bank = Bank.of(bank)
    if method not in METHODS:
        raise BankError(f"no method {method!r}; {near_names(method, METHODS)}")
    if method == "umap" and find_spec("umap") is None:
        raise NotInstalledError(f"the method umap needs umap-learn: {install_hint('explore')}")
    table = bank.select()
    frame = table.names()
    taken = [name for name in columns if name in (*frame.columns, "x", "y")]
    if taken:
        raise ColumnError(f"column {taken[0]!r} is called as one of the map is; rename it to add it")
    beside = {name: column_of(table, name) for name in columns}
    if len(table) < LEAST:
        raise BankError(f"a map of {counted(len(table), 'sample')}; expected at least {LEAST}: extract more images")
    placed = plane(principal_components(bank, chosen_sets(bank, features)), method, random_state, n_jobs)
    return frame.assign(x=placed[:, 0], y=placed[:, 1], **beside)


def principal_components(bank: Bank, names: Sequence[str]) -> NDArray[np.float32]:
    """Return the first principal components of the standardised embeddings, shape (n, 50), a column at least 2.

    The rows are read twice, a bounded number at once; the largest loading of each component is positive.
    """
    _, mean, covariance = moments(blocks_of(bank, names))
    deviation = np.sqrt(covariance.diagonal())
    scale = np.divide(1, deviation, out=np.zeros_like(deviation), where=deviation > 1e-6 * deviation.max())
    _, vectors = np.linalg.eigh(covariance * np.outer(scale, scale))
    axes = vectors[:, : -COMPONENTS - 1 : -1]  # (d, 50), the widest first
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])]) * scale[:, None]
    found = np.concatenate([(X - mean) @ axes for X in blocks_of(bank, names)]).astype(np.float32)
    return np.pad(found, ((0, 0), (0, max(0, 2 - found.shape[1]))))


def plane(components: NDArray[np.float32], method: str, random_state: int, n_jobs: int) -> NDArray[np.float64]:
    """Return the two coordinates of each row of principal components, shape (n, 2); see `project`."""
    n, flat = len(components), components[:, :2]
    start = flat / np.maximum(flat[:, 0].std(), np.finfo(np.float32).tiny)
    if method == "tsne":
        from sklearn.manifold import TSNE

        perplexity = min(30.0, (n - 1) / 3)
        layout = TSNE(perplexity=perplexity, init=1e-4 * start, random_state=random_state, n_jobs=n_jobs)
        flat = layout.fit_transform(components)
    elif method == "umap":
        from umap import UMAP

        layout = UMAP(n_neighbors=min(15, n - 1), init=start, random_state=random_state, n_jobs=1)
        flat = layout.fit_transform(components)
    return np.asarray(flat, np.float64)
