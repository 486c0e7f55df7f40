"""What one step of training is made of: the loss, the optimiser and its learning rates."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.class_weight import compute_sample_weight
from torch import Tensor
from torch.nn import functional

from featurebank.finetuning.network import Block, rates
from featurebank.finetuning.recipe import Recipe
from featurebank.topmodels.class_weights import under_looked_up_names


def row_weights(
    y: NDArray[Any], sample_weight: NDArray[np.float64] | None, class_weight: Any = None
) -> NDArray[np.float32]:
    """Return what each row counts in the loss, 1 on average; see `full_weights`.

    Examples
    --------
    >>> row_weights(np.array(["a", "a", "b", "a"]), None, "balanced")
    array([0.6666667, 0.6666667, 2.       , 0.6666667], dtype=float32)
    """
    weight = full_weights(y, sample_weight, class_weight)
    return (weight / weight.mean()).astype(np.float32)


def full_weights(
    y: NDArray[Any], sample_weight: NDArray[np.float64] | None, class_weight: Any = None
) -> NDArray[np.float64]:
    """Return the product of each row's own weight and its class's."""
    weight = compute_sample_weight(under_looked_up_names(class_weight), y)
    return np.asarray(weight if sample_weight is None else weight * sample_weight, np.float64)


def loss_of(logits: Tensor, y: Tensor, weight: Tensor, smoothing: float = 0.0) -> Tensor:
    """Return the weighted mean cross-entropy, a share of each label spread over all classes (Szegedy et al. 2016)."""
    losses = functional.cross_entropy(logits.float(), y, reduction="none", label_smoothing=smoothing)  # (n,)
    return (losses * weight).sum() / weight.sum().clamp(min=1e-12)


def mixed_loss(logits: Tensor, y: Tensor, weight: Tensor, mix: Mix, smoothing: float = 0.0) -> Tensor:
    """Return the loss of mixed rows: that of both labels, each by its share."""
    own, other = (loss_of(logits, y[order], weight[order], smoothing) for order in (slice(None), mix.order))
    return mix.share * own + (1 - mix.share) * other


class Mix:
    """How the rows of one batch are mixed in pairs (mixup, Zhang et al. 2018); at alpha 0 they are not.

    Examples
    --------
    >>> Mix(np.random.default_rng(0), 3, 0.0)(torch.tensor([[1.0], [2.0], [3.0]]))
    tensor([[1.],
            [2.],
            [3.]])
    """

    def __init__(self, random: np.random.Generator, count: int, alpha: float):
        self.share = float(random.beta(alpha, alpha)) if alpha else 1.0
        self.order = torch.from_numpy(random.permutation(count) if alpha else np.arange(count))

    def __call__(self, x: Tensor) -> Tensor:
        """Return the mixed rows, shape (n, …)."""
        return x if self.share == 1.0 else self.share * x + (1 - self.share) * x[self.order.to(x.device)]


def judge(
    logits: NDArray[np.float32], codes: NDArray[np.int64], weight: NDArray[np.float64] | None
) -> tuple[float, float]:
    """Return the weighted log loss and accuracy of rows, from their logits, shape (n, k), and class numbers."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(codes)), codes]
    right = logits.argmax(axis=1) == codes
    return float(np.average(losses, weights=weight)), float(np.average(right, weights=weight))


MOMENTUM = 0.9
WARMUP = 0.1
"""Share of the steps in which the rate grows."""
_FUSED = ("cpu", "cuda")
"""Where a step of the optimiser can be one pass over the weights."""
LOWEST, HIGHEST, TRIED = 1e-6, 1.0, 60
"""Learning rates that the search goes through, and how many of them."""
SMOOTHING = 0.8
DIVERGED = 3.0
SAFETY = 10.0


def factor(step: int, steps: int) -> float:
    """Return what the learning rates are multiplied by in a step, from 0: up along a line, then down along a cosine.

    Examples
    --------
    >>> [round(factor(step, 20), 2) for step in (0, 1, 2, 11, 19)]
    [0.5, 1.0, 1.0, 0.5, 0.01]
    """
    rising = round(WARMUP * steps)
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

    Smith 2017, Cyclical learning rates for training neural networks. A step takes a rate, trains once with it, and
    returns the loss before.

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
