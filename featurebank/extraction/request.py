"""Requests: what the user asked for, and the feature specs it leads to, without loading torch where that is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from featurebank.backbones.preprocessing import DECODERS
from featurebank.backbones.registry import as_backbone, backbone_request
from featurebank.bank.spec import PRECISIONS, FeatureSpec
from featurebank.errors import BackboneError, BankError
from featurebank.images.views import check_encoded, count_views

if TYPE_CHECKING:
    from featurebank.backbones.base import Backbone
    from featurebank.bank.bank import Bank

STORES = ("float16", "float32")


@dataclass
class Ask:
    """A backbone and layers that are asked for; the backbone is loaded only when it is needed.

    Parameters
    ----------
    backbone : str, Backbone or torch.nn.Module
    layers : list of str
    weights : str
    size : int or None
    store : str
    views : str
    precision : str
    decoder : str
    """

    backbone: Any
    layers: list[str]
    weights: str
    size: int | None
    store: str
    views: str
    precision: str
    decoder: str
    _loaded: Backbone | None = None

    def load(self) -> Backbone:
        """Return the backbone, loading it the first time."""
        if self._loaded is None:
            self._loaded = as_backbone(self.backbone, self.weights, self.size).with_decoder(self.decoder)
        return self._loaded

    def specs(self, bank: Bank) -> list[FeatureSpec]:
        """Return the feature spec of each layer, from the bank's earlier requests where it has them."""
        known = [self._known(bank, layer) for layer in self.layers]
        specs = [spec or self._computed(bank, layer) for spec, layer in zip(known, self.layers, strict=True)]
        return list(dict.fromkeys(specs))

    def _computed(self, bank: Bank, layer: str) -> FeatureSpec:
        """Return the spec of one layer from the backbone; one that was only ever imported is said to be."""
        try:
            return self.spec(layer)
        except BackboneError as error:
            named = [each.spec for each in bank.feature_sets if each.spec.backbone == self.backbone]
            imported = [spec for spec in named if spec.origin is not None]
            if not imported:
                raise
            raise BankError(f"{imported[0].about_origin}: extract cannot extend it, import a file that does") from error

    def register(self, bank: Bank) -> None:
        """Make the feature sets' folders and keep the requests beside them."""
        for layer in self.layers:
            if self._known(bank, layer) is None:
                bank.add_spec(self.spec(layer), self._request(layer))

    def spec(self, layer: str) -> FeatureSpec:
        """Return the feature spec of one layer, from the loaded backbone."""
        return self.load().spec(layer, store=self.store, views=self.views, precision=self.precision)

    def _known(self, bank: Bank, layer: str) -> FeatureSpec | None:
        request = self._request(layer)
        return None if request is None else bank.find_spec(request)

    def _request(self, layer: str) -> dict[str, Any] | None:
        if not isinstance(self.backbone, str):
            return None
        request = backbone_request(self.backbone, self.weights, self.size)
        request |= {"layer": layer, "store": self.store, "views": self.views, "precision": self.precision}
        return request if self.decoder == "pil" else {**request, "decoder": self.decoder}


def ask(
    backbone: Any,
    layers: str | Sequence[str],
    *,
    weights: str = "DEFAULT",
    size: int | None = None,
    store: str = "float16",
    views: str = "none",
    precision: str = "fp32",
    decoder: str = "pil",
) -> Ask:
    """Check what is asked for and return it.

    Raises
    ------
    BankError
        When there is no layer, or `store`, `views`, `precision` or `decoder` is unknown, or the decoder cannot make
        the views.
    """
    names = [layers] if isinstance(layers, str) else list(layers)
    if not names:
        raise BankError("no layer is asked for; expected at least one, e.g. penultimate")
    if store not in STORES:
        raise BankError(f"store {store!r}; expected one of {', '.join(STORES)}")
    if precision not in PRECISIONS:
        raise BankError(f"precision {precision!r}; expected one of {', '.join(PRECISIONS)}")
    if decoder not in DECODERS:
        raise BankError(f"decoder {decoder!r}; expected one of {', '.join(DECODERS)}")
    count_views(views)
    if decoder == "nvjpeg":
        check_encoded(views)
    return Ask(backbone, names, weights, size, store, views, precision, decoder)
