"""Semi-supervised fits: rows without a label help to fit a top model, which stays a plain pipeline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import Normalizer
from sklearn.semi_supervised import LabelSpreading, SelfTrainingClassifier

from featurebank.errors import TopModelError
from featurebank.topmodels.search import TopModelSearchCV
from featurebank.topmodels.transforms import normalization

INNER_FOLDS = 5
SURE = 0.9
"""Least probability of a label that self-training takes for true."""
SPREAD_SURE = 0.75
"""Least share of a row's neighbourhood that its spread label must hold."""
NEIGHBOURS = 10
SEARCHED = 2000
"""Rows that parameters are searched on where labels were found for more."""
COMPONENTS = (16, 64)
"""Whitened directions that are tried; more of them are mostly noise where labels are few."""
_UNKNOWN = -1


@dataclass(frozen=True)
class Recipe:
    """A top model whose parameters are searched anew on whatever rows it is given.

    Attributes
    ----------
    model : str
        Name of the top model.
    search : TopModelSearchCV
        Unfitted, of that model and one normalisation.
    """

    model: str
    search: TopModelSearchCV

    def searched(self, X: NDArray[Any], y: NDArray[Any], groups: Any, **options: Any) -> TopModelSearchCV:
        """Return the search, fitted on these rows and nothing else; `options` are parameters of its own.

        Raises
        ------
        TopModelError
            When a class has fewer than two rows, or groups.
        """
        search = clone(self.search).set_params(cv=_inner_folds(y, groups), **options)
        return search.fit(X, y, groups=groups)

    def fit(self, part: Part) -> Pipeline:
        """Return the best pipeline of the labelled rows alone, fitted on them; see `searched`."""
        return self.searched(part.X, part.y, part.groups).best_estimator_


@dataclass(frozen=True)
class Part:
    """The rows that one model learns from.

    Attributes
    ----------
    X : ndarray of float32, shape (n, d)
    y : ndarray, shape (n,)
    groups : ndarray of int64, shape (n,), or None
    pool : ndarray of float32, shape (m, d)
        Rows without a label.
    """

    X: NDArray[np.float32]
    y: NDArray[Any]
    groups: NDArray[np.int64] | None
    pool: NDArray[np.float32]

    def all_rows(self) -> NDArray[np.float32]:
        """Return the labelled rows, then the others."""
        return np.concatenate([self.X, self.pool])

    def codes(self) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Return the classes, and the number of each row's class, -1 without a label."""
        classes, codes = np.unique(self.y, return_inverse=True)
        return classes, np.concatenate([codes, np.full(len(self.pool), _UNKNOWN)])


def supervised(recipe: Recipe, part: Part) -> Pipeline:
    """Fit the labelled rows alone.

    Parameters
    ----------
    recipe : Recipe
    part : Part

    Returns
    -------
    Pipeline
        Fitted.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(n_class=2, return_X_y=True)
    >>> recipe = Recipe("ridge", TopModelSearchCV(["ridge"]))
    >>> supervised(recipe, Part(X[:20], y[:20], None, X[20:])).score(X[20:], y[20:]) > 0.95
    True
    """
    return recipe.fit(part)


def self_training(recipe: Recipe, part: Part) -> Pipeline:
    """Fit, take the surest predictions of rows without a label for their labels, and fit again (Yarowsky 1995).

    At most ten rounds, until no label is surer than 0.9; then a plain top model is fitted on all labels. The recipe's
    model has probabilities; parameters and result are those of `supervised`.
    """
    base = recipe.fit(part)
    classes, codes = part.codes()
    known = codes[: len(part.y)]
    found = SelfTrainingClassifier(clone(base), threshold=SURE).fit(part.all_rows(), codes).transduction_
    found[: len(known)] = known
    return _fit_labelled(recipe, part, classes, found)


def spreading(recipe: Recipe, part: Part) -> Pipeline:
    """Spread labels over the graph of 10 nearest neighbours, and fit the rows they surely reach.

    Zhou et al. (2004), Learning with local and global consistency. Spreading says nothing of new rows, so that a plain
    top model is fitted on the spread labels that hold at least three quarters of their row's neighbourhood.
    Parameters and result are those of `supervised`.
    """
    classes, codes = part.codes()
    rows = part.all_rows()
    for _, step in [*normalization(str(recipe.search.normalize)), ("unit", Normalizer())]:
        rows = step.fit_transform(rows)
    spread = LabelSpreading(kernel="knn", n_neighbors=min(NEIGHBOURS, len(rows) - 1), max_iter=200).fit(rows, codes)
    shares = np.nan_to_num(spread.label_distributions_)
    found = np.where(shares.max(axis=1) >= SPREAD_SURE, shares.argmax(axis=1), _UNKNOWN)
    known = codes != _UNKNOWN
    found[known] = codes[known]
    return _fit_labelled(recipe, part, classes, found)


def whiten(recipe: Recipe, part: Part) -> Pipeline:
    """Fit the labelled rows behind a PCA whitening that all rows, labelled or not, have taught (Raina et al. 2007).

    It keeps 16 or 64 directions, whichever the labelled rows do better with in cross-validation. Parameters and result
    are those of `supervised`.
    """
    rows, Z = part.all_rows(), part.X
    steps = normalization(str(recipe.search.normalize))
    for _, step in steps:
        rows = step.fit_transform(rows)
        Z = step.transform(Z)
    tried = []
    for count in COMPONENTS:
        pca = PCA(min(count, *rows.shape), whiten=True, random_state=recipe.search.random_state).fit(rows)
        tried.append((pca, recipe.searched(pca.transform(Z), part.y, part.groups, normalize="none", select=None)))
    pca, search = max(tried, key=lambda pair: pair[1].best_score_)
    return Pipeline([*steps, ("whiten", pca), search.best_estimator_.steps[-1]])


METHODS: dict[str, Callable[[Recipe, Part], Pipeline]] = {
    "self-training": self_training,
    "spreading": spreading,
    "whiten": whiten,
}


def _fit_labelled(recipe: Recipe, part: Part, classes: NDArray[Any], codes: NDArray[np.int64]) -> Pipeline:
    """Fit the rows that have a label now, with parameters searched on 2,000 of them, the given ones first.

    Those of the few given rows would not do: a penalty that suits ten rows can leave hundreds with nothing but the most
    frequent class.
    """
    given = len(part.y)
    extra = given + np.flatnonzero(codes[given:] != _UNKNOWN)
    extra = np.random.default_rng(recipe.search.random_state).permutation(extra)
    chosen = np.concatenate([np.arange(given), extra])
    X, y = part.all_rows()[chosen], classes[codes[chosen]]
    groups = None if part.groups is None else np.concatenate([part.groups, part.groups.max() + 1 + extra])
    tuned = max(given, SEARCHED)
    search = recipe.searched(X[:tuned], y[:tuned], None if groups is None else groups[:tuned])
    return search.best_estimator_ if len(X) <= tuned else clone(search.best_estimator_).fit(X, y)


def _inner_folds(y: NDArray[Any], groups: Any) -> int:
    """Return how many folds the class of fewest rows (or groups) allows, from 2 to 5."""
    units = np.arange(len(y)) if groups is None else groups
    counts = {str(name): len(np.unique(units[y == name])) for name in np.unique(y)}
    rarest = min(counts, key=lambda name: counts[name])
    if counts[rarest] < 2:
        raise TopModelError(f"one row (or group) of {rarest!r} to learn from; expected 2 to choose parameters by")
    return min(counts[rarest], INNER_FOLDS)
