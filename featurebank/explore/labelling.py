"""What to label next: rows without a label, those first that a predictor would learn most from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import entropy
from sklearn.metrics import pairwise_distances_argmin_min
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.preprocessing import normalize

from featurebank.bank.bank import Bank, BankLike
from featurebank.bank.features import as_keys
from featurebank.bank.samples import SampleTable, column_of, other_contents
from featurebank.errors import BankError, ColumnError, TopModelError, near_names
from featurebank.images.reading import Progress
from featurebank.predictor.predictor import Predictor
from featurebank.predictor.task import Task

STRATEGIES = ("uncertainty", "margin", "coverage")
SCORE = "score"


def next_to_label(
    bank: BankLike,
    predictor: Predictor,
    *,
    strategy: str = "uncertainty",
    count: int = 100,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Rank the samples without a label by what a label would be worth.

    ``"uncertainty"`` is the entropy of the predicted probabilities over its largest value, from 0 to 1;
    ``"margin"`` is 1 less the difference of the two largest probabilities (Scheffer et al. 2001). Both read
    probabilities sample by sample, so that the first ones may look alike. ``"coverage"`` spreads: it takes, one after
    the other, the sample that is farthest from all that are labelled or taken (greedy k-center: Sener and Savarese
    2018), between the predictor's embeddings scaled to length 1; its score is that distance.

    Parameters
    ----------
    bank : path-like or Bank
    predictor : Predictor
        Its targets say what is a label, its features and models what is known. Of several tasks, those whose label a
        sample lacks count: the mean of their uncertainties, or the closest call.
    strategy : str, default "uncertainty"
        Or ``"margin"``, or ``"coverage"``, which also serves numbers.
    count : int, default 100
        Most rows; images of identical content are asked for once.
    progress : callable, optional
        Called with (rows taken, rows in all) by ``"coverage"``.

    Returns
    -------
    DataFrame
        ``source, path, score`` and an empty column for each target, to be filled in and read back with
        ``featurebank label``.

    Raises
    ------
    FeatureBankError
        When the strategy does not fit, nothing is left to label, or the bank lacks the predictor's features.

    See Also
    --------
    fit_semi_supervised : Use the unlabelled as they are.
    Bank.label : Read the answers back.

    Examples
    --------
    >>> from featurebank import fit
    >>> bank = Bank("photos.bank")
    >>> bank.label(pd.read_csv("few.csv"))
    12
    >>> result = fit(bank, target="kind", features="penultimate", models=["logreg"])
    >>> len(next_to_label(bank, result.predictor, count=5))
    5
    """
    bank = Bank.of(bank)
    tasks = _tasks(predictor, strategy, count)
    columns = [name for each in tasks for name in each.columns]
    if SCORE in columns:
        raise ColumnError("the target is called 'score', as is a column of the answer; rename it")
    table = bank.select()
    labelled, pool = _split(table, columns)
    if not len(pool):
        raise BankError(f"every readable sample has {' and '.join(columns)}, or a labelled copy; nothing to label")
    if strategy == "coverage":
        both = table.take(np.concatenate([labelled, pool]))
        rows = normalize(np.concatenate(predictor.read(bank, as_keys(both.rows["digest"])), axis=1))
        order, scores = k_center(rows[: len(labelled)], rows[len(labelled) :], count, progress)
    else:
        worth = _worth(predictor, tasks, bank, table.take(pool), strategy)
        order = np.argsort(-worth, kind="stable")[:count]
        scores = worth[order]
    chosen = table.take(pool[order])
    every = [name for each in predictor.tasks.values() for name in each.columns]
    return chosen.names().assign(**{SCORE: scores}, **{name: chosen.columns.get(name) for name in every})


def _tasks(predictor: Predictor, strategy: str, count: int) -> list[Task]:
    """Return the tasks whose labels are wanted, once what is asked for can be done."""
    if strategy not in STRATEGIES:
        raise TopModelError(f"no strategy {strategy!r}; {near_names(strategy, STRATEGIES)}")
    if count < 1:
        raise TopModelError(f"{count} samples are asked for; expected at least 1")
    tasks = [each for each in predictor.tasks.values() if strategy == "coverage" or each.has_probabilities]
    if not tasks:
        what = "numbers" if any(each.kind == "regression" for each in predictor.tasks.values()) else "p-values"
        raise TopModelError(f"{what} have no probabilities, so no {strategy}; use coverage")
    return tasks


def _split(table: SampleTable, columns: list[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows that have every label, and the others whose content none of those has, each content once."""
    has_all = np.ones(len(table), bool)
    for name in columns:
        has_all &= column_of(table, name).notna().to_numpy() if name in table.columns else False
    return np.flatnonzero(has_all), other_contents(table, has_all)


def _worth(
    predictor: Predictor, tasks: list[Task], bank: Bank, pool: SampleTable, strategy: str
) -> NDArray[np.float64]:
    """Return how little is known of each row, from 0 to 1: of the tasks it has no label of the mean, or the largest."""
    doubts, missing = np.zeros((len(tasks), len(pool))), np.ones((len(tasks), len(pool)), bool)
    for number, task in enumerate(tasks):
        doubts[number] = _doubt(task, task.probabilities(predictor.load_rows(bank, pool, task)), strategy)
        has_all = [column_of(pool, name).notna().to_numpy() for name in task.columns if name in pool.columns]
        if len(has_all) == len(task.columns):
            missing[number] = ~np.logical_and.reduce(has_all)
    summed = (doubts * missing).sum(axis=0) / missing.sum(axis=0)
    return summed if strategy == "uncertainty" else (doubts * missing).max(axis=0)


def _doubt(task: Task, proba: NDArray[np.float64], strategy: str) -> NDArray[np.float64]:
    """Return how little is known of each row, from 0 to 1; of several labels the mean, or the closest call."""
    if task.kind == "multilabel":
        each = [_doubts(np.column_stack([1 - column, column]), strategy) for column in proba.T]
        return np.mean(each, axis=0) if strategy == "uncertainty" else np.max(each, axis=0)
    return _doubts(proba, strategy)


def _doubts(proba: NDArray[np.float64], strategy: str) -> NDArray[np.float64]:
    if strategy == "uncertainty":
        return entropy(proba, axis=1) / np.log(proba.shape[1])
    ordered = np.sort(proba, axis=1)
    return 1 - (ordered[:, -1] - ordered[:, -2])


def k_center(
    centres: NDArray[Any], pool: NDArray[Any], count: int, progress: Progress | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Take rows one after the other, each the farthest from all centres and rows taken before (Gonzalez 1985).

    The largest distance from any row to its nearest centre is then at most twice the least possible. Without centres,
    the first row taken is the one nearest to the mean.

    Returns
    -------
    order : ndarray of int64, shape (min(count, n),)
        Row numbers in the order they were taken.
    distances : ndarray of float64
        Of each row, when it was taken, to the nearest centre or row taken before it.

    Examples
    --------
    >>> k_center(np.array([[0.0]]), np.array([[1.0], [5.0], [3.0]]), 2)
    (array([1, 2]), array([5., 2.]))
    """
    if len(centres):
        nearest = pairwise_distances_argmin_min(pool, centres)[1].astype(np.float64)
    else:
        nearest = -euclidean_distances(pool, pool.mean(axis=0, keepdims=True))[:, 0].astype(np.float64)
    order, distances = [], []
    for number in range(min(count, len(pool))):
        row = int(nearest.argmax())
        own = euclidean_distances(pool, pool[row : row + 1])[:, 0].astype(np.float64)
        order.append(row)
        distances.append(abs(nearest[row]))
        nearest = own if not number and not len(centres) else np.minimum(nearest, own)
        nearest[row] = -1.0  # never again, also among rows that are all the same
        if progress is not None:
            progress(number + 1, min(count, len(pool)))
    return np.array(order, np.int64), np.array(distances)
