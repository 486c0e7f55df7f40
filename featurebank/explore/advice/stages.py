"""The stages of a network: which layers make a layer curve, and where to cut for fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence

from featurebank.backbones.base import Backbone
from featurebank.backbones.layers import INPUT, Layers
from featurebank.bank.spec import PENULTIMATE
from featurebank.errors import LayerError
from featurebank.finetuning.cut import Tail, find_cut

CURVE = 4
"""Layers of a layer curve beside the penultimate one."""
LEAST_STAGES, LEAST_PARTS = 3, 4
"""Modules that make a sequence, and layers inside a module that make it more than a convolution and what follows."""


def stages(layers: Layers) -> list[str]:
    """Return the modules that a network is a sequence of, in the order of computation.

    They are modules with a map or tokens for output, of the outermost level on which there are `LEAST_STAGES`: those
    made of `LEAST_PARTS` or more layers (``layer1``, ``blocks.0``), in a plain chain of layers the layers themselves.

    Parameters
    ----------
    layers : Layers
        `Backbone.layers`.

    Examples
    --------
    >>> from featurebank.backbones.registry import load_backbone
    >>> stages(load_backbone("resnet18", "random:0", size=64).layers)
    ['layer1', 'layer2', 'layer3', 'layer4']
    """
    maps = [name for name, layer in layers.items() if layer.layout != "vector"]
    whole = [name for name in maps if sum(other.startswith(f"{name}.") for other in layers) >= LEAST_PARTS]
    for names in (whole, maps):
        for level in range(max((name.count(".") for name in names), default=0) + 1):
            found = [name for name in names if name.count(".") == level]
            if len(found) >= LEAST_STAGES:
                return found
    return maps


def curve_layers(layers: Layers, count: int = CURVE) -> list[str]:
    """Return layers that make a layer curve: some stages, evenly apart up to the last, and the penultimate layer.

    Parameters
    ----------
    layers : Layers
    count : int, default 4
        Number of stages.
    """
    names = stages(layers)
    step = max(1.0, len(names) / count)
    chosen = [names[round(len(names) - 1 - number * step)] for number in range(min(count, len(names)))]
    return [*reversed(chosen), PENULTIMATE]


def cut_after(backbone: Backbone, layer: str) -> str:
    """Return the first module to cut before that begins after a layer: the last stage where there is none.

    Parameters
    ----------
    backbone : Backbone
    layer : str
        A layer's name; the penultimate one means the last stage.

    Raises
    ------
    LayerError
        When the network cannot be cut before any of its stages.
    """
    layers = backbone.layers
    possible = [name for name in stages(layers) if name + INPUT in layers.inputs]
    reached = layers[layer].depth
    later = [name for name in possible if layer != PENULTIMATE and layers.inputs[name + INPUT].depth >= reached]
    return _first_cut(backbone, later or possible[::-1])


def _first_cut(backbone: Backbone, names: Sequence[str]) -> str:
    for name in names:
        try:
            return Tail(backbone, find_cut(backbone, name)).cut  # which tries it
        except LayerError:  # the next one may do
            continue
    raise LayerError(f"{backbone.name} cannot be cut before any of its stages; fine-tune it from input or from head")
