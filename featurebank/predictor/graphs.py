"""Top models and calibrators as torch modules of a few operators, so that they go into one graph with their network.

Each takes a float32 tensor (n, d) and computes what the fitted scikit-learn object computes, in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from featurebank.errors import PredictorError
from featurebank.topmodels.calibration import Calibrator

_WITHIN = {"FixedThresholdClassifier": "estimator_", "FrozenEstimator": "estimator"}
"""Where the model is in what is wrapped about it."""
LEAST_LOG = float(np.log(np.finfo(np.float64).eps))
"""What stands for the logarithm of no chance at all; see `featurebank.topmodels.calibration.Calibrator`."""


def graph_of(model: Any, calibrator: Any, task: str) -> nn.Module:
    """Return a fitted top model, and the calibrator of its scores, as one module.

    Parameters
    ----------
    model : Pipeline
        Fitted on embeddings.
    calibrator : Calibrator or None
        See `featurebank.Predictor`.
    task : str
        ``"classification"`` or ``"regression"``.

    Returns
    -------
    nn.Module
        Float32 (n, d) to probabilities, float32 (n, k), or to numbers, float32 (n,).

    Raises
    ------
    PredictorError
        When a part of it cannot be expressed; it is named.
    """
    if task == "anomaly":
        raise PredictorError("a predictor of anomalies cannot be expressed in ONNX; use it with `featurebank predict`")
    if task not in ("classification", "regression"):
        raise PredictorError("a predictor of several labels an image cannot be expressed in ONNX: fit each label apart")
    *steps, (_, last) = model.steps
    parts: list[nn.Module] = [_find(_STEPS, step) for _, step in steps]
    last = getattr(last, _WITHIN.get(type(last).__name__, ""), last)
    if hasattr(last, "members_"):
        parts.append(_committee(last, task))
    else:
        parts.append(_find(_REGRESSORS if task == "regression" else _CLASSIFIERS, last))
    if calibrator is None:
        return nn.Sequential(*parts)
    if not hasattr(last, "predict_proba"):
        return nn.Sequential(*parts, _calibrated(calibrator))
    return nn.Sequential(*parts[:-1], _logarithms(parts[-1], last), _calibrated(calibrator))


class Averaged(nn.Module):
    """The weighted mean of what several modules make of the same rows."""

    def __init__(self, members: Sequence[nn.Module], weights: Sequence[float]):
        super().__init__()
        self.members = nn.ModuleList(members)
        self.weights = [float(each) for each in weights]

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, k), or (n,) for numbers."""
        said = [weight * member(x) for weight, member in zip(self.weights, self.members, strict=True)]
        return torch.stack(said).sum(0)


def _committee(fitted: Any, task: str) -> nn.Module:
    """Return the mean of a committee's members (`featurebank.topmodels.committees.models`)."""
    fixed = getattr(fitted, "calibrators", None) or [None] * len(fitted.members_)
    calibrators = [getattr(each, "estimator", each) for each in fixed]
    pairs = zip(fitted.members_, calibrators, strict=True)
    return Averaged([graph_of(member, calibrator, task) for member, calibrator in pairs], fitted.weights)


def _find(known: dict[str, Callable[[Any], nn.Module]], fitted: Any) -> nn.Module:
    name = type(fitted).__name__
    if name not in known:
        raise PredictorError(f"{name} cannot be expressed in ONNX; these can: {', '.join(known)}: fit with one of them")
    return known[name](fitted)


def _tensor(values: Any) -> Tensor:
    return torch.from_numpy(np.array(values, dtype=np.float32, order="C"))


# --- before the model --------------------------------------------------------------------------------------


class Affine(nn.Module):
    """x scale + shift, column by column."""

    scale: Tensor
    shift: Tensor

    def __init__(self, scale: NDArray[Any], shift: NDArray[Any]):
        super().__init__()
        self.register_buffer("scale", _tensor(scale))
        self.register_buffer("shift", _tensor(shift))

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, d)."""
        return (x - self.shift) * self.scale


class Unit(nn.Module):
    """Rows of length 1; a row of zeros stays."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, d)."""
        length = x.square().sum(1, keepdim=True).sqrt()
        return x / torch.where(length == 0, torch.ones_like(length), length)


class SignedRoot(nn.Module):
    """Square roots that keep the sign."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, d)."""
        return torch.sign(x) * torch.sqrt(torch.abs(x))


class Columns(nn.Module):
    """Some columns."""

    columns: Tensor

    def __init__(self, columns: NDArray[np.int64]):
        super().__init__()
        self.register_buffer("columns", torch.from_numpy(np.ascontiguousarray(columns, dtype=np.int64)))

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, k)."""
        return x.index_select(1, self.columns)


class Product(nn.Module):
    """(x - shift) matrix + offset."""

    shift: Tensor
    matrix: Tensor
    offset: Tensor

    def __init__(self, matrix: NDArray[Any], offset: NDArray[Any], shift: NDArray[Any] | None = None):
        super().__init__()
        self.register_buffer("shift", _tensor(np.zeros(len(matrix)) if shift is None else shift))
        self.register_buffer("matrix", _tensor(matrix))
        self.register_buffer("offset", _tensor(offset))

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, k)."""
        return (x - self.shift) @ self.matrix + self.offset


def _standard_scaler(fitted: Any) -> nn.Module:
    count = fitted.n_features_in_
    shift = fitted.mean_ if fitted.with_mean else np.zeros(count)
    return Affine(1 / fitted.scale_ if fitted.with_std else np.ones(count), shift)


def _normalizer(fitted: Any) -> nn.Module:
    if fitted.norm != "l2":
        raise PredictorError(f"Normalizer({fitted.norm!r}) cannot be expressed in ONNX; expected the norm 'l2'")
    return Unit()


def _pca(fitted: Any) -> nn.Module:
    scale = np.sqrt(fitted.explained_variance_) if fitted.whiten else np.ones(len(fitted.components_))
    matrix = fitted.components_.T / np.maximum(scale, np.finfo(scale.dtype).eps)
    return Product(matrix, np.zeros(len(scale)), fitted.mean_)


_STEPS: dict[str, Callable[[Any], nn.Module]] = {
    "StandardScaler": _standard_scaler,
    "FlooredScaler": _standard_scaler,
    "Normalizer": _normalizer,
    "SignedSquareRoot": lambda fitted: SignedRoot(),
    "SelectRelevant": lambda fitted: Columns(fitted.dimensions_),
    "SelectDimensions": lambda fitted: Columns(fitted.dimensions_),
    "PCA": _pca,
}


# --- models ------------------------------------------------------------------------------------------------


class Chances(nn.Module):
    """Probabilities from decision values: the sigmoid of one column, the softmax of several.

    Of two classes the model takes the first one's probability as 1 less the second's, or by itself (`is_by_itself`).
    """

    def __init__(self, is_by_itself: bool = False):
        super().__init__()
        self.is_by_itself = is_by_itself

    def forward(self, decision: Tensor) -> Tensor:
        """Return (n, k) from (n, 1) for two classes or (n, k)."""
        if decision.shape[1] > 1:
            return torch.softmax(decision, 1)
        positive = torch.sigmoid(decision)
        return torch.cat([1 - positive, positive], 1)


class OneAgainstRest(nn.Module):
    """Probabilities from decision values of each class against the rest: their sigmoids, brought to a sum of 1.

    Where no class has any, all have the same, as in scikit-learn.
    """

    def forward(self, decision: Tensor) -> Tensor:
        """Return (n, 2) from (n, 1), or (n, k)."""
        positive = torch.sigmoid(decision)
        if decision.shape[1] == 1:
            return torch.cat([1 - positive, positive], 1)
        total = positive.sum(1, keepdim=True)
        return torch.where(total > 0, positive / total, 1 / decision.shape[1])


class LogChances(nn.Module):
    """Logarithms of the probabilities of `Chances`, of two classes the log odds.

    They come from decision values, for models whose probabilities are float64: in float32 these would be 0 or 1 where
    the model's are not. What is 0 in float64 too counts as `LEAST_LOG`, as `Logarithm` has it.
    """

    zeros: Tensor

    def __init__(self, chances: Chances):
        super().__init__()
        least = np.log(np.finfo(np.float64).smallest_subnormal)
        self.register_buffer("zeros", _tensor([least if chances.is_by_itself else LEAST_LOG, least]))

    def forward(self, decision: Tensor) -> Tensor:
        """Return (n, k) from (n, k), or (n, 1) from (n, 1)."""
        if decision.shape[1] > 1:
            logs = torch.log_softmax(decision, 1)
            return torch.where(logs < self.zeros[1], LEAST_LOG, logs)
        logs = torch.log_softmax(torch.cat([torch.zeros_like(decision), decision], 1), 1)
        logs = torch.where(logs < self.zeros, LEAST_LOG, logs)
        return logs[:, 1:] - logs[:, :1]


def _logarithms(model: nn.Module, fitted: Any) -> nn.Module:
    """Return the module of a fitted model with the logarithms of its probabilities as output."""
    *before, last = model if isinstance(model, nn.Sequential) else [model]
    said = fitted.predict_proba(np.zeros((1, fitted.n_features_in_), np.float32))
    if isinstance(last, Chances) and said.dtype == np.float64:
        return nn.Sequential(*before, LogChances(last))
    return nn.Sequential(model, Logarithm())


class Kernel(nn.Module):
    """Decision values of support vectors: their RBF kernel, about their mean to lose no digits, times coefficients."""

    shift: Tensor
    vectors: Tensor
    lengths: Tensor
    coefficients: Tensor
    offset: Tensor

    def __init__(self, fitted: Any, coefficients: NDArray[Any]):
        super().__init__()
        self.gamma = float(fitted._gamma)
        vectors = np.asarray(fitted.support_vectors_, np.float64)
        shift = vectors.mean(axis=0).astype(np.float32)
        vectors = vectors - shift
        self.register_buffer("shift", _tensor(shift))
        self.register_buffer("vectors", _tensor(vectors.T))
        self.register_buffer("lengths", _tensor((vectors**2).sum(axis=1)))
        self.register_buffer("coefficients", _tensor(coefficients))
        self.register_buffer("offset", _tensor(fitted.intercept_))

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, pairs of classes)."""
        centred = x - self.shift
        distance = centred.square().sum(1, keepdim=True) + self.lengths - 2 * (centred @ self.vectors)
        return torch.exp(-self.gamma * distance.clamp(min=0)) @ self.coefficients + self.offset


class Votes(nn.Module):
    """One decision value a class from one a pair of classes, as scikit-learn makes them of a support vector machine."""

    first: Tensor
    second: Tensor

    def __init__(self, classes: int):
        super().__init__()
        pairs = [(i, j) for i in range(classes) for j in range(i + 1, classes)]
        first, second = np.zeros((len(pairs), classes)), np.zeros((len(pairs), classes))
        for pair, (i, j) in enumerate(pairs):
            first[pair, i] = second[pair, j] = 1
        self.register_buffer("first", _tensor(first))
        self.register_buffer("second", _tensor(second))

    def forward(self, decision: Tensor) -> Tensor:
        """Return (n, k) from (n, k (k - 1) / 2)."""
        against = (decision < 0).to(decision.dtype)
        votes = (1 - against) @ self.first + against @ self.second
        confidence = decision @ self.first - decision @ self.second
        return votes + confidence / (3 * (confidence.abs() + 1))


class Flat(nn.Module):
    """A column of numbers as a vector."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (n,) from (n, 1)."""
        return x[:, 0]


def _linear(fitted: Any) -> nn.Module:
    coefficients = np.atleast_2d(np.asarray(fitted.coef_))
    return Product(coefficients.T, np.broadcast_to(fitted.intercept_, len(coefficients)))


def _stochastic(fitted: Any) -> nn.Module:
    return nn.Sequential(_linear(fitted), OneAgainstRest()) if fitted.loss == "log_loss" else _linear(fitted)


def _centroid(fitted: Any) -> nn.Module:
    """Return the discriminant scores without what all classes share, which are linear."""
    scale = np.where(fitted.within_class_std_dev_ == 0, 1, fitted.within_class_std_dev_)
    centres = fitted.centroids_ / scale
    matrix, offset = 2 * centres.T / scale[:, None], 2 * np.log(fitted.class_prior_) - (centres**2).sum(axis=1)
    if len(offset) == 2:
        matrix, offset = matrix[:, 1:] - matrix[:, :1], offset[1:] - offset[:1]
    return Product(matrix, offset)


def _centroid_chances(fitted: Any) -> nn.Module:
    if fitted.metric != "euclidean":
        raise PredictorError(f"NearestCentroid({fitted.metric!r}) cannot be expressed in ONNX; expected 'euclidean'")
    return nn.Sequential(_centroid(fitted), Chances(is_by_itself=True))


def _perceptron(fitted: Any) -> list[nn.Module]:
    kinds: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "logistic": nn.Sigmoid}
    kinds["identity"] = nn.Identity
    if fitted.out_activation_ not in ("identity", "logistic", "softmax"):
        raise PredictorError(f"an MLP that ends in {fitted.out_activation_!r} cannot be expressed in ONNX")
    layers: list[nn.Module] = []
    for matrix, offset in zip(fitted.coefs_, fitted.intercepts_, strict=True):
        layers += [Product(matrix, offset), kinds[fitted.activation]()]
    return layers[:-1]


def _kernel(fitted: Any, coefficients: NDArray[Any]) -> nn.Module:
    """Return the decision values of a support vector machine, given the coefficients of its vectors."""
    if fitted.kernel == "linear":
        return Product(np.asarray(fitted.support_vectors_, np.float64).T @ coefficients, fitted.intercept_)
    if fitted.kernel == "rbf":
        return Kernel(fitted, coefficients)
    raise PredictorError(
        f"{type(fitted).__name__} with the kernel {fitted.kernel!r} cannot be expressed in ONNX; "
        "expected 'rbf' or 'linear'"
    )


def _svc(fitted: Any) -> nn.Module:
    classes = len(fitted.classes_)
    if classes == 2:
        return _kernel(fitted, fitted.dual_coef_.T)
    if fitted.decision_function_shape != "ovr":
        raise PredictorError("SVC(decision_function_shape='ovo') cannot be expressed in ONNX; expected 'ovr'")
    return nn.Sequential(_kernel(fitted, _pair_coefficients(fitted)), Votes(classes))


def _pair_coefficients(fitted: Any) -> NDArray[np.float64]:
    """Return the coefficient of each support vector in each pair of classes, which libsvm keeps packed."""
    count, starts = len(fitted.classes_), np.cumsum([0, *fitted.n_support_])
    pairs = [(i, j) for i in range(count) for j in range(i + 1, count)]
    matrix = np.zeros((len(fitted.support_vectors_), len(pairs)))
    for pair, (i, j) in enumerate(pairs):
        own, other = slice(starts[i], starts[i + 1]), slice(starts[j], starts[j + 1])
        matrix[own, pair] = fitted.dual_coef_[j - 1, own]
        matrix[other, pair] = fitted.dual_coef_[i, other]
    return matrix


_CLASSIFIERS: dict[str, Callable[[Any], nn.Module]] = {
    "LogisticRegression": lambda fitted: nn.Sequential(_linear(fitted), Chances()),
    "LinearDiscriminantAnalysis": lambda fitted: nn.Sequential(_linear(fitted), Chances()),
    "NearestCentroid": _centroid_chances,
    "LikeliestCentroid": _centroid_chances,
    "RidgeClassifier": _linear,
    "SVC": _svc,
    "SGDClassifier": _stochastic,
    "MLPClassifier": lambda fitted: nn.Sequential(*_perceptron(fitted), Chances()),
}
_REGRESSORS: dict[str, Callable[[Any], nn.Module]] = {
    "Ridge": lambda fitted: nn.Sequential(_linear(fitted), Flat()),
    "SVR": lambda fitted: nn.Sequential(_kernel(fitted, fitted.dual_coef_.T), Flat()),
    "MLPRegressor": lambda fitted: nn.Sequential(*_perceptron(fitted), Flat()),
}


# --- calibrators -------------------------------------------------------------------------------------------


class Logarithm(nn.Module):
    """Logarithms of probabilities, of two classes the log odds; no chance at all counts as `LEAST_LOG`."""

    def forward(self, probabilities: Tensor) -> Tensor:
        """Return (n, k), or (n, 1) for two classes."""
        logs = torch.where(probabilities > 0, torch.log(probabilities), torch.full_like(probabilities, LEAST_LOG))
        return logs[:, 1:] - logs[:, :1] if logs.shape[1] == 2 else logs


class Interpolated(nn.Module):
    """For each column a function by its corners, constant outside them; rows are divided by their sum."""

    def __init__(self, x: list[NDArray[Any]], y: list[NDArray[Any]]):
        super().__init__()
        self.x = nn.ParameterList([nn.Parameter(_tensor(each), requires_grad=False) for each in x])
        self.y = nn.ParameterList([nn.Parameter(_tensor(each), requires_grad=False) for each in y])

    def forward(self, scores: Tensor) -> Tensor:
        """Return (n, k) from (n, 1) for two classes or (n, k)."""
        columns = [_interpolate(scores[:, i], x, y) for i, (x, y) in enumerate(zip(self.x, self.y, strict=True))]
        probabilities = torch.stack([1 - columns[0], columns[0]] if len(columns) == 1 else columns, 1)
        total = probabilities.sum(1, keepdim=True)
        return torch.where(
            total > 0,
            probabilities / total.clamp(min=1e-30),
            torch.full_like(probabilities, 1 / probabilities.shape[1]),
        )


def _interpolate(value: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return what lies between the corners on both sides of each value, shape (n,)."""
    if len(x) == 1:
        return torch.zeros_like(value) + y
    right = (value[:, None] > x).sum(1).clamp(1, len(x) - 1)
    low, high = x[right - 1], x[right]
    share = ((value - low) / (high - low)).clamp(0, 1)
    return y[right - 1] + share * (y[right] - y[right - 1])


class Shared(nn.Module):
    """Decision values divided by a temperature."""

    def __init__(self, temperature: float):
        super().__init__()
        self.temperature = temperature

    def forward(self, scores: Tensor) -> Tensor:
        """Return the same shape."""
        return scores / self.temperature


class SharedByClass(nn.Module):
    """Decision values divided by the temperature of the class that has the highest."""

    def __init__(self, temperatures: NDArray[np.float64]):
        super().__init__()
        self.temperatures = nn.Parameter(_tensor(temperatures), requires_grad=False)

    def forward(self, scores: Tensor) -> Tensor:
        """Return the same shape."""
        highest = scores.argmax(1) if scores.shape[1] > 1 else (scores[:, 0] > 0).long()
        return scores / self.temperatures[highest][:, None]


def _calibrated(calibrator: Any) -> nn.Module:
    if not isinstance(calibrator, Calibrator):
        raise PredictorError(f"{type(calibrator).__name__} cannot be expressed in ONNX; expected a Calibrator")
    if calibrator.method == "isotonic":
        return Interpolated(calibrator.x_, calibrator.y_)
    if calibrator.method == "temperature":
        return nn.Sequential(Shared(calibrator.temperature_), Chances())
    if calibrator.method == "class-temperature":
        return nn.Sequential(SharedByClass(calibrator.temperatures_), Chances())
    return nn.Sequential(Product(calibrator.coef_.T, calibrator.intercept_), Chances())
