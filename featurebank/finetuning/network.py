"""A network that trains: the tail of a backbone with a new head, its blocks, and rows run through it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from featurebank.backbones.base import Backbone
from featurebank.errors import LayerError
from featurebank.finetuning.blocks import Block, find_blocks
from featurebank.finetuning.cut import Tail, classifier_of, find_cut, layer_at

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
Rows = NDArray[np.int64]


class Feed(Protocol):
    """Where the rows come from: activations in a bank, or live images."""

    views: int

    def __len__(self) -> int: ...

    def draw(self, random: np.random.Generator, count: int) -> Rows:
        """Draw what is done to each of `count` images: the number of a view, or a seed."""

    def stream(self, plan: Any) -> Iterator[Tensor]:
        """Yield a batch, float32 of shape (n, …), for each pair of rows and draws."""


class Network:
    """The tail of a backbone with a new head.

    Parameters
    ----------
    backbone : Backbone
    cut : str
        See `featurebank.finetuning.cut.find_cut`.
    device : torch.device
    precision : str, default "fp32"
    trains_batchnorm : bool, default False

    Attributes
    ----------
    tail : Tail
    head : str
        Name of the module in whose place the new head goes.
    width : int
        Length of a penultimate embedding.
    """

    def __init__(
        self,
        backbone: Backbone,
        cut: str,
        device: torch.device,
        *,
        precision: str = "fp32",
        trains_batchnorm: bool = False,
    ):
        self.module = find_cut(backbone, cut)
        self.head = classifier_of(backbone)
        self.width = int(backbone.model.get_submodule(self.head).in_features)  # type: ignore[arg-type]
        self.shape = layer_at(backbone, self.module).shape if self.module else (3, *backbone.input_size)
        self.device, self.precision = device, precision
        self.trains_batchnorm = trains_batchnorm
        self.tail = Tail(backbone, self.module)
        self.to_device()
        self.switch(training=False)

    def to_device(self) -> None:
        """Put the tail, and a head that was just given to it, where it runs."""
        self.tail.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def set_head(self, layers: nn.Module) -> None:
        """Put new layers in the place of the last classifier.

        Raises
        ------
        LayerError
            When the network does more to what its classifier gives.
        """
        parent, _, name = self.head.rpartition(".")
        setattr(self.tail.network.get_submodule(parent), name, layers)
        self.to_device()
        self.switch(training=False)
        x = torch.zeros(2, *self.shape, device=self.device)
        given: list[Tensor] = []
        handle = self.layers.register_forward_hook(lambda module, args, output: given.append(output))
        with torch.no_grad():
            found = self.tail(x)
        handle.remove()
        if len(given) != 1 or not torch.equal(given[0], found):
            raise LayerError(f"the network goes on behind its classifier {self.head!r}; expected it to end there")

    @property
    def layers(self) -> nn.Module:
        """The head."""
        return self.tail.network.get_submodule(self.head)

    def blocks(self) -> list[Block]:
        """Return what can train, from the cut to the head."""
        return find_blocks(self.tail, self.head, torch.zeros(2, *self.shape, device=self.device))

    def switch(self, training: bool) -> None:
        """Switch dropout and its like on or off; batch normalisation learns only where it is to, anew."""
        self.tail.train(False)
        for module in self.tail.network.modules() if training else ():
            has_statistics = getattr(module, "running_mean", None) is not None
            if has_statistics or not list(module.children()):
                module.train(self.trains_batchnorm or not has_statistics)

    def place(self, x: Tensor) -> Tensor:
        """Bring a batch to the device, channels last in memory where it is a map."""
        x = x.to(self.device, non_blocking=True)
        return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x

    @contextmanager
    def cast(self) -> Iterator[None]:
        """Compute at the precision that was asked for."""
        dtype = DTYPES[self.precision]
        with torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
            yield

    def logits(self, feed: Feed, rows: Rows, views: int, batch_size: int) -> NDArray[np.float32]:
        """Return the logits of images, of the embeddings that are averaged over their first views.

        Parameters
        ----------
        feed : Feed
        rows : ndarray of int64, shape (n,)
        views : int
        batch_size : int

        Returns
        -------
        ndarray of float32, shape (n, k)
        """
        X = torch.from_numpy(self.embeddings(feed, rows, views, batch_size)).to(self.device)
        with torch.no_grad():
            return self.layers(X).cpu().numpy()

    def embeddings(self, feed: Feed, rows: Rows, views: int, batch_size: int) -> NDArray[np.float32]:
        """Return the penultimate embeddings of images, averaged over their first views, shape (n, d)."""
        self.switch(training=False)
        each, which = np.repeat(rows, views), np.tile(np.arange(views), len(rows))
        plan = list(zip(split(each, batch_size), split(which, batch_size), strict=True))
        given: list[Tensor] = []
        handle = self.layers.register_forward_hook(lambda module, args, output: given.append(args[0].float().cpu()))
        try:
            with torch.no_grad(), self.cast():
                for x in feed.stream(plan):
                    self.tail(self.place(x))
        finally:
            handle.remove()
        return torch.cat(given).view(len(rows), views, -1).mean(1).numpy()


def split(values: NDArray[Any], size: int) -> list[NDArray[Any]]:
    """Cut an array into parts of a size, the last one smaller.

    Examples
    --------
    >>> split(np.arange(5), 2)
    [array([0, 1]), array([2, 3]), array([4])]
    """
    return [values[start : start + size] for start in range(0, len(values), size)]


class Weights:
    """The tensors of a network that training changes: parameters, and statistics where those are learned.

    Parameters
    ----------
    network : Network
    blocks : sequence of Block
    """

    def __init__(self, network: Network, blocks: Sequence[Block]):
        self._live: dict[str, Tensor] = {name: each for block in blocks for name, each in block.parameters.items()}
        if network.trains_batchnorm:
            self._live |= dict(network.tail.network.named_buffers())

    def copy(self) -> dict[str, Tensor]:
        """Return the tensors as they are now."""
        return {name: tensor.detach().clone() for name, tensor in self._live.items()}

    def set(self, values: Mapping[str, Tensor]) -> None:
        """Put other values in."""
        with torch.no_grad():
            for name, tensor in self._live.items():
                tensor.copy_(values[name])
