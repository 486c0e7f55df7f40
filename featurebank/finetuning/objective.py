"""What training makes small, and what it is judged by."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.class_weight import compute_sample_weight
from torch import Tensor
from torch.nn import functional


def row_weights(
    y: NDArray[Any], sample_weight: NDArray[np.float64] | None, class_weight: Any = None
) -> NDArray[np.float32]:
    """Return what each row counts in the loss, 1 on average.

    Parameters
    ----------
    y : ndarray, shape (n,)
        Classes.
    sample_weight : ndarray of float64, shape (n,), or None
    class_weight : "balanced", mapping of class to float, or None
        See `featurebank.topmodels.class_weights`.

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
    """Return the product of each row's own weight and its class's; see `row_weights`."""
    weight = compute_sample_weight(class_weight, y)
    return np.asarray(weight if sample_weight is None else weight * sample_weight, np.float64)


def loss_of(logits: Tensor, y: Tensor, weight: Tensor, smoothing: float = 0.0) -> Tensor:
    """Return the weighted mean cross-entropy.

    Parameters
    ----------
    logits : Tensor of float, shape (n, k)
    y : Tensor of int64, shape (n,)
    weight : Tensor of float32, shape (n,)
    smoothing : float, default 0.0
        Share of each label that is spread over all classes (Szegedy et al. 2016).
    """
    losses = functional.cross_entropy(logits.float(), y, reduction="none", label_smoothing=smoothing)  # (n,)
    return (losses * weight).sum() / weight.sum().clamp(min=1e-12)


def mixed_loss(logits: Tensor, y: Tensor, weight: Tensor, mix: Mix, smoothing: float = 0.0) -> Tensor:
    """Return the loss of mixed rows: that of both labels, each by its share."""
    own, other = (loss_of(logits, y[order], weight[order], smoothing) for order in (slice(None), mix.order))
    return mix.share * own + (1 - mix.share) * other


class Mix:
    """How the rows of one batch are mixed in pairs (mixup, Zhang et al. 2018).

    Parameters
    ----------
    random : numpy.random.Generator
    count : int
        Rows of the batch.
    alpha : float
        Parameter of the beta distribution of the share; at 0 nothing is mixed.

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
    """Return the weighted log loss and accuracy of rows.

    Parameters
    ----------
    logits : ndarray of float32, shape (n, k)
    codes : ndarray of int64, shape (n,)
    weight : ndarray of float64, shape (n,), or None
    """
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(codes)), codes]
    right = logits.argmax(axis=1) == codes
    return float(np.average(losses, weights=weight)), float(np.average(right, weights=weight))
