"""A backbone that is known by a feature spec; its network is loaded when something asks for it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from featurebank.backbones.base import Backbone
from featurebank.backbones.preprocessing import Preprocessing
from featurebank.bank.spec import FeatureSpec

if TYPE_CHECKING:
    from torch import nn

    from featurebank.backbones.layers import Layers


class UnloadedBackbone(Backbone):
    """What a spec says of a backbone is enough to prepare images; torch is imported for the rest.

    Parameters
    ----------
    spec : FeatureSpec
        Of one of its layers.
    load : callable
        Returns the backbone with its network; called once, by whoever first needs more than the spec says.

    Examples
    --------
    >>> preprocessing = Preprocessing(8, (8, 8), "bilinear", (0.5,) * 3, (0.5,) * 3).to_dict()
    >>> spec = FeatureSpec("net", "", "00", "fc", "vector", 0, "none", preprocessing, 1, "none", "fp32", "float16")
    >>> UnloadedBackbone(spec, load=lambda: 1 / 0).input_size
    (8, 8)
    """

    def __init__(self, spec: FeatureSpec, load: Callable[[], Backbone]):
        self.name, self.version = spec.backbone, spec.version
        self.preprocessing, self.pixels = Preprocessing.from_dict(spec.preprocessing), spec.pixels
        self._weights, self._load = spec.weights, load

    def __reduce__(self) -> Any:
        """Go to other processes as the loaded one."""
        return self.loaded.__reduce_ex__(4)

    @cached_property
    def loaded(self) -> Backbone:
        """The backbone with its network."""
        return self._load()

    @cached_property
    def model(self) -> nn.Module:  # type: ignore[override]
        """The network."""
        return self.loaded.model

    @cached_property
    def classifier(self) -> str | None:  # type: ignore[override]
        """Name of the module that is the last classifier."""
        return self.loaded.classifier

    @property
    def weights(self) -> str:
        """SHA-256 (hex) of the network's tensors."""
        return self._weights

    @cached_property
    def layers(self) -> Layers:
        """Every layer that can be captured."""
        return self.loaded.layers

    def spec(self, layer: str, *, store: str = "float16", views: str = "none", precision: str = "fp32") -> FeatureSpec:
        """Return the feature spec of one layer, as the network itself says it."""
        return self.loaded.spec(layer, store=store, views=views, precision=precision)
