"""Averages of weights: over the steps of a training, or between its start and its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

State = Mapping[str, Tensor]
DECAY = 0.995
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


class MovingAverage:
    """The exponential moving average of weights, which looks back less far in the first steps.

    Parameters
    ----------
    start : mapping of str to Tensor
        The weights before training.
    steps : int, default 0
        How many were averaged before.

    Attributes
    ----------
    values : dict of str to Tensor
        The average.
    """

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

    Parameters
    ----------
    start, end : mapping of str to Tensor
    judge : callable
        Takes weights and returns what is better the larger it is, compared one after the other.

    Returns
    -------
    float
        0 for the start, 1 for the end, which wins among equals.
    """
    shares = (1.0, *reversed(SHARES), 0.0)
    return max(shares, key=lambda share: judge(between(start, end, share)))
