"""The fitted attributes that a skops archive holds, read as plain values: no class in it is imported or made."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from featurebank.errors import CorruptError

PROTOCOL = 2
"""The newest layout of skops's archives that is known here; a newer one is left to skops."""


KINDS = {
    "sklearn.pipeline.Pipeline",
    "sklearn.preprocessing._data.StandardScaler",
    "sklearn.preprocessing._data.Normalizer",
    "sklearn.preprocessing._label.LabelBinarizer",
    "sklearn.linear_model._logistic.LogisticRegression",
    "sklearn.linear_model._ridge.Ridge",
    "sklearn.neural_network._multilayer_perceptron.MLPClassifier",
    "sklearn.neural_network._multilayer_perceptron.MLPRegressor",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.svm._classes.SVC",
    "sklearn.svm._classes.SVR",
    "featurebank.topmodels.calibration.Calibrator",
    "featurebank.topmodels.novelty.Mahalanobis",
    "featurebank.topmodels.novelty.Unlike",
    "featurebank.topmodels.transforms.SelectDimensions",
    "featurebank.topmodels.transforms.SelectRelevant",
    "featurebank.topmodels.transforms.SignedSquareRoot",
}
"""Objects whose attributes are read; each is one that the loader of predictor files allows."""
_ARRAYS = {f"numpy.{name}" for name in ("ndarray", "float64", "float32", "int64", "int32", "bool", "bool_", "str_")}


class Fitted(SimpleNamespace):
    """The attributes of a fitted object, with ``kind``, the name of its class."""


def read_fitted(data: bytes) -> Fitted:
    """Return the attributes of the object in a skops archive, those of objects in it alike.

    Raises
    ------
    CorruptError
        When it holds anything but objects, arrays, containers and JSON: skops reads it, or says why not.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
                raise CorruptError("it is compressed")
            schema = json.loads(archive.read("schema.json"))
            if not 0 <= schema["protocol"] <= PROTOCOL:
                raise CorruptError("its layout is not known")
            found = _value(schema, archive)
    except CorruptError:
        raise
    except Exception as error:  # a zip, JSON or an array that is none: whoever asks falls back to skops
        raise CorruptError(f"it is no archive of plain values ({type(error).__name__})") from error
    if not isinstance(found, Fitted):
        raise CorruptError("it holds no object")
    return found


def _value(node: dict[str, Any], archive: zipfile.ZipFile) -> Any:
    name = node["__loader__"]
    if name not in _LOADERS:
        raise CorruptError(f"it holds what {name} loads")
    return _LOADERS[name](node, archive)


def _object(node: dict[str, Any], archive: zipfile.ZipFile) -> Fitted:
    kind = _type_of(node)
    if kind not in KINDS:
        raise CorruptError(f"it holds a {kind}")
    values = _value(node["content"], archive)
    return Fitted(**{**values, "kind": kind})


def _array(node: dict[str, Any], archive: zipfile.ZipFile) -> Any:
    if node["type"] != "numpy" or _type_of(node) not in _ARRAYS:
        raise CorruptError("it holds an array of objects")
    return np.load(io.BytesIO(archive.read(node["file"])), allow_pickle=False)


def _mapping(node: dict[str, Any], archive: zipfile.ZipFile) -> dict[str, Any]:
    if _type_of(node) != "builtins.dict" or {_type_of(each) for each in node["key_types"]["content"]} > {
        "builtins.str"
    }:
        raise CorruptError("it holds another mapping than of names")
    return {str(key): _value(value, archive) for key, value in node["content"].items()}


def _sequence(node: dict[str, Any], archive: zipfile.ZipFile) -> list[Any]:
    if _type_of(node) not in ("builtins.list", "builtins.tuple"):
        raise CorruptError(f"it holds a {_type_of(node)}")
    return [_value(each, archive) for each in node["content"]]


def _random(node: dict[str, Any], archive: zipfile.ZipFile) -> None:
    """Pass over the random state that a model was fitted with."""
    if _type_of(node) != "numpy.random.mtrand.RandomState":
        raise CorruptError(f"it holds a {_type_of(node)}")
    _value(node["content"], archive)


def _type_of(node: dict[str, Any]) -> str:
    return f"{node['__module__']}.{node['__class__']}"


_LOADERS: dict[str, Callable[[dict[str, Any], zipfile.ZipFile], Any]] = {
    "ObjectNode": _object,
    "NdArrayNode": _array,
    "DictNode": _mapping,
    "ListNode": _sequence,
    "TupleNode": _sequence,
    "RandomStateNode": _random,
    "JsonNode": lambda node, archive: json.loads(node["content"]),
}
