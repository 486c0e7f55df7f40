"""One fine-tuning: rows held out, a head from frozen embeddings, the training, the network that comes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from featurebank import storage
from featurebank.backbones import Backbone, load_backbone
from featurebank.errors import FineTuneError
from featurebank.finetune import checkpoint
from featurebank.finetune.head import fit_head, random_layers, to_layers
from featurebank.finetune.network import Feed, Network, Rows
from featurebank.finetune.objective import row_weights
from featurebank.finetune.recipe import Recipe
from featurebank.finetune.training import Data, Epoch, Training
from featurebank.finetune.tuned import Tuned, finish, is_named
from featurebank.folds import Folds, default_kind, make_folds, tie
from featurebank.spec import digest_of
from featurebank.views import count_views


@dataclass(frozen=True)
class Labels:
    """What is known about the images of a feed, in its order.

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

    def take(self, rows: Rows) -> Labels:
        """Return some of the rows."""
        groups, weight = (None if each is None else each[rows] for each in (self.groups, self.weight))
        return Labels(self.y[rows], [self.digests[row] for row in rows], groups, weight)

    @property
    def ties(self) -> NDArray[np.int64] | None:
        """Groups that also hold the same content together; None where nothing ties rows."""
        keys = [np.array([digest.hex() for digest in self.digests])]
        if self.groups is None and len(set(self.digests)) == len(self.digests):
            return None
        return tie(*keys, *([] if self.groups is None else [self.groups]))


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


def tune(
    backbone: Backbone,
    feed: Feed,
    labels: Labels,
    recipe: Recipe,
    device: torch.device,
    *,
    rows: Rows | None = None,
    top_model: Pipeline | None = None,
    watch: Watch | None = None,
) -> Tuned:
    """Fine-tune a backbone.

    Parameters
    ----------
    backbone : Backbone
        It is left as it is.
    feed : Feed
        The input of the module at the cut.
    labels : Labels
    recipe : Recipe
    device : torch.device
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
    watch = watch or Watch()
    rows = np.arange(len(labels.y)) if rows is None else rows
    classes, codes = np.unique(labels.y, return_inverse=True)
    train, validation = hold_out(labels, rows, recipe)
    network = Network(
        backbone, recipe.cut, device, precision=recipe.precision, trains_batchnorm=recipe.trains_batchnorm
    )
    _start(network, backbone, feed, labels, train, recipe, top_model)
    weight = np.ones(len(codes), np.float32)
    weight[train] = row_weights(
        codes[train], None if labels.weight is None else labels.weight[train], recipe.class_weight, classes
    )
    data = Data(feed, codes, weight, labels.weight, train, validation)
    key = _key(backbone, labels, rows, recipe)
    training = Training(network, data, recipe, on_epoch=watch.on_epoch, on_step=watch.on_step)
    training.on_checkpoint = _saver(watch.checkpoint, key)
    if watch.resume:
        checkpoint.restore(training, _read(watch.checkpoint), key)
    progress = training.run()
    return finish(backbone, network, classes, training.blocks, recipe, progress, (len(train), len(validation)))


def hold_out(labels: Labels, rows: Rows, recipe: Recipe) -> tuple[Rows, Rows]:
    """Divide rows into those that train and those that choose the epoch, stratified, rows of one group together.

    Raises
    ------
    FineTuneError
        When too few rows are left to train on.
    TopModelError
        When the rows cannot be divided so.
    """
    if len(np.unique(labels.y[rows])) < 2:
        raise FineTuneError(f"{len(rows)} rows of one class; expected two classes or more")
    if not recipe.validation:
        return rows, rows[:0]
    part = labels.take(rows)
    kind = default_kind("classification", part.ties is not None)
    folds = Folds(kind, max(2, round(1 / recipe.validation)), seed=recipe.seed)
    train, validation = make_folds(folds, np.zeros((len(rows), 1)), part.y, part.ties, recipe.seed)[0]
    lost = sorted(set(part.y.tolist()) - set(part.y[train].tolist()))
    if lost:
        raise FineTuneError(
            f"class {lost[0]!r} has no row left to train on; expected more of its rows or groups, or --validation 0"
        )
    return rows[train], rows[validation]


def _start(
    network: Network,
    backbone: Backbone,
    feed: Feed,
    labels: Labels,
    train: Rows,
    recipe: Recipe,
    top_model: Pipeline | None,
) -> None:
    """Give the network the weights, and the head, that training starts from."""
    if recipe.init == "random":
        _randomize(network, backbone, recipe.seed)
        classes = len(np.unique(labels.y))
        network.set_head(random_layers(network.width, classes, recipe.head, recipe.seed))
        return
    part = labels.take(train)
    X = network.embeddings(feed, train, count_views(recipe.views), recipe.batch_size)
    fitted = fit_head(
        X,
        part.y,
        head=recipe.head,
        recipe=top_model,
        groups=part.ties,
        sample_weight=part.weight,
        class_weight=recipe.class_weight,
        seed=recipe.seed,
    )
    network.set_head(to_layers(fitted))


def _randomize(network: Network, backbone: Backbone, seed: int) -> None:
    """Draw the weights from the cut on anew, as the architecture's own code does."""
    if not is_named(backbone):
        raise FineTuneError(
            f"{backbone.name!r} is your own module, which cannot be built anew; expected --init pretrained: "
            "give it random weights yourself"
        )
    fresh = load_backbone(backbone.name, f"random:{seed}", backbone.input_size[0]).model.state_dict()
    state = network.tail.network.state_dict()
    head = f"{network.head}."
    network.tail.network.load_state_dict({name: state[name] if name.startswith(head) else fresh[name] for name in state})


def _key(backbone: Backbone, labels: Labels, rows: Rows, recipe: Recipe) -> str:
    """Return a digest of everything that a training depends on, but for how many epochs it may take."""
    facts: dict[str, Any] = {
        "backbone": backbone.weights,
        "recipe": {name: str(value) for name, value in replace(recipe, epochs=1).to_dict().items()},
        "rows": [[labels.digests[row].hex(), str(labels.y[row])] for row in rows],
        "weight": None if labels.weight is None else labels.weight[rows].tolist(),
    }
    return digest_of(facts)


def _saver(path: Path | None, key: str) -> Callable[[Training], None] | None:
    return None if path is None else lambda training: storage.commit(path, checkpoint.dump(training, key))


def _read(path: Path | None) -> bytes:
    if path is None or not path.is_file():
        raise FineTuneError(f"no checkpoint at {str(path)!r} to resume from; leave out --resume to begin anew")
    return path.read_bytes()

