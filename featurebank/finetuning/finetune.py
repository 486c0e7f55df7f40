"""From a bank to a fine-tuned predictor: which backbone, which rows, and what came of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline

from featurebank.backbones.base import Backbone
from featurebank.backbones.request import Request
from featurebank.bank.bank import Bank, BankLike
from featurebank.bank.defaults import default_target
from featurebank.bank.display import as_html
from featurebank.bank.images import source_of
from featurebank.bank.samples import SampleTable, values_of, weights_of
from featurebank.bank.spec import PENULTIMATE
from featurebank.errors import ColumnError, FineTuneError
from featurebank.finetuning.checkpoint import read
from featurebank.finetuning.compare import compare, frozen_of, shared_folds
from featurebank.finetuning.estimate import Estimate, estimate
from featurebank.finetuning.experiment import Experiment, TrainingSet
from featurebank.finetuning.head import is_logistic
from featurebank.finetuning.recipe import Recipe
from featurebank.finetuning.training import Epoch
from featurebank.finetuning.tuning import Tuned, finish, train_network
from featurebank.fitting.given_split import given_split
from featurebank.images.reading import Progress
from featurebank.predictor.evaluation import contents_of
from featurebank.predictor.features import EMBEDDED
from featurebank.predictor.predictor import Predictor
from featurebank.storage import files


@dataclass(frozen=True)
class Callbacks:
    """Who is told how a fine-tuning goes.

    Attributes
    ----------
    on_estimate : callable, optional
        Called with the `Estimate` before anything is computed.
    on_cached, on_fold, on_step : callable, optional
        Called with (images, folds, steps of the optimiser done, and in all).
    on_epoch : callable, optional
        Called with each `featurebank.finetuning.training.Epoch`.
    """

    on_estimate: Callable[[Estimate], None] | None = None
    on_cached: Progress | None = None
    on_fold: Progress | None = None
    on_step: Progress | None = None
    on_epoch: Callable[[Epoch], None] | None = None


@dataclass(frozen=True)
class FineTuneResult:
    """What `finetune` made.

    Attributes
    ----------
    tuned : Tuned
    predictor : Predictor
    report : dict
        What ``featurebank finetune --json`` prints.

    See Also
    --------
    featurebank.finetune : What makes it.
    featurebank.Predictor : What it ships.

    Examples
    --------
    >>> result = finetune("photos.bank", Recipe("blocks.6", epochs=1, augment="cached:hflip"))
    >>> result.to_frame()["number"].tolist()
    [0, 1]
    """

    tuned: Tuned = field(repr=False)
    predictor: Predictor = field(repr=False)
    report: dict[str, Any] = field(repr=False)

    def __repr__(self) -> str:
        best = self.tuned.best
        return f"<FineTuneResult: {self.tuned.backbone.name}, epoch {best.number}, score {best.score}>"

    def _repr_html_(self) -> str:
        return as_html(self, self.to_frame())

    def to_dict(self) -> dict[str, Any]:
        """Return the report."""
        return dict(self.report)

    def to_frame(self) -> pd.DataFrame:
        """Return the epochs: ``number, train_loss, loss, score`` and their times."""
        return pd.DataFrame(self.report["history"])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the predictor file; see `Predictor.save`."""
        self.predictor.save(path)


def finetune(
    bank: BankLike,
    recipe: Recipe,
    *,
    predictor: str | os.PathLike[str] | None = None,
    backbone: Any = None,
    weights: str = "DEFAULT",
    size: int | None = None,
    target: str | None = None,
    groups: str | None = None,
    sample_weight: str | None = None,
    split: str | None = None,
    folds: int = 0,
    device: str = "auto",
    workers: int | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
    callbacks: Callbacks | None = None,
) -> FineTuneResult:
    """Train the upper blocks of a backbone on the labelled images of a bank.

    The activations at the cut are computed once and kept in the bank, like any feature set.

    Parameters
    ----------
    bank : path-like or Bank
        Its images are read from where they were extracted; not at all where the activations are there already.
    recipe : Recipe
        Where to cut, and how to train.
    predictor : path-like, optional
        A predictor of `featurebank.fit`. Its backbone is trained, its logistic regression on the penultimate layer
        gives the head its parameters, and its features and model are what the result is compared with.
    backbone, weights, size : optional
        See `featurebank.load_backbone`; by default the predictor's, or the bank's only one. Of a backbone that is
        named alone, the bank's features say weights and size where they are of one kind.
    target : str, optional
        Column of classes; by default the predictor's, ``label``, or the bank's only column.
    groups : str, optional
        Column of groups, which lie on one side of every split; so do rows of the same content in any case.
    sample_weight : str, optional
        Column of weights, in the loss and in every score.
    split : str, optional
        Column of train, val and test, as for `featurebank.fit`: test is not trained on; ``"none"`` takes all rows.
    folds : int, default 0
        Cross-validate the fine-tuning against the frozen features on so many folds; 0 for not at all.
    device : str, default "auto"
    workers : int, optional
        Threads that read and decode; by default one a core.
    checkpoint : Path, optional
        A file that is written after each epoch.
    resume : bool, default False
        Go on where that file was written.
    callbacks : Callbacks, optional

    Returns
    -------
    FineTuneResult

    Raises
    ------
    FeatureBankError
        A child of it says what was found, what was expected and what to do.

    See Also
    --------
    FineTuner : A scikit-learn classifier of images.
    Recipe : How to train.
    fit : Frozen features, often as good.

    Examples
    --------
    >>> result = finetune("photos.bank", Recipe("blocks.6", epochs=1, augment="cached:hflip"))
    >>> result.save("tuned.featurebank")
    >>> result.report["n_samples"]
    24
    """
    started = time.perf_counter()
    told = callbacks or Callbacks()
    bank = Bank.of(bank)
    loaded = None if predictor is None else Predictor.load(predictor)
    request = _request(bank, backbone, weights, size, loaded, predictor)
    target = target or (loaded.single.target if loaded else default_target(bank))
    table = bank.select(target, *([sample_weight] if sample_weight else []))
    table, held_out = _without_test(table, target, split)
    data = _training_set(table, target, groups, sample_weight)
    experiment = Experiment(bank, request, source_of(table), data, recipe, device, workers)
    top_model, notes = _top_model(loaded, experiment.backbone)
    experiment.check()
    if resume:
        read(checkpoint)
    if told.on_estimate is not None:
        told.on_estimate(estimate(experiment, folds))
    activations, more = experiment.activations(told.on_cached)
    cached = time.perf_counter()
    heard: dict[str, Any] = {"on_epoch": told.on_epoch, "on_step": told.on_step}
    trained = train_network(experiment, activations, top_model=top_model, checkpoint=checkpoint, resume=resume, **heard)
    tuned = finish(experiment, trained)
    report = {"n_samples": len(data.y), "target": target, "cut": experiment.module or recipe.cut, **tuned.to_dict()}
    report |= {"warnings": held_out + notes + more + _told_of(report), "cache_seconds": cached - started}
    if folds and not report["interrupted"]:
        frozen, shared = (
            frozen_of(loaded, experiment, activations, table),
            shared_folds(loaded, experiment, table, folds),
        )
        report["comparison"] = compare(
            experiment, activations, frozen, shared, top_model=top_model, progress=told.on_fold
        )
    report["seconds"] = time.perf_counter() - started
    contents = contents_of(data.digests)
    return FineTuneResult(tuned, tuned.predictor(target, {**report, "contents": contents}), report)


def _without_test(table: SampleTable, target: str, split: str | None) -> tuple[SampleTable, list[str]]:
    """Leave out the test part of a given split (`featurebank.fitting.given_split`), and say so."""
    found = given_split(table, values_of(table, target), split)
    if isinstance(found, str):
        return table, [found] if found else []
    count = int(found.is_held_out.sum())
    said = f"{count} test samples of the column {found.column} are not trained on; --split none takes all"
    return table.take(np.flatnonzero(~found.is_held_out)), [said] if count else []


def _told_of(report: Mapping[str, Any]) -> list[str]:
    """Say that a training diverged, which is not that fine-tuning does not pay."""
    if not report["diverged"]:
        return []
    start, last = report["start"]["loss"], report["history"][-1]["loss"]
    return [
        f"training diverged: the validation loss went from {start:.3g} to {last:.3g}, so the predictor is the head on "
        f"frozen features; try a smaller learning rate than {report['lr']:.2g} (--lr)"
    ]


def _training_set(table: SampleTable, target: str, groups: str | None, sample_weight: str | None) -> TrainingSet:
    y = values_of(table, target)
    if y.dtype.kind == "f":
        raise ColumnError(f"column {target!r} holds fractions; fine-tuning learns classes: name a column of those")
    return TrainingSet(
        y,
        list(table.rows["digest"]),
        values_of(table, groups) if groups else None,
        weights_of(table, sample_weight) if sample_weight else None,
    )


def _request(bank: Bank, backbone: Any, weights: str, size: int | None, loaded: Predictor | None, path: Any) -> Request:
    """Return the backbone that is meant: the named one as the bank has it, the predictor's, or the bank's only one."""
    if backbone is None and loaded is not None:
        return _request_of(loaded, path)
    last = [Request.last(bank, each.spec) for each in bank.feature_sets]
    found = {
        (each.backbone, each.weights, each.size, each.decoder, each.pixels, each.framing): each for each in last if each
    }
    if backbone is not None:
        named = [each for each in found.values() if each.backbone == backbone]
        is_left_open = weights == "DEFAULT" and size is None
        return (
            named[0]
            if is_left_open and len(named) == 1
            else Request(backbone, weights=weights, size=size, pixels=bank.pixels)
        )
    if len(found) != 1:
        names = ", ".join(sorted(map(str, found.values()))) or "none by name"
        raise FineTuneError(f"the bank has features of these backbones: {names}; name one with --backbone")
    return found.popitem()[1]


def _request_of(predictor: Predictor, path: Any) -> Request:
    """Return the backbone of a predictor, which carries the weights itself where no name would find them."""
    first = predictor.features[0]
    if any(each.spec.weights != first.spec.weights or each.size != first.size for each in predictor.features):
        raise FineTuneError("the predictor uses several backbones; expected one: name the one to train with --backbone")
    if not first.weights:
        raise FineTuneError(f"{first.spec.backbone!r} is your own module: give it as backbone= to finetune")
    if first.weights == EMBEDDED:
        return Request(os.fspath(path), pixels=first.spec.pixels)
    made = first.spec.preprocessing
    how: dict[str, Any] = {"decoder": made.get("decoder", "pil"), "framing": made.get("framing")}
    return Request(first.spec.backbone, weights=first.weights, size=first.size, pixels=first.spec.pixels, **how)


def _top_model(predictor: Predictor | None, backbone: Backbone) -> tuple[Pipeline | None, list[str]]:
    """Return the predictor's model where the head can take its parameters over; say so where it cannot."""
    if predictor is None:
        return None, []
    if predictor.single.kind != "classification":
        raise FineTuneError(f"the predictor is for {predictor.single.kind}; fine-tuning learns one class an image")
    spec = predictor.features[0].spec
    fits = len(predictor.features) == 1 and (spec.layer, spec.weights) == (PENULTIMATE, backbone.weights)
    if fits and is_logistic(predictor.model):
        return predictor.model, []
    return None, [
        "the predictor is no logistic regression on the penultimate layer alone: the head is cross-validated anew"
    ]


def default_output(bank: Bank) -> Path:
    """Return where a fine-tuned predictor goes when nothing is said: beside the bank, under a name of its own."""
    return files.beside(bank.path, ".tuned.featurebank")
