"""Why: the parts of an image that a predictor decides by, as class activation maps or by occlusion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from featurebank.bank.maps import as_maps
from featurebank.errors import PredictorError, near_names
from featurebank.explore.anomaly_maps import anomaly_map
from featurebank.explore.image_map import ActivationMap, unfolded
from featurebank.explore.occlusion import occlusion_map
from featurebank.images.reading import ImageLike, Progress, open_image
from featurebank.predictor.features import made_views
from featurebank.topmodels.transforms import SelectDimensions, SelectRelevant

if TYPE_CHECKING:
    from featurebank.backbones.base import Backbone
    from featurebank.backbones.layers import Layer
    from featurebank.predictor.features import PredictorFeature
    from featurebank.predictor.predictor import Predictor

METHODS = ("auto", "cam", "occlusion")
SAME = 0.02
"""Relative distance of a map's mean from the embedding below which the map is what was averaged."""
LOOKED_AT = 8
"""Layers before a pooled one among which the map that it averages is looked for."""
TOLERANCE = 1e-4
"""Largest difference of a linear function to the model's own decisions, relative to their size or to 1."""


def explain(
    predictor: Predictor,
    image: ImageLike,
    label: object = None,
    *,
    method: str = "auto",
    progress: Progress | None = None,
) -> ActivationMap:
    """Show which parts of an image speak for a class.

    A class activation map (Zhou et al. 2016) is exact: where the model is linear and the embedding is the mean of a
    map, its decision is the mean of the maps weighted alike, plus a constant. For any other model or pooling, parts of
    the image are covered in turn, and the map shows how much the decision falls (Zeiler and Fergus 2014). Of a
    predictor that learned from normal images, the map shows where the image is unlike them (method ``"patches"``).

    Parameters
    ----------
    predictor : Predictor
    image : path-like, PIL image or uint8 array
    label : object, optional
        One of the predictor's classes; by default the one that it predicts.
    method : str, default "auto"
        ``"cam"`` where it is exact and ``"occlusion"`` (a few hundred forward passes) elsewhere, or one of them.
    progress : callable, optional
        Called with (covered images done, all).

    Returns
    -------
    ActivationMap

    Raises
    ------
    PredictorError
        When the class is unknown, the method is unknown, or a class activation map is asked for and not exact.
    ImageError
        When the image cannot be read.

    See Also
    --------
    ActivationMap : What comes back.
    Predictor : What is explained.

    Examples
    --------
    >>> from featurebank import Predictor
    >>> found = explain(Predictor.load("photos.featurebank"), "new.jpg")
    >>> found.label, found.map.shape
    ('dog', (64, 64))
    """
    if method not in METHODS:
        raise PredictorError(f"no method {method!r}; {near_names(method, METHODS)}")
    if predictor.task == "anomaly":
        return anomaly_map(predictor, image, label, method)
    opened, _ = open_image(image, pixels=predictor.features[0].spec.pixels)
    X = predictor.embed([opened])
    column, name = _column(predictor, X, label)
    score = float(decisions(predictor.model, X)[0, column])
    linear = linear_of(predictor.model, X)
    found = None if method == "occlusion" or linear is None else _cam(predictor, opened, X[0], linear, column)
    if found is None and method == "cam":
        why = "its model is not linear" if linear is None else "its features are not all means of a map"
        raise PredictorError(f"no exact class activation map of this predictor: {why}; use the method occlusion")
    if found is None:
        covered = occlusion_map(predictor, opened, lambda rows: decisions(predictor.model, rows)[:, column], progress)
        return ActivationMap(covered, opened, name, score, "occlusion")
    whole, cells, bias = found
    return ActivationMap(whole, opened, name, score, "cam", cells, bias)


def _column(predictor: Predictor, X: NDArray[np.float32], label: object) -> tuple[int, object]:
    """Return the column of `decisions` that a class has, and the class as the predictor knows it."""
    known = predictor.single.classes.tolist()
    if not known:
        if label is not None:
            raise PredictorError(f"a map of the class {label!r}; this predictor gives numbers of {predictor.target!r}")
        return 0, None
    if label is None:
        label = known[int(decisions(predictor.model, X)[0].argmax())]
        label = label if predictor.single.labels is not None else predictor.model.predict(X)[0]
    texts = [str(name) for name in known]
    if str(label) not in texts:
        raise PredictorError(f"no class {label!r}; {near_names(str(label), texts)}")
    column = texts.index(str(label))
    return column, known[column]


# --- class activation maps ---------------------------------------------------------------------------------


def _cam(
    predictor: Predictor, image: Image.Image, embedding: NDArray[np.float32], linear: Linear, column: int
) -> tuple[NDArray[np.float32], list[NDArray[np.float64]], float] | None:
    """Return the map in the image's pixels, the cells of each feature set, and the bias; None where it is not exact."""
    whole = np.zeros((image.height, image.width), np.float32)
    cells, start = [], 0
    for feature in predictor.features:
        backbone = predictor.backbone_of(feature)
        maps = averaged_maps(backbone, feature, image)
        if maps is None:
            return None
        width = maps.shape[1] * (len(maps) if feature.views == "all" else 1)
        columns = slice(start, start + width)
        own = _weighted(maps, embedding[columns], linear.weights[column, columns])  # (views, h, w)
        whole += np.mean([unfolded(each, number, backbone, feature, image) for number, each in enumerate(own)], axis=0)
        cells.append(own)
        start = columns.stop
    return whole, cells, float(linear.bias[column])


def _weighted(
    maps: NDArray[np.float32], seen: NDArray[np.float32], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the weighted sum of channels (views, h, w), whose mean is that of the embedding which the model saw.

    The model saw the mean over the views (c,), or each view (views * c,). It was rounded when it was stored, so each
    channel is brought to it.
    """
    means = maps.mean(axis=(2, 3), dtype=np.float64)  # (views, c)
    if len(seen) == maps.shape[1]:
        means = means.mean(axis=0, keepdims=True)
    rounding = np.divide(
        seen.reshape(means.shape), means, out=np.ones_like(means), where=np.abs(means) > np.finfo(np.float32).tiny
    )
    scaled = weights.reshape(means.shape) * rounding * len(means)  # a mean over the views takes their sum back
    found: NDArray[np.float64] = np.einsum(
        "vc,vchw->vhw", np.broadcast_to(scaled, maps.shape[:2]), maps.astype(np.float64)
    )
    return found


def averaged_maps(backbone: Backbone, feature: PredictorFeature, image: Image.Image) -> NDArray[np.float32] | None:
    """Return the maps whose mean a feature set is, shape (views, channels, h, w); None where there are none.

    For the penultimate layer they are looked for before it, and taken where their means are the layer's own values.
    """
    spec = feature.spec
    is_random = made_views(feature).startswith("augment")
    if is_random or backbone.framing == "tiles":  # a random view has no way back to the image, tiles have several
        return None
    if spec.pool == "avg":
        return as_maps(_captured(backbone, feature, [spec.layer], image)[0], spec.layout, spec.prefix)
    if spec.layout != "vector":
        return None
    from featurebank.backbones.layers import get_layer

    width = get_layer(backbone.layers, spec.layer)[0].shape[0]
    names = [name for name, layer in backbone.layers.items() if _is_map(layer, width)][: -LOOKED_AT - 1 : -1]
    if not names:
        return None
    vector, *found = _captured(backbone, feature, [spec.layer, *names], image)
    maps = [as_maps(each, backbone.layers[name].layout, 0) for name, each in zip(names, found, strict=True)]
    size = max(float(np.linalg.norm(vector)), float(np.finfo(np.float32).tiny))
    far = [float(np.linalg.norm(each.mean(axis=(2, 3)) - vector)) / size for each in maps]
    best = int(np.argmin(far))
    return maps[best] if far[best] < SAME else None


def _is_map(layer: Layer, channels: int) -> bool:
    """Say whether a layer gives maps of so many channels, of more than one cell."""
    own = {"NCHW": layer.shape[0], "NHWC": layer.shape[-1]}.get(layer.layout)
    return own == channels and bool(np.prod(layer.shape) > channels)


def _captured(
    backbone: Backbone, feature: PredictorFeature, names: Sequence[str], image: Image.Image
) -> list[NDArray[np.float32]]:
    """Return what layers give for the views of an image, unpooled, each of shape (views, …)."""
    from featurebank.backbones.engine import Engine
    from featurebank.backbones.layers import get_layer

    layouts = {name: get_layer(backbone.layers, name)[0].layout for name in names}
    own: dict[str, Any] = {"store": "float32", "views": made_views(feature), "precision": feature.spec.precision}
    specs = [backbone.spec(name if layouts[name] == "vector" else f"{name}:none", **own) for name in names]
    engine = Engine(backbone, specs, engine="eager", pad=False)
    return engine(list(backbone.prepare_views(image, made_views(feature), b"")))


# --- a model as one linear function -------------------------------------------------------------------------


@dataclass(frozen=True)
class Linear:
    """Decisions ``X @ weights.T + bias``, of weights (k, d) and bias (k,)."""

    weights: NDArray[np.float64]
    bias: NDArray[np.float64]

    def __call__(self, X: NDArray[Any]) -> NDArray[np.float64]:
        """Return the decisions of rows, shape (n, k)."""
        found: NDArray[np.float64] = X.astype(np.float64) @ self.weights.T + self.bias
        return found


def decisions(model: Any, X: NDArray[Any]) -> NDArray[np.float64]:
    """Return what a model decides by, a column for each class (one for numbers), shape (n, k).

    Decision values where it has them, of two classes with both signs; else probabilities, else predicted numbers.
    """
    if hasattr(model, "decision_function"):
        values = np.asarray(model.decision_function(X), np.float64)
        return np.column_stack([-values, values]) if values.ndim == 1 else values
    name = "predict_proba" if hasattr(model, "predict_proba") else "predict"
    found = np.asarray(getattr(model, name)(X), np.float64)
    return found.reshape(len(X), -1)


def linear_of(model: Any, X: NDArray[Any]) -> Linear | None:
    """Return a model as one linear function with the columns of `decisions`; None where it is not linear.

    Scaling and selected dimensions are folded into the weights. That the function is the model's is checked on rows X.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> X = np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 1.0]])
    >>> model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, [0, 1, 1])
    >>> found = linear_of(model, X)
    >>> np.allclose(found(X)[:, 1], model.decision_function(X))
    True
    """
    steps = [step for _, step in model.steps] if isinstance(model, Pipeline) else [model]
    last = getattr(steps[-1], "estimator_", steps[-1])  # a tuned threshold moves no decision value
    if not hasattr(last, "coef_") or not hasattr(last, "intercept_"):
        return None
    weights = np.atleast_2d(np.asarray(last.coef_, np.float64))
    bias = np.broadcast_to(np.asarray(last.intercept_, np.float64).ravel(), len(weights))
    for step in reversed(steps[:-1]):
        if isinstance(step, StandardScaler):
            weights = weights / step.scale_ if step.with_std else weights
            bias = bias - weights @ step.mean_ if step.with_mean else bias
        elif isinstance(step, (SelectDimensions, SelectRelevant)):
            taken, weights = weights, np.zeros((len(weights), step.n_features_in_))
            weights[:, step.dimensions_] = taken
        else:
            return None
    expected = decisions(model, X)
    if len(weights) == 1 and expected.shape[1] == 2:
        weights, bias = np.concatenate([-weights, weights]), np.concatenate([-bias, bias])
    if len(weights) != expected.shape[1]:
        return None
    found = Linear(weights, bias)
    far = np.abs(found(X) - expected).max() / max(1.0, float(np.abs(expected).max()))
    return found if far < TOLERANCE else None
