"""Outliers: the images of a bank that are unlike the others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from featurebank.bank.bank import Bank, BankLike
from featurebank.bank.defaults import middle_blocks
from featurebank.bank.samples import column_of
from featurebank.errors import BankError, ColumnError, TopModelError, counted, near_names, renamed
from featurebank.explore.embedding import chosen_sets, distinct_contents
from featurebank.topmodels.novelty import LEAST_ROWS, Mahalanobis, out_of_fold

METHODS = ("mahalanobis", "knn")
NEIGHBOURS = 10
"""An image is usual when so many others lie near; fewer strange ones that look alike are still found."""


@renamed(seed="random_state")
def outliers(
    bank: BankLike,
    *,
    features: str | None = None,
    method: str = "mahalanobis",
    target: str | None = None,
    random_state: int = 0,
    n_jobs: int = 1,
) -> pd.DataFrame:
    """Rank the images of a bank by how unlike the others they are.

    No image says of itself what is usual: ``"knn"`` is the distance to the tenth nearest other image, of rows of
    length 1 (Sun et al. 2022, Out-of-distribution detection with deep nearest neighbors); ``"mahalanobis"`` is
    `featurebank.topmodels.novelty.Mahalanobis` fitted on the other two of three folds. Identical content counts once.

    Parameters
    ----------
    bank : path-like or Bank
    features : str, optional
        A feature set, or ``A+B``; by default the middle blocks of one backbone side by side where the bank has some,
        which tell more of what is unusual, else ``penultimate``, else its first pooled set.
    method : str, default "mahalanobis"
        Or ``"knn"``.
    target : str, optional
        Column of classes: the distance of ``"mahalanobis"`` is then that from the nearest class mean. Samples without
        one are scored and not learned from.
    random_state : int, default 0
        Of the folds.
    n_jobs : int, default 1
        Threads of ``"knn"``; -1 for all cores.

    Returns
    -------
    DataFrame
        ``source, path, distance, unlike`` (the share of the images that are less unusual), the most unusual first.
        Its ``attrs["features"]`` are the feature sets that were looked at.

    Raises
    ------
    FeatureBankError
        When the method, the features or the column does not fit, or there are fewer than 20 different images.

    See Also
    --------
    cluster : Groups of images.
    Predictor.predict_table : Says the same of new images.

    Examples
    --------
    >>> outliers("photos.bank", features="penultimate").columns.tolist()
    ['source', 'path', 'distance', 'unlike']
    """
    bank = Bank.of(bank)
    if method not in METHODS:
        raise TopModelError(f"no outlier score {method!r}; {near_names(method, METHODS)}")
    if target is not None and method == "knn":
        raise TopModelError("knn knows no classes; leave the target out, or take mahalanobis")
    table = bank.select()
    first, contents = distinct_contents(table)
    if len(first) < LEAST_ROWS:
        raise BankError(
            f"{counted(len(first), 'different image')}; expected at least {LEAST_ROWS} to say what is usual"
        )
    names = next(iter(middle_blocks(bank)), None) if features is None else None
    names = names or chosen_sets(bank, features)
    X = bank.features(names, table.take(first))
    classes = None if target is None else column_of(table.take(first), target)
    distances = nearest_distances(X, n_jobs) if method == "knn" else _mahalanobis(X, classes, random_state)
    ranks = np.searchsorted(np.sort(distances), distances) / max(len(distances) - 1, 1)
    found = table.names().assign(distance=distances[contents], unlike=ranks[contents])
    found = found.sort_values("distance", ascending=False, kind="stable", ignore_index=True)
    found.attrs["features"] = names
    return found


def nearest_distances(X: NDArray[Any], n_jobs: int = 1) -> NDArray[np.float64]:
    """Return each row's distance to its tenth nearest other row, all of length 1, shape (n,)."""
    unit = normalize(X)
    others = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(unit) - 1), algorithm="brute", n_jobs=n_jobs)
    return np.asarray(others.fit(unit).kneighbors()[0][:, -1], float)


def _mahalanobis(X: NDArray[Any], classes: pd.Series | None, random_state: int) -> NDArray[np.float64]:
    """Return out-of-fold distances; those of rows without a class are from the model of all that have one."""
    if classes is None:
        return out_of_fold(Mahalanobis(), X, random_state=random_state)
    known = classes.notna().to_numpy()
    y = classes[known].astype(str).to_numpy(dtype=str)
    if len(np.unique(y)) * 2 > len(y):
        raise ColumnError(f"column {classes.name!r} has {len(np.unique(y))} values in {len(y)} rows; expected classes")
    found = np.empty(len(X))
    found[known] = out_of_fold(Mahalanobis(), X[known], y, random_state)
    if not known.all():
        found[~known] = Mahalanobis().fit(X[known], y).distances(X[~known])
    return found
