"""Capture: several layers of one forward pass, each pooled to a vector an image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from featurebank.backbones.layers import Layer, only_argument
from featurebank.errors import LayerError

GEM_POWER = 3.0


def pool_tensor(tensor: Tensor, layout: str, prefix: int, pool: str) -> Tensor:
    """Pool a captured tensor to one vector an image, as a copy.

    Parameters
    ----------
    tensor : Tensor, shape (n, c), (n, c, h, w), (n, h, w, c) or (n, t, c)
        As the layer gave it.
    layout : str
        Which of these it is (`featurebank.bank.spec.LAYOUTS`).
    prefix : int
        Tokens to leave out of every pooling but ``"cls"`` and ``"none"``.
    pool : str
        ``avg``, ``max``, ``avgmax`` (both, concatenated), ``gem`` (generalised mean with power 3, Radenovic et
        al. 2019), ``cls`` (the class token) or ``none``.

    Returns
    -------
    Tensor of float32, shape (n, c), (n, 2c) for ``avgmax``, the tensor's own for ``none``
    """
    if pool == "none":
        return tensor.float().clone(memory_format=torch.contiguous_format)
    if pool == "cls":
        return tensor[:, 0].float().clone()
    cells = _cells(tensor.float(), layout, prefix)  # (n, c, cells)
    if pool == "avg":
        return cells.mean(2)
    if pool == "max":
        return cells.amax(2)
    if pool == "avgmax":
        return torch.cat([cells.mean(2), cells.amax(2)], 1)
    return cells.clamp(min=1e-6).pow(GEM_POWER).mean(2).pow(1 / GEM_POWER)


def _cells(tensor: Tensor, layout: str, prefix: int) -> Tensor:
    """Bring maps and tokens to (n, c, cells)."""
    if layout == "NCHW":
        return tensor.flatten(2)
    if layout == "NHWC":
        return tensor.flatten(1, 2).transpose(1, 2)
    return tensor[:, prefix:].transpose(1, 2)


class _DeepestReachedError(Exception):
    """Raised inside a forward pass once the deepest layer has been captured."""


class Capture:
    """Run a network and return several pooled layers of one forward pass, which ends after the deepest.

    A captured tensor is pooled or copied at once, since in-place activations overwrite it later.

    Parameters
    ----------
    model : nn.Module
        In eval mode.
    wanted : sequence of (Layer, str)
        Layers with their pooling, from `get_layer`.
    stop : bool, default True
        End the forward pass after the deepest layer. An exporter needs the whole pass, and drops the rest itself.

    Examples
    --------
    >>> from featurebank.backbones.layers import find_layers, get_layer
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(16, 2)).eval()
    >>> images = torch.zeros(2, 3, 4, 4)
    >>> layer = get_layer(find_layers(model, images), "0")
    >>> [tuple(out.shape) for out in Capture(model, [layer])(images)]
    [(2, 4)]
    """

    def __init__(self, model: nn.Module, wanted: Sequence[tuple[Layer, str]], *, stop: bool = True):
        self.model = model
        self.wanted = list(wanted)
        self.stop = stop
        modules, targets = dict(model.named_modules()), dict[str, list[int]]()
        for index, (layer, _) in enumerate(self.wanted):
            if layer.module:
                targets.setdefault(layer.module, []).append(index)
        self._targets = [(modules[name], indices) for name, indices in targets.items()]

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Return one tensor for each wanted layer.

        Parameters
        ----------
        images : Tensor of float32, shape (n, 3, height, width)

        Returns
        -------
        list of Tensor of float32, each of shape (n, …)
        """
        captured: dict[int, Tensor] = {}
        with self._watching(captured):
            try:
                output = self.model(images)
            except _DeepestReachedError:
                output = None
        for index, (layer, pool) in enumerate(self.wanted):
            if not layer.module:
                captured[index] = pool_tensor(output, layer.layout, layer.prefix, pool)
        if len(captured) < len(self.wanted):
            missing = [layer.name for i, (layer, _) in enumerate(self.wanted) if i not in captured]
            raise LayerError(f"layers {missing} were not computed for this input; ask for layers that always are")
        return [captured[index] for index in range(len(self.wanted))]

    @contextmanager
    def _watching(self, captured: dict[int, Tensor]) -> Iterator[None]:
        with ExitStack() as stack:
            for module, indices in self._targets:
                for handle in self._hooks(module, indices, captured):
                    stack.callback(handle.remove)
            yield

    def _hooks(self, module: nn.Module, indices: list[int], captured: dict[int, Tensor]) -> list[Any]:
        calls = Counter[str]()

        def keep(when: str, takes_input: bool, tensor: Tensor) -> None:
            calls[when] += 1
            for index in indices:
                layer, pool = self.wanted[index]
                if layer.takes_input == takes_input and layer.call == calls[when]:
                    captured[index] = pool_tensor(tensor, layer.layout, layer.prefix, pool)
            if self.stop and len(captured) == len(self.wanted):
                raise _DeepestReachedError

        def before(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
            keep("before", True, only_argument(args, named))

        def after(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            keep("after", False, output)

        return [module.register_forward_pre_hook(before, with_kwargs=True), module.register_forward_hook(after)]
