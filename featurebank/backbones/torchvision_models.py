"""All classification models of torchvision, with their weight enums and official preprocessing."""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from featurebank.backbones.base import Backbone
from featurebank.backbones.checkpoints import checkpoint_path, make_around, make_network, parse_seed
from featurebank.backbones.entries import Checkpoint, Shapes
from featurebank.backbones.names import suggest
from featurebank.backbones.preprocessing import Preprocessing
from featurebank.errors import BackboneError, WeightsError, one_line

PACKAGES = ("torch", "torchvision")
_DENSENET_KEY = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)$")
_OWN_NORMALISATION = ("googlenet", "inception_v3")
_HALF = (0.5, 0.5, 0.5)
_TOKENS, _PATCH = "encoder.pos_embedding", "conv_proj.weight"
_SETTLED = rf"(?i)aux|{re.escape(_TOKENS)}"


def names() -> list[str]:
    """Names of the models, sorted."""
    import torchvision

    return sorted(torchvision.models.list_models(module=torchvision.models))


def load(name: str, weights: str, size: int | None, allow_download: bool = True) -> Backbone:
    """Build a torchvision model with its weights; see `featurebank.backbones.registry.load_backbone`."""
    import torchvision

    if name not in names():
        raise BackboneError(f"no backbone {name!r}; {suggest(name, names())}")
    choice = _choose(name, weights)
    untrained = partial(torchvision.models.get_model, name, weights=None)
    official = partial(_official, name, choice, allow_download)
    model = make_network(weights, untrained, lambda found: build(name, found, None), official)
    preprocessing = preprocessing_of(choice)
    if _is_official(weights, choice) and name in _OWN_NORMALISATION:
        model.transform_input = False  # its second normalisation and the first one are together this one
        preprocessing = replace(preprocessing, mean=_HALF, std=_HALF)
    size = size or getattr(model, "image_size", None)  # a vision transformer takes one size, whatever its weights
    return Backbone(name, model, preprocessing.with_size(size))


def build(name: str, checkpoint: Checkpoint, size: int | None) -> Any:
    """Build the network of a name around the tensors that fit it; the head takes their number of classes."""
    import torchvision

    constant = {"init_weights": False} if name in _OWN_NORMALISATION else {}
    make = partial(torchvision.models.get_model, name, weights=None, **constant)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make_around(
            make, checkpoint.renamed(_new_names), classifier_of, settled=_SETTLED, options_of=partial(_options, name)
        )


def classifier_of(model: Any) -> str | None:
    """Return the name of the last classifier: in torchvision's networks the last linear layer or convolution."""
    from torch import nn

    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)][-1]


def _new_names(state: Mapping[str, Any], own: Shapes) -> Mapping[str, Any]:
    """Give the tensors of old DenseNet checkpoints their names of today."""
    return {_DENSENET_KEY.sub(r"\1\2", key): tensor for key, tensor in state.items()}


def _options(name: str, state: Mapping[str, Any], own: Shapes) -> dict[str, Any]:
    """Return what the tensors tell about how their network was built: auxiliary heads, a transformer's input size."""
    if name in _OWN_NORMALISATION:
        return {"aux_logits": any(key.lower().startswith("aux") for key in state)}
    return _size_of_tokens(state, own) if _TOKENS in own else {}


def _size_of_tokens(state: Mapping[str, Any], own: Shapes) -> dict[str, int]:
    """Return the input size that a transformer's position embedding is for: n² patches and the class token."""
    tokens, usual = tuple(getattr(state.get(_TOKENS), "shape", ())), own[_TOKENS]
    if len(tokens) != 3 or (tokens[0], tokens[2]) != (1, usual[2]) or tokens == usual:
        return {}  # it does not fit, and nothing is built after its shapes, or fits as it is
    return {"image_size": math.isqrt(tokens[1]) * own[_PATCH][3]}


def describe(name: str) -> dict[str, Any]:
    """Return parameters, input size, licence and presence of a model's default weights."""
    weights = _choose(name, "DEFAULT")
    swag = "SWAG" in weights.name
    return {
        "name": name,
        "parameters": weights.meta["num_params"],
        "input_size": preprocessing_of(weights).crop[0],
        "license": "CC-BY-NC-4.0" if swag else "",
        "weights": weights.name,
        "weights_here": _hub_file(weights).is_file(),
    }


def _choose(name: str, weights: str) -> Any:
    """Return the weight enum that is asked for, or that a seed's or a file's preprocessing is taken from."""
    import torchvision

    enum = torchvision.models.get_model_weights(name)
    path = checkpoint_path(weights)
    if path is not None:
        official = [entry for entry in enum if os.path.basename(entry.url) == path.name]
        return official[0] if official else enum.DEFAULT
    if parse_seed(weights) is not None or weights == "DEFAULT":
        return enum.DEFAULT
    if weights not in enum.__members__:
        have = ", ".join(["DEFAULT", *(entry.name for entry in enum)])
        raise WeightsError(f"{name} has no weights {weights!r}; expected one of {have}, a file, or random:SEED")
    return enum[weights]


def _is_official(weights: str, choice: Any) -> bool:
    """Say whether these are torchvision's own weights, by name or as a file."""
    path = checkpoint_path(weights)
    return parse_seed(weights) is None and (path is None or path.name == os.path.basename(choice.url))


def _official(name: str, choice: Any, allow_download: bool) -> Any:
    import torchvision

    if not allow_download and not _hub_file(choice).is_file():
        raise WeightsError(
            f"weights {choice.name} of {name} are not on this machine ({_hub_file(choice)}): allow the download "
            "(--allow-download), or bring the file and name it with --weights FILE"
        )
    try:
        return torchvision.models.get_model(name, weights=choice)
    except Exception as error:  # no network, a full disk, a broken download: any kind
        raise WeightsError(
            f"weights {choice.name} of {name} are not on this machine ({_hub_file(choice)}) and could not be fetched "
            f"from {choice.url} ({one_line(error)[:80]}): bring that file and name it with --weights FILE"
        ) from error


def preprocessing_of(weights: Any) -> Preprocessing:
    """Return the official preprocessing of a weight enum's entry, resolved to numbers."""
    official = weights.transforms()
    crop = official.crop_size[0]
    mean, std = (tuple(float(value) for value in values) for values in (official.mean, official.std))
    return Preprocessing(official.resize_size[0], (crop, crop), official.interpolation.value, mean, std)


def _hub_file(weights: Any) -> Path:
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints" / os.path.basename(weights.url)
