"""A fine-tuned network: a backbone of its own, and the predictor that ships it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray
from sklearn.pipeline import Pipeline
from torch import Tensor, nn

from featurebank.backbones import Backbone, Preprocessing, build_backbone, dump_tensors
from featurebank.finetune.blocks import Block, rates
from featurebank.finetune.head import to_model
from featurebank.finetune.network import Network
from featurebank.finetune.recipe import Recipe
from featurebank.finetune.training import Epoch, Progress
from featurebank.layers import PENULTIMATE
from featurebank.predictor import Predictor
from featurebank.predictor_file import EMBEDDED, PredictorFeature

_AUXILIARY = "aux"
"""Heads that only the first training of a network had; nothing here trains them, and a new head cannot go with them."""


@dataclass(frozen=True)
class Tuned:
    """A fine-tuned network.

    Attributes
    ----------
    backbone : Backbone
        The network with the best epoch's weights: another weights digest, hence other feature sets. Its last
        classifier is the trained head; where that has hidden units, it is the one that the network had before.
    model : Pipeline
        The head, as a top model of the penultimate embeddings.
    classes : ndarray, shape (k,)
    blocks : list of Block
        What trained, from the cut to the head.
    recipe : Recipe
    progress : Progress
        History, best epoch, and whether it was interrupted.
    n_train, n_validation : int
    """

    backbone: Backbone
    model: Pipeline
    classes: NDArray[Any]
    blocks: list[Block]
    recipe: Recipe
    progress: Progress
    n_train: int
    n_validation: int

    @property
    def best(self) -> Epoch:
        """The epoch whose weights these are."""
        return self.progress.history[self.progress.best_epoch]

    def report(self) -> dict[str, Any]:
        """Return what there is to say about the training, as JSON can hold it."""
        by_block = zip(self.blocks, rates(self.blocks, self.progress.rate, self.recipe.lr_decay), strict=True)
        return {
            "n_train": self.n_train,
            "n_validation": self.n_validation,
            "classes": self.classes.tolist(),
            "backbone": self.backbone.name,
            "weights": self.backbone.weights,
            "recipe": self.recipe.to_dict(),
            "lr": self.progress.rate,
            "blocks": [
                {"name": block.name, "parameters": sum(each.numel() for each in block.parameters.values()), "lr": rate}
                for block, rate in by_block
            ],
            "history": [epoch.to_dict() for epoch in self.progress.history],
            "start": self.progress.history[0].to_dict(),
            "best": self.best.to_dict(),
            "average_share": self.progress.share,
            "interrupted": self.progress.interrupted,
        }

    def predictor(self, target: str = "label", fit: Mapping[str, Any] | None = None) -> Predictor:
        """Return the predictor: the penultimate embeddings of this backbone, and the head behind them.

        Parameters
        ----------
        target : str, default "label"
            Name of what it predicts.
        fit : mapping, optional
            The report of the run that made it.
        """
        spec = self.backbone.spec(PENULTIMATE, views=self.recipe.views)
        if not is_named(self.backbone):
            feature = PredictorFeature(spec, "", None)
            return Predictor([feature], self.model, target, fit=fit, backbone=self.backbone)
        feature = PredictorFeature(spec, EMBEDDED, self.backbone.input_size[0])
        tensors = {spec.weights: dump_tensors(self.backbone)}
        return Predictor([feature], self.model, target, fit=fit, tensors=tensors, backbone=self.backbone)


def finish(
    backbone: Backbone,
    network: Network,
    classes: NDArray[Any],
    blocks: list[Block],
    recipe: Recipe,
    progress: Progress,
    counts: tuple[int, int],
) -> Tuned:
    """Make what is shipped of a trained network."""
    trained = {name: tensor.cpu() for name, tensor in network.tail.network.state_dict().items()}
    model = to_model(network.layers, classes)
    tuned = _with_weights(backbone, network, trained)
    return Tuned(tuned, model, classes, blocks, recipe, progress, *counts)


def is_named(backbone: Backbone) -> bool:
    """Say whether a backbone can be built anew from its name and tensors."""
    return not backbone.version and isinstance(backbone.preprocessing, Preprocessing)


def _with_weights(backbone: Backbone, network: Network, trained: dict[str, Tensor]) -> Backbone:
    """Return the backbone with the trained tensors in the place of its own."""
    head = f"{network.head}."
    is_linear = isinstance(network.layers, nn.Linear)
    kept = {name: tensor for name, tensor in trained.items() if is_linear or not name.startswith(head)}
    whole = {name: tensor.cpu() for name, tensor in backbone.model.state_dict().items()} | kept
    if is_named(backbone):
        assert isinstance(backbone.preprocessing, Preprocessing)
        state = {name: tensor for name, tensor in whole.items() if not name.lower().startswith(_AUXILIARY)}
        return build_backbone(backbone.name, state, backbone.preprocessing, backbone.input_size[0])
    model = copy.deepcopy(backbone.model).cpu()
    if is_linear:
        parent, _, name = network.head.rpartition(".")
        setattr(model.get_submodule(parent), name, copy.deepcopy(network.layers).cpu())
    model.load_state_dict(whole)
    return replace(backbone, model=model)
