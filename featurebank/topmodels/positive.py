"""The positive class: of two classes the one that counts as found, for F1, precision, recall and a threshold."""

from __future__ import annotations

from inspect import signature
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurebank.errors import TopModelError
from featurebank.topmodels.evaluation import scorer_of


def positive_class(classes: NDArray[Any], y: NDArray[Any], asked: Any = None) -> Any:
    """Return the positive one of two classes: the one asked for, else 1 or True, else the rarer.

    Parameters
    ----------
    classes : ndarray, shape (2,)
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
    >>> str(positive_class(np.unique(y), y)), str(positive_class(np.unique(y), y, "fine"))
    ('defect', 'fine')
    """
    names = [str(name) for name in classes.tolist()]
    if asked is not None:
        if str(asked) not in names:
            raise TopModelError(f"no class {str(asked)!r} to be positive; expected {' or '.join(map(repr, names))}")
        return classes[names.index(str(asked))]
    if classes.dtype.kind in "biuf" and classes[1] == 1:
        return classes[1]
    counts = [np.count_nonzero(y == each) for each in classes]
    return classes[0] if counts[0] < counts[1] else classes[1]


def resolved_scorer(
    scoring: Any, task: str, classes: NDArray[Any] | None, y: NDArray[Any], positive: Any = None
) -> tuple[Any, str]:
    """Return a scorer for these classes, and what is to be said of it.

    A scorer that looks at one of two classes is told which; of any other nothing changes.

    Raises
    ------
    TopModelError
        When no scorer has this name, it is for two classes and there are more, or there is no such class.
    """
    scorer = scorer_of(scoring, task)
    if task != "classification" or classes is None:
        return scorer, ""
    if scoring == "roc_auc" and len(classes) > 2:
        raise TopModelError(f"roc_auc of {len(classes)} classes; expected two: take roc_auc_ovr or roc_auc_ovo")
    if len(classes) != 2 or not _takes_positive(scorer):
        return scorer, ""
    chosen = positive_class(classes, y, positive)
    options = {**scorer._kwargs, "pos_label": chosen}
    told = type(scorer)(scorer._score_func, scorer._sign, options, scorer._response_method)
    if positive is not None or classes.dtype.kind in "biuf":
        return told, ""
    return told, f"{scoring} is of the class {str(chosen)!r}, the rarer one; --positive names another"


def _takes_positive(scorer: Any) -> bool:
    """Say whether a scorer looks at one of two classes, and was not told which."""
    metric = getattr(scorer, "_score_func", None)
    if metric is None or "pos_label" not in signature(metric).parameters or "pos_label" in scorer._kwargs:
        return False
    return scorer._kwargs.get("average", "binary") == "binary"
