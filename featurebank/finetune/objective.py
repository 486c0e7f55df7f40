"""What training makes small, and what it is judged by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor
from torch.nn import functional

from featurebank.errors import FineTuneError, near_names


def row_weights(
    codes: NDArray[np.int64], sample_weight: NDArray[np.float64] | None, class_weight: Any, classes: NDArray[Any]
) -> NDArray[np.float32]:
    """Return what each row counts in the loss, 1 on average.

    Parameters
    ----------
    codes : ndarray of int64, shape (n,)
        Number of each row's class.
    sample_weight : ndarray of float64, shape (n,), or None
    class_weight : "balanced", mapping of class to float, or None
        A class that the mapping leaves out counts 1.
    classes : ndarray, shape (k,)

    Raises
    ------
    FineTuneError
        When the mapping names a class that is not there.
    """
    weight = np.ones(len(codes)) if sample_weight is None else np.asarray(sample_weight, np.float64)
    if isinstance(class_weight, Mapping):
        unknown = set(class_weight) - set(classes.tolist())
        if unknown:
            name = sorted(map(str, unknown))[0]
            raise FineTuneError(f"a weight for the class {name!r}; {near_names(name, map(str, classes))}")
        weight = weight * np.array([class_weight.get(name, 1.0) for name in classes.tolist()])[codes]
    elif class_weight is not None:
        present = np.unique(codes)
        by_class = dict(zip(present, compute_class_weight(class_weight, classes=present, y=codes), strict=True))
        weight = weight * np.array([by_class[code] for code in codes])
    return (weight / weight.mean()).astype(np.float32)


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
