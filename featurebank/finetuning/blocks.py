"""Blocks: the parameters that train, in groups from the cut to the head, each with its learning rate."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from featurebank.errors import FineTuneError, near_names
from featurebank.finetuning.cut import Tail

GRADUAL, ONLY = "gradual", "only:"


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
    """Divide what trains into blocks.

    A block is a module that is called beside the one at the cut, or beside the head; a single layer, such as a
    normalisation, goes with the block before it, and a sequence of sequences is taken apart. The head is a block of its
    own. Parameters that the output does not depend on are in no block.

    Parameters
    ----------
    tail : Tail
    head : str
        Name of the classifier.
    example : Tensor of float, shape (n, …)
        Activations at the cut.

    Returns
    -------
    list of Block
        From the cut to the head, which is last.
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
    """Say which blocks train in an epoch.

    Parameters
    ----------
    blocks : sequence of Block
    unfreeze : str
        See `featurebank.finetuning.recipe.Recipe`.
    epoch : int
        From 1.

    Raises
    ------
    FineTuneError
        When the one block that is to train is not there.
    """
    if unfreeze == GRADUAL:
        return [number >= len(blocks) - epoch for number in range(len(blocks))]
    if not unfreeze.startswith(ONLY):
        return [True] * len(blocks)
    name = unfreeze.removeprefix(ONLY)
    chosen = [any(f"{module}.".startswith(f"{name}.") for module in block.modules) for block in blocks]
    if not any(chosen):
        known = [module for block in blocks for module in block.modules]
        raise FineTuneError(f"no block {name!r} trains here; {near_names(name, known)}")
    return chosen
