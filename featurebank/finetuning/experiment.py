"""What a fine-tuning stands on: a bank, a backbone, images with their labels, a recipe, a device."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from featurebank.backbones.base import Backbone
from featurebank.backbones.devices import choose_device
from featurebank.backbones.request import Request
from featurebank.bank.bank import Bank
from featurebank.bank.spec import PENULTIMATE
from featurebank.errors import FineTuneError, counted
from featurebank.extraction.pipeline import Compute
from featurebank.finetuning.activations import Activations, CachedActivations, LiveActivations, Rows, fill
from featurebank.finetuning.cut import find_cut, layer_at
from featurebank.finetuning.network import Network
from featurebank.finetuning.recipe import Recipe
from featurebank.images.reading import Progress
from featurebank.images.sources import Source
from featurebank.topmodels.class_weights import resolve_class_weight
from featurebank.topmodels.folds import Folds, default_kind, make_folds, tie


@dataclass(frozen=True)
class TrainingSet:
    """What is known about the images that are learned from, in their order.

    Attributes
    ----------
    y : ndarray, shape (n,)
        Classes.
    digests : list of bytes
        Contents; rows of the same content stay together.
    groups : ndarray, shape (n,), or None
        Rows that stay together.
    weight : ndarray of float64, shape (n,), or None
        What each row counts.
    """

    y: NDArray[Any]
    digests: list[bytes]
    groups: NDArray[Any] | None = None
    weight: NDArray[np.float64] | None = None

    def take(self, rows: Rows) -> TrainingSet:
        """Return some of the rows."""
        groups, weight = (None if each is None else each[rows] for each in (self.groups, self.weight))
        return TrainingSet(self.y[rows], [self.digests[row] for row in rows], groups, weight)

    @cached_property
    def classes(self) -> NDArray[Any]:
        """The classes, sorted."""
        return np.unique(self.y)

    @cached_property
    def codes(self) -> NDArray[np.int64]:
        """The number of each row's class."""
        return np.searchsorted(self.classes, self.y)

    @property
    def ties(self) -> NDArray[np.int64] | None:
        """Groups that also hold the same content together; None where nothing ties rows."""
        keys = [np.array([digest.hex() for digest in self.digests])]
        if self.groups is None and len(set(self.digests)) == len(self.digests):
            return None
        return tie(*keys, *([] if self.groups is None else [self.groups]))


def hold_out(data: TrainingSet, rows: Rows, share: float, random_state: int) -> tuple[Rows, Rows]:
    """Divide rows into those that train and those that choose the epoch, stratified, rows of one group together.

    About `share` of them choose the epoch; 0 for none.

    Raises
    ------
    FineTuneError
        When too few rows are left to train on.
    TopModelError
        When the rows cannot be divided so.
    """
    if len(data.classes) < 2:
        raise FineTuneError(f"{counted(len(data.y), 'row')} of one class; expected two classes or more")
    train, validation = _divided(data, rows, share, random_state) if share else (rows, rows[:0])
    lost = sorted(set(data.classes.tolist()) - set(data.y[train].tolist()))
    if lost:
        raise FineTuneError(
            f"class {lost[0]!r} has no row to train on; expected more of its rows or groups, or --validation 0"
        )
    return train, validation


def _divided(data: TrainingSet, rows: Rows, share: float, random_state: int) -> tuple[Rows, Rows]:
    part = data.take(rows)
    units = np.arange(len(rows)) if part.ties is None else part.ties
    largest = max(len(np.unique(units[part.y == name])) for name in np.unique(part.y))
    kind = default_kind("classification", part.ties is not None)
    folds = Folds(kind, max(2, min(round(1 / share), largest)), random_state=random_state)
    train, validation = make_folds(folds, np.zeros((len(rows), 1)), part.y, part.ties, random_state)[0]
    return rows[train], rows[validation]


@dataclass(frozen=True)
class Experiment:
    """What a fine-tuning stands on.

    Attributes
    ----------
    bank : Bank
        Where activations are kept.
    request : Request
        The backbone, as it was asked for.
    source : Source
        The images.
    data : TrainingSet
        In the order of the source.
    recipe : Recipe
    device_name : str, default "auto"
    workers : int, optional
        Threads that read and decode; by default one a core.
    """

    bank: Bank
    request: Request
    source: Source
    data: TrainingSet
    recipe: Recipe
    device_name: str = "auto"
    workers: int | None = None

    @cached_property
    def device(self) -> torch.device:
        """Where it is computed."""
        return choose_device(self.device_name)

    @cached_property
    def _cached_request(self) -> Request:
        views = self.recipe.cached_views if self.recipe.is_cached else "none"
        return replace(self.request, layers=PENULTIMATE, store=self.recipe.store, views=views, precision="fp32")

    @property
    def backbone(self) -> Backbone:
        """The backbone, loaded once."""
        return self._cached_request.load()

    @cached_property
    def class_weight(self) -> Any:
        """The class weights of the recipe, under the classes themselves."""
        return resolve_class_weight(self.recipe.class_weight, self.data.y)

    @cached_property
    def module(self) -> str:
        """The module at the cut, empty for the whole network."""
        return find_cut(self.backbone, self.recipe.cut)

    @property
    def cut_request(self) -> Request:
        """The request for the activations at the cut."""
        layer = layer_at(self.backbone, self.module)
        return replace(self._cached_request, layers=[layer.name if layer.layout == "vector" else f"{layer.name}:none"])

    @property
    def missing(self) -> int:
        """How many images the bank lacks activations of; 0 where none are kept."""
        if not self.recipe.is_cached:
            return 0
        (spec,) = self.cut_request.specs(self.bank)
        return len(self.bank.missing(spec, self.data.digests))

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
        if self.backbone.framing == "tiles":
            raise FineTuneError(
                "features of tiles are averages over several pictures, and fine-tuning learns from one an image; "
                "expected features that were extracted with --fit crop, squash or pad"
            )
        self.network().blocks()
        _ = self.class_weight

    def activations(self, progress: Progress | None = None) -> tuple[Activations, list[str]]:
        """Return the input of the module at the cut, cached in the bank or live, and what the reader should know.

        Raises
        ------
        ImageError
            When an image whose activations are missing cannot be read.
        """
        if self.recipe.is_cached:
            compute = Compute(device=self.device_name, workers=self.workers)
            notes = fill(self.bank, self.cut_request, self.source, self.data.digests, compute, progress)
            (spec,) = self.cut_request.specs(self.bank)
            return CachedActivations(self.bank.feature_set_of(spec), self.data.digests), notes
        live = LiveActivations(
            self.backbone,
            self.module,
            self.source,
            self.data.digests,
            augment=self.recipe.changes,
            views=self.recipe.views,
            device=self.device,
            workers=self.workers,
        )
        return live, []
