"""A fine-tuned network: a backbone of its own, and the predictor that ships it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline
from torch import nn

from featurebank.backbones.base import Backbone
from featurebank.backbones.preprocessing import Preprocessing
from featurebank.backbones.registry import build_backbone, dump_tensors
from featurebank.bank.spec import PENULTIMATE
from featurebank.finetuning.blocks import rates
from featurebank.finetuning.head import fold, to_model
from featurebank.finetuning.network import Network
from featurebank.finetuning.progress import Epoch
from featurebank.finetuning.recipe import Recipe
from featurebank.finetuning.setup import Setup
from featurebank.finetuning.tuning import Trained
from featurebank.predictor.file import EMBEDDED, PredictorFeature
from featurebank.predictor.predictor import Predictor

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
    recipe : Recipe
    trained : Trained
        How it came about.
    """

    backbone: Backbone
    model: Pipeline
    classes: NDArray[Any]
    recipe: Recipe
    trained: Trained

    @property
    def best(self) -> Epoch:
        """The epoch whose weights these are."""
        return self.trained.progress.history[self.trained.progress.best_epoch]

    def report(self) -> dict[str, Any]:
        """Return what there is to say about the training, as JSON can hold it."""
        blocks, progress = self.trained.blocks, self.trained.progress
        by_block = zip(blocks, rates(blocks, progress.rate, self.recipe.lr_decay), strict=True)
        return {
            "n_train": self.trained.n_train,
            "n_validation": self.trained.n_validation,
            "classes": self.classes.tolist(),
            "backbone": self.backbone.name,
            "weights": self.backbone.weights,
            "recipe": self.recipe.to_dict(),
            "lr": progress.rate,
            "blocks": [
                {"name": block.name, "parameters": sum(each.numel() for each in block.parameters.values()), "lr": rate}
                for block, rate in by_block
            ],
            "history": [epoch.to_dict() for epoch in progress.history],
            "start": progress.history[0].to_dict(),
            "best": self.best.to_dict(),
            "average_share": progress.share,
            "interrupted": progress.interrupted,
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
        spec = self.backbone.spec(PENULTIMATE, store=self.recipe.store, views=self.recipe.views)
        if not self.backbone.is_named:
            feature = PredictorFeature(spec, "", None)
            return Predictor([feature], self.model, target, fit=fit, backbone=self.backbone)
        feature = PredictorFeature(spec, EMBEDDED, self.backbone.input_size[0])
        tensors = {spec.weights: dump_tensors(self.backbone)}
        return Predictor([feature], self.model, target, fit=fit, tensors=tensors, backbone=self.backbone)


def finish(setup: Setup, trained: Trained) -> Tuned:
    """Make what is shipped of a trained network."""
    classes = np.unique(setup.labels.y)
    trained.network.set_head(fold(trained.network.layers))
    backbone = _with_weights(setup.backbone, trained.network)
    return Tuned(backbone, to_model(trained.network.layers, classes), classes, setup.recipe, trained)


def _with_weights(backbone: Backbone, network: Network) -> Backbone:
    """Return the backbone with the trained tensors in the place of its own."""
    trained = {name: tensor.cpu() for name, tensor in network.tail.network.state_dict().items()}
    head = f"{network.head}."
    is_linear = isinstance(network.layers, nn.Linear)
    kept = {name: tensor for name, tensor in trained.items() if is_linear or not name.startswith(head)}
    whole = {name: tensor.cpu() for name, tensor in backbone.model.state_dict().items()} | kept
    if backbone.is_named:
        assert isinstance(backbone.preprocessing, Preprocessing)
        state = {name: tensor for name, tensor in whole.items() if not name.lower().startswith(_AUXILIARY)}
        return build_backbone(backbone.name, state, backbone.preprocessing, backbone.input_size[0])
    model = copy.deepcopy(backbone.model).cpu()
    if is_linear:
        parent, _, name = network.head.rpartition(".")
        setattr(model.get_submodule(parent), name, copy.deepcopy(network.layers).cpu())
    model.load_state_dict(whole)
    return replace(backbone, model=model)
