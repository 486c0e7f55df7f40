"""One fine-tuning: rows held out, a head from frozen embeddings, the training."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline
from torch import nn

from featurebank.backbones.base import Backbone
from featurebank.backbones.preprocessing import Preprocessing
from featurebank.backbones.registry import build_backbone, dump_tensors, load_backbone
from featurebank.bank.spec import PENULTIMATE, digest_of
from featurebank.errors import FineTuneError
from featurebank.finetuning.activations import Activations
from featurebank.finetuning.checkpoint import dump, read, restore
from featurebank.finetuning.experiment import Experiment, Rows, hold_out
from featurebank.finetuning.head import fit_head, fold, random_layers, to_layers, to_model
from featurebank.finetuning.network import Block, Network, rates
from featurebank.finetuning.optimization import full_weights
from featurebank.finetuning.recipe import Recipe
from featurebank.finetuning.training import Epoch, Trainer, TrainerState, has_diverged
from featurebank.images.reading import Progress
from featurebank.images.views import count_views
from featurebank.predictor.features import EMBEDDED, PredictorFeature
from featurebank.predictor.predictor import Predictor
from featurebank.predictor.task import Task
from featurebank.storage import files


@dataclass(frozen=True)
class Trained:
    """A network after its training, with the best epoch's weights.

    Attributes
    ----------
    network : Network
    blocks : list of Block
        What trained, from the cut to the head.
    state : TrainerState
        History, best epoch, and whether it was interrupted.
    n_train, n_validation : int
    """

    network: Network
    blocks: list[Block]
    state: TrainerState
    n_train: int
    n_validation: int


def train_network(
    experiment: Experiment,
    activations: Activations,
    *,
    rows: Rows | None = None,
    top_model: Pipeline | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
    on_step: Progress | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
) -> Trained:
    """Fine-tune a copy of a backbone's upper part.

    Parameters
    ----------
    experiment : Experiment
    activations : Activations
        The input of the module at the cut (`Experiment.activations`).
    rows : ndarray of int64, optional
        The rows to learn from; by default all.
    top_model : Pipeline, optional
        A logistic regression whose parameters the head takes over; by default they are cross-validated.
    on_epoch, on_step : callable, optional
        Called with each `Epoch`, and with (steps done, steps in all).
    checkpoint : Path, optional
        A file that is written after each epoch.
    resume : bool, default False
        Go on where that file was written.
    """
    recipe = experiment.recipe
    rows = np.arange(len(experiment.data.y)) if rows is None else rows
    train, validation = hold_out(experiment.data, rows, recipe.validation, recipe.random_state)
    network = _start(experiment, activations, train, top_model)
    key = _key(experiment, rows)
    save = None if checkpoint is None else lambda trainer: files.commit(checkpoint, dump(trainer, key))
    told: dict[str, Any] = {"on_epoch": on_epoch, "on_step": on_step, "on_checkpoint": save}
    trainer = Trainer(experiment, network, activations, train, validation, **told)
    if resume:
        restore(trainer, read(checkpoint), key)
    state = trainer.run()
    if recipe.refit and state.best_epoch and len(validation) and not state.interrupted:
        network = _start(experiment, activations, rows, top_model)
        again = Trainer(experiment, network, activations, rows, validation[:0])
        if not again.run(state.best_epoch).interrupted:
            trainer = again
    return Trained(trainer.network, trainer.blocks, state, len(trainer.train), len(validation))


def _start(experiment: Experiment, activations: Activations, train: Rows, top_model: Pipeline | None) -> Network:
    """Return the network with the weights, and the head, that training starts from."""
    network, recipe, part = experiment.network(), experiment.recipe, experiment.data.take(train)
    if recipe.init == "random":
        _randomize(network, experiment.backbone, recipe.random_state)
        classes = len(experiment.data.classes)
        network.set_head(random_layers(network.width, classes, recipe.head, recipe.random_state))
        return network
    fitted = fit_head(
        network.embeddings(activations, train, count_views(recipe.views), recipe.batch_size),
        part.y,
        head=recipe.head,
        top_model=top_model,
        groups=part.ties,
        sample_weight=part.weight,
        class_weight=experiment.class_weight,
        random_state=recipe.random_state,
    )
    total = full_weights(part.y, part.weight, experiment.class_weight).sum()
    network.set_head(to_layers(fitted, float(total)))
    return network


def _randomize(network: Network, backbone: Backbone, seed: int) -> None:
    """Draw the weights from the cut on anew, as the architecture's own code does."""
    if not backbone.is_named:
        raise FineTuneError(
            f"{backbone.name!r} is your own module, which cannot be built anew; expected --init pretrained: "
            "give it random weights yourself"
        )
    fresh = load_backbone(backbone.name, f"random:{seed}", backbone.input_size[0]).model.state_dict()
    state = network.tail.network.state_dict()
    head = f"{network.head}."
    drawn = {name: old if name.startswith(head) else fresh[name] for name, old in state.items()}
    network.tail.network.load_state_dict(drawn)


def _key(experiment: Experiment, rows: Rows) -> str:
    """Return a digest of everything that a training depends on, but for how many epochs it may take."""
    data, recipe = experiment.data, replace(experiment.recipe, epochs=1)
    facts: dict[str, Any] = {
        "backbone": experiment.backbone.weights,
        "recipe": {name: str(value) for name, value in recipe.to_dict().items()},
        "rows": [[data.digests[row].hex(), str(data.y[row])] for row in rows],
        "weight": None if data.weight is None else data.weight[rows].tolist(),
    }
    return digest_of(facts)


_AUXILIARY = "aux"
"""Heads that only the first training of a network had; nothing here trains them, and a new head cannot go with them."""


@dataclass(frozen=True, repr=False)
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

    def __repr__(self) -> str:
        return f"<Tuned: {self.backbone.name}, epoch {self.best.number}, score {self.best.score}>"

    @property
    def best(self) -> Epoch:
        """The epoch whose weights these are."""
        return self.trained.state.history[self.trained.state.best_epoch]

    def to_dict(self) -> dict[str, Any]:
        """Return what there is to say about the training, as JSON can hold it."""
        blocks, state = self.trained.blocks, self.trained.state
        by_block = zip(blocks, rates(blocks, state.rate, self.recipe.lr_decay), strict=True)
        return {
            "n_train": self.trained.n_train,
            "n_validation": self.trained.n_validation,
            "classes": self.classes.tolist(),
            "backbone": self.backbone.name,
            "weights": self.backbone.weights,
            "recipe": self.recipe.to_dict(),
            "lr": state.rate,
            "blocks": [
                {"name": block.name, "parameters": sum(each.numel() for each in block.parameters.values()), "lr": rate}
                for block, rate in by_block
            ],
            "history": [epoch.to_dict() for epoch in state.history],
            "start": state.history[0].to_dict(),
            "best": self.best.to_dict(),
            "average_share": state.share,
            "diverged": has_diverged(state.history, len(self.classes)),
            "interrupted": state.interrupted,
        }

    def predictor(self, target: str = "label", report: Mapping[str, Any] | None = None) -> Predictor:
        """Return the predictor: the penultimate embeddings of this backbone, and the head behind them.

        Parameters
        ----------
        target : str, default "label"
            Name of what it predicts.
        report : mapping, optional
            The report of the run that made it.
        """
        spec = self.backbone.spec(PENULTIMATE, store=self.recipe.store, views=self.recipe.views)
        facts = dict(report or {})
        if not self.backbone.is_named:
            feature = PredictorFeature(spec, "", None)
            return Predictor(Task([feature], self.model, target, report=facts), backbone=self.backbone)
        feature = PredictorFeature(spec, EMBEDDED, self.backbone.input_size[0])
        tensors = {spec.weights: dump_tensors(self.backbone)}
        task = Task([feature], self.model, target, report=facts)
        return Predictor(task, tensors=tensors, backbone=self.backbone)


def finish(experiment: Experiment, trained: Trained) -> Tuned:
    """Make what is shipped of a trained network."""
    classes = experiment.data.classes
    trained.network.set_head(fold(trained.network.layers))
    backbone = _with_weights(experiment.backbone, trained.network)
    return Tuned(backbone, to_model(trained.network.layers, classes), classes, experiment.recipe, trained)


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
        built = build_backbone(backbone.name, state, backbone.preprocessing, backbone.input_size[0])
        return built.with_pixels(backbone.pixels)
    model = copy.deepcopy(backbone.model).cpu()
    if is_linear:
        parent, _, name = network.head.rpartition(".")
        setattr(model.get_submodule(parent), name, copy.deepcopy(network.layers).cpu())
    model.load_state_dict(whole)
    return replace(backbone, model=model)
