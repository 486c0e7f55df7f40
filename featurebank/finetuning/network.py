"""A network that trains: the tail of a backbone with a new head, its blocks, and rows run through it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from featurebank.backbones.base import Backbone
from featurebank.backbones.placing import configure_torch
from featurebank.errors import LayerError
from featurebank.finetuning.activations import Activations, Rows, split
from featurebank.finetuning.cut import Tail, classifier_of, find_cut, layer_at


@dataclass(frozen=True)
class Block:
    """Parameters that share a learning rate.

    Attributes
    ----------
    modules : tuple of str
        Names of the modules, in the order of computation.
    parameters : dict of str to nn.Parameter
        By their names in the network.
    """

    modules: tuple[str, ...]
    parameters: dict[str, nn.Parameter]

    @property
    def name(self) -> str:
        """The first module's name, and the last one's where there are several."""
        return self.modules[0] if len(self.modules) == 1 else f"{self.modules[0]}..{self.modules[-1]}"


def find_blocks(tail: Tail, head: str, example: Tensor) -> list[Block]:
    """Divide what trains into blocks, from the cut to the head, which is last.

    A block is a module that is called beside the one at the cut, or beside the head; a single layer, such as a
    normalisation, goes with the block before it, and a sequence of sequences is taken apart. The head is a block of its
    own. Parameters that the output does not depend on are in no block. The example is a batch at the cut.
    """
    trained = _trained(tail, example)
    groups: list[list[str]] = []
    for unit in _units(tail, head, example):
        owned = {name.rpartition(".")[0] for name in trained if name.startswith(f"{unit}.")}
        if groups and unit != head and len(owned) == 1:
            groups[-1].append(unit)
        elif owned:
            groups.append([unit])
    blocks = [Block(tuple(group), _under(group, trained)) for group in groups]
    found = {name for block in blocks for name in block.parameters}
    rest = {name: value for name, value in trained.items() if name not in found}  # of no module, such as a class token
    return [Block(blocks[0].modules, rest | blocks[0].parameters), *blocks[1:]]


def _trained(tail: Tail, example: Tensor) -> dict[str, nn.Parameter]:
    """Return the parameters that the output depends on."""
    parameters = dict(tail.network.named_parameters())
    tail.requires_grad_(True)
    tail(example).sum().backward()
    reached = {name: value for name, value in parameters.items() if value.grad is not None}
    tail.zero_grad(set_to_none=True)
    tail.requires_grad_(False)
    return reached


def _under(modules: Sequence[str], parameters: dict[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    starts = tuple(f"{module}." for module in modules)
    return {name: value for name, value in parameters.items() if name.startswith(starts)}


def _units(tail: Tail, head: str, example: Tensor) -> list[str]:
    """Return the modules that are called directly by those around the cut or the head, from the cut on, in order."""
    modules = dict(tail.network.named_modules())
    is_open = {"", *_around(tail.cut), *_around(head)}
    is_open |= {name for name, module in modules.items() if _is_list_of_blocks(module)} - {tail.cut}
    units: list[str] = []
    called: list[str] = [""]

    def begin(name: str) -> Any:
        def hook(module: nn.Module, args: Any) -> None:
            if name not in is_open and set(called) <= is_open and name not in units:
                units.append(name)
            called.append(name)

        return hook

    def end(module: nn.Module, args: Any, output: Any) -> None:
        called.pop()

    with ExitStack() as stack, torch.no_grad():
        for name, module in modules.items():
            if name:
                stack.callback(module.register_forward_pre_hook(begin(name)).remove)
                stack.callback(module.register_forward_hook(end).remove)
        tail(example)
    return units


def _around(module: str) -> Iterable[str]:
    """Return the names of the modules that a module lies in."""
    parts = module.split(".")
    return (".".join(parts[:count]) for count in range(1, len(parts)))


def _is_list_of_blocks(module: nn.Module) -> bool:
    children = list(module.children())
    return (
        isinstance(module, nn.Sequential)
        and len(children) > 1
        and all(isinstance(child, nn.Sequential) for child in children)
    )


def rates(blocks: Sequence[Block], rate: float, decay: float) -> list[float]:
    """Return the learning rate of each block: the head's is `rate`, each earlier one's `decay` times smaller.

    Discriminative fine-tuning: Howard and Ruder 2018, Universal language model fine-tuning for text classification.
    """
    return [rate / decay ** (len(blocks) - 1 - number) for number in range(len(blocks))]


def active(blocks: Sequence[Block], unfreeze: str, epoch: int) -> list[bool]:
    """Say which blocks train in an epoch, from 1: all, or with "gradual" the head first and one more each epoch."""
    return [unfreeze == "all" or number >= len(blocks) - epoch for number in range(len(blocks))]


DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


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
        configure_torch()
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

    def logits(self, activations: Activations, rows: Rows, views: int, batch_size: int) -> NDArray[np.float32]:
        """Return the logits of images, shape (n, k), of the embeddings that are averaged over their first views."""
        X = torch.from_numpy(self.embeddings(activations, rows, views, batch_size)).to(self.device)
        with torch.no_grad():
            return self.layers(X).cpu().numpy()

    def embeddings(self, activations: Activations, rows: Rows, views: int, batch_size: int) -> NDArray[np.float32]:
        """Return the penultimate embeddings of images, averaged over their first views, shape (n, d)."""
        self.switch(training=False)
        each, which = np.repeat(rows, views), np.tile(np.arange(views), len(rows))
        plan = list(zip(split(each, batch_size), split(which, batch_size), strict=True))
        given: list[Tensor] = []
        handle = self.layers.register_forward_hook(lambda module, args, output: given.append(args[0].float().cpu()))
        try:
            with torch.no_grad(), self.cast():
                for x in activations.stream(plan):
                    self.tail(self.place(x))
        finally:
            handle.remove()
        return torch.cat(given).view(len(rows), views, -1).mean(1).numpy()


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
