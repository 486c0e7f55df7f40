"""Layers of a backbone: their names, shapes and layouts, found in one forward pass."""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from featurebank.bank.spec import LOGITS, PENULTIMATE, POOLS, default_pool
from featurebank.errors import LayerError, near_names, one_line

INPUT = ".input"
"""What is put behind a module's name to name its input: a layer that is found when it is asked for, never listed."""
_PROBE_BATCH = 2


@dataclass(frozen=True)
class Layer:
    """One layer that can be captured.

    Attributes
    ----------
    name : str
        ``"penultimate"``, ``"logits"``, a module name, or one with ``.input`` behind it.
    module : str
        Name of the module that is watched; empty for the whole network.
    takes_input : bool
        Whether the module's input is the layer, rather than its output.
    call : int
        The call of the module, counted from 1, whose tensor is the layer: its last.
    depth : int
        Order of completion in the forward pass, from 1.
    shape : tuple of int
        Shape for one image, before pooling.
    layout : str
        One of `featurebank.bank.spec.LAYOUTS`.
    prefix : int
        Class and register tokens before the patch tokens.
    """

    name: str
    module: str
    takes_input: bool
    call: int
    depth: int
    shape: tuple[int, ...]
    layout: str
    prefix: int = 0

    @property
    def default_pool(self) -> str:
        """The pooling this layer gets when none is named."""
        return default_pool(self.layout)


class Absent(nn.Identity):
    """Stands in the place of a module of the classifier of which the weights have no tensors."""


class Layers(dict[str, Layer]):
    """The layers of a network by name, in the order of computation, and the inputs of its modules beside them.

    Attributes
    ----------
    inputs : dict of str to Layer
        ``MODULE.input`` of each module that is called once and takes one tensor with a row an image, in the order in
        which the modules are called.
    behind : dict of str to str
        Layers that the network cannot give, each with the module before it that the weights have no tensors of.
    """

    def __init__(self) -> None:
        super().__init__()
        self.inputs: dict[str, Layer] = {}
        self.behind: dict[str, str] = {}


@dataclass(frozen=True)
class _Event:
    """One call of one module in the probing pass, and how many calls had ended when it began."""

    module: str
    call: int
    input: Any
    output: Any
    before: int = 0


def find_layers(model: nn.Module, images: Tensor, classifier: str | None = None) -> Layers:
    """List every layer of a network, by one forward pass, in the order of computation.

    Parameters
    ----------
    model : nn.Module
        In eval mode.
    images : Tensor of float32, shape (2, 3, height, width)
        Two images; a module whose first output dimension is not 2 mixes images and is left out.
    classifier : str, optional
        Name of the last classifier; by default the last `nn.Linear` (or 1x1 convolution) that was called.

    Returns
    -------
    Layers
        ``"penultimate"`` and ``"logits"`` included.

    Raises
    ------
    LayerError
        When the network gives no tensor.
    """
    events, output = _trace(model, images)
    layers = Layers()
    for depth, event in enumerate(events, 1):
        if _is_per_image(event.output):
            layers[event.module] = _layer(model, event.module, event, depth, event.output, takes_input=False)
    if not _is_per_image(output):
        raise LayerError("the network's output is not one tensor with a row an image: wrap it so that it is")
    end = _Event("", 1, images, output)
    layers[LOGITS] = _layer(model, LOGITS, end, len(events) + 1, output, takes_input=False)
    depth, head = _find_classifier(model, events, classifier) or (len(events) + 1, end)
    tensor = head.input if head is not end else output
    layers[PENULTIMATE] = _layer(model, PENULTIMATE, head, depth, tensor, takes_input=head is not end)
    layers.inputs = _inputs(model, events)
    _leave_out_behind_absent(layers, model, events)
    return layers


def _leave_out_behind_absent(layers: Layers, model: nn.Module, events: Sequence[_Event]) -> None:
    """Move to `Layers.behind` what is computed after the first module that stands for an absent one."""
    modules = dict(model.named_modules())
    ended = [(depth, each.module) for depth, each in enumerate(events, 1) if isinstance(modules[each.module], Absent)]
    for first, name in ended[:1]:
        for found in (layers, layers.inputs):
            late = [key for key, layer in found.items() if layer.depth - _is_taken_before(layer) >= first]
            layers.behind |= dict.fromkeys(late, name)
            for key in late:
                del found[key]


def _is_taken_before(layer: Layer) -> bool:
    """Say whether a layer is there before the call that it is listed at the end of: the classifier's input."""
    return layer.name == PENULTIMATE and layer.takes_input


def _inputs(model: nn.Module, events: Sequence[_Event]) -> dict[str, Layer]:
    """Return the input of each module that is called once, in the order in which they are called."""
    calls = Counter(event.module for event in events)
    latest = reversed(events)  # of two that begin together the outer ends last
    found = [event for event in latest if calls[event.module] == 1 and _is_per_image(event.input)]
    ordered = sorted(found, key=lambda event: event.before)
    named = [(event.module + INPUT, event) for event in ordered]
    return {name: _layer(model, name, event, event.before, event.input, takes_input=True) for name, event in named}


def _trace(model: nn.Module, images: Tensor) -> tuple[list[_Event], Any]:
    """Run the network once and record what every named module took and gave, as shapes on the meta device."""
    events: list[_Event] = []
    calls: Counter[str] = Counter()
    before: dict[str, int] = {}

    def begin(name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            before[name] = len(events)

        return hook

    def watch(name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
            calls[name] += 1
            events.append(_Event(name, calls[name], _shadow(only_argument(args, named)), _shadow(output), before[name]))

        return hook

    with ExitStack() as stack, torch.inference_mode():
        for name, module in model.named_modules():
            if name:
                stack.callback(module.register_forward_pre_hook(begin(name)).remove)
                stack.callback(module.register_forward_hook(watch(name), with_kwargs=True).remove)
        output = model(images)
    return events, _shadow(output)


def only_argument(args: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """Return the argument of a call that has just one, by position or by name."""
    values = (*args, *named.values())
    return values[0] if len(values) == 1 else None


def _shadow(value: Any) -> Any:
    """Keep a tensor's shape and dtype, not its memory."""
    return torch.empty_like(value, device="meta") if isinstance(value, Tensor) else None


def _is_per_image(value: Any) -> bool:
    return (
        isinstance(value, Tensor)
        and value.is_floating_point()
        and value.ndim in (2, 3, 4)
        and value.shape[0] == _PROBE_BATCH
        and math.prod(value.shape) > 0
    )


def _layer(model: nn.Module, name: str, event: _Event, depth: int, tensor: Tensor, takes_input: bool) -> Layer:
    shape = tuple(tensor.shape[1:])
    layout, prefix = _layout(model, shape)
    return Layer(name, event.module, takes_input, event.call, depth, shape, layout, prefix)


def _layout(model: nn.Module, shape: tuple[int, ...]) -> tuple[str, int]:
    """Tell vectors, maps (channels first or last) and tokens apart by their shape for one square image."""
    if len(shape) == 1:
        return "vector", 0
    if len(shape) == 3:
        return ("NHWC" if shape[0] == shape[1] != shape[2] else "NCHW"), 0
    prefix, has_class = _prefix_tokens(model)
    if prefix and _is_square(shape[0] - prefix):  # n² and n² + prefix are never both the patch count
        return ("cls-tokens" if has_class else "tokens"), prefix
    return "tokens", 0


def _is_square(count: int) -> bool:
    return count >= 0 and math.isqrt(count) ** 2 == count


def _prefix_tokens(model: nn.Module) -> tuple[int, bool]:
    """Return how many tokens precede the patches, and whether the first is a class token."""
    has_class = any(getattr(model, name, None) is not None for name in ("class_token", "cls_token"))
    return int(getattr(model, "num_prefix_tokens", 1 if has_class else 0)), has_class


def _find_classifier(model: nn.Module, events: list[_Event], name: str | None) -> tuple[int, _Event] | None:
    """Return the last call of the classifier whose input can be a layer, and its depth."""
    modules = dict(model.named_modules())
    for depth, event in reversed(list(enumerate(events, 1))):
        is_it = event.module == name if name else _is_classifier(modules[event.module])
        if is_it and _is_per_image(event.input):
            return depth, event
    return None


def _is_classifier(module: nn.Module) -> bool:
    return isinstance(module, (nn.Linear, Absent)) or (isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1))


def get_layer(layers: Layers, name: str, pool: str = "") -> tuple[Layer, str]:
    """Look up a layer and settle its pooling.

    Parameters
    ----------
    layers : Layers
        From `find_layers`.
    name : str
        The layer.
    pool : str, default ""
        One of `featurebank.bank.spec.POOLS`; empty for the layer's default.

    Raises
    ------
    LayerError
        When there is no such layer or pooling (near names are suggested), or the pooling does not fit the layer.
    """
    layer = layers.get(name) or layers.inputs.get(name)
    if layer is None:
        if name in layers.behind:
            raise LayerError(
                f"no layer {name!r}: the weights have no tensors of {layers.behind[name]}, which it is computed from; "
                "expected a layer before it, or weights with a classifier"
            )
        head, colon, tail = name.rpartition(":")
        if colon and head in layers:
            raise LayerError(
                f"no pooling {tail!r} of {head!r}; {near_names(tail, _fitting_pools(layers[head].layout))}"
            )
        near = difflib.get_close_matches(name, layers, n=4, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}?" if near else "`featurebank layers BACKBONE` lists them"
        raise LayerError(f"no layer {name!r} that gives one tensor an image; {hint}")
    pool = pool or layer.default_pool
    allowed = _fitting_pools(layer.layout)
    if pool not in allowed:
        raise LayerError(f"pool {pool!r} does not fit {name!r} ({layer.layout}); expected one of {', '.join(allowed)}")
    return layer, pool


def _fitting_pools(layout: str) -> tuple[str, ...]:
    if layout == "vector":
        return ("none",)
    return tuple(pool for pool in POOLS if pool != "cls" or layout == "cls-tokens")


def probe(model: nn.Module, input_size: tuple[int, int], classifier: str | None = None) -> Layers:
    """List the layers of a network for images of a size; see `find_layers`.

    Raises
    ------
    LayerError
        When the network does not take images of this size.
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    images = torch.zeros(_PROBE_BATCH, 3, *input_size, device=device)
    try:
        return find_layers(model, images, classifier)
    except LayerError:
        raise
    except Exception as error:  # a network's own complaint about the size: any kind
        raise LayerError(
            f"the network does not take {input_size[0]}x{input_size[1]} images ({one_line(error)[:160]}): "
            "leave out --size, or choose one it was made for"
        ) from error
