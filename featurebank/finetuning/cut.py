"""The cut: a network from one of its modules on, with everything before it replaced by placeholders.

What lies before the cut is not computed again: each outermost module that ends before the cut begins gives a
placeholder of the shape it would have given, and the module at the cut is handed the cached activations as its input.
The network's own forward runs otherwise, so that this works for every architecture, whatever it does between its
modules. The placeholders are filled with NaN: where anything but the module's input passes the cut, the result is NaN.
"""

from __future__ import annotations

import copy
import difflib
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from featurebank.backbones.base import Backbone
from featurebank.backbones.layers import INPUT, Layer
from featurebank.bank.spec import PENULTIMATE
from featurebank.errors import LayerError, one_line

IMAGES, HEAD = "input", "head"
"""The names of the two cuts that are no modules: before everything, and before the last classifier."""
_PROBED = 2
_SAME = 1e-4
_OFFERED = 2


def find_cut(backbone: Backbone, name: str) -> str:
    """Return the module that a cut is named after.

    Parameters
    ----------
    backbone : Backbone
    name : str
        A module's name, or the end of it where no other module's name ends so; ``"input"`` for all of the network,
        ``"head"`` for its last classifier.

    Returns
    -------
    str
        The module's full name; empty for the whole network.

    Raises
    ------
    LayerError
        When there is no such module, or it does not take one tensor, once; the nearest that does is named.
    """
    if name == IMAGES:
        return ""
    if name == HEAD:
        return classifier_of(backbone)
    modules = [module for module, _ in backbone.model.named_modules() if module]
    fitting = [name] if name in modules else [module for module in modules if module.endswith(f".{name}")]
    if len(fitting) != 1:
        near = fitting or difflib.get_close_matches(name, modules, n=4, cutoff=0.5)
        hint = f"did you mean {', '.join(near[:4])}?" if near else "`featurebank layers BACKBONE` lists them"
        raise LayerError(f"no module {name!r} to cut before; {hint}")
    module = fitting[0]
    if module + INPUT not in backbone.layers.inputs:
        raise LayerError(
            f"{module} does not take one tensor with a row an image, once; cut before {_nearest(backbone, module)}"
        )
    return module


def classifier_of(backbone: Backbone) -> str:
    """Return the name of the linear classifier that ends a network.

    Raises
    ------
    LayerError
        When the network does not end in one.
    """
    layer = backbone.layers[PENULTIMATE]
    module = backbone.model.get_submodule(layer.module)
    if not layer.takes_input or not isinstance(module, nn.Linear) or layer.layout != "vector":
        raise LayerError(
            f"{backbone.name} does not end in a linear classifier of one vector an image; expected one to put a new "
            "head in its place: give the network a last nn.Linear"
        )
    return layer.module


def layer_at(backbone: Backbone, module: str) -> Layer:
    """Return the layer whose rows go in at a cut: the classifier's input is the penultimate layer.

    Parameters
    ----------
    backbone : Backbone
    module : str
        From `find_cut`, not empty.
    """
    penultimate = backbone.layers[PENULTIMATE]
    at_classifier = penultimate.takes_input and penultimate.module == module
    return penultimate if at_classifier else backbone.layers.inputs[module + INPUT]


class Tail(nn.Module):
    """A network from a cut on: activations in, what the whole network would give out.

    Parameters
    ----------
    backbone : Backbone
        Its network is copied, but for what lies before the cut, and left as it is.
    cut : str
        A module's name, from `find_cut`; empty for all of the network.

    Attributes
    ----------
    network : nn.Module
        The copy; its tensors have the names that they have in the whole network.
    cut : str

    Raises
    ------
    LayerError
        When more than the module's input passes the cut.

    Examples
    --------
    >>> from featurebank.backbones.registry import load_backbone
    >>> backbone = load_backbone("resnet18", "random:0", size=32)
    >>> Tail(backbone, "layer4")(torch.zeros(5, 256, 2, 2)).shape
    torch.Size([5, 1000])
    """

    def __init__(self, backbone: Backbone, cut: str):
        super().__init__()
        self.cut = cut
        self._count = _Count()
        images = _probe_images(backbone)
        seen = _observe(backbone.model, cut, images)
        self.network = self._copy(backbone.model, seen)
        self._images = images.new_full((), math.nan).expand(images.shape[1:])
        self._check(seen.given, seen.expected)

    def forward(self, x: Tensor) -> Tensor:
        """Run the network from the cut on.

        Parameters
        ----------
        x : Tensor of float, shape (n, …)
            The input of the module at the cut; images (n, 3, h, w) where the whole network runs.

        Returns
        -------
        Tensor of float, shape (n, k)
        """
        if not self.cut:
            return self.network(x)
        self._count.rows, self._count.device = len(x), x.device
        with _given_to(self.network.get_submodule(self.cut), x):
            return self.network(self._images.to(x).expand(len(x), *self._images.shape))

    def _copy(self, model: nn.Module, seen: _Observed) -> nn.Module:
        """Copy a network, with placeholders in the place of what ended before the cut."""
        memo: dict[int, Any] = {}
        for name in seen.outermost if self.cut else ():
            memo[id(model.get_submodule(name))] = _Placeholder(seen.outputs[name], self._count)
        return copy.deepcopy(model, memo)

    def _check(self, given: Tensor, expected: Tensor) -> None:
        """Refuse a cut that more than one tensor passes; what passes it beside that one is NaN here."""
        try:
            with torch.no_grad():
                found = self(given)
            is_same = torch.allclose(found, expected, rtol=_SAME, atol=_SAME * float(expected.abs().max()))
        except Exception as error:  # placeholders may be of no use to code between modules, in any way
            raise LayerError(f"{self.cut!r} cannot be cut before ({one_line(error)[:120]}); {_BLOCK}") from error
        if not is_same:
            raise LayerError(f"more than the input of {self.cut!r} goes on behind it; {_BLOCK}")


_BLOCK = "expected a module that all goes through, for instance a whole block: name the one around it"


class _Count:
    """How many rows the batch has that is running, and where."""

    rows = 0
    device = torch.device("cpu")


class _Placeholder(nn.Module):
    """Stands for a module before the cut: gives NaN in the shapes that it gave."""

    def __init__(self, output: Any, count: _Count):
        super().__init__()
        self._output, self._count = output, count  # on the meta device

    def forward(self, *args: Any, **named: Any) -> Any:
        return self._fill(self._output)

    def _fill(self, shadow: Any) -> Any:
        if isinstance(shadow, (tuple, list)):
            return type(shadow)(self._fill(each) for each in shadow)
        if not isinstance(shadow, Tensor):
            return shadow
        nothing = math.nan if shadow.is_floating_point() else 0
        value = torch.full((), nothing, dtype=shadow.dtype, device=self._count.device)
        if not shadow.ndim:
            return value
        rows = self._count.rows if shadow.shape[0] == _PROBED else shadow.shape[0]
        return value.expand(rows, *shadow.shape[1:])


def _probe_images(backbone: Backbone) -> Tensor:
    device = next((parameter.device for parameter in backbone.model.parameters()), torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    return torch.randn(_PROBED, 3, *backbone.input_size, generator=generator).to(device)


@dataclass
class _Observed:
    """What one pass of the whole network showed: what went in at the cut, what came out, what ended before the cut."""

    given: Any = None
    expected: Any = None
    outputs: dict[str, Any] = field(default_factory=dict)
    late: set[str] = field(default_factory=set)

    @property
    def outermost(self) -> list[str]:
        """The modules whose every call ended before the one at the cut began, without those inside others."""
        early = [name for name in self.outputs if name not in self.late]
        return [name for name in early if not any(name.startswith(f"{other}.") for other in early)]


def _observe(model: nn.Module, cut: str, images: Tensor) -> _Observed:
    """Run the whole network once and watch its modules."""
    seen = _Observed(given=None if cut else images, late={cut})

    def begin(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        seen.given = (*args, *named.values())[0].clone()  # the module may work in place

    def end(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            seen.outputs[name] = _shadow(output)
            if seen.given is not None:
                seen.late.add(name)

        return hook

    with ExitStack() as stack, torch.no_grad():
        for name, module in model.named_modules():
            if name:
                stack.callback(module.register_forward_hook(end(name)).remove)
            if name and name == cut:
                stack.callback(module.register_forward_pre_hook(begin, with_kwargs=True).remove)
        seen.expected = model(images)
    return seen


def _shadow(value: Any) -> Any:
    """Keep a tensor's shape and dtype, not its memory."""
    if isinstance(value, (tuple, list)):
        return type(value)(_shadow(each) for each in value)
    return torch.empty_like(value, device="meta") if isinstance(value, Tensor) else value


@contextmanager
def _given_to(module: nn.Module, x: Tensor) -> Iterator[None]:
    """Have a module take `x` in place of what it is called with."""

    def replace(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        return ((x,), {}) if args else ((), dict.fromkeys(named, x))

    handle = module.register_forward_pre_hook(replace, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _nearest(backbone: Backbone, module: str) -> str:
    """Return the modules around one, or nearest to it in the order of computation, that can be cut before."""
    inputs = [name.removesuffix(INPUT) for name in backbone.layers.inputs]
    around = [name for name in reversed(inputs) if module.startswith(f"{name}.")]
    order = [name for name, _ in backbone.model.named_modules()]
    by_distance = sorted(inputs, key=lambda name: abs(order.index(name) - order.index(module)))
    offered: list[str] = []
    for name in [*around, *by_distance]:
        if name not in offered and _can_cut(backbone, name):
            offered.append(name)
        if len(offered) == _OFFERED:
            break
    return " or ".join(offered) or f"{IMAGES!r} or {HEAD!r}"


def _can_cut(backbone: Backbone, module: str) -> bool:
    try:
        Tail(backbone, module)
    except LayerError:
        return False
    return True
