"""What a bank keeps of a request: which backbone was asked for, with which options, and the command that asks again.

Nothing here can load a backbone: `featurebank.backbones.request.Request` does that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

from featurebank.bank.spec import PENULTIMATE, FeatureSpec
from featurebank.errors import CorruptError, shell_command
from featurebank.images.pixels import PLAIN, PixelRules

if TYPE_CHECKING:
    from featurebank.bank.features import FeatureSet
    from featurebank.bank.folder import BankFolder

DEFAULT_BACKBONE = "efficientnet_lite0"


@dataclass
class StoredRequest:
    """A backbone and layers as they are asked for.

    Parameters
    ----------
    backbone : str, Backbone or torch.nn.Module
    layers : str or sequence of str, default "penultimate"
        ``LAYER[:POOL]``.
    weights : str, default "DEFAULT"
    size : int, optional
        Input size in pixels.
    store, views, precision, decoder : str
        See `featurebank.extract`.
    pixels : PixelRules
        What of an image's values, pages and channels is seen.
    framing : str, optional
        See `featurebank.extract`; by default what the backbone has.
    """

    backbone: Any
    layers: str | Sequence[str] = PENULTIMATE
    weights: str = "DEFAULT"
    size: int | None = None
    store: str = "float16"
    views: str = "none"
    precision: str = "fp32"
    decoder: str = "pil"
    pixels: PixelRules = PLAIN
    framing: str | None = None

    def __post_init__(self) -> None:
        self.layers = [self.layers] if isinstance(self.layers, str) else list(self.layers)

    def __str__(self) -> str:
        more = [self.weights] * (self.weights != "DEFAULT") + [f"{self.size} px"] * (self.size is not None)
        more += [f"--fit {self.framing}"] * (self.framing is not None)
        return f"{self.backbone} ({', '.join(more)})" if more else str(self.backbone)

    @classmethod
    def last(cls, bank: BankFolder, spec: FeatureSpec) -> Self | None:
        """Return the request that led to a feature set last; None for a module of the user's own, or imported rows.

        Raises
        ------
        CorruptError
            When the request beside the feature set is damaged.
        """
        found = bank.requests_of(spec)
        return cls.of_set(found[-1], spec) if found else None

    @classmethod
    def of_set(cls, asked: Mapping[str, Any], spec: FeatureSpec) -> Self:
        """Return the request for a feature set, from what is kept of it beside the spec.

        Raises
        ------
        CorruptError
            When what is kept is no request.
        """
        if not isinstance(asked, Mapping):
            raise CorruptError(f"a request of {spec.name!r} is damaged; restore it, or extract into a new bank")
        backbone, weights = asked.get("backbone", spec.backbone), asked.get("weights", "DEFAULT")
        decoder = spec.preprocessing.get("decoder", "pil")
        framing = asked.get("framing", spec.preprocessing.get("framing"))
        how = spec.store, spec.views, spec.precision, decoder, spec.pixels, framing
        return cls(backbone, spec.layer_name, weights, asked.get("size"), *how)

    @classmethod
    def readable(cls, bank: BankFolder, spec: FeatureSpec) -> Self | None:
        """Return `last`, and None where it is damaged: no reason to hide what else there is to say."""
        try:
            return cls.last(bank, spec)
        except CorruptError:
            return None

    def options(self) -> dict[str, Any]:
        """Return the options of ``featurebank extract`` that ask for this, None for those that are the default."""
        return {
            "--backbone": self.backbone if self.backbone != DEFAULT_BACKBONE else None,
            "--weights": self.weights if self.weights != "DEFAULT" else None,
            "--size": self.size,
            "--views": self.views if self.views != "none" else None,
            "--store": self.store if self.store != "float16" else None,
            "--precision": self.precision if self.precision != "fp32" else None,
            "--decoder": self.decoder if self.decoder != "pil" else None,
            "--fit": self.framing,
            **self.pixels.options(),
        }

    def unasked(self, other: StoredRequest) -> dict[str, Any]:
        """Return the options in which another request differs from this one, where this one has the default.

        Examples
        --------
        >>> StoredRequest("resnet18", views="hflip").unasked(StoredRequest("resnet18", size=64))
        {'size': 64}
        """
        own = self.options()
        return {
            option.removeprefix("--").replace("-", "_"): value
            for option, value in other.options().items()
            if own[option] is None and value is not None
        }

    def command(
        self, source: str, bank: object, root: str = "", named: Mapping[str, str] = MappingProxyType({})
    ) -> str:
        """Return the command that embeds a source for this request; `named` is `BankFolder.named_options` of it."""
        options = {"--bank": bank, **self.options(), **named}
        layers = [("--layer", layer) for layer in self.layers]
        return shell_command("extract", source, [*options.items(), *layers, ("--root", root or None)])


def describe_set(bank: BankFolder, each: FeatureSet) -> dict[str, Any]:
    """Return the facts of a feature set of a bank, with the ``options`` it was asked for that are not the default."""
    request = StoredRequest.readable(bank, each.spec) or StoredRequest.of_set({}, each.spec)
    return {**each.to_dict(), "options": StoredRequest(request.backbone).unasked(request)}
