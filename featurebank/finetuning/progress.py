"""What a training is given, and where it stands."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from featurebank.finetuning.averaging import MovingAverage
from featurebank.finetuning.network import Feed, Rows


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


@dataclass
class Progress:
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


@dataclass(frozen=True)
class Data:
    """The rows of a training.

    Attributes
    ----------
    feed : Feed
    y : ndarray of int64, shape (n,)
        Number of each image's class.
    loss_weight : ndarray of float32, shape (n,)
        What each row counts in the loss.
    score_weight : ndarray of float64, shape (n,), or None
        What each row counts in the score.
    train, validation : ndarray of int64
        Numbers of the rows that train, and of those that choose the epoch.
    """

    feed: Feed
    y: NDArray[np.int64]
    loss_weight: NDArray[np.float32]
    score_weight: NDArray[np.float64] | None
    train: Rows
    validation: Rows
