"""What a network is asked before a command is recommended: its layers, where to cut it, and what it would cost."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch

from featurebank.backbones.base import Backbone
from featurebank.backbones.capture import Capture
from featurebank.backbones.devices import choose_device
from featurebank.backbones.layers import INPUT, Layers, get_layer
from featurebank.backbones.placing import synchronize
from featurebank.backbones.request import Request
from featurebank.bank.bank import Bank
from featurebank.bank.images import source_of
from featurebank.bank.samples import SampleTable
from featurebank.bank.spec import PENULTIMATE, FeatureSpec, split_pool
from featurebank.errors import LayerError
from featurebank.finetuning.cut import Tail, find_cut
from featurebank.finetuning.estimate import Estimate, estimate
from featurebank.finetuning.experiment import Experiment, TrainingSet
from featurebank.finetuning.recipe import Recipe
from featurebank.images.views import count_views

IMAGES, TIMES = 8, 2
CURVE = 4
"""Layers of a layer curve beside the penultimate one."""
LEAST_BLOCKS, LEAST_PARTS = 3, 4
"""Modules that make a sequence, and layers inside a module that make it more than a convolution and what follows."""


def extraction_cost(backbone: Backbone, layers: Sequence[str], spec: FeatureSpec, images: int) -> tuple[float, int]:
    """Return the seconds of the network alone, and the bytes that the embeddings take, in a few timed batches.

    The spec is that of a set with the same views and stored dtype.
    """
    device = choose_device("auto")
    wanted = [get_layer(backbone.layers, *split_pool(layer)) for layer in layers]
    capture = Capture(backbone.network_on(device), wanted)
    batch = torch.zeros(IMAGES, 3, *backbone.input_size, device=device)
    with torch.inference_mode():
        width = sum(each[0].numel() for each in capture(batch))
        synchronize(device)
        started = time.perf_counter()
        for _ in range(TIMES):
            capture(batch)
        synchronize(device)
    each = (time.perf_counter() - started) / (TIMES * IMAGES)
    views = count_views(spec.views)
    return each * images * views, width * np.dtype(spec.store).itemsize * images * views


def tuning_cost(bank: Bank, request: Request, labels: TrainingSet, table: SampleTable, recipe: Recipe) -> Estimate:
    """Return what ``featurebank finetune`` would estimate before it starts; an error where it would not start."""
    setup = Experiment(bank, request, source_of(table), labels, recipe)
    setup.check()
    return estimate(setup)


def main_blocks(layers: Layers) -> list[str]:
    """Return the modules that a network is a sequence of, in the order of computation.

    They are modules with a map or tokens for output, of the outermost level on which there are `LEAST_BLOCKS`: those
    made of `LEAST_PARTS` or more layers (``layer1``, ``blocks.0``), in a plain chain of layers the layers themselves.

    Examples
    --------
    >>> from featurebank.backbones.registry import load_backbone
    >>> main_blocks(load_backbone("resnet18", "random:0", size=64).layers)
    ['layer1', 'layer2', 'layer3', 'layer4']
    """
    maps = [name for name, layer in layers.items() if layer.layout != "vector"]
    whole = [name for name in maps if sum(other.startswith(f"{name}.") for other in layers) >= LEAST_PARTS]
    for names in (whole, maps):
        for level in range(max((name.count(".") for name in names), default=0) + 1):
            found = [name for name in names if name.count(".") == level]
            if len(found) >= LEAST_BLOCKS:
                return found
    return maps


def curve_layers(layers: Layers, count: int = CURVE) -> list[str]:
    """Return layers for a layer curve: some main blocks, evenly apart up to the last, and the penultimate layer."""
    names = main_blocks(layers)
    step = max(1.0, len(names) / count)
    chosen = [names[round(len(names) - 1 - number * step)] for number in range(min(count, len(names)))]
    return [*reversed(chosen), PENULTIMATE]


def cut_after(backbone: Backbone, layer: str) -> str:
    """Return the first main block to cut before that begins after a layer; the last one after the penultimate layer."""
    layers = backbone.layers
    possible = [name for name in main_blocks(layers) if name + INPUT in layers.inputs]
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
