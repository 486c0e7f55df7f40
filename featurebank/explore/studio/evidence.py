"""What the labels show: the honest score, whether choosing paid, the score by number of labels, and whether to stop."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import RidgeClassifier

from featurebank.errors import FeatureBankError, counted, one_line
from featurebank.explore.studio.learner import learn
from featurebank.explore.studio.view import Judged, View
from featurebank.topmodels.folds import make_folds
from featurebank.topmodels.formatting import gain_text, interval_text, percent
from featurebank.topmodels.learning_curve import learning_curve
from featurebank.topmodels.scores import gains_interval, score_interval, wilson_interval

LEAST_TESTED = 5
"""Labels of the random tenth below which no curve is drawn."""
LEAST_RANDOM = 10
"""Those below which nothing is said of chosen labels against random ones."""
LEAST_FOR_VERDICT = 30
REPEATS, FOLDS = 4, 5
SIZES = (10, 20, 35, 50, 75, 100, 150, 200, 300, 500, 750, 1000, 1500, 2000)
"""Numbers of labels at which the curve has points."""

Facts = dict[str, Any]


def honest_score(view: View | None) -> Facts:
    """Return the accuracy on the random tenth, which no model chose or learned from, with Wilson's interval."""
    if view is None or view.learned is None or not len(view.honest):
        text = "No score on images drawn at random yet: one in ten of those that are asked is, and the model needs two "
        return {"n": 0, "score": None, "low": None, "high": None, "text": text + "classes."}
    n = len(view.honest)
    right = int((view.learned.predict(view.rows(view.honest)) == view.classes_of(view.honest)).sum())
    ends = wilson_interval(right, n)
    text = f"{percent(right / n)} % (95 % {interval_text(ends, 'accuracy')}) of {n} images drawn at random are right; "
    return {**_scored(right / n, ends), "n": n, "text": text + "no model chose them or learned from them."}


def cross_validated(judged: Judged | None) -> Facts:
    """Return the accuracy over all labels, each judged by a model that had not seen it."""
    if judged is None or len(judged.true) < 2:
        return {"score": None, "low": None, "high": None, "text": "No score yet: it takes labels of two classes."}
    right, n = judged.is_right, len(judged.true)
    score = float(right.mean())
    found = score_interval(score, (right - score) / n, "accuracy", rows=n, folds=FOLDS)
    text = f"{percent(score)} % (95 % {interval_text(found.ends, 'accuracy')}) of all {n} labels are met by a model of "
    text += "the others. Most were chosen as hard or as typical, so new images may fare otherwise."
    return {**_scored(score, found.ends), "text": text}


def _scored(score: float, ends: tuple[float, float]) -> Facts:
    return {"score": score, "low": ends[0], "high": ends[1]}


def paid(view: View, seed: int) -> Facts:
    """Return whether the chosen labels teach more than as many random ones.

    The random tenth is cross-validated: in each fold a model of its other labels, and one of as many chosen ones, are
    asked for the labels of the fold.

    Returns
    -------
    dict
        ``text``; where it could be measured also ``labels, chosen, random`` (the two accuracies), ``gain`` and its
        ``ci95``.
    """
    tested, trained = view.honest, view.trained
    if view.n_tests < LEAST_RANDOM:
        why = f"it takes {LEAST_RANDOM} labels of images drawn at random, one in ten is, and there are {view.n_tests}"
        return {"text": f"Whether choosing pays cannot be known with so few images: {why}."}
    if len(tested) < LEAST_RANDOM or len(trained) < len(tested):
        more = f"{LEAST_RANDOM} labels of images drawn at random, and {len(tested)} are there"
        return {"text": f"Whether choosing pays is not known yet: it takes {more}."}
    random = np.random.default_rng(seed)
    right = np.zeros((2, len(tested)))
    for _ in range(REPEATS):
        for fold in np.array_split(random.permutation(len(tested)), FOLDS):
            others = np.delete(tested, fold)
            chosen = random.permutation(trained)[: len(others)]
            for number, rows in enumerate((chosen, others)):
                right[number, fold] += _predicted(view, rows, tested[fold]) == view.classes_of(tested[fold])
    chosen_score, random_score = right.mean(axis=1) / REPEATS
    gains = (right[0] - right[1]) / REPEATS
    gain = float(gains.mean())
    ends = gains_interval(gains, folds=FOLDS).ends
    count = len(tested) * (FOLDS - 1) // FOLDS
    facts = {"labels": count, "chosen": float(chosen_score), "random": float(random_score)}
    return {**facts, "gain": gain, "ci95": list(ends), "text": _paid_text(gain, ends, count)}


def _predicted(view: View, rows: NDArray[np.int64], asked: NDArray[np.int64]) -> NDArray[np.str_]:
    """Return what a model of some labelled contents says of others."""
    y = view.classes_of(rows)
    learned = learn(view.rows(rows), y)
    return np.full(len(asked), y[0]) if learned is None else learned.predict(view.rows(asked))


def _paid_text(gain: float, ends: tuple[float, float], count: int) -> str:
    told = gain_text({"difference": gain, "ci95": ends}, "accuracy")
    told += f" for {count} chosen labels against {count} random"
    if ends[0] > 0:
        return f"Choosing pays: {told}."
    if ends[1] < 0:
        return f"Choosing does not pay here: {told}; the next images are drawn at random."
    return f"Choosing has not been shown to pay: {told}."


def curve(view: View, order: NDArray[np.int64], against: Facts) -> list[Facts]:
    """Return the honest score of models of the first labels, of ever more.

    Parameters
    ----------
    view : View
    order : ndarray of int64
        The contents that the model learned from, in the order of their labels.
    against : dict
        From `paid`: the score of random labels, at their number.
    """
    if len(view.honest) < LEAST_TESTED:
        return []
    points = []
    for size in [*(each for each in SIZES if each < len(order)), len(order)]:
        right = int((_predicted(view, order[:size], view.honest) == view.classes_of(view.honest)).sum())
        ends = wilson_interval(right, len(view.honest))
        points.append({"labels": size, **_scored(right / len(view.honest), ends)})
    if "random" in against and points:
        near = min(points, key=lambda point: abs(point["labels"] - against["labels"]))
        near["random"] = against["random"]
    return points


def verdict(view: View, seed: int) -> str:
    """Say whether more labels would help, and where there are no images left for them."""
    n, images = view.n_labelled, len(view.labels)
    if view.is_complete:
        return f"All images have a label ({images}), so more labels take more images. {_promise(view, seed)}"
    is_beyond = n >= LEAST_FOR_VERDICT and images < 2 * n
    return _promise(view, seed) + (f" There are {images} images in all." if is_beyond else "")


def _promise(view: View, seed: int) -> str:
    """Say what twice the labels would bring; see `featurebank.topmodels.learning_curve`."""
    contents = np.concatenate([view.trained, view.tested])
    if len(contents) < LEAST_FOR_VERDICT or view.learned is None:
        return f"Label more: {counted(len(contents), 'label is', 'labels are')} too few to say what more would bring."
    X, y = view.rows(contents), view.classes_of(contents)
    try:
        folds = make_folds(FOLDS, X, y, None, seed)
        model = RidgeClassifier(view.learned.penalty)
        return learning_curve(model, X, y, folds, shots=(), seeds=2, random_state=seed, n_jobs=1).verdict
    except FeatureBankError as error:
        return f"Not clear: {one_line(error)}"


def confusion(judged: Judged | None) -> Facts:
    """Return the classes and how often each was judged as each: rows true, columns predicted."""
    if judged is None:
        return {"classes": [], "counts": []}
    classes = np.unique(np.concatenate([judged.true, judged.predicted]))
    true, predicted = (np.searchsorted(classes, each) for each in (judged.true, judged.predicted))
    counts = np.bincount(true * len(classes) + predicted, minlength=len(classes) ** 2)
    return {"classes": classes.tolist(), "counts": counts.reshape(len(classes), -1).tolist()}
