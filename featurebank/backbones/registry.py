"""Backbones by name: the registry of torchvision, timm, packaged weights, files and your own modules."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from featurebank.backbones import packaged, timm_models, torchvision_models
from featurebank.backbones.base import Backbone
from featurebank.backbones.checkpoints import checkpoint_path, parse_seed
from featurebank.backbones.entries import Checkpoint
from featurebank.backbones.preprocessing import MAX_SIDE, Preprocessing
from featurebank.backbones.sources import file_source
from featurebank.errors import BackboneError, WeightsError

if TYPE_CHECKING:
    from torch import nn

    from featurebank.backbones.layers import Layers


def load_backbone(
    name: str, weights: str = "DEFAULT", size: int | None = None, *, allow_download: bool = True
) -> Backbone:
    """Load a backbone by name: its network in eval mode, its weights, its official preprocessing.

    Parameters
    ----------
    name : str
        ``efficientnet_lite0`` (also 1, 2), a classification model of torchvision, ``timm:NAME`` (also
        ``timm:hf-hub:OWNER/MODEL``), or the path of a predictor file with a backbone's weights in it
        (``tuned.featurebank``).
    weights : str, default "DEFAULT"
        ``DEFAULT``, a weight enum's name (``IMAGENET1K_V1``), a checkpoint file (``FILE#ENTRY``: one of the networks in
        it; see `featurebank.backbones.entries.find_fit`), or ``random:SEED`` (``torch.manual_seed(SEED)``, then the
        builder with no weights).
    size : int, optional
        Input height and width in pixels, in place of the weights' own; the resize grows in proportion.
    allow_download : bool, default True
        Whether weights that are not on this machine may be fetched from their hub.

    Returns
    -------
    Backbone

    Raises
    ------
    BackboneError
        When the name is unknown; near names are suggested.
    WeightsError
        When the weights cannot be had: what was wanted, where it was looked for, how to bring a file.

    See Also
    --------
    list_backbones : What there is.
    Backbone : What comes back.

    Examples
    --------
    >>> load_backbone("efficientnet_lite0").input_size
    (224, 224)
    """
    _check_size(size)
    backbone: Backbone = (file_source(name) or _source(name)).load(name, weights, size, allow_download)
    return backbone


def load_untrained(name: str, size: int | None = None) -> Backbone:
    """Return a named backbone, without its weights where it has some of a name: for what these do not change."""
    return load_backbone(name, "DEFAULT" if file_source(name) else "random:0", size)


def layers_of(name: str, size: int | None = None) -> Layers:
    """Return the layers of a named backbone."""
    return load_untrained(name, size).layers


def dump_tensors(backbone: Backbone) -> bytes:
    """Return a backbone's tensors as safetensors bytes."""
    from safetensors.torch import save

    state = backbone.model.state_dict()
    return save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()})


def load_tensors(name: str, data: bytes, preprocessing: Preprocessing, size: int | None = None) -> Backbone:
    """Build a named backbone around the tensors of `dump_tensors` and the preprocessing they were used with.

    Raises
    ------
    BackboneError
        When the input size is none.
    WeightsError
        When the bytes are no tensors, or do not fit the architecture.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        state = load(data)
    except (SafetensorError, ValueError) as error:
        raise WeightsError(f"the embedded weights of {name} are damaged: make the file again") from error
    return build_backbone(name, state, preprocessing, size)


def build_backbone(
    name: str, state: Mapping[str, Any], preprocessing: Preprocessing, size: int | None = None
) -> Backbone:
    """Build a named backbone around these tensors; its head takes their number of classes.

    Raises
    ------
    BackboneError
        When the input size is none.
    WeightsError
        When the tensors do not fit the architecture.
    """
    _check_size(size)
    source = _source(name)
    model = source.build(name, Checkpoint(name, {"": state}), size)
    classifier = None if source is torchvision_models else timm_models.classifier_of(model)
    return Backbone(name, model, preprocessing, classifier=classifier)


def as_backbone(
    backbone: str | Backbone | nn.Module,
    weights: str = "DEFAULT",
    size: int | None = None,
    *,
    allow_download: bool = True,
) -> Backbone:
    """Return a backbone for a name, a `Backbone`, or a torch module with a name, a version and a transform.

    Raises
    ------
    BackboneError
        When it is none of these.
    """
    if isinstance(backbone, Backbone):
        return backbone
    if isinstance(backbone, str):
        return load_backbone(backbone, weights, size, allow_download=allow_download)
    if hasattr(backbone, "named_modules"):
        return Backbone.from_module(backbone)
    raise BackboneError(f"a {type(backbone).__name__} is no backbone; expected a name, a Backbone or a torch module")


def backbone_request(name: str, weights: str, size: int | None) -> dict[str, Any]:
    """Return what decides a named backbone, without loading torch: names, library versions, the file's stat.

    Raises
    ------
    WeightsError
        When a seed is no whole number.
    """
    source = file_source(name) or _source(name)
    parse_seed(weights)
    path = checkpoint_path(weights)
    if file_source(name):
        name = os.path.abspath(name)
        path = Path(name)
    elif path is None and source is packaged and weights == "DEFAULT":
        path = packaged.weights_file(name)
    return {
        "backbone": name,
        "weights": weights,
        "size": size,
        "file": _stat(path),
        "versions": {package: _version(package) for package in source.PACKAGES},
    }


def list_backbones(pattern: str | None = None) -> list[dict[str, Any]]:
    """Describe backbones: name, parameters, input size, licence, weights, whether they are on this machine.

    Parameters
    ----------
    pattern : str, optional
        A glob over names. Without it: the packaged ones and torchvision's; ``"timm:vit*"`` lists timm's.

    See Also
    --------
    load_backbone : One of them.

    Examples
    --------
    >>> [(each["name"], each["weights_here"]) for each in list_backbones("efficientnet_lite0")]
    [('efficientnet_lite0', True)]
    """
    if pattern is not None and pattern.startswith(timm_models.PREFIX):
        return [timm_models.describe(name) for name in timm_models.names(pattern.removeprefix(timm_models.PREFIX))]
    return [
        source.describe(name)
        for source in (packaged, torchvision_models)
        for name in source.names()
        if pattern is None or fnmatch.fnmatch(name, pattern)
    ]


def _check_size(size: int | None) -> None:
    """Refuse a size that no network takes before one is built for it: the file of a predictor may ask for any."""
    if size is not None and not 1 <= size <= MAX_SIDE:
        raise BackboneError(f"an input size of {size} pixels; expected 1 to {MAX_SIDE}")


def _source(name: str) -> ModuleType:
    if name.startswith(timm_models.PREFIX):
        return timm_models
    return packaged if name in packaged.names() else torchvision_models


def _stat(path: Any) -> list[Any] | None:
    if path is None or not os.path.isfile(path):
        return None
    status = os.stat(path)
    return [os.path.abspath(path), status.st_size, status.st_mtime_ns]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
