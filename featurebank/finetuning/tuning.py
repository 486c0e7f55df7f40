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
from featurebank.finetuning import checkpoint
from featurebank.finetuning.head import fit_head, fold, random_layers, to_layers, to_model
from featurebank.finetuning.network import Block, Feed, Network, rates
from featurebank.finetuning.optimization import full_weights, row_weights
from featurebank.finetuning.recipe import Recipe
from featurebank.finetuning.setup import Rows, Setup, hold_out
from featurebank.finetuning.training import Data, Epoch, Progress, Training
from featurebank.images.views import count_views
from featurebank.predictor.file import EMBEDDED, PredictorFeature
from featurebank.predictor.predictor import Predictor
from featurebank.storage import files


@dataclass(frozen=True)
class Watch:
    """Who is told how a fine-tuning goes, and where it is kept.

    Attributes
    ----------
    on_epoch : callable, optional
        Called with each `Epoch`.
    on_step : callable, optional
        Called with (steps done, steps in all).
    checkpoint : Path, optional
        A file that is written after each epoch.
    resume : bool
        Whether to go on where that file was written.
    """

    on_epoch: Callable[[Epoch], None] | None = None
    on_step: Callable[[int, int], None] | None = None
    checkpoint: Path | None = None
    resume: bool = False

    def saved(self) -> bytes:
        """Return what the checkpoint holds.

        Raises
        ------
        FineTuneError
            When there is none.
        """
        if self.checkpoint is None or not self.checkpoint.is_file():
            where = str(self.checkpoint)
            raise FineTuneError(f"no checkpoint at {where!r} to resume from; leave out --resume to begin anew")
        return self.checkpoint.read_bytes()


@dataclass(frozen=True)
class Trained:
    """A network after its training, with the best epoch's weights.

    Attributes
    ----------
    network : Network
    blocks : list of Block
        What trained, from the cut to the head.
    progress : Progress
        History, best epoch, and whether it was interrupted.
    n_train, n_validation : int
    """

    network: Network
    blocks: list[Block]
    progress: Progress
    n_train: int
    n_validation: int


def train_network(
    setup: Setup,
    feed: Feed,
    *,
    rows: Rows | None = None,
    top_model: Pipeline | None = None,
    watch: Watch | None = None,
) -> Trained:
    """Fine-tune a copy of a backbone's upper part.

    Parameters
    ----------
    setup : Setup
    feed : Feed
        The input of the module at the cut (`Setup.feed`).
    rows : ndarray of int64, optional
        The rows to learn from; by default all.
    top_model : Pipeline, optional
        A logistic regression whose parameters the head takes over; by default they are cross-validated.
    watch : Watch, optional

    Raises
    ------
    FeatureBankError
        A child of it says what was found, what was expected and what to do.
    """
    watch, recipe = watch or Watch(), setup.recipe
    rows = np.arange(len(setup.labels.y)) if rows is None else rows
    train, validation = hold_out(setup.labels, rows, recipe.validation, recipe.random_state)
    training = _training(setup, feed, train, validation, top_model, watch)
    key = _key(setup, rows)
    training.on_checkpoint = _saver(watch.checkpoint, key)
    if watch.resume:
        checkpoint.restore(training, watch.saved(), key)
    progress = training.run()
    if recipe.refit and progress.best_epoch and len(validation) and not progress.interrupted:
        again = _training(setup, feed, rows, validation[:0], top_model, Watch())
        if not again.run(progress.best_epoch).interrupted:
            training = again
    return Trained(training.network, training.blocks, progress, len(training.data.train), len(validation))


def _training(
    setup: Setup, feed: Feed, train: Rows, validation: Rows, top_model: Pipeline | None, watch: Watch
) -> Training:
    """Return a training that is about to begin."""
    network = setup.network()
    _start(setup, network, feed, train, top_model)
    data = _data(setup, feed, train, validation)
    return Training(network, data, setup.recipe, on_epoch=watch.on_epoch, on_step=watch.on_step)


def _data(setup: Setup, feed: Feed, train: Rows, validation: Rows) -> Data:
    """Return the rows as the training takes them; the loss counts the training rows 1 on average."""
    labels = setup.labels
    part = labels.take(train)
    weight = np.ones(len(labels.y), np.float32)
    weight[train] = row_weights(part.y, part.weight, setup.class_weight)
    codes = np.unique(labels.y, return_inverse=True)[1]
    return Data(feed, codes, weight, labels.weight, train, validation)


def _start(setup: Setup, network: Network, feed: Feed, train: Rows, top_model: Pipeline | None) -> None:
    """Give the network the weights, and the head, that training starts from."""
    recipe, part = setup.recipe, setup.labels.take(train)
    if recipe.init == "random":
        _randomize(network, setup.backbone, recipe.random_state)
        classes = len(np.unique(setup.labels.y))
        network.set_head(random_layers(network.width, classes, recipe.head, recipe.random_state))
        return
    X = network.embeddings(feed, train, count_views(recipe.views), recipe.batch_size)
    fitted = fit_head(
        X,
        part.y,
        head=recipe.head,
        top_model=top_model,
        groups=part.ties,
        sample_weight=part.weight,
        class_weight=setup.class_weight,
        random_state=recipe.random_state,
    )
    total = full_weights(part.y, part.weight, setup.class_weight).sum()
    network.set_head(to_layers(fitted, float(total)))


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


def _key(setup: Setup, rows: Rows) -> str:
    """Return a digest of everything that a training depends on, but for how many epochs it may take."""
    labels, recipe = setup.labels, replace(setup.recipe, epochs=1)
    facts: dict[str, Any] = {
        "backbone": setup.backbone.weights,
        "recipe": {name: str(value) for name, value in recipe.to_dict().items()},
        "rows": [[labels.digests[row].hex(), str(labels.y[row])] for row in rows],
        "weight": None if labels.weight is None else labels.weight[rows].tolist(),
    }
    return digest_of(facts)


def _saver(path: Path | None, key: str) -> Callable[[Training], None] | None:
    return None if path is None else lambda training: files.commit(path, checkpoint.dump(training, key))


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
