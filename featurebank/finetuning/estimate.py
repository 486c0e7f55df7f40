"""What a fine-tuning will take, from the shape at the cut and a few timed batches, before it starts."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from featurebank.backbones.capture import Capture
from featurebank.backbones.placing import synchronize
from featurebank.errors import ImageError, StorageError, counted
from featurebank.finetuning.cut import layer_at
from featurebank.finetuning.experiment import Experiment
from featurebank.finetuning.network import Network
from featurebank.images.reading import worker_count
from featurebank.images.views import count_views, make_views

_IMAGES = 4
_TIMES = 2
_LONG = 0.5
"""Seconds of a first run that count on a CPU: repeating it would cost more than it would tell."""


@dataclass(frozen=True)
class Estimate:
    """What a fine-tuning will take; what is kept in the bank already costs nothing.

    Attributes
    ----------
    images, views : int
        How many images lack activations, and how many views of each are to be computed.
    disk_bytes : int
        What their activations take.
    cache_seconds, epoch_seconds, seconds : float
        To compute them, for one epoch, and for all epochs of all trainings, where none is spared.
    epochs, folds : int
        Of one training, and the folds that a comparison trains on beside it; 0 for none.
    """

    images: int
    views: int
    disk_bytes: int
    cache_seconds: float
    epoch_seconds: float
    seconds: float
    epochs: int
    folds: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for a report."""
        return asdict(self)

    def __str__(self) -> str:
        what = f"{counted(self.images, 'image')} x {counted(self.views, 'view')}"
        keeps = f"{self.disk_bytes / 1e6:.0f} MB of activations for {what}"
        first = f"{keeps}, about {self.cache_seconds:.0f} s; " if self.images else ""
        folds = f", here and in {self.folds} folds" if self.folds else ""
        every = f"about {self.seconds:.0f} s for {counted(self.epochs, 'epoch')}{folds}"
        return f"{first}about {self.epoch_seconds:.1f} s an epoch, {every}"


def estimate(experiment: Experiment, folds: int = 0) -> Estimate:
    """Estimate what a fine-tuning will take, and its comparison on so many folds, which train on all rows but one part.

    Raises
    ------
    StorageError
        When the disk has less room than the activations take.
    """
    recipe, network, missing = experiment.recipe, experiment.network(), experiment.missing
    views = count_views(recipe.cached_views) if recipe.is_cached else 1
    needed = math.prod([*network.shape, views, missing]) * np.dtype(recipe.store).itemsize
    _check_room(experiment, needed)
    live = 0.0
    if missing or not recipe.is_cached:
        live = _frozen_seconds(experiment, network) + _reading_seconds(experiment)
    judged = len(experiment.data.y) * recipe.validation * count_views(recipe.views)
    trained = len(experiment.data.y) * (1 - recipe.validation)
    epoch = trained * _step_seconds(experiment, network, True) + judged * _step_seconds(experiment, network, False)
    epoch += 0.0 if recipe.is_cached else live * (trained + judged)
    first = missing * views * live
    seconds = first + recipe.epochs * epoch * max(folds, 1)
    return Estimate(missing, views, needed, first, epoch, seconds, recipe.epochs, folds)


def _check_room(experiment: Experiment, needed: int) -> None:
    folder = experiment.bank.path
    free = shutil.disk_usage(folder).free if isinstance(folder, Path) else math.inf  # a store has no end
    if needed > free:
        raise StorageError(
            f"the activations at {experiment.recipe.cut!r} take {needed / 1e9:.1f} GB, the disk has "
            f"{free / 1e9:.1f} GB left: cut later, take fewer views, or --augment live"
        )


def _step_seconds(experiment: Experiment, network: Network, trains: bool) -> float:
    """Return the seconds that one row takes from the cut on, there and back."""
    rows = min(experiment.recipe.batch_size, len(experiment.data.y))
    x = network.place(torch.zeros(rows, *network.shape))
    network.tail.requires_grad_(trains)

    def run() -> None:
        with torch.set_grad_enabled(trains), network.cast():
            found = network.tail(x).float().square().mean()
        if trains:
            found.backward()
            network.tail.zero_grad(set_to_none=True)

    return _timed(run, network.device) / rows


def _frozen_seconds(experiment: Experiment, network: Network) -> float:
    """Return the seconds that one image takes up to the cut."""
    if not network.module:
        return 0.0
    model = experiment.backbone.network_on(experiment.device)
    capture = Capture(model, [(layer_at(experiment.backbone, network.module), "none")])
    images = network.place(torch.zeros(_IMAGES, 3, *experiment.backbone.input_size))

    def run() -> list[Tensor]:
        with torch.no_grad():
            return capture(images)

    return _timed(run, experiment.device) / _IMAGES


def _reading_seconds(experiment: Experiment) -> float:
    """Return the seconds that one view takes to be read and prepared; on a CPU the network wants the other cores."""
    views = experiment.recipe.cached_views if experiment.recipe.is_cached else "none"
    started, done = time.perf_counter(), 0
    for position in range(min(_IMAGES, len(experiment.source.paths))):
        with suppress(ImageError):  # said when it is needed
            digest, decode = experiment.source.read(position)
            image = decode(**experiment.backbone.opening_on_cpu)
            done += len([experiment.backbone.prepare(view) for view in make_views(image, views, digest)])
    threads = 1 if experiment.device.type == "cpu" else worker_count(experiment.workers)
    return (time.perf_counter() - started) / max(1, done) / threads


def _timed(run: Callable[[], Any], device: torch.device) -> float:
    """Return the seconds of a run: of the first where it is long, else of a few that it has warmed up for."""
    first = _seconds(run, device, 1)
    is_enough = device.type == "cpu" and first > _LONG  # on a GPU the first run takes longer than any later one
    return first if is_enough else _seconds(run, device, _TIMES)


def _seconds(run: Callable[[], Any], device: torch.device, times: int) -> float:
    """Return the mean seconds of runs that begin on a device which has nothing left to do."""
    started = time.perf_counter()
    for _ in range(times):
        run()
    synchronize(device)
    return (time.perf_counter() - started) / times
