"""What fitted models say of rows, by their fitted attributes, in NumPy: prediction without importing what fits them.

Each function takes an object with the attributes of the fitted one: itself, or what a predictor file holds of it
(`featurebank.predictor.arrays`). The bits are those of scikit-learn and libsvm, because their steps are taken in their
order.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurebank.errors import TopModelError

Rows = NDArray[Any]
LEAST = np.log(np.finfo(np.float64).eps)
"""What stands for the logarithm of no chance at all."""
FLAG = 0.99
"""A row is flagged as unlike when more than this share of the training rows are less unusual."""
_DECIMALS = 3  # of a distance in standard deviations: what lies below is rounding


# --- before the model --------------------------------------------------------------------------------------


def standardised(fitted: Any, X: Rows) -> Rows:
    """Return what a `StandardScaler` makes of rows."""
    X = X - fitted.mean_.astype(X.dtype) if fitted.with_mean else X
    return X / fitted.scale_.astype(X.dtype) if fitted.with_std else X


def unit(X: Rows) -> Rows:
    """Return rows of length 1; a row of zeros stays."""
    lengths = np.sqrt(np.einsum("ij,ij->i", X, X))
    return X / np.where(lengths == 0, 1, lengths)[:, None].astype(X.dtype)


def squared_distances(X: Rows, Y: Rows) -> Rows:
    """Return the squared Euclidean distance of each row of float64 X from each of Y, shape (n, m)."""
    distances = -2 * (X @ Y.T)
    distances += np.einsum("ij,ij->i", X, X)[:, None]
    distances += np.einsum("ij,ij->i", Y, Y)[None]
    return np.maximum(distances, 0)


TRANSFORMS: dict[str, Callable[[Any, Rows], Rows]] = {
    "StandardScaler": standardised,
    "Normalizer": lambda fitted, X: unit(X),
    "SignedSquareRoot": lambda fitted, X: np.sign(X) * np.sqrt(np.abs(X)),
    "SelectRelevant": lambda fitted, X: X[:, fitted.dimensions_],
    "SelectDimensions": lambda fitted, X: X[:, fitted.dimensions_],
}


# --- models ------------------------------------------------------------------------------------------------


def softmax(X: Rows) -> Rows:
    """Return the softmax of each row.

    Examples
    --------
    >>> softmax(np.array([[0.0, 0.0], [1000.0, -1000.0]])).tolist()
    [[0.5, 0.5], [1.0, 0.0]]
    """
    shares = np.exp(X - X.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def linear(fitted: Any, X: Rows) -> Rows:
    """Return the decision values of a linear model, shape (n,) or (n, k)."""
    scores = X @ (fitted.coef_.T if fitted.coef_.ndim == 2 else fitted.coef_) + fitted.intercept_
    return scores.reshape(-1) if scores.ndim > 1 and scores.shape[1] == 1 else scores


def logistic_chances(fitted: Any, X: Rows) -> Rows:
    """Return the probabilities of a `LogisticRegression`."""
    decision = linear(fitted, X)
    if decision.ndim > 1:
        return softmax(decision)
    from scipy.special import expit

    positive = expit(decision)
    return np.stack([1 - positive, positive], axis=1)


def perceptron(fitted: Any, X: Rows) -> Rows:
    """Return the activations of the last layer of an MLP, shape (n, k)."""
    known: dict[str, Callable[[Rows], Rows]] = {
        "relu": lambda x: np.maximum(x, 0),
        "tanh": np.tanh,
        "identity": lambda x: x,
    }
    hidden = known[fitted.activation]
    last = len(fitted.coefs_) - 1
    for number, (matrix, offset) in enumerate(zip(fitted.coefs_, fitted.intercepts_, strict=True)):
        X = X @ matrix
        X += offset
        X = hidden(X) if number < last else X
    return X


def perceptron_chances(fitted: Any, X: Rows) -> Rows:
    """Return the probabilities of an `MLPClassifier` of one label."""
    activations = perceptron(fitted, X)
    if activations.shape[1] > 1:
        return softmax(activations)
    from scipy.special import expit

    positive = expit(activations[:, 0])
    return np.vstack([1 - positive, positive]).T


def kernel(fitted: Any, row: Rows) -> Rows:
    """Return the kernel of a row and each support vector, shape (vectors,), each summed as libsvm does."""
    support = fitted.support_vectors_
    if fitted.kernel == "linear":
        return np.array([np.dot(row, each) for each in support])
    gamma = -float(fitted._gamma)
    return np.array([math.exp(gamma * float(np.dot(each, each))) for each in row - support])


def numbers_of_vectors(fitted: Any, X: Rows) -> Rows:
    """Return the numbers that an `SVR` says, shape (n,)."""
    coefficients, offset = fitted.dual_coef_[0], fitted.intercept_[0]
    return np.array([_in_turn(coefficients * kernel(fitted, row)) + offset for row in _doubles(X)])


def pairs_of_classes(fitted: Any, X: Rows) -> Rows:
    """Return the decision values of an `SVC`, one a pair of classes, above 0 for the first: shape (n, pairs)."""
    starts, packed = np.cumsum([0, *fitted._n_support]), fitted._dual_coef_
    parts = [slice(*ends) for ends in pairwise(starts)]
    pairs = [(i, j) for i in range(len(parts)) for j in range(i + 1, len(parts))]
    rows = []
    for row in _doubles(X):
        values = kernel(fitted, row)
        terms = [[packed[j - 1, parts[i]] * values[parts[i]], packed[i, parts[j]] * values[parts[j]]] for i, j in pairs]
        rows.append([_in_turn(np.concatenate(each)) for each in terms] + fitted._intercept_)
    return np.array(rows).reshape(len(X), -1)


def _doubles(X: Rows) -> Rows:
    return np.ascontiguousarray(X, np.float64)


def _in_turn(values: Rows) -> float:
    """Return a sum whose terms are added one after the other, as a loop does; NumPy's own adds them in pairs."""
    return float(np.cumsum(values)[-1])


def machine(fitted: Any, X: Rows) -> Rows:
    """Return the decision values of an `SVC`: (n,) for two classes, else one a class from those of each pair."""
    decision = pairs_of_classes(fitted, X)
    if len(fitted.classes_) == 2:
        return -decision[:, 0]
    votes, confidence = _votes(decision, len(fitted.classes_))
    return votes + confidence / (3 * (np.abs(confidence) + 1))


def machine_labels(fitted: Any, X: Rows) -> Rows:
    """Return the numbers of the classes that an `SVC` says: most votes, the first of several."""
    return _votes(pairs_of_classes(fitted, X), len(fitted.classes_))[0].argmax(axis=1)


def _votes(decision: Rows, count: int) -> tuple[Rows, Rows]:
    """Return the votes and the sums of confidence of each class, as scikit-learn adds them."""
    votes, confidence = np.zeros((2, len(decision), count))
    pairs = ((i, j) for i in range(count) for j in range(i + 1, count))
    for pair, (i, j) in enumerate(pairs):
        votes[:, i] += decision[:, pair] >= 0
        votes[:, j] += decision[:, pair] < 0
        confidence[:, i] += decision[:, pair]
        confidence[:, j] -= decision[:, pair]
    return votes, confidence


# --- probabilities that mean what they say -----------------------------------------------------------------


def columns_of(scores: Any, count: int) -> NDArray[np.float64]:
    """Return the scores of `count` classes as finite columns: (n, count), or (n, 1) for two classes.

    Raises
    ------
    TopModelError
        When they are others.
    """
    if count < 2:
        raise TopModelError(
            f"{count} class in the rows to calibrate on; expected at least 2: use fewer folds or more rows"
        )
    columns = np.asarray(scores, np.float64)
    is_none = np.isneginf(columns)
    columns = (np.where(is_none, LEAST, columns) if is_none.any() else columns).reshape(len(columns), -1)
    if columns.shape[1] != count and (columns.shape[1], count) != (1, 2):
        raise TopModelError(f"{columns.shape[1]} scores a row for {count} classes; expected {count}: one a class")
    if not np.isfinite(columns).all():
        raise TopModelError("a score that is no number; expected decision values or log-probabilities: check the model")
    return columns[:, 1:] - columns[:, :1] if columns.shape[1] == 2 else columns


def logits(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return columns whose softmax is meant: one decision value becomes (0, decision)."""
    return np.hstack([np.zeros_like(columns), columns]) if columns.shape[1] == 1 else columns


def calibrated(fitted: Any, scores: Any) -> NDArray[np.float64]:
    """Return the probabilities of a `featurebank.topmodels.calibration.Calibrator`."""
    columns = columns_of(scores, len(fitted.classes_))
    if fitted.method == "sigmoid":
        return softmax(logits(columns @ fitted.coef_.T + fitted.intercept_))
    if fitted.method == "temperature":
        return softmax(logits(columns) / fitted.temperature_)
    if fitted.method == "class-temperature":
        values = logits(columns)
        return softmax(values / fitted.temperatures_[values.argmax(axis=1)][:, None])
    found = np.column_stack([np.interp(*each) for each in zip(columns.T, fitted.x_, fitted.y_, strict=True)])
    return _shares(np.hstack([1 - found, found]) if len(fitted.classes_) == 2 else found)


def _shares(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return rows divided by their sum; uniform where that is 0."""
    totals = probabilities.sum(axis=1, keepdims=True)
    uniform = np.full_like(probabilities, 1 / probabilities.shape[1])
    return np.divide(probabilities, totals, out=uniform, where=totals > 0)


# --- unlike what was learned from --------------------------------------------------------------------------


def unusual(fitted: Any, X: Rows) -> NDArray[np.float64]:
    """Return the distances of a `featurebank.topmodels.novelty.Mahalanobis`, shape (n,)."""
    # |x - m|^2 / noise counts every direction alike; the second term corrects the ones with their own variance
    rows, means = unit(np.asarray(X, np.float64)), fitted.means_.astype(np.float64)
    turn = fitted.components_.T * np.sqrt(1 / fitted.noise_ - 1 / fitted.variances_)  # (d, q)
    plain = squared_distances(rows, means) / fitted.noise_  # (n, k)
    squares = plain - squared_distances(rows @ turn, means @ turn)
    nearest: NDArray[np.float64] = np.sqrt(np.maximum(squares.min(axis=1), 0))
    return nearest.round(_DECIMALS)
