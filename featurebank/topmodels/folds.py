"""Folds: the same for every candidate, stratified, grouped when rows belong together."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    LeaveOneGroupOut,
    StratifiedGroupKFold,
    StratifiedKFold,
    check_cv,
)

from featurebank.errors import TopModelError, near_names, one_line

Fold = tuple[NDArray[np.int64], NDArray[np.int64]]


KINDS = ("stratified", "group", "stratified-group", "logo", "plain")


@dataclass(frozen=True)
class Folds:
    """Folds by name, a scikit-learn splitter: stratified, grouped, both, one group out, or plain; repeated or not.

    Parameters
    ----------
    kind : str
        ``"stratified"``, ``"group"``, ``"stratified-group"``, ``"logo"`` (each group is a fold) or ``"plain"``.
    n_splits : int, default 5
        Ignored by ``"logo"``.
    repeats : int, default 1
        How often, each time shuffled with another seed.
    random_state : int, default 0

    Examples
    --------
    >>> len(list(Folds("plain", 3, repeats=2).split(np.zeros((6, 1)), np.zeros(6))))
    6
    """

    kind: str
    n_splits: int = 5
    repeats: int = 1
    random_state: int = 0

    def split(self, X: Any, y: Any, groups: Any = None) -> Iterator[Fold]:
        """Yield (train, test) row numbers.

        Raises
        ------
        TopModelError
            When the kind is unknown, or needs groups that are not given.
        """
        if self.kind not in KINDS:
            raise TopModelError(f"no folds {self.kind!r}; {near_names(self.kind, KINDS)}")
        if groups is None and ("group" in self.kind or self.kind == "logo"):
            raise TopModelError(f"{self.kind} folds and no groups; name the column of groups")
        if self.kind == "logo":
            yield from LeaveOneGroupOut().split(X, y, groups)
            return
        for repeat in range(self.repeats):
            yield from self._splitter(self.random_state + repeat).split(X, y, groups)

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Return the number of folds."""
        return len(np.unique(groups)) if self.kind == "logo" else self.n_splits * self.repeats

    def _splitter(self, random_state: int) -> Any:
        kinds = {
            "stratified": StratifiedKFold,
            "group": GroupKFold,
            "stratified-group": StratifiedGroupKFold,
            "plain": KFold,
        }
        return kinds[self.kind](self.n_splits, shuffle=True, random_state=random_state)


def default_kind(task: str, is_grouped: bool) -> str:
    """Return the kind of folds that is meant when nothing is said.

    Examples
    --------
    >>> default_kind("classification", True), default_kind("regression", False)
    ('stratified-group', 'plain')
    """
    if task == "regression":
        return "group" if is_grouped else "plain"
    return "stratified-group" if is_grouped else "stratified"


def make_folds(
    cv: Any, X: Any, y: NDArray[Any], groups: NDArray[Any] | None, random_state: int, task: str = "classification"
) -> list[Fold]:
    """Return (train, test) row numbers of each fold.

    Parameters
    ----------
    cv : int, scikit-learn splitter, or iterable of (train, test)
        An integer k means `Folds` of the kind that fits: stratified for classes, grouped when `groups` are given.
    X : array of n rows
        Only its length matters to most splitters.
    y : ndarray, shape (n,) or (n, labels)
        Class, labels or number of each row; several labels are stratified by their combination.
    groups : ndarray, shape (n,), or None
        Rows of one group never straddle folds.
    random_state : int
        Seed of the shuffling.
    task : str, default "classification"

    Raises
    ------
    TopModelError
        When the data cannot be split so.
    """
    strata = combinations(y, cv) if y.ndim == 2 else y
    try:
        if isinstance(cv, (int, np.integer)):
            cv = Folds(default_kind(task, groups is not None), int(cv), random_state=random_state)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The least populated class")  # see `rare_class_notes`
            folds = list(check_cv(cv, strata, classifier=task != "regression").split(X, strata, groups))
    except TopModelError:
        raise
    except ValueError as error:
        few = "; ask for fewer folds, or for plain ones, which do not look at the classes"
        if groups is not None:
            few = f"; there are {len(np.unique(groups))} groups: ask for as many folds at most"
        raise TopModelError(f"the rows cannot be split into these folds: {one_line(error).rstrip('.')}{few}") from error
    empty = [number for number, (train, test) in enumerate(folds) if not len(train) or not len(test)]
    if empty:
        raise TopModelError(f"fold {empty[0]} would be empty; ask for fewer folds than the data has groups")
    _check_labels(folds, y)
    return folds


def rare_class_notes(cv: Any, y: NDArray[Any]) -> list[str]:
    """Say which class has fewer rows than there are stratified folds, so that not every fold tests it.

    Of a class of one row more is said elsewhere: no model that is tested by it has learned it.

    Examples
    --------
    >>> rare_class_notes(5, np.repeat(["a", "rare"], [20, 3]))
    ["class 'rare' has 3 rows for 5 folds: not every fold tests it, and its recall stands on these few"]
    """
    is_stratified = not isinstance(cv, Folds) or cv.kind.startswith("stratified")
    known = isinstance(cv, (Folds, StratifiedKFold, StratifiedGroupKFold)) and is_stratified
    folds = cv.n_splits if known else int(cv) if isinstance(cv, (int, np.integer)) else 0
    names, counts = np.unique(y, return_counts=True)
    few = [(rows, str(name)) for name, rows in zip(names, counts.tolist(), strict=True) if 2 <= rows < folds]
    why = f"rows for {folds} folds: not every fold tests it, and its recall stands on these few"
    return [f"class {name!r} has {rows} {why}" for rows, name in sorted(few)[:1]]


def combinations(y: NDArray[Any], cv: Any) -> NDArray[np.int64]:
    """Return the combination of labels of each row as a number; those too rare for the folds share one."""
    _, codes, counts = np.unique(y, axis=0, return_inverse=True, return_counts=True)
    least = int(cv) if isinstance(cv, (int, np.integer)) else getattr(cv, "n_splits", 5)
    rare = counts < least
    return np.where(rare[codes], -1, codes)


def _check_labels(folds: Sequence[Fold], y: NDArray[Any]) -> None:
    """Refuse folds whose training part holds a label in every row, or in none."""
    if y.ndim == 1:
        return
    for number, (train, _) in enumerate(folds):
        shares = y[train].mean(axis=0)
        constant = np.flatnonzero((shares == 0) | (shares == 1))
        if len(constant):
            raise TopModelError(
                f"label {constant[0]} is the same in all rows that fold {number} trains on; expected 0 and 1: "
                "ask for fewer folds, or leave the label out"
            )


class Sizes(NamedTuple):
    """Mean numbers of rows in the training and test parts of folds."""

    n_train: float
    n_test: float


def sizes_of(folds: Sequence[Fold]) -> Sizes:
    """Return the mean sizes of the parts, by which intervals over folds are corrected.

    Examples
    --------
    >>> sizes_of([(np.arange(3), np.arange(1)), (np.arange(5), np.arange(3))])
    Sizes(n_train=4.0, n_test=2.0)
    """
    return Sizes(*(float(np.mean([len(fold[side]) for fold in folds])) for side in (0, 1)))


def fold_numbers(folds: Iterable[Fold], count: int) -> NDArray[np.int64]:
    """Return the number of the fold that tests each row, -1 where none does, shape (count,)."""
    numbers = np.full(count, -1)
    for number, (_, test) in enumerate(folds):
        numbers[test] = number
    return numbers


def folds_of(numbers: Any) -> list[Fold]:
    """Return the folds behind `fold_numbers`; each trains on the rows of all other folds.

    Parameters
    ----------
    numbers : array-like of int, shape (n,)
        Number of the fold that tests each row.

    Raises
    ------
    TopModelError
        When a row was never tested (fold -1), or there is one fold.

    Examples
    --------
    >>> [(train.tolist(), test.tolist()) for train, test in folds_of([0, 1, 0])]
    [([1], [0, 2]), ([0, 2], [1])]
    """
    numbers = np.asarray(numbers)
    known = np.unique(numbers)
    if len(known) < 2 or known[0] < 0:
        raise TopModelError(
            f"the rows are of folds {known.tolist()[:6]}; expected at least 2, none below 0: leave out untested rows"
        )
    return [(np.flatnonzero(numbers != fold), np.flatnonzero(numbers == fold)) for fold in known]


def tie(*keys: Any) -> NDArray[np.int64]:
    """Return groups such that rows which share a value of any key share a group.

    Parameters
    ----------
    *keys : array-like, each of shape (n,)
        For instance a column of groups, and the content digests.

    Returns
    -------
    ndarray of int64, shape (n,)

    Examples
    --------
    >>> tie(["a", "a", "b", "c"], [1, 2, 2, 3])
    array([0, 0, 0, 1])
    """
    count = len(keys[0])
    rows, nodes, start = [], [], count
    for key in keys:
        _, codes = np.unique(np.asarray(key), return_inverse=True)
        rows.append(np.arange(count))
        nodes.append(codes + start)
        start += int(codes.max(initial=-1)) + 1
    edges = np.concatenate(rows), np.concatenate(nodes)
    graph = coo_matrix((np.ones(len(edges[0]), bool), edges), shape=(start, start))
    labels = connected_components(graph, directed=False)[1][:count]
    return np.unique(labels, return_inverse=True)[1]
