"""The training loop: steps, epochs, early stopping, the best weights, and a stop at any time that keeps them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from featurebank.backbones.placing import seeded
from featurebank.errors import FineTuneError
from featurebank.finetuning.activations import Activations, split
from featurebank.finetuning.experiment import Experiment, Rows
from featurebank.finetuning.head import penalty
from featurebank.finetuning.network import Block, Network, Weights, active
from featurebank.finetuning.optimization import Mix, factor, find_rate, judge, make_optimizer, mixed_loss, row_weights
from featurebank.images.reading import Progress
from featurebank.images.views import count_views

State = Mapping[str, Tensor]
DECAY = 0.995
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


class MovingAverage:
    """The exponential moving average of weights, which looks back less far in the first steps."""

    def __init__(self, start: State, steps: int = 0):
        self.values = {name: tensor.clone() for name, tensor in start.items()}
        self.steps = steps

    def update(self, now: State) -> None:
        """Take the weights after a step in."""
        self.steps += 1
        decay = min(DECAY, self.steps / (9 + self.steps))
        self.values = between(now, self.values, decay)


def between(first: State, second: State, share: float) -> dict[str, Tensor]:
    """Return the weights at a share of the way from one state to another; counters are those of the second.

    Examples
    --------
    >>> between({"w": torch.tensor([0.0])}, {"w": torch.tensor([4.0])}, 0.25)
    {'w': tensor([1.])}
    """
    return {
        name: torch.lerp(tensor, second[name], share) if tensor.is_floating_point() else second[name].clone()
        for name, tensor in first.items()
    }


def interpolate(start: State, end: State, judge: Callable[[State], tuple[float, float]]) -> float:
    """Return how far from the start to the end the best weights lie (WiSE-FT, Wortsman et al. 2022).

    What `judge` makes of weights is the better the larger. The share is 0 at the start, and 1 at the end, which wins
    among equals.
    """
    shares = (1.0, *reversed(SHARES), 0.0)
    return max(shares, key=lambda share: judge(between(start, end, share)))


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to; number 0 is the start, before any step.

    Attributes
    ----------
    number : int
    train_loss : float or None
        Mean over the steps; None at the start.
    loss, score : float or None
        Log loss and accuracy of the validation rows, weighted; None without any.
    seconds : float
        Wall time of the training part.
    images_per_second : float
        Rate of the training part.
    seconds_left : float
        What the epochs that may follow would take.
    """

    number: int
    train_loss: float | None
    loss: float | None
    score: float | None
    seconds: float = 0.0
    images_per_second: float = 0.0
    seconds_left: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for a report."""
        return asdict(self)


def has_diverged(history: Sequence[Epoch], classes: int) -> bool:
    """Say whether every epoch left a validation loss far above that of the start, and above that of a guess.

    Such a training says nothing of what fine-tuning can do; one that only fails to improve does.

    Examples
    --------
    >>> losses = [Epoch(0, None, 0.62, 0.9), Epoch(1, 80.0, 6599.0, 0.5), Epoch(2, 50.0, 36097.0, 0.5)]
    >>> has_diverged(losses, 2), has_diverged([losses[0], Epoch(1, 0.5, 0.7, 0.9)], 2)
    (True, False)
    """
    start, *epochs = [each.loss for each in history]
    if start is None or not epochs:
        return False
    least = DIVERGED * max(start, float(np.log(classes)))
    return all(loss is not None and not loss <= least for loss in epochs)


def best_trained(history: Sequence[Epoch]) -> int:
    """Return the best epoch of training so far, the start where there is none: patience counts from there.

    The start itself may stay the best for long: while the rates rise, the first epochs are often behind a good head on
    frozen features, and become better all the time.

    Examples
    --------
    >>> best_trained([Epoch(0, None, 0.38, 0.85), Epoch(1, 0.36, 0.41, 0.82), Epoch(2, 0.33, 0.37, 0.84)])
    2
    """
    trained = history[1:] or history
    return max(trained, key=lambda each: (each.score or 0.0, -(each.loss or 0.0))).number


@dataclass
class TrainerState:
    """Where a training stands: all that a checkpoint holds beside the optimiser.

    Attributes
    ----------
    history : list of Epoch
    start, best : dict of str to Tensor
        The weights before any step, and those of the best epoch so far.
    best_epoch : int
    rate : float
        Learning rate of the head.
    interrupted : bool
    average : MovingAverage or None
    share : float
        How far from `start` to the best epoch the weights lie, 1 where they are not averaged.
    """

    history: list[Epoch]
    start: dict[str, Tensor]
    best: dict[str, Tensor]
    best_epoch: int
    rate: float
    interrupted: bool = False
    average: MovingAverage | None = None
    share: float = 1.0


DIVERGED = 2.0
"""Validation loss from which training has diverged, as a multiple of that of the start and of a guess."""
LARGEST_NORM = 1.0
"""Of the gradient."""
_FINDING = 1 << 40
"""Stands for an epoch in the seed of the search for a learning rate."""


class Trainer:
    """Train a network that has its head.

    Parameters
    ----------
    experiment : Experiment
    network : Network
    activations : Activations
    train, validation : ndarray of int64
        Numbers of the rows that train, and of those that choose the epoch.
    on_epoch, on_step, on_checkpoint : callable, optional
        Called with each `Epoch`, with (steps done, steps in all), and with this trainer after each epoch.
    """

    def __init__(
        self,
        experiment: Experiment,
        network: Network,
        activations: Activations,
        train: Rows,
        validation: Rows,
        *,
        on_epoch: Callable[[Epoch], None] | None = None,
        on_step: Progress | None = None,
        on_checkpoint: Callable[[Trainer], None] | None = None,
    ):
        self.network, self.activations, self.recipe = network, activations, experiment.recipe
        self.train, self.validation = train, validation
        self.on_epoch, self.on_step, self.on_checkpoint = on_epoch, on_step, on_checkpoint
        self.blocks: list[Block] = network.blocks()
        self.weights = Weights(network, self.blocks)
        self.set_rate(self.recipe.rate)
        self.scaler = torch.amp.GradScaler(network.device.type, enabled=self.recipe.precision == "fp16")
        self._data, part = experiment.data, experiment.data.take(train)
        weight = np.ones(len(self._data.y), np.float32)
        weight[train] = row_weights(part.y, part.weight, experiment.class_weight)  # 1 on average
        self._weight = torch.from_numpy(weight)
        self._y = torch.from_numpy(self._data.codes)
        self._steps = len(split(train, self.recipe.batch_size))
        self.state: TrainerState | None = None

    def run(self, last: int | None = None) -> TrainerState:
        """Train to the end, or until it is interrupted; the network has the best weights afterwards.

        With `last` it ends with that epoch, and the learning rate goes as if all of them followed.
        """
        state = self.state or self._begin()
        self.state = state
        try:
            for number in range(state.history[-1].number + 1, (last or self.recipe.epochs) + 1):
                if number - best_trained(state.history) > self.recipe.patience and len(self.validation):
                    break
                self._epoch(state, number)
        except KeyboardInterrupt:
            state.interrupted = True
        if self.recipe.average == "wise-ft":
            self._interpolate(state)
        self.weights.set(state.best)
        return state

    def _begin(self) -> TrainerState:
        start = self.weights.copy()
        rate = self._find_rate(start) if self.recipe.lr == "auto" else self.recipe.rate
        self.set_rate(rate)
        average = MovingAverage(start) if self.recipe.average == "ema" else None
        first = Epoch(0, None, *self._judge())
        self._tell(first)
        return TrainerState([first], start, start, 0, rate, average=average)

    # --- epochs --------------------------------------------------------------------------------------------

    def _epoch(self, state: TrainerState, number: int) -> None:
        """Train on every row once, and judge the weights, or their average."""
        started = time.perf_counter()
        losses = list(self._train(number, state.average))
        seconds = time.perf_counter() - started
        now = self.weights.copy()
        if state.average is not None:
            self.weights.set(state.average.values)
        judged = self._judge()
        whole = (time.perf_counter() - started) * (self.recipe.epochs - number)
        done = Epoch(number, float(np.mean(losses)), *judged, seconds, len(self.train) / seconds, whole)
        if not np.isfinite(losses).all():
            raise FineTuneError(
                f"training diverged: the loss is no number in epoch {number}; expected one: take "
                f"a smaller learning rate than {state.rate:g} (--lr), or --precision fp32"
            )
        state.history.append(done)
        if self._is_best(state, done):
            state.best, state.best_epoch = self.weights.copy(), number
        self.weights.set(now)
        self._tell(done)
        if self.on_checkpoint is not None:
            self.on_checkpoint(self)

    def _is_best(self, state: TrainerState, done: Epoch) -> bool:
        best = state.history[state.best_epoch]
        if done.score is None or best.score is None or done.loss is None or best.loss is None:
            return True
        return (done.score, -done.loss) > (best.score, -best.loss)

    def _tell(self, done: Epoch) -> None:
        if self.on_epoch is not None:
            self.on_epoch(done)

    def _judge(self) -> tuple[float | None, float | None]:
        """Return log loss and accuracy of the validation rows with the weights as they are."""
        rows = self.validation
        if not len(rows):
            return None, None
        logits = self.network.logits(self.activations, rows, count_views(self.recipe.views), self.recipe.batch_size)
        weight = None if self._data.weight is None else self._data.weight[rows]
        return judge(logits, self._data.codes[rows], weight)

    # --- steps ---------------------------------------------------------------------------------------------

    def _train(self, number: int, average: MovingAverage | None) -> Iterator[float]:
        """Do the steps of an epoch; yield the loss of each. Whatever is drawn depends on seed and epoch alone."""
        is_active = active(self.blocks, self.recipe.unfreeze, number)
        for block, trains in zip(self.blocks, is_active, strict=True):
            for parameter in block.parameters.values():
                parameter.requires_grad_(trains)
        self.network.switch(training=True)
        for step, (rows, x, random) in enumerate(self._batches(number)):
            done = (number - 1) * self._steps + step
            self._scale_rates(factor(done, self.recipe.epochs * self._steps))
            yield self._step(rows, x, random)
            if average is not None:
                average.update(self.weights.copy())
            if self.on_step is not None:
                self.on_step(done + 1, self.recipe.epochs * self._steps)

    def _batches(self, number: int) -> Iterator[tuple[Rows, Tensor, np.random.Generator]]:
        """Yield the shuffled rows of an epoch in batches, with the activations of one view of each."""
        random = np.random.default_rng([self.recipe.random_state, number])
        order = random.permutation(self.train)
        batches = split(order, self.recipe.batch_size)
        draws = split(self.activations.draw(random, len(order)), self.recipe.batch_size)
        with seeded(int(random.integers(1 << 62)), self.network.device):  # of dropout
            streamed = self.activations.stream(list(zip(batches, draws, strict=True)))
            for rows, x in zip(batches, streamed, strict=True):
                yield rows, x, random

    def _step(self, rows: Rows, x: Tensor, random: np.random.Generator) -> float:
        """Do one step of gradient descent; return the loss before it."""
        y, weight = (each[torch.from_numpy(rows)].to(self.network.device) for each in (self._y, self._weight))
        mix = Mix(random, len(rows), self.recipe.mixup)
        with self.network.cast():
            logits = self.network.tail(mix(self.network.place(x)))
            loss = mixed_loss(logits, y, weight, mix, self.recipe.label_smoothing)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss + penalty(self.network.layers)).backward()
        self.scaler.unscale_(self.optimizer)
        parameters = [each for group in self.optimizer.param_groups for each in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, LARGEST_NORM)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return float(loss.detach())

    def _scale_rates(self, by: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = group["base"] * by

    def set_rate(self, rate: float) -> None:
        """Begin with a new optimiser, the head at this learning rate."""
        self.optimizer = make_optimizer(self.blocks, self.recipe, rate)

    # --- before and after ----------------------------------------------------------------------------------

    def _find_rate(self, start: dict[str, Tensor]) -> float:
        """Search for a learning rate on the training rows, and put the weights back."""
        self.set_rate(1.0)
        for block in self.blocks:
            for parameter in block.parameters.values():
                parameter.requires_grad_(True)
        self.network.switch(training=True)
        batches = (each for number in range(_FINDING, 2 * _FINDING) for each in self._batches(number))

        def step(rate: float) -> float:
            self._scale_rates(rate)
            return self._step(*next(batches))

        found = find_rate(step)
        self.weights.set(start)
        return found

    def _interpolate(self, state: TrainerState) -> None:
        """Take the best weights between those of the start and of the best epoch; without validation the middle."""

        def score(state: Any) -> tuple[float, float]:
            self.weights.set(state)
            loss, right = self._judge()
            return (right or 0.0, -(loss or 0.0))

        state.share = interpolate(state.start, state.best, score) if len(self.validation) else 0.5
        state.best = between(state.start, state.best, state.share)
