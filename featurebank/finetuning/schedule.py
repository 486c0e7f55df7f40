"""How the learning rate goes over the steps, the optimisers, and the search for a rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from featurebank.finetuning.blocks import Block, rates
from featurebank.finetuning.recipe import Recipe

MOMENTUM = 0.9
_FUSED = ("cpu", "cuda")
"""Where a step of the optimiser can be one pass over the weights."""
LOWEST, HIGHEST, TRIED = 1e-6, 1.0, 60
"""Learning rates that the search goes through, and how many of them."""
SMOOTHING = 0.8
DIVERGED = 3.0
SAFETY = 10.0


def factor(step: int, steps: int, warmup: float) -> float:
    """Return what the learning rates are multiplied by in a step: up along a line, then down along a cosine.

    Parameters
    ----------
    step, steps : int
        Number of the step, from 0, and of all.
    warmup : float
        Share of the steps in which it grows.

    Examples
    --------
    >>> [round(factor(step, 10, 0.2), 2) for step in (0, 1, 2, 6, 9)]
    [0.5, 1.0, 1.0, 0.5, 0.04]
    """
    rising = round(warmup * steps)
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def make_optimizer(blocks: Sequence[Block], recipe: Recipe, rate: float) -> torch.optim.Optimizer:
    """Return the optimiser, with a learning rate for each block; biases and normalisations do not decay.

    Each parameter group keeps its full rate under ``"base"``.
    """
    groups: list[dict[str, Any]] = []
    for block, base in zip(blocks, rates(blocks, rate, recipe.lr_decay), strict=True):
        for decays in (True, False):
            parameters = [each for each in block.parameters.values() if (each.ndim > 1) == decays]
            decay = recipe.weight_decay if decays else 0.0
            if parameters:
                groups.append({"params": parameters, "lr": base, "base": base, "weight_decay": decay})
    fused = groups[0]["params"][0].device.type in _FUSED
    makers: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "sgd": lambda groups: torch.optim.SGD(groups, momentum=MOMENTUM, fused=fused),
        "adam": lambda groups: torch.optim.Adam(groups, fused=fused),
        "adamw": lambda groups: torch.optim.AdamW(groups, fused=fused),
        "rmsprop": torch.optim.RMSprop,
        "adagrad": torch.optim.Adagrad,
    }
    return makers[recipe.optimizer](groups)


def find_rate(step: Callable[[float], float]) -> float:
    """Find a learning rate: the rate grows from step to step until the loss does too; a tenth of the best is taken.

    Smith 2017, Cyclical learning rates for training neural networks.

    Parameters
    ----------
    step : callable
        Takes a learning rate, does one step of training with it, and returns the loss before that step.

    Returns
    -------
    float

    Examples
    --------
    >>> rate = find_rate(lambda rate: 1.0 if rate < 1e-3 else 0.5 if rate < 1e-1 else 9.0)
    >>> 1e-3 < rate < 1e-2
    True
    """
    tried = np.geomspace(LOWEST, HIGHEST, TRIED)
    smooth: list[float] = []
    for rate in tried:
        loss = step(float(rate))
        smooth.append(loss if not smooth else SMOOTHING * smooth[-1] + (1 - SMOOTHING) * loss)
        if not math.isfinite(loss) or loss > DIVERGED * min(smooth):
            break
    finite = np.nan_to_num(smooth, nan=np.inf)
    return float(tried[int(finite.argmin())] / SAFETY)
