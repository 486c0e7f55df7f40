"""The request: which backbone, with which options; it loads its backbone, and a bank knows it without torch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from featurebank.backbones.framing import FRAMINGS, check_tiles
from featurebank.backbones.preprocessing import DECODERS
from featurebank.backbones.registry import as_backbone, backbone_request
from featurebank.backbones.remembered import recall, remember
from featurebank.backbones.sources import file_source
from featurebank.backbones.unloaded import UnloadedBackbone
from featurebank.bank.request import StoredRequest
from featurebank.bank.spec import PIXELS, PRECISIONS, FeatureSpec
from featurebank.errors import BackboneError, BankError
from featurebank.images.views import check_encoded, count_views

if TYPE_CHECKING:
    from featurebank.backbones.base import Backbone
    from featurebank.bank.bank import Bank

STORES = ("float16", "float32")


@dataclass
class Request(StoredRequest):
    """A backbone and layers that are asked for; the backbone is loaded only when it is needed.

    Parameters
    ----------
    backbone : str, Backbone or torch.nn.Module
        See `featurebank.load_backbone` and `featurebank.Backbone.from_module`.
    layers : str or sequence of str, default "penultimate"
        ``LAYER[:POOL]``.
    weights, size, store, views, precision, decoder, pixels, framing
        See `featurebank.extract`.

    Raises
    ------
    BankError
        When there is no layer, or `store`, `views`, `precision`, `decoder` or `framing` is unknown, or the decoder
        cannot make the views or the tiles.

    Examples
    --------
    >>> Request("resnet18", ["layer3", "penultimate"], weights="random:0").command("photos", "a.bank")
    'featurebank extract photos --bank a.bank --backbone resnet18 --weights random:0 --layer layer3 --layer penultimate'
    """

    loaded: Backbone | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.layers:
            raise BankError("no layer is asked for; expected at least one, e.g. penultimate")
        for name, choices in {"store": STORES, "precision": PRECISIONS, "decoder": DECODERS}.items():
            if getattr(self, name) not in choices:
                raise BankError(f"{name} {getattr(self, name)!r}; expected one of {', '.join(choices)}")
        if self.framing not in (None, *FRAMINGS):
            raise BankError(f"framing {self.framing!r}; expected one of {', '.join(FRAMINGS)}")
        if self.framing == "crop" and isinstance(self.backbone, str) and file_source(self.backbone) is None:
            self.framing = None  # what every named backbone has
        count_views(self.views)
        if self.decoder == "nvjpeg":
            check_encoded(self.views)
            check_tiles(self.framing)

    def load(self, *, allow_download: bool = True) -> Backbone:
        """Return the backbone, loading it the first time."""
        if self.loaded is None:
            backbone = as_backbone(self.backbone, self.weights, self.size, allow_download=allow_download)
            self.loaded = backbone.with_decoder(self.decoder).with_framing(self.framing).with_pixels(self.pixels)
        return self.loaded

    def known_by(self, spec: FeatureSpec) -> Backbone:
        """Return the backbone that a spec is of; its network is loaded when something asks for it."""
        if self.loaded is not None or not isinstance(self.backbone, str):
            return self.load()
        try:
            known = UnloadedBackbone(spec, self.load)
        except (TypeError, BackboneError):  # a spec of another version
            return self.load()
        known.pixels = replace(spec.pixels, pages=self.pixels.pages)  # a spec has the first page and none chosen alike
        return known

    def spec(self, layer: str) -> FeatureSpec:
        """Return the feature spec of one layer, from the loaded backbone."""
        return self.load().spec(layer, store=self.store, views=self.views, precision=self.precision)

    def specs(self, bank: Bank | None = None) -> list[FeatureSpec]:
        """Return the feature spec of each layer, from earlier requests of a bank or of this machine where there are."""
        known = [None if bank is None else self._known(bank, layer) for layer in self.layers]
        specs = [spec or self._new(bank, layer) for spec, layer in zip(known, self.layers, strict=True)]
        return list(dict.fromkeys(specs))

    def check_unasked(self, bank: Bank) -> None:
        """Refuse to add to a bank what nobody asked for: a set with the defaults beside sets of other options.

        Where only extractors wrote, nothing is refused: a search over options tries the defaults as well.

        Raises
        ------
        BankError
            When all sets of the backbone were made with options that this request leaves at their default.
        """
        asked = [self.to_dict(layer) for layer in self.layers]
        if not bank.sample_segments() or all(kept is None or bank.find_spec(kept) for kept in asked):
            return
        made = [StoredRequest.last(bank, each.spec) for each in bank.feature_sets]
        same = [each for each in made if each is not None and asked[0] and each.backbone == asked[0]["backbone"]]
        others = [", ".join(f"{name}={value!r}" for name, value in self.unasked(each).items()) for each in same]
        if others and all(others):
            ways = " or ".join(dict.fromkeys(others))
            raise BankError(
                f"{str(bank.path)!r} has {self.backbone} with {ways} alone, which is not asked for: "
                f"pass {'one of these' if ' or ' in ways else ways}, or name another bank"
            )

    def register(self, bank: Bank) -> None:
        """Make the feature sets' folders in a bank and keep the request beside them."""
        for layer in self.layers:
            if self._known(bank, layer) is None:
                bank.add_spec(self._new(bank, layer), self.to_dict(layer))

    def to_dict(self, layer: str) -> dict[str, Any] | None:
        """Return what a bank keeps of the request for one layer; None for a module of the user's own."""
        if not isinstance(self.backbone, str):
            return None
        kept = backbone_request(self.backbone, self.weights, self.size)
        kept |= {"layer": layer, "store": self.store, "views": self.views, "precision": self.precision}
        chosen = {"decoder": self.decoder, "framing": self.framing}
        kept |= {name: value for name, value in chosen.items() if value not in ("pil", None)}
        return {**kept, PIXELS: self.pixels.to_dict()} if self.pixels else kept

    def _known(self, bank: Bank, layer: str) -> FeatureSpec | None:
        kept = self.to_dict(layer)
        return None if kept is None else bank.find_spec(kept)

    def _new(self, bank: Bank | None, layer: str) -> FeatureSpec:
        """Return the spec of one layer that a bank does not know."""
        kept = self.to_dict(layer)
        spec = recall(kept) if kept is not None and self.loaded is None else None  # a loaded network says it itself
        if spec is None:
            spec = self._computed(bank, layer)
            if kept is not None:
                remember(kept, spec)
        return spec

    def _computed(self, bank: Bank | None, layer: str) -> FeatureSpec:
        """Return the spec of one layer from the backbone; one that was only ever imported is said to be."""
        try:
            return self.spec(layer)
        except BackboneError as error:
            sets = [] if bank is None else bank.feature_sets
            named = [each.spec for each in sets if each.spec.backbone == self.backbone]
            imported = [spec for spec in named if spec.origin is not None]
            if not imported:
                raise
            raise BankError(f"{imported[0].about_origin}: extract cannot extend it, import a file that does") from error
