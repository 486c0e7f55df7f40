"""The loop over folds for everything that is scored by fitting it again, and the one way to fit and score.

The search does not use the loop: its solvers share work between folds (`featurebank.topmodels.solvers`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from sklearn import config_context
from sklearn.base import clone
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.pipeline import Pipeline, make_pipeline

from featurebank.images.reading import Progress
from featurebank.topmodels.folds import Fold

T = TypeVar("T")


def over_folds(
    run: Callable[[NDArray[np.int64], NDArray[np.int64]], T],
    folds: Sequence[Fold],
    progress: Progress | None = None,
    found: list[T] | None = None,
) -> list[T]:
    """Return what `run` makes of the training and the test rows of each fold, the folds in their order.

    Parameters
    ----------
    run : callable
        Row numbers (train, test) to anything.
    folds : sequence of (train, test)
    progress : callable, optional
        Called with (folds done, folds in all).
    found : list, optional
        Filled fold by fold, for a caller who keeps what was finished before Ctrl-C.

    Examples
    --------
    >>> over_folds(lambda train, test: len(train) - len(test), [(np.arange(3), np.arange(1))])
    [2]
    """
    results = [] if found is None else found
    for train, test in folds:
        results.append(run(train, test))
        if progress is not None:
            progress(len(results), len(folds))
    return results


def in_place(answers: Sequence[NDArray[Any]], folds: Sequence[Fold], count: int, absent: Any = np.nan) -> NDArray[Any]:
    """Return the answers to each fold's test rows in the order of all rows, shape (count, …).

    Parameters
    ----------
    answers : sequence of ndarray
        For each fold one answer a test row.
    folds : sequence of (train, test)
    count : int
        Number of rows.
    absent : default nan
        What a row has that no fold tests.

    Examples
    --------
    >>> in_place([np.array([7]), np.array([8])], [([1], [0]), ([0], [1])], 2, absent=-1)
    array([7, 8])
    """
    placed = np.full((count, *answers[0].shape[1:]), absent, np.result_type(*answers))
    for each, (_, test) in zip(answers, folds, strict=True):
        placed[test] = each
    return placed


def fit_pipeline(pipeline: Pipeline, X: NDArray[Any], y: NDArray[Any], weight: NDArray[np.float64] | None) -> Pipeline:
    """Fit a pipeline whose last step takes the weights, whether or not the caller has metadata routing on."""
    options = {} if weight is None else {f"{pipeline.steps[-1][0]}__sample_weight": weight}
    with config_context(enable_metadata_routing=False):
        return pipeline.fit(X, y, **options)


def score_fitted(scorer: Any, model: Any, X: Any, y: Any, weight: NDArray[np.float64] | None = None) -> float:
    """Return a scorer's value for a fitted model, whether or not the caller has metadata routing on."""
    options = {} if weight is None else {"sample_weight": weight}
    with config_context(enable_metadata_routing=False):
        return float(scorer(model, X, y, **options))


def fit_and_score(
    pipeline: Pipeline,
    scorer: Any,
    X: NDArray[Any],
    y: NDArray[Any],
    train: NDArray[np.int64],
    test: NDArray[np.int64],
    weight: NDArray[np.float64] | None = None,
) -> float:
    """Return the score on some rows of a clone that is fitted on others.

    Parameters
    ----------
    pipeline : Pipeline
        Unfitted; its last step takes the weights.
    scorer : callable
        A scikit-learn scorer.
    X, y : ndarray
    train, test : ndarray of int64
        Row numbers.
    weight : ndarray of float64, shape (n,), optional
        Of all rows; used in fitting and in scoring.
    """
    of_train, of_test = (None if weight is None else weight[rows] for rows in (train, test))
    fitted = fit_pipeline(clone(pipeline), X[train], y[train], of_train)
    return score_fitted(scorer, fitted, X[test], y[test], of_test)


def guess_scores(
    scorer: Any, task: str, y: NDArray[Any], folds: Sequence[Fold], weight: NDArray[np.float64] | None = None
) -> list[float] | None:
    """Return what a guess that never looks at an image scores on each fold: the most frequent class, or the mean.

    Parameters
    ----------
    scorer : callable
        A scikit-learn scorer.
    task : str
        ``"regression"``, or one of classes.
    y : ndarray, shape (n,) or (n, labels)
    folds : sequence of (train, test)
    weight : ndarray of float64, shape (n,), optional

    Returns
    -------
    list of float or None
        None where the scorer gives no number.

    Examples
    --------
    >>> from sklearn.metrics import get_scorer
    >>> y = np.array(["a", "b", "a", "a"])
    >>> guess_scores(get_scorer("accuracy"), "classification", y, [([2, 3], [0, 1]), ([0, 1], [2, 3])])
    [0.5, 1.0]
    """
    model = make_pipeline(DummyRegressor() if task == "regression" else DummyClassifier())
    X = np.zeros((len(y), 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a class that is never said has no precision
        try:
            scores = over_folds(lambda train, test: fit_and_score(model, scorer, X, y, train, test, weight), folds)
        except Exception:  # scorers raise all kinds where a guess does not answer what they ask
            return None
    return scores if np.isfinite(scores).all() else None
