"""A backbone whose weights lie in a predictor file, as fine-tuning leaves it: asked for by the file's path.

Importing this module adds predictor files to the sources of backbones; `featurebank` itself imports it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from featurebank.backbones.sources import FileSource, add_source
from featurebank.errors import WeightsError

if TYPE_CHECKING:
    from featurebank.backbones.base import Backbone

SUFFIX = ".featurebank"
PACKAGES = ("torch", "torchvision", "timm")


def load(name: str, weights: str, size: int | None, allow_download: bool = True) -> Backbone:
    """Build the backbone of a predictor file; see `featurebank.backbones.registry.load_backbone`.

    It has the architecture's own name, and is told from others of that name by the digest of its weights.

    Raises
    ------
    PredictorError
        When the file cannot be read, or holds no weights.
    WeightsError
        When other weights are asked for, or these do not fit.
    """
    from featurebank.backbones.preprocessing import Preprocessing
    from featurebank.backbones.registry import load_tensors
    from featurebank.predictor.file import read_backbone

    if weights != "DEFAULT":
        raise WeightsError(f"weights {weights!r} of {name!r}, which has its own; expected no --weights beside it")
    feature, data = read_backbone(name)
    preprocessing = Preprocessing.from_dict(feature.spec.preprocessing).with_size(size)
    backbone = load_tensors(feature.spec.backbone, data, preprocessing, size or feature.size)
    if backbone.weights != feature.spec.weights:
        raise WeightsError(f"the weights in {name!r} are not those that it names: make the file again")
    return backbone


add_source(SUFFIX, FileSource(load, PACKAGES))
