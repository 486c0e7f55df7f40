"""Clusters of a bank's images without labels: how many there are, and how far to trust them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.cluster.hierarchy import cut_tree, ward
from sklearn.cluster import HDBSCAN, KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score, silhouette_score
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.preprocessing import normalize

from featurebank.bank.bank import Bank, BankLike
from featurebank.bank.defaults import candidate_features
from featurebank.bank.display import as_html
from featurebank.bank.samples import SampleTable, column_of, values_of
from featurebank.errors import BankError, ColumnError, TopModelError, counted, near_names, renamed
from featurebank.explore.embedding import distinct_contents
from featurebank.images.reading import Progress

METHODS = ("kmeans", "hdbscan", "agglomerative")
COMPONENTS = 50
"""Principal components that are clustered: distances in more of them tell near from far less well."""
MOST_CLUSTERS = 15
"""Most clusters that are tried when no number is given."""
SILHOUETTE_ROWS = 2000
"""Rows, drawn at random where there are more, that the silhouette is measured on."""
DRAWS, DRAWN = 5, 0.8
MOST_ROWS = 10_000
"""Most rows of an agglomerative clustering, whose distances take 400 MB."""
LEAST_IN_CLUSTER = 5
NONE = -1
"""The cluster of a row that has none."""
STRUCTURE, REASONABLE, STRONG = 0.25, 0.5, 0.7
"""Silhouettes from which a structure is weak and could be artificial, reasonable, and strong (Kaufman and Rousseeuw
1990, Finding groups in data, table 4); below the first no substantial structure was found."""
STABLE = 0.6
"""Agreement of repeats below which clusters should not be trusted (Hennig 2007)."""
SHOWN = 3

Partition = Callable[[int], NDArray[np.int64]]


@dataclass(frozen=True, repr=False)
class Clusters:
    """What `cluster` found.

    Attributes
    ----------
    report : dict
        What ``featurebank cluster --json`` prints.
    table : DataFrame
        ``source, path, cluster, distance`` of the best feature set: the cluster is missing where HDBSCAN gave none,
        the distance is that from the (nearest) cluster's mean.

    See Also
    --------
    cluster : What makes it.

    Examples
    --------
    >>> cluster("photos.bank", features="penultimate", method="kmeans", clusters=2).table.columns.tolist()[:2]
    ['source', 'path']
    """

    report: dict[str, Any]
    table: pd.DataFrame

    def to_dict(self) -> dict[str, Any]:
        """Return the report."""
        return self.report

    def to_frame(self) -> pd.DataFrame:
        """Return the cluster of each image."""
        return self.table

    def __repr__(self) -> str:
        best = self.report["best"]
        return (
            f"<Clusters: {best['clusters']} of {len(self.table)} images by {best['features']}; {self.report['note']}>"
        )

    def _repr_html_(self) -> str:
        return as_html(self, self.table)


@renamed(seed="random_state")
def cluster(
    bank: BankLike,
    *,
    features: str | Sequence[str] | None = None,
    method: str = "kmeans",
    clusters: int | None = None,
    target: str | None = None,
    random_state: int = 0,
    progress: Progress | None = None,
) -> Clusters:
    """Cluster the images of a bank, by each of some feature sets.

    Rows are scaled to length 1 and reduced to their 50 first principal components; images of identical content count
    once. When no number is given, k-means and agglomerative (Ward) clustering take the one of 2 to 15 with the highest
    mean silhouette (Rousseeuw 1987); HDBSCAN (Campello et al. 2013) finds its own, with at least a hundredth of the
    rows (and 5) in a cluster. How stable the clusters are is the mean adjusted Rand index between them and those of
    five draws of 80 % of the rows. The feature set with the highest silhouette is the best.

    Parameters
    ----------
    bank : path-like or Bank
    features : str or sequence of str, optional
        Feature sets, ``A+B`` for a concatenation; by default every pooled set.
    method : str, default "kmeans"
        ``"kmeans"``, ``"hdbscan"`` or ``"agglomerative"``.
    clusters : int, optional
        How many, from 2 up; not for HDBSCAN.
    target : str, optional
        Column of classes to compare with; by default ``label`` where the bank has it. Samples without one are
        clustered like all others.
    random_state : int, default 0
    progress : callable, optional
        Called with (feature sets done, feature sets in all).

    Returns
    -------
    Clusters
        Its report has ``feature_sets`` (``features, clusters, silhouette, stability, unclustered, nmi, ari`` each),
        ``best`` (one of them), ``clusters`` of the best (``cluster, size, representatives``, the paths nearest to its
        mean, and the most frequent class) and a ``note``. NMI and ARI count images without a cluster as one more.

    Raises
    ------
    FeatureBankError
        When the method, the number, a feature set or the column does not fit.

    See Also
    --------
    outliers : What lies in no cluster.
    label_issues : Labels that a model disputes.

    Examples
    --------
    >>> found = cluster("photos.bank", features="penultimate", method="kmeans", clusters=2)
    >>> found.table["cluster"].nunique()
    2
    """
    bank = Bank.of(bank)
    _check(method, clusters)
    table = bank.select()
    candidates = candidate_features(bank, features)
    target = target or ("label" if "label" in bank.table.columns else None)
    true = None if target is None else _classes(table, target)
    first, contents = distinct_contents(table)
    if len(first) < 3:
        raise BankError(f"{counted(len(first), 'different image')}; expected at least 3 to find clusters among")
    found = []
    for number, names in enumerate(candidates):
        Z = reduced(bank.features(names, table.take(first)), random_state)
        found.append(_clustered("+".join(names), Z, contents, method, clusters, random_state))
        if progress is not None:
            progress(number + 1, len(candidates))
    sets = [each.facts(true) for each in found]
    best = int(np.argmax([each["silhouette"] or -1 for each in sets]))
    report = {
        "method": method,
        "n_samples": len(table),
        "target": target,
        "seed": random_state,
        "feature_sets": sets,
        "best": sets[best],
        "clusters": _described(found[best], table, true),
        "note": _note(sets[best]),
    }
    labels = pd.Series(found[best].labels, dtype="Int64")
    return Clusters(report, table.names().assign(cluster=labels.where(labels != NONE), distance=found[best].distances))


def _check(method: str, clusters: int | None) -> None:
    if method not in METHODS:
        raise TopModelError(f"no clustering {method!r}; {near_names(method, METHODS)}")
    if clusters is not None and (method == "hdbscan" or clusters < 2):
        expected = "hdbscan finds the number itself" if method == "hdbscan" else "expected at least 2"
        raise TopModelError(f"{clusters} clusters are asked for; {expected}")


def _classes(table: SampleTable, target: str) -> NDArray[Any]:
    """Return each row's class as text, empty where it has none."""
    column = column_of(table, target)
    known = column.notna().to_numpy()
    values = values_of(table.take(known), target)
    if values.dtype.kind == "f" and (values % 1 != 0).any():
        raise ColumnError(f"column {target!r} holds fractions; expected classes to compare clusters with")
    texts = np.full(len(table), "", object)
    texts[known] = values.astype(str)
    return texts.astype(str)


# --- one feature set ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Found:
    """The clusters of one feature set.

    Of each row, its label (0 for the largest cluster, then the next, -1 for none), and its distance from the mean of
    its cluster, or of the nearest where it has none.
    """

    features: str
    labels: NDArray[np.int64]
    distances: NDArray[np.float64]
    silhouette: float | None
    stability: float

    def facts(self, true: NDArray[Any] | None) -> dict[str, Any]:
        """Return what the report says of the feature set."""
        known = np.zeros(0, bool) if true is None else true != ""
        pair = (true[known], self.labels[known]) if true is not None and known.any() else None
        return {
            "features": self.features,
            "clusters": int(self.labels.max()) + 1,
            "silhouette": self.silhouette,
            "stability": self.stability,
            "unclustered": int((self.labels == NONE).sum()),
            "nmi": None if pair is None else float(normalized_mutual_info_score(*pair)),
            "ari": None if pair is None else float(adjusted_rand_score(*pair)),
        }


def _clustered(
    features: str, Z: NDArray[np.float64], contents: NDArray[np.int64], method: str, clusters: int | None, seed: int
) -> _Found:
    """Cluster the rows of distinct content; `contents` are those of every sample."""
    distinct = len(np.unique(Z.round(6), axis=0))
    if distinct < max(3, (clusters or 0) + 1):
        raise TopModelError(f"{distinct} different embeddings of {features}; expected more than clusters, from 3 up")
    if method == "hdbscan":
        labels = dense(Z)
    else:
        partition = partitions(Z, method, seed)
        labels = partition(clusters or choose_number(Z, partition, seed))
    labels = _by_size(labels)
    agreement = stability(Z, labels, method, int(labels.max()) + 1, seed)
    return _Found(features, labels[contents], _distances(Z, labels)[contents], silhouette(Z, labels, seed), agreement)


def _by_size(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number clusters by their size, the largest first."""
    names, counts = np.unique(labels[labels != NONE], return_counts=True)
    rank = {name: number for number, name in enumerate(names[np.argsort(-counts, kind="stable")].tolist())}
    return np.array([rank.get(name, NONE) for name in labels.tolist()], np.int64)


def _distances(Z: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    if (labels == NONE).all():
        return np.full(len(Z), np.nan)
    means = np.stack([Z[labels == name].mean(axis=0) for name in range(labels.max() + 1)])
    every = euclidean_distances(Z, means)
    return np.where(labels == NONE, every.min(axis=1), every[np.arange(len(Z)), np.maximum(labels, 0)])


# --- partitions of rows -------------------------------------------------------------------------------------


def reduced(X: NDArray[Any], seed: int = 0) -> NDArray[np.float64]:
    """Return what is clustered: rows of length 1, in their first principal components, shape (n, at most 50)."""
    unit = normalize(X.astype(np.float64))
    with np.errstate(invalid="ignore"):  # a share of no variance, where all rows are the same
        return PCA(min(COMPONENTS, *unit.shape), svd_solver="randomized", random_state=seed).fit_transform(unit)


def partitions(Z: NDArray[np.float64], method: str, seed: int = 0) -> Partition:
    """Return the function from a number of clusters to the cluster of each row, by k-means or agglomerative (Ward).

    Examples
    --------
    >>> Z = np.array([[0.0], [0.1], [5.0], [5.1], [9.0], [9.1]])
    >>> choose_number(Z, partitions(Z, "agglomerative"))
    3
    """
    if method == "kmeans":
        return lambda k: KMeans(k, n_init=5, random_state=seed).fit_predict(Z)
    if len(Z) > MOST_ROWS:
        raise TopModelError(f"{len(Z)} images; agglomerative clustering takes {MOST_ROWS}: use kmeans")
    tree = ward(Z)
    return lambda k: cut_tree(tree, k).ravel()


def choose_number(Z: NDArray[np.float64], partition: Partition, seed: int = 0) -> int:
    """Return the number of clusters, from 2 to 15, with the highest mean silhouette; the smallest of equals."""
    most = min(MOST_CLUSTERS, len(np.unique(Z, axis=0)) - 1)
    scores = [silhouette(Z, partition(k), seed) or -1.0 for k in range(2, most + 1)]
    return 2 + int(np.argmax(scores))


def silhouette(Z: NDArray[np.float64], labels: NDArray[np.int64], seed: int = 0) -> float | None:
    """Return the mean silhouette of the rows that have a cluster; None of fewer than two clusters."""
    rows = np.random.default_rng(seed).permutation(len(Z))[:SILHOUETTE_ROWS]
    rows = rows[labels[rows] != NONE]
    if not 2 <= len(np.unique(labels[rows])) < len(rows):
        return None
    return float(silhouette_score(Z[rows], labels[rows]))


def dense(Z: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the cluster that HDBSCAN gives each row, -1 for none."""
    return HDBSCAN(min(max(LEAST_IN_CLUSTER, len(Z) // 100), len(Z)), copy=True).fit_predict(Z)


def stability(Z: NDArray[np.float64], labels: NDArray[np.int64], method: str, clusters: int, seed: int = 0) -> float:
    """Return the mean adjusted Rand index between clusters and those of five draws of 80 % of the rows."""
    random, scores = np.random.default_rng(seed), []
    for draw in range(DRAWS):
        rows = np.sort(random.permutation(len(Z))[: max(clusters + 1, int(DRAWN * len(Z)))])
        again = dense(Z[rows]) if method == "hdbscan" else partitions(Z[rows], method, seed + draw + 1)(clusters)
        scores.append(adjusted_rand_score(labels[rows], again))
    return float(np.mean(scores))


# --- report ------------------------------------------------------------------------------------------------


def _described(found: _Found, table: SampleTable, true: NDArray[Any] | None) -> list[dict[str, Any]]:
    """Return the size, the representatives and the most frequent class of each cluster."""
    paths, described = np.array(table.paths, object), []
    for name in range(found.labels.max() + 1):
        rows = np.flatnonzero(found.labels == name)
        nearest = rows[np.unique(found.distances[rows], return_index=True)[1]]  # of equal images one
        facts: dict[str, Any] = {"cluster": name, "size": len(rows), "representatives": [*paths[nearest[:SHOWN]]]}
        if true is not None and (true[rows] != "").any():
            classes, counts = np.unique(true[rows][true[rows] != ""], return_counts=True)
            facts |= {"class": str(classes[counts.argmax()]), "share": float(counts.max() / counts.sum())}
        described.append(facts)
    return described


def _note(best: dict[str, Any]) -> str:
    """Say how far the clusters are to be trusted."""
    if best["silhouette"] is None:
        return "Fewer than two clusters: these embeddings fall into no groups that this method sees"
    doubts = []
    if best["stability"] < STABLE:
        doubts.append(f"draws of 80 % of the images agree by {best['stability']:.2f} only (trust from {STABLE})")
    if best["silhouette"] < STRUCTURE:
        doubts.append(f"the silhouette of {best['silhouette']:.2f} shows no substantial structure (from {STRUCTURE})")
    elif best["silhouette"] < REASONABLE:
        weak = f"the silhouette of {best['silhouette']:.2f} shows a weak structure (reasonable from {REASONABLE})"
        doubts.append(f"{weak}, which could be artificial")
    if doubts:
        return f"Look before you trust: {'; '.join(doubts)}"
    how = "well" if best["silhouette"] >= STRONG else "reasonably"
    return f"Stable, {how} separated clusters"
