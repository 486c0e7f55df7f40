"""Any timm model, asked for as ``timm:NAME`` (a weight tag may follow a dot, as in timm)."""

from __future__ import annotations

import math
import re
from functools import partial
from typing import Any

from featurebank.backbones.base import Backbone
from featurebank.backbones.checkpoints import make_around, make_network
from featurebank.backbones.entries import Checkpoint
from featurebank.backbones.names import suggest, timm_name_of
from featurebank.backbones.preprocessing import Preprocessing
from featurebank.errors import BackboneError, WeightsError, one_line

PREFIX = "timm:"
PACKAGES = ("torch", "torchvision", "timm")
_HUB = re.compile(r"^hf-hub:([\w.-]+/[\w.-]+)$")
_CONFIGURATION = "config.json"


def names(pattern: str = "*") -> list[str]:
    """Names of timm's architectures that fit a glob pattern, each with the prefix ``timm:``."""
    import timm

    return [PREFIX + name for name in timm.list_models(pattern)]


def load(name: str, weights: str, size: int | None, allow_download: bool = True) -> Backbone:
    """Build a timm model with its weights; see `featurebank.backbones.registry.load_backbone`."""
    name = name.replace("hf_hub:", "hf-hub:")  # timm's own older spelling
    architecture = name.removeprefix(PREFIX)
    _check(architecture, allow_download)
    options = _size_options(architecture, size)
    official = partial(_official, architecture, weights, options, allow_download)
    untrained = partial(timm_model, architecture, **options)
    model = make_network(weights, untrained, lambda found: build(name, found, size), official)
    if size is not None:
        _check_patches(name, model, size)
    return Backbone(name, model, preprocessing_of(model).with_size(size), classifier=classifier_of(model))


def _check_patches(name: str, model: Any, size: int) -> None:
    """Refuse a size that leaves a border which no patch of a transformer covers, and which it never sees."""
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    side = patch[0] if isinstance(patch, tuple) else patch
    if side and size % side and not getattr(model.patch_embed, "dynamic_img_pad", False):
        below = size - size % side
        raise BackboneError(
            f"size {size} for {name}, whose patches of {side} pixels see {below} of them; expected a multiple of "
            f"{side}: --size {below} or {below + side}"
        )


def _check(architecture: str, allow_download: bool) -> None:
    """Refuse what timm does not have; a network of the Hub is there once its configuration is."""
    import timm

    base, _, tag = architecture.partition(".")
    hub = _HUB.match(architecture)
    if hub is not None:
        _bring_configuration(hub[1], allow_download)
    elif timm.is_model(base):
        _check_tag(base, tag)
    else:
        raise BackboneError(f"timm has no model {base!r}; {suggest(architecture)}")


def _bring_configuration(hub_id: str, allow_download: bool) -> None:
    """See to it that the configuration of a repository of the Hub is on this machine."""
    from huggingface_hub import hf_hub_download

    known = timm_name_of(hub_id)
    if known is not None:
        raise BackboneError(f"{hub_id} of the Hub is timm's own; expected its name there: {PREFIX}{known}")
    try:
        hf_hub_download(hub_id, _CONFIGURATION, local_files_only=not allow_download)
    except Exception as error:  # no network, no such repository, none that is open to all: any kind
        raise WeightsError(
            f"{_CONFIGURATION} of {hub_id} is not on this machine and could not be fetched from the Hub "
            f"({one_line(error)[:80]}): allow the download, log in where the repository asks for it, or bring the file "
            f"of the weights: --backbone {PREFIX}ARCHITECTURE --weights FILE"
        ) from error


def build(name: str, checkpoint: Checkpoint, size: int | None) -> Any:
    """Build the network of a name around the tensors that fit it; the head takes their number of classes."""
    architecture = name.removeprefix(PREFIX)
    _check(architecture, allow_download=False)
    make = partial(timm_model, architecture, **_size_options(architecture, size))
    return make_around(make, checkpoint, classifier_of)


def describe(name: str) -> dict[str, Any]:
    """Return parameters, input size, licence and presence of a model's default weights."""
    import torch

    with torch.device("meta"):
        model = timm_model(name.removeprefix(PREFIX))
    config = model.pretrained_cfg
    return {
        "name": name,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "input_size": config["input_size"][1],
        "license": config.get("license") or "",
        "weights": config.get("tag") or "none",
        "weights_here": is_cached(config.get("hf_hub_id")),
    }


def is_cached(hub_id: str | None) -> bool:
    """Say whether the weights of a hub's repository are on this machine."""
    from huggingface_hub import try_to_load_from_cache

    files = ("model.safetensors", "pytorch_model.bin")
    return hub_id is not None and any(isinstance(try_to_load_from_cache(hub_id, file), str) for file in files)


def timm_model(architecture: str, **options: Any) -> Any:
    """Build one of timm's networks with random weights."""
    import timm

    return timm.create_model(architecture, **options)


def classifier_of(model: Any) -> str | None:
    """Return the name of the module that timm calls the classifier."""
    from torch import nn

    heads = model.get_classifier()
    head = heads[-1] if isinstance(heads, (tuple, list, nn.ModuleList)) else heads
    return next((name for name, module in model.named_modules() if module is head), None)


def preprocessing_of(model: Any) -> Preprocessing:
    """Resolve a timm model's own evaluation transform to numbers.

    Raises
    ------
    BackboneError
        When it is not a square resize and crop.
    """
    from timm.data import resolve_data_config

    config = resolve_data_config({}, model=model)
    _, height, width = config["input_size"]
    if height != width or config["crop_mode"] not in ("center", "squash"):
        raise BackboneError(
            f"a timm model with input {height}x{width} and crop {config['crop_mode']!r}; expected a square centre "
            "crop: wrap it with Backbone.from_module and its own transform"
        )
    mean, std = (tuple(float(value) for value in config[key]) for key in ("mean", "std"))
    resize = math.floor(height / config["crop_pct"])
    return Preprocessing(resize, (height, width), config["interpolation"], mean, std, config["crop_mode"])


def _size_options(architecture: str, size: int | None) -> dict[str, Any]:
    """Return what a fixed-size architecture needs to be built for another size."""
    import timm

    config = None if _HUB.match(architecture) else timm.get_pretrained_cfg(architecture)
    fixed = config is not None and config.fixed_input_size
    return {"img_size": size} if size and fixed else {}


def _official(architecture: str, weights: str, options: dict[str, Any], allow_download: bool) -> Any:
    import timm

    tagged = architecture if weights == "DEFAULT" else f"{architecture.split('.')[0]}.{weights}"
    if tagged != architecture:
        _check_tag(architecture.split(".")[0], weights)
    if not allow_download and not is_cached(_hub_id(tagged)):
        raise WeightsError(
            f"weights {weights} of timm:{architecture} are not on this machine ({_hub_id(tagged)}): allow the download "
            "(--allow-download), or bring the file and name it with --weights FILE"
        )
    try:
        return timm.create_model(tagged, pretrained=True, **options)
    except Exception as error:  # no network, no such tag, a broken download: any kind
        raise WeightsError(
            f"weights {weights} of timm:{architecture} are not in the hub's cache and could not be fetched from "
            f"{_hub_id(tagged) or 'the hub'} ({one_line(error)[:80]}): bring the file and name it with --weights FILE"
        ) from error


def _check_tag(base: str, tag: str) -> None:
    from timm.models import get_arch_pretrained_cfgs

    tags = [name.partition(".")[2] for name in get_arch_pretrained_cfgs(base)]
    if tag and tag not in tags:
        have = ", ".join(["DEFAULT", *filter(None, tags)])
        raise WeightsError(f"timm:{base} has no weights {tag!r}; expected one of {have}, a file, or random:SEED")


def _hub_id(tagged: str) -> str | None:
    import timm

    hub = _HUB.match(tagged)
    config = None if hub else timm.get_pretrained_cfg(tagged, allow_unregistered=True)
    if hub:
        return hub[1]
    return None if config is None else config.hf_hub_id
