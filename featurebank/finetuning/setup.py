"""What a fine-tuning stands on: a bank, a backbone, images with their labels, a recipe, a device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from featurebank.backbones.base import Backbone
from featurebank.backbones.engine import choose_device
from featurebank.bank.bank import Bank
from featurebank.bank.spec import PENULTIMATE
from featurebank.errors import FineTuneError
from featurebank.extraction.pipeline import Compute
from featurebank.extraction.request import Ask, ask
from featurebank.finetuning.blocks import active
from featurebank.finetuning.cache import Cached, fill
from featurebank.finetuning.cut import find_cut, layer_at
from featurebank.finetuning.labels import Labels
from featurebank.finetuning.live import Live
from featurebank.finetuning.network import Feed, Network
from featurebank.finetuning.recipe import Recipe
from featurebank.images.sources import Source
from featurebank.topmodels.class_weights import resolve_class_weight


@dataclass(frozen=True)
class Origin:
    """A backbone as it is asked for, by `featurebank.load_backbone` or as an object, and a decoder."""

    backbone: Any
    weights: str = "DEFAULT"
    size: int | None = None
    decoder: str = "pil"

    def __str__(self) -> str:
        more = [self.weights] * (self.weights != "DEFAULT") + [f"{self.size} px"] * (self.size is not None)
        return f"{self.backbone} ({', '.join(more)})" if more else str(self.backbone)


@dataclass(frozen=True)
class Setup:
    """What a fine-tuning stands on.

    Attributes
    ----------
    bank : Bank
        Where activations are kept.
    origin : Origin
    source : Source
        The images.
    labels : Labels
        In the order of the source.
    recipe : Recipe
    device_name : str, default "auto"
    workers : int, optional
        Threads that read and decode; by default one a core.
    """

    bank: Bank
    origin: Origin
    source: Source
    labels: Labels
    recipe: Recipe
    device_name: str = "auto"
    workers: int | None = None

    @cached_property
    def device(self) -> torch.device:
        """Where it is computed."""
        return choose_device(self.device_name)

    @cached_property
    def _asked(self) -> Ask:
        views = self.recipe.cached_views if self.recipe.is_cached else "none"
        return ask(
            self.origin.backbone,
            PENULTIMATE,
            weights=self.origin.weights,
            size=self.origin.size,
            store=self.recipe.store,
            views=views,
            decoder=self.origin.decoder,
        )

    @property
    def backbone(self) -> Backbone:
        """The backbone, loaded once."""
        return self._asked.load()

    @cached_property
    def class_weight(self) -> Any:
        """The class weights of the recipe, under the classes themselves."""
        return resolve_class_weight(self.recipe.class_weight, self.labels.y)

    @cached_property
    def module(self) -> str:
        """The module at the cut, empty for the whole network."""
        return find_cut(self.backbone, self.recipe.cut)

    @property
    def wanted(self) -> Ask:
        """The request for the activations at the cut."""
        layer = layer_at(self.backbone, self.module)
        return replace(self._asked, layers=[layer.name if layer.layout == "vector" else f"{layer.name}:none"])

    @property
    def missing(self) -> int:
        """How many images the bank lacks activations of; 0 where none are kept."""
        if not self.recipe.is_cached:
            return 0
        (spec,) = self.wanted.specs(self.bank)
        return len(self.bank.missing(spec, self.labels.digests))

    def network(self) -> Network:
        """Return the tail of the backbone, with the head that it has."""
        recipe = self.recipe
        return Network(
            self.backbone,
            recipe.cut,
            self.device,
            precision=recipe.precision,
            trains_batchnorm=recipe.trains_batchnorm,
        )

    def check(self) -> None:
        """Refuse what cannot be had before anything is computed.

        Raises
        ------
        FeatureBankError
            A child of it says what was found, what was expected and what to do.
        """
        if self.recipe.precision == "fp16" and self.device.type != "cuda":
            raise FineTuneError(
                f"precision fp16 trains on a GPU, not on {self.device.type}; expected fp32 or bf16 here"
            )
        active(self.network().blocks(), self.recipe.unfreeze, 1)
        _ = self.class_weight

    def feed(self, progress: Callable[[int, int], None] | None = None) -> tuple[Feed, list[str]]:
        """Return the input of the module at the cut, cached in the bank or live, and what the reader should know.

        Parameters
        ----------
        progress : callable, optional
            Called with (images done, images in all) while the bank is filled.

        Raises
        ------
        ImageError
            When an image whose activations are missing cannot be read.
        """
        if self.recipe.is_cached:
            compute = Compute(device=self.device_name, workers=self.workers)
            notes = fill(self.bank, self.wanted, self.source, self.labels.digests, compute, progress)
            (spec,) = self.wanted.specs(self.bank)
            return Cached(self.bank.feature_set_of(spec), self.labels.digests), notes
        live = Live(
            self.backbone,
            self.module,
            self.source,
            self.labels.digests,
            augment=self.recipe.changes,
            views=self.recipe.views,
            device=self.device,
            workers=self.workers,
        )
        return live, []
