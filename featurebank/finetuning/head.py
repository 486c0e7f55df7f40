"""The head that fine-tuning starts from: a top model fitted on frozen embeddings, turned into layers of the network.

The order, a linear probe first and then all of the blocks from it on, keeps what the backbone knows about other images:
Kumar et al. 2022, Fine-tuning can distort pretrained features and underperform out-of-distribution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import LabelBinarizer, StandardScaler
from torch import Tensor, nn

from featurebank.backbones.placing import seeded
from featurebank.errors import TopModelError
from featurebank.finetuning.recipe import hidden_units
from featurebank.topmodels.refitting import fit_pipeline
from featurebank.topmodels.scaling import with_floor
from featurebank.topmodels.search import TopModelSearchCV

FOLDS = 5


def fit_head(
    X: NDArray[np.float32],
    y: NDArray[Any],
    *,
    head: str = "linear",
    top_model: Pipeline | None = None,
    groups: NDArray[Any] | None = None,
    sample_weight: NDArray[np.float64] | None = None,
    class_weight: Any = None,
    random_state: int = 0,
) -> Pipeline:
    """Fit the top model that becomes the head.

    Parameters
    ----------
    X : ndarray of float32, shape (n, d)
        Penultimate embeddings.
    y : ndarray, shape (n,)
        Classes.
    head : str, default "linear"
        ``"linear"`` or ``"mlp:H"``.
    top_model : Pipeline, optional
        A pipeline whose parameters are known to be good (`is_logistic`): it is fitted on these rows, and nothing is
        searched.
    groups, sample_weight, class_weight
        See `featurebank.TopModelSearchCV`.
    random_state : int, default 0

    Returns
    -------
    Pipeline
        A `FlooredScaler` and a `LogisticRegression`, or an `MLPClassifier`.

    Raises
    ------
    TopModelError
        When a class has a single row.
    """
    if top_model is not None and not hidden_units(head):
        return fit_pipeline(with_floor(top_model), X, y, sample_weight)
    units = np.arange(len(y)) if groups is None else groups
    smallest, rare = min((len(np.unique(units[y == name])), str(name)) for name in np.unique(y))
    if smallest < 2:
        raise TopModelError(f"class {rare!r} has a single row, or group, to train on; expected two to choose a head by")
    hidden = hidden_units(head)
    models: Any = (
        ["logreg"] if not hidden else {"mlp": (MLPClassifier((hidden,), max_iter=200), {"alpha": [0.01, 1.0]})}
    )
    search = TopModelSearchCV(models, cv=min(FOLDS, smallest), class_weight=class_weight, random_state=random_state)
    fitted: Pipeline = search.fit(X, y, groups=groups, sample_weight=sample_weight).best_estimator_
    return fitted


def is_logistic(model: Any) -> bool:
    """Say whether a top model is a logistic regression over standardised or plain rows, which a layer can hold."""
    steps = [step for _, step in model.steps] if isinstance(model, Pipeline) else [model]
    is_plain = all(isinstance(step, StandardScaler) for step in steps[:-1]) and len(steps) <= 2
    return is_plain and type(steps[-1]) is LogisticRegression and steps[-1].solver != "liblinear"


class ScaledLinear(nn.Linear):
    """A linear layer of standardised inputs, with a penalty of its weights; mean and scale do not learn.

    The top model's scaler stays outside of the weights while they train: behind a ReLU all inputs are positive, so
    that steps of the same sign in all weights would shift every logit at once and undo what the top model knew. Half
    of the penalty, times the squares of the weights, is what `penalty` adds to a mean loss.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, weight: NDArray[Any], bias: NDArray[Any], scaler: StandardScaler | None, penalty: float = 0.0):
        super().__init__(weight.shape[1], weight.shape[0])
        _fill(self, weight, bias)
        self.penalty = penalty
        width = self.in_features
        mean = scaler.mean_ if scaler is not None and scaler.with_mean else np.zeros(width)
        scale = scaler.scale_ if scaler is not None and scaler.with_std else np.ones(width)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        """Standardise the rows of x, shape (n, d), and multiply them by the weights."""
        return super().forward((x - self.mean) / self.scale)

    def folded(self) -> nn.Linear:
        """Return the plain linear layer of the same outputs."""
        weight, mean, scale = (each.detach().cpu().double() for each in (self.weight, self.mean, self.scale))
        weight = weight / scale
        return _linear(weight.numpy(), (self.bias.detach().cpu().double() - weight @ mean).numpy())


def to_layers(model: Pipeline, total_weight: float = np.inf) -> nn.Module:
    """Turn a fitted top model into layers whose softmax gives its probabilities, to be trained further.

    Two classes, which scikit-learn holds in one row of weights, become two rows of opposite signs. A logistic
    regression's penalty goes along, so that the head it was fitted to be is where training begins, not what it leaves
    to learn the training rows by heart.

    Parameters
    ----------
    model : Pipeline
        From `fit_head`.
    total_weight : float, default inf
        Sum of the weights of the rows that it was fitted on, their number where they have none. By default the head has
        no penalty.

    Returns
    -------
    ScaledLinear, or nn.Sequential with one and a nn.Linear around a ReLU

    Examples
    --------
    >>> X, y = np.random.default_rng(0).normal(size=(20, 3)), np.arange(20) % 2
    >>> model = Pipeline([("scale", StandardScaler()), ("model", LogisticRegression())]).fit(X, y)
    >>> layers = to_layers(model)(torch.tensor(X, dtype=torch.float32)).softmax(1).detach().numpy()
    >>> bool(np.allclose(layers, model.predict_proba(X), atol=1e-6))
    True
    """
    last = model[-1]
    weights = [last.coef_] if isinstance(last, LogisticRegression) else [each.T for each in last.coefs_]
    biases = [last.intercept_] if isinstance(last, LogisticRegression) else list(last.intercepts_)
    weights[-1], biases[-1] = _two_rows(weights[-1], biases[-1])
    layers = [_linear(*each) for each in zip(weights, biases, strict=True)]
    scaler = model[0] if len(model) > 1 else None
    layers[0] = ScaledLinear(weights[0], biases[0], scaler, _penalty(last, total_weight))
    return _stacked(layers)


def _penalty(model: LogisticRegression | MLPClassifier, total_weight: float) -> float:
    """Return the penalty beside a mean loss that has the minimum of scikit-learn's, which is beside the sum times C."""
    if not isinstance(model, LogisticRegression):
        return 0.0
    halves = 2 if len(model.coef_) == 1 else 1  # two rows of half the weights have half the squares
    return float(halves / (model.C * total_weight))


def penalty(layers: nn.Module) -> Tensor:
    """Return what the weights of a head add to a mean loss; see `ScaledLinear`."""
    found = [
        each.penalty / 2 * each.weight.square().sum() for each in layers.modules() if isinstance(each, ScaledLinear)
    ]
    return torch.stack(found).sum() if found else torch.zeros(())


def fold(layers: nn.Module) -> nn.Module:
    """Return layers with the scaler folded into the weights, as they are shipped; see `to_layers`."""
    linear = [each for each in layers.modules() if isinstance(each, nn.Linear)]
    return _stacked([each.folded() if isinstance(each, ScaledLinear) else each for each in linear])


def _stacked(layers: Sequence[nn.Linear]) -> nn.Module:
    return layers[0] if len(layers) == 1 else nn.Sequential(layers[0], nn.ReLU(), layers[1])


def _two_rows(weight: NDArray[Any], bias: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    if len(bias) > 1:
        return weight, bias
    return np.concatenate([-weight / 2, weight / 2]), np.concatenate([-bias / 2, bias / 2])


def _linear(weight: NDArray[Any], bias: NDArray[Any]) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    _fill(layer, weight, bias)
    return layer


def _fill(layer: nn.Linear, weight: NDArray[Any], bias: NDArray[Any]) -> None:
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(np.asarray(weight)))
        layer.bias.copy_(torch.from_numpy(np.asarray(bias)))


def random_layers(width: int, classes: int, head: str, random_state: int) -> nn.Module:
    """Return a head with random weights, as PyTorch draws them."""
    units = hidden_units(head)
    with seeded(random_state, torch.device("cpu")):
        if not units:
            return nn.Linear(width, classes)
        return nn.Sequential(nn.Linear(width, units), nn.ReLU(), nn.Linear(units, classes))


def to_model(layers: nn.Module, classes: NDArray[Any]) -> Pipeline:
    """Turn layers, as `fold` gives them, back into a scikit-learn model of the same classes and probabilities."""
    linear = [each for each in layers.modules() if isinstance(each, nn.Linear)]
    weights = [each.weight.detach().cpu().double().numpy() for each in linear]
    biases = [each.bias.detach().cpu().double().numpy() for each in linear]
    if len(classes) == 2:
        weights[-1], biases[-1] = weights[-1][1:] - weights[-1][:1], biases[-1][1:] - biases[-1][:1]
    model = _regression(weights[0], biases[0]) if len(linear) == 1 else _perceptron(weights, biases, classes)
    model.classes_, model.n_features_in_ = classes, weights[0].shape[1]
    return Pipeline([("model", model)])


def _regression(weight: NDArray[np.float64], bias: NDArray[np.float64]) -> LogisticRegression:
    model = LogisticRegression()
    model.coef_, model.intercept_, model.n_iter_ = weight, bias, np.zeros(1, np.int32)
    return model


def _perceptron(
    weights: Sequence[NDArray[np.float64]], biases: Sequence[NDArray[np.float64]], classes: NDArray[Any]
) -> MLPClassifier:
    model = MLPClassifier((len(biases[0]),))
    model.coefs_, model.intercepts_ = [each.T for each in weights], list(biases)
    model.n_layers_, model.n_outputs_ = 3, len(biases[-1])
    model.out_activation_ = "logistic" if len(classes) == 2 else "softmax"
    model._label_binarizer = LabelBinarizer().fit(classes)
    return model
