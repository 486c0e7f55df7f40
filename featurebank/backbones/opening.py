"""Which engine computes: an exported network without torch where there is one, and torch for all else."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurebank.backbones.exported import cache
from featurebank.backbones.memory import fitting_batch
from featurebank.backbones.preprocessing import Preprocessing
from featurebank.bank.spec import FeatureSpec
from featurebank.errors import EngineError, StorageError

if TYPE_CHECKING:
    from featurebank.backbones.base import Backbone
    from featurebank.backbones.engine import Engine
    from featurebank.backbones.exported.engine import ExportedEngine
    from featurebank.backbones.exported.network import ExportedNetwork

FEW = 256
"""Images up to which a network that is computed further than the layers wanted is as good as one yet to be made."""
_DRIVERS = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/kfd", "/dev/dxg")
"""What is there on Linux where torch may find a GPU."""
_LOG = logging.getLogger(__name__)


def open_engine(
    backbone: Backbone,
    specs: Sequence[FeatureSpec],
    *,
    device: str = "auto",
    engine: str = "auto",
    batch_size: int | None = None,
    images: int = 0,
    pad: bool = True,
) -> Engine | ExportedEngine:
    """Return what computes feature sets: an exported network where one fits, which imports no torch, or else torch.

    Parameters
    ----------
    backbone, specs, device, engine, batch_size, images, pad
        See `featurebank.backbones.engine.Engine`.
    """
    network = open_exported(backbone, specs, device=device, engine=engine, images=images)
    if network is not None:
        from featurebank.backbones.exported.engine import ExportedEngine

        return ExportedEngine(network, backbone, specs, batch_size=batch_size, pad=pad)
    from featurebank.backbones.engine import Engine

    how: dict[str, Any] = {"device": device, "engine": engine, "batch_size": batch_size}
    return Engine(backbone, specs, images=images, pad=pad, **how)


def open_exported(
    backbone: Backbone, specs: Sequence[FeatureSpec], *, device: str = "auto", engine: str = "auto", images: int = 0
) -> ExportedNetwork | None:
    """Return the exported network that an engine of these options would run; None where torch is to compute.

    One that does not fit, or cannot be opened, is said to be so in the log.
    """
    found = _find(backbone, specs, device, engine, images)
    if found is None:
        return None
    from featurebank.backbones.exported.network import ExportedNetwork

    try:
        return ExportedNetwork(found)
    except (EngineError, StorageError) as error:
        _LOG.warning("%s; PyTorch computes instead", error)
        return None


def fitting_size(
    backbone: Backbone, specs: Sequence[FeatureSpec], *, device: str = "auto", engine: str = "auto", images: int = 0
) -> int:
    """Return how many views the engine of these options puts into a forward pass; see `fitting_batch`."""
    found = _find(backbone, specs, device, engine, images)
    if found is not None:
        return fitting_batch(found.record.floats)
    from featurebank.backbones.devices import choose_batch_size, choose_device

    return choose_batch_size(backbone, choose_device(device))


def is_raw(backbone: Backbone) -> bool:
    """Say whether a network takes the pixels of images that were prepared on the CPU."""
    return isinstance(backbone.preprocessing, Preprocessing) and backbone.decoder != "nvjpeg"


def _find(
    backbone: Backbone, specs: Sequence[FeatureSpec], device: str, engine: str, images: int
) -> cache.Found | None:
    if not is_raw(backbone) or not is_exportable(specs, device, engine):
        return None
    return cache.find(specs, no_deeper=images > FEW)


def is_exportable(specs: Sequence[FeatureSpec], device: str, engine: str) -> bool:
    """Say whether an exported network could compute what is asked for, here."""
    is_wanted = engine in ("auto", "onnx") and {spec.precision for spec in specs} == {"fp32"}
    return is_wanted and runs_on_cpu(device) and find_spec("onnxruntime") is not None


def device_type(device: str) -> str:
    """Return the type of the device that is asked for; see `featurebank.backbones.devices.choose_device`."""
    if runs_on_cpu(device):
        return "cpu"
    from featurebank.backbones.devices import choose_device

    return choose_device(device).type


def runs_on_cpu(device: str) -> bool:
    """Say whether a device that is asked for is the CPU, without torch: what may be a GPU is left to torch.

    Examples
    --------
    >>> runs_on_cpu("cpu"), runs_on_cpu("cuda:0")
    (True, False)
    """
    if device != "auto":
        return device == "cpu"
    if sys.platform == "linux":
        is_hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
        return is_hidden or not any(Path(each).exists() for each in _DRIVERS)
    return False
