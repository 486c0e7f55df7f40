"""Scorers that know the classes: the positive one of two, and all of several where a fold has some of them only.

A scorer that has no meaning for the target, or for the folds, is refused before any work.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from inspect import signature
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from featurebank.errors import TopModelError
from featurebank.topmodels.evaluation import family_of, scorer_of
from featurebank.topmodels.folds import Fold
from featurebank.topmodels.formatting import range_of

_OF_ROWS = ("accuracy", "top_k")
"""Shares that are the mean of a value of each row, by what their names begin with."""


def positive_of(classes: NDArray[Any] | None, y: NDArray[Any], asked: Any = None) -> Any:
    """Return the positive one of two classes: the one asked for, else 1 or True, else the rarer; None of more.

    Parameters
    ----------
    classes : ndarray, shape (k,), or None
        Sorted.
    y : ndarray, shape (n,)
    asked : optional
        A class, or its text.

    Raises
    ------
    TopModelError
        When there is no such class.

    Examples
    --------
    >>> y = np.array(["fine", "defect", "fine"])
    >>> str(positive_of(np.unique(y), y)), str(positive_of(np.unique(y), y, "fine"))
    ('defect', 'fine')
    """
    if classes is None or len(classes) != 2:
        if asked is not None:
            count = "numbers" if classes is None else f"{len(classes)} classes"
            raise TopModelError(f"a positive class {str(asked)!r} for {count}; expected two classes: leave it out")
        return None
    names = [str(name) for name in classes.tolist()]
    if asked is not None:
        if str(asked) not in names:
            raise TopModelError(f"no class {str(asked)!r} to be positive; expected {' or '.join(map(repr, names))}")
        return classes[names.index(str(asked))]
    if classes.dtype.kind in "biuf" and classes[1] == 1:
        return classes[1]
    counts = [np.count_nonzero(y == each) for each in classes]
    return classes[0] if counts[0] < counts[1] else classes[1]


def resolved_scorer(scoring: Any, task: str, classes: NDArray[Any] | None, positive: Any) -> Any:
    """Return a scorer for these classes.

    A scorer that looks at one of two classes is told which; one of the probabilities of several classes is told all of
    them, and the area under the ROC curve is that of the classes that occur. Of any other nothing changes.

    Raises
    ------
    TopModelError
        When no scorer has this name, or it is for two classes and there are more.
    """
    scorer = scorer_of(scoring, task)
    _check_family(scorer, scoring, task)
    _check_count(scorer, scoring, task, classes)
    if task != "classification" or classes is None:
        return scorer
    if len(classes) > 2:
        return _of_all(scorer, classes)
    if _is_likelihood_ratio(scorer):
        return _told(scorer, partial(_of_positive, scorer._score_func), pos_label=positive)
    return _told(scorer, pos_label=positive) if _takes_positive(scorer) else scorer


def check_test_parts(scoring: Any, folds: Sequence[Fold]) -> None:
    """Refuse a score of sets of rows, as F1, where each fold tests a single row.

    Raises
    ------
    TopModelError

    Examples
    --------
    >>> check_test_parts("accuracy", [(np.array([1]), np.array([0]))])
    >>> check_test_parts("f1", [(np.array([1]), np.array([0]))])
    Traceback (most recent call last):
    featurebank.errors.TopModelError: scoring 'f1' means nothing on test parts of one row; expected more: ask for \
fewer folds, or accuracy
    """
    is_of_sets = np.isfinite(range_of(scoring)).all() and not str(scoring).startswith(_OF_ROWS)
    if is_of_sets and scoring is not None and all(len(test) == 1 for _, test in folds):
        raise TopModelError(
            f"scoring {scoring!r} means nothing on test parts of one row; expected more: ask for fewer folds, or "
            "accuracy"
        )


def _check_family(scorer: Any, scoring: Any, task: str) -> None:
    """Refuse a metric of classes or clusters for numbers: some of them take any two numbers that differ for classes."""
    family = family_of(scorer)
    if task == "regression" and family not in (None, "numbers"):
        raise TopModelError(
            f"scoring {scoring!r} is of {family}, and the target has numbers; expected one of numbers: r2, "
            "neg_mean_absolute_error …"
        )


def _check_count(scorer: Any, scoring: Any, task: str, classes: NDArray[Any] | None) -> None:
    """Refuse a score of two classes where there are more, and one of several labels where there is one a row."""
    count, average = 0 if classes is None else len(classes), _average_of(scorer)
    many = "several labels" if task == "multilabel" else f"{count} classes"
    if task == "classification" and average == "samples":
        raise TopModelError(
            f"scoring {scoring!r} of one label a row; expected several labels: take f1_macro or the like"
        )
    if task == "classification" and count < 3:
        return
    if scoring == "roc_auc" and task == "classification":
        raise TopModelError(f"roc_auc of {many}; expected two: take roc_auc_ovr or roc_auc_ovo")
    if average == "binary" or _is_likelihood_ratio(scorer):
        instead = f"{scoring}_macro" if average == "binary" and isinstance(scoring, str) else "f1_macro or the like"
        raise TopModelError(f"scoring {scoring!r} of {many}; expected two classes: take {instead}")


def _average_of(scorer: Any) -> Any:
    """Return how a scorer's metric averages over classes, None where it does not."""
    metric = getattr(scorer, "_score_func", None)
    given = None if metric is None else signature(metric).parameters.get("average")
    return None if given is None else scorer._kwargs.get("average", given.default)


def _is_likelihood_ratio(scorer: Any) -> bool:
    """Say whether a scorer is a likelihood ratio, which takes the last of two classes for the positive one."""
    return getattr(getattr(scorer, "_score_func", None), "__name__", "").endswith("_likelihood_ratio")


def positive_note(scorer: Any, scoring: Any) -> list[str]:
    """Say which class a scorer is of, where it is of one that nobody chose and whose name does not tell."""
    chosen = getattr(scorer, "_kwargs", {}).get("pos_label")
    if not isinstance(chosen, str) or callable(scoring):
        return []
    return [f"{scoring} is of the class {str(chosen)!r}, the rarer one; --positive names another"]


def _told(scorer: Any, metric: Any = None, **options: Any) -> Any:
    """Return a scorer that gives its metric more options."""
    kwargs = {**scorer._kwargs, **options}
    return type(scorer)(metric or scorer._score_func, scorer._sign, kwargs, scorer._response_method)


def _of_all(scorer: Any, classes: NDArray[Any]) -> Any:
    """Return a scorer of probabilities that is told all classes; any other as it is."""
    metric = getattr(scorer, "_score_func", None)
    asks = getattr(scorer, "_response_method", "predict")
    if metric is None or "predict_proba" not in asks or "labels" not in signature(metric).parameters:
        return scorer
    return _told(scorer, _roc_auc_of_present if metric is roc_auc_score else None, labels=classes)


def _of_positive(metric: Any, y_true: NDArray[Any], y_pred: NDArray[Any], *, pos_label: Any, **options: Any) -> float:
    """Return a metric of whether rows are of the positive class."""
    return float(metric(y_true == pos_label, y_pred == pos_label, **options))


def _roc_auc_of_present(
    y_true: NDArray[Any], y_score: NDArray[Any], *, labels: NDArray[Any], sample_weight: Any = None, **options: Any
) -> float:
    """Return scikit-learn's area under the ROC curve of the classes that occur."""
    occurs = np.isin(labels, y_true)
    present, proba = labels[occurs], y_score[:, occurs]
    proba = proba / np.maximum(proba.sum(axis=1, keepdims=True), np.finfo(float).tiny)
    if len(present) < 3:
        return float(roc_auc_score(y_true == present[-1], proba[:, -1], sample_weight=sample_weight))
    return float(roc_auc_score(y_true, proba, labels=present, sample_weight=sample_weight, **options))


def _takes_positive(scorer: Any) -> bool:
    """Say whether a scorer looks at one of two classes, and was not told which."""
    metric = getattr(scorer, "_score_func", None)
    if metric is None or "pos_label" not in signature(metric).parameters or "pos_label" in scorer._kwargs:
        return False
    return scorer._kwargs.get("average", "binary") == "binary"
