"""Networks on devices: a copy where one is to compute, float32 that is float32 there, and as many threads as fit."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import nn

from featurebank.errors import BackboneError, one_line
from featurebank.storage.cores import usable_cores


def configure_torch() -> None:
    """Have torch compute float32 in float32, whatever was set before, on no more threads than there are cores for it.

    TF32 keeps 10 bits of a float32's 23, bf16 keeps 7: with either, the same images have other features. To be called
    wherever a network is built.
    """
    if torch.get_num_threads() > usable_cores():
        torch.set_num_threads(usable_cores())
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # or these can no longer be read
    torch.backends.fp32_precision = "ieee"  # type: ignore[attr-defined]
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    for library in (torch.backends.cudnn, torch.backends.mkldnn):
        library.conv.fp32_precision = "ieee"
        library.rnn.fp32_precision = "ieee"
    torch.backends.mkldnn.matmul.fp32_precision = "ieee"  # type: ignore[attr-defined]


def network_on(model: nn.Module, device: torch.device) -> nn.Module:
    """Return a network on a device: itself where it lies there already, else a copy, so that it stays where it is.

    Raises
    ------
    BackboneError
        When it cannot be copied.

    Examples
    --------
    >>> net = nn.Linear(3, 2)
    >>> network_on(net, torch.device("cpu")) is net, network_on(net, torch.device("meta")).weight.device.type
    (True, 'meta')
    """
    configure_torch()
    there = settled(device)
    own = {tensor.device for tensor in chain(model.parameters(), model.buffers())}
    if own <= {there}:
        return model.to(memory_format=torch.channels_last)
    return _copy(model, there)


def _copy(model: nn.Module, device: torch.device) -> nn.Module:
    """Copy a network, its tensors straight to the device."""
    memo: dict[int, Any] = {}
    for tensor in chain(model.parameters(), model.buffers()):
        layout = torch.channels_last if tensor.ndim == 4 else torch.preserve_format
        there = tensor.detach().to(device, copy=True, memory_format=layout)
        memo[id(tensor)] = nn.Parameter(there, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else there
    try:
        return copy.deepcopy(model, memo)
    except Exception as error:  # modules may hold anything
        raise BackboneError(
            f"the network cannot be copied to {device} ({one_line(error)[:120]}): move it there yourself, with "
            f"module.to({str(device)!r}), before you hand it over"
        ) from error


def settled(device: torch.device) -> torch.device:
    """Return a device with its number: of several GPUs the one that "cuda" means now."""
    return torch.empty(0, device=device).device


def synchronize(device: torch.device) -> None:
    """Wait until a device has done all that it was given; a time that is measured begins and ends so."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Have torch draw from a seed on the CPU and on a device; after it, both go on as if nothing had been drawn.

    Other devices are not touched: a process that computes on the CPU takes no memory of a GPU.
    """
    is_gpu = device.type == "cuda"
    with torch.random.fork_rng([device] if is_gpu else [], device_type="cuda"):
        torch.default_generator.manual_seed(seed)
        if is_gpu:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        elif device.type == "mps":
            torch.mps.manual_seed(seed)
        yield
