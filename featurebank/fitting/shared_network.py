"""A network with one hidden layer and one output layer a task, in NumPy: tasks may miss labels and mix losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from featurebank.errors import TopModelError

Array = NDArray[np.float64]
Layer = tuple[NDArray[Any], NDArray[Any]]
"""Weights (inputs, outputs) and intercepts (outputs,)."""


@dataclass(frozen=True)
class Goal:
    """What one task asks of the network.

    Attributes
    ----------
    rows : ndarray of int64, shape (m,)
        Rows of X that have a label of the task, each once.
    target : ndarray of float, shape (m, k)
        1 in the column of a row's class, else 0; or numbers, shape (m, 1).
    weight : ndarray of float, shape (m,)
    is_number : bool
        Whether the loss is half the squared error, not the cross-entropy.
    """

    rows: NDArray[np.int64]
    target: NDArray[Any]
    weight: NDArray[Any]
    is_number: bool


def train(
    X: NDArray[Any], goals: Sequence[Goal], *, hidden: int, alpha: float, iterations: int, seed: int
) -> tuple[Layer, list[Layer]]:
    """Fit one hidden layer of rectified units, and an output layer for each task (Caruana 1997, Multitask learning).

    The loss of every label counts once, whichever task it is of, and the weights are penalised by alpha / 2 times
    their squares, as in `sklearn.neural_network.MLPClassifier`. L-BFGS starts from Glorot's uniform weights and ends
    after `iterations` iterations: all labels at once, no learning rate, and the same result in every run. Where columns
    far outnumber rows it starts and stays in the rows' span, which holds the best weights (the representer theorem).

    Parameters
    ----------
    X : ndarray of float, shape (n, d)
        Standardised rows; products are computed in this dtype.
    goals : sequence of Goal
    hidden : int
        Units of the hidden layer.
    alpha : float
    iterations : int
    seed : int

    Returns
    -------
    hidden : Layer
    outputs : list of Layer
        One a task.
    """
    axes = np.linalg.qr(X.T)[0] if 2 * len(X) < X.shape[1] else None  # (d, n)
    X = X if axes is None else X @ axes
    shapes = _shapes(X.shape[1], hidden, goals)
    start = _first_weights(shapes, np.random.default_rng(seed))
    arguments, options = (X, goals, hidden, alpha), {"maxiter": iterations}
    found = minimize(loss_and_gradient, start, arguments, method="L-BFGS-B", jac=True, options=options)
    first, *outputs = _layers(found.x.astype(X.dtype), shapes)
    return first if axes is None else (axes @ first[0], first[1]), outputs


def loss_and_gradient(
    flat: Array, X: NDArray[Any], goals: Sequence[Goal], hidden: int, alpha: float
) -> tuple[float, Array]:
    """Return the penalised loss a row, and its gradient.

    Parameters
    ----------
    flat : ndarray of float64, shape (p,)
        Weights and intercepts of all layers, the hidden one first.
    X, goals, hidden, alpha
        See `train`.

    Returns
    -------
    loss : float
    gradient : ndarray of float64, shape (p,)
    """
    first, *outputs = _layers(flat.astype(X.dtype), _shapes(X.shape[1], hidden, goals))
    units = np.maximum(X @ first[0] + first[1], 0)  # (n, hidden)
    back = np.zeros_like(units)
    loss, slopes = 0.0, []
    for goal, layer in zip(goals, outputs, strict=True):
        own = units[goal.rows]  # (m, hidden)
        part, residual = _loss(own @ layer[0] + layer[1], goal)
        loss += part
        slopes.append((own.T @ residual + alpha * layer[0], residual.sum(axis=0)))
        back[goal.rows] += residual @ layer[0].T
    back[units <= 0] = 0
    slopes.insert(0, (X.T @ back + alpha * first[0], back.sum(axis=0)))
    loss += alpha / 2 * sum(float((weights.astype(np.float64) ** 2).sum()) for weights, _ in (first, *outputs))
    gradient = np.concatenate([part.ravel() for layer in slopes for part in layer]).astype(np.float64)
    return loss / len(X), gradient / len(X)


def _loss(output: NDArray[Any], goal: Goal) -> tuple[float, NDArray[Any]]:
    """Return a task's loss on outputs (m, k), and its derivative in them."""
    weight = goal.weight.astype(output.dtype)[:, None]
    if goal.is_number:
        error = output - goal.target.astype(output.dtype)
        return float((weight * error**2).sum(dtype=np.float64)) / 2, weight * error
    logs = log_softmax(output, axis=1)
    target = goal.target.astype(output.dtype)
    return -float((weight * target * logs).sum(dtype=np.float64)), weight * (np.exp(logs) - target)


def _shapes(columns: int, hidden: int, goals: Sequence[Goal]) -> list[tuple[int, int]]:
    """Return (inputs, outputs) of the hidden layer and of each task's."""
    return [(columns, hidden), *((hidden, goal.target.shape[1]) for goal in goals)]


def _first_weights(shapes: Sequence[tuple[int, int]], random: np.random.Generator) -> Array:
    """Return weights drawn as by Glorot and Bengio (2010), the intercepts 0, all in one row."""
    parts = []
    for inputs, outputs in shapes:
        reach = np.sqrt(6 / (inputs + outputs))
        parts += [random.uniform(-reach, reach, inputs * outputs), np.zeros(outputs)]
    return np.concatenate(parts)


def _layers(flat: NDArray[Any], shapes: Sequence[tuple[int, int]]) -> list[Layer]:
    """Cut one row of numbers into layers."""
    layers, start = [], 0
    for inputs, outputs in shapes:
        middle, end = start + inputs * outputs, start + (inputs + 1) * outputs
        layers.append((flat[start:middle].reshape(inputs, outputs), flat[middle:end]))
        start = end
    return layers


# --- estimators --------------------------------------------------------------------------------------------


class _Network(BaseEstimator):
    """The hidden layer and the output layer of one task; `fit` trains them for this task alone."""

    def __init__(self, alpha: float = 10.0, *, hidden: int = 64, iterations: int = 50, random_state: int = 0):
        self.alpha = alpha
        self.hidden = hidden
        self.iterations = iterations
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Train the network for one task.

        Parameters
        ----------
        X : array-like of float, shape (n, d)
        y : array-like, shape (n,)
        sample_weight : array-like of float, shape (n,), optional
        """
        X, y = validate_data(self, X, y, dtype=(np.float64, np.float32))
        everyone = np.arange(len(X))
        goal = self.goal(everyone, y, _check_sample_weight(sample_weight, X))
        first, (output,) = train(X, [goal], **self.options())
        return self.take(first, output, X.shape[1])

    def options(self) -> dict[str, Any]:
        """Return what `train` is told.

        Raises
        ------
        TopModelError
            When a parameter is out of its range.
        """
        if self.hidden < 1 or self.iterations < 1 or not self.alpha >= 0:
            raise TopModelError(
                f"a network of {self.hidden} units, {self.iterations} iterations and alpha {self.alpha}; expected at "
                "least 1, 1 and 0"
            )
        options = {"hidden": self.hidden, "alpha": self.alpha, "iterations": self.iterations}
        return {**options, "seed": self.random_state or 0}

    def take(self, first: Layer, output: Layer, columns: int) -> Any:
        """Take trained layers for one's own, as those of a network that was trained for several tasks."""
        self.coefs_, self.intercepts_ = [first[0], output[0]], [first[1], output[1]]
        self.n_features_in_ = columns
        return self

    def _outputs(self, X: Any) -> NDArray[Any]:
        """Return the values of the output layer, shape (n, k)."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=(np.float64, np.float32), reset=False)
        units = np.maximum(X @ self.coefs_[0] + self.intercepts_[0], 0)
        return units @ self.coefs_[1] + self.intercepts_[1]


class NetworkClassifier(ClassifierMixin, _Network):
    """A classifier with one hidden layer of rectified units, of its own or shared with other tasks.

    Parameters
    ----------
    alpha : float, default 10.0
        Strength of the penalty on the squared weights, as in `sklearn.neural_network.MLPClassifier`.
    hidden : int, default 64
        Units of the hidden layer.
    iterations : int, default 50
        Iterations of L-BFGS. A fixed, small number regularises as well.
    random_state : int, default 0
        Seed of the first weights.

    Attributes
    ----------
    classes_ : ndarray, shape (k,)
    coefs_, intercepts_ : lists of two ndarrays
        Of the hidden layer and the output layer.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> NetworkClassifier(0.1).fit(X, y).score(X, y) > 0.95
    True
    """

    def goal(self, rows: NDArray[np.int64], y: NDArray[Any], weight: NDArray[Any]) -> Goal:
        """Return what is asked of a network whose `rows` have these classes; learns the classes.

        Raises
        ------
        TopModelError
            When there is one class.
        """
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise TopModelError(f"the rows are of one class, {self.classes_.tolist()[0]!r}; expected at least two")
        return Goal(rows, np.eye(len(self.classes_))[codes], weight, False)

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the class of each row, shape (n,)."""
        said = self._outputs(X).argmax(axis=1)
        return self.classes_[said]

    def predict_proba(self, X: Any) -> NDArray[Any]:
        """Return class probabilities, shape (n, k)."""
        return softmax(self._outputs(X), axis=1)


class NetworkRegressor(RegressorMixin, _Network):
    """The same for numbers, which are standardised inside; see `NetworkClassifier`.

    Attributes
    ----------
    mean_, scale_ : float
        Of the numbers learned from.
    coefs_, intercepts_ : lists of two ndarrays

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(200, 3))
    >>> NetworkRegressor(0.1).fit(X, np.abs(X[:, 0])).score(X, np.abs(X[:, 0])) > 0.9
    True
    """

    def goal(self, rows: NDArray[np.int64], y: NDArray[Any], weight: NDArray[Any]) -> Goal:
        """Return what is asked of a network whose `rows` have these numbers; learns their mean and scale."""
        y = y.astype(np.float64)
        self.mean_ = float(np.average(y, weights=weight))
        self.scale_ = float(np.sqrt(np.average((y - self.mean_) ** 2, weights=weight))) or 1.0
        return Goal(rows, ((y - self.mean_) / self.scale_)[:, None], weight, True)

    def predict(self, X: Any) -> NDArray[np.float64]:
        """Return the number of each row, shape (n,)."""
        return self._outputs(X)[:, 0].astype(np.float64) * self.scale_ + self.mean_
