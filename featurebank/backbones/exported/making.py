"""Exporting a network: traced to ONNX, compared with plain PyTorch once, and kept with what proves it."""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from featurebank import __version__
from featurebank.backbones.base import Backbone
from featurebank.backbones.exported import cache
from featurebank.backbones.exported.cache import Found
from featurebank.backbones.exported.network import TOLERANCE, ExportedNetwork, distance, here, open_session, same_apart
from featurebank.backbones.exported.record import Record
from featurebank.backbones.layers import get_layer
from featurebank.backbones.runtimes import CapturedModel, engine_errors, run_eagerly
from featurebank.bank.spec import FeatureSpec
from featurebank.errors import EngineError

CHECKED = 8
"""Images of a batch that are compared with plain PyTorch."""
_TRACED = 2
"""Images in the batch that an export is traced with; exporters take a length of 1 for a constant."""
_COUNTS = (1, 2, 3, 5)
"""Batches in which a row is to have the bits that it has among `CHECKED`."""


def export(backbone: Backbone, specs: Sequence[FeatureSpec], pixels: NDArray[Any] | None = None) -> ExportedNetwork:
    """Return the exported network of a backbone's layers, which is made where there is none that fits.

    Parameters
    ----------
    backbone : Backbone
        On the CPU.
    specs : sequence of FeatureSpec
        The layers wanted, in float32.
    pixels : ndarray, shape (n, …), optional
        Prepared images to compare with plain PyTorch beside made-up ones.

    Raises
    ------
    EngineError
        When the exporter cannot follow the network, or what it gives is further off than `TOLERANCE`.
    StorageError
        When the cache folder cannot be written.
    """
    with cache.making(cache.path_of(specs), specs[0].backbone):
        return export_held(backbone, specs, pixels)


def export_held(
    backbone: Backbone, specs: Sequence[FeatureSpec], pixels: NDArray[Any] | None = None
) -> ExportedNetwork:
    """Do what `export` does, for a caller who holds the lock (`featurebank.backbones.exported.cache.making`)."""
    path = cache.path_of(specs)
    with suppress(EngineError):  # of another network, or damaged: it is made again
        found = cache.read(specs)
        if found is not None:
            return ExportedNetwork(found)
    cache.remove(path)
    try:
        graph, record = _made(backbone, specs, _images(backbone, pixels))
    except EngineError as error:
        cache.add_failure(path, str(error))
        raise
    cache.add(path, graph, record)
    return ExportedNetwork(Found(path, record, list(range(len(specs)))))


def _made(backbone: Backbone, specs: Sequence[FeatureSpec], images: NDArray[Any]) -> tuple[bytes, Record]:
    """Return the graph of a network and its record, once it was found to be exact."""
    batch = torch.from_numpy(images)
    graph = trace(CapturedModel(backbone, specs, stop=False), batch).model_proto.SerializeToString()
    run = _runner(graph)
    outputs, expected = run(images), run_eagerly(CapturedModel(backbone, specs))(batch)
    off = max(distance(found, each.numpy()) for found, each in zip(outputs, expected, strict=True))
    if not off <= TOLERANCE:
        raise EngineError(
            f"engine 'onnx' is {off:.1e} off plain float32 PyTorch on the first batch (relative; expected "
            f"below {TOLERANCE:g}): use --engine eager"
        )
    depths = [get_layer(backbone.layers, spec.layer)[0].depth for spec in specs]
    record = Record(
        backbone=specs[0].backbone,
        layers=cache.layers_of(specs),
        deepest=max(range(len(specs)), key=depths.__getitem__),
        weights=specs[0].weights,
        graph=hashlib.sha256(graph).hexdigest(),
        floats=max(math.prod(layer.shape) for layer in backbone.layers.values()),
        off=off,
        made_by={"featurebank": __version__, "torch": version("torch"), "onnxruntime": version("onnxruntime")},
        apart=here() if same_apart(run, images, _COUNTS) else {},
        known=images[:1],
        outputs=run(images[:1]),
    )
    return graph, record


def _runner(graph: bytes) -> Any:
    session = open_session(graph)
    name = session.get_inputs()[0].name
    return lambda pixels: session.run(None, {name: pixels})


def _images(backbone: Backbone, pixels: NDArray[Any] | None) -> NDArray[Any]:
    """Return made-up images as the network is given them, and behind them real ones."""
    height, width = backbone.input_size
    random = np.random.default_rng(0)
    made = random.integers(0, 256, (CHECKED, height, width, 3), np.uint8)
    made[1::2] = (
        np.linspace(0, 255, height * width * 3).reshape(height, width, 3).astype(np.uint8)
    )  # one that is smooth
    if pixels is None:
        return made
    if pixels.dtype != np.uint8:
        return pixels[:CHECKED]
    return np.concatenate([made[: CHECKED // 2], pixels[: CHECKED // 2]])


def trace(
    model: nn.Module, *examples: Tensor, inputs: Sequence[str] | None = None, outputs: Sequence[str] | None = None
) -> Any:
    """Return the ONNX program of a network that takes batches of any size.

    Parameters
    ----------
    model : nn.Module
        On the CPU.
    *examples : Tensor
        A batch on the CPU of each input, of equal length.
    inputs, outputs : sequence of str, optional
        Names in the graph.

    Raises
    ------
    EngineError
        When the exporter cannot follow the network.
    """
    images = tuple(each[:1].repeat(_TRACED, *[1] * (each.ndim - 1)) for each in examples)
    with engine_errors("onnx"), torch.no_grad():
        any_count: tuple[Any, ...] = ({0: torch.export.Dim.DYNAMIC},) * len(images)
        takes = inspect.signature(model.forward).parameters.values()
        if any(each.kind is each.VAR_POSITIONAL for each in takes):  # whose shapes are one entry
            any_count = (any_count,)
        traced = torch.export.export(model, images, dynamic_shapes=any_count, strict=False)
        return torch.onnx.export(traced, dynamo=True, verbose=False, input_names=inputs, output_names=outputs)
