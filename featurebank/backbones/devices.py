"""What a network runs on: the device, the engine and the batch size that fit this machine."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from featurebank.backbones import runtimes
from featurebank.backbones.base import Backbone
from featurebank.backbones.memory import LARGEST_BATCH, fitting_batch, says_out_of_memory
from featurebank.errors import DeviceError, EngineError, NotInstalledError, install_hint, near_names
from featurebank.storage.memory import physical_memory

DEVICES = ("auto", "cpu", "cuda", "mps")
ENGINES = ("auto", "eager", "compile", "onnx")
BEST = {("cpu", "fp32"): "onnx", ("cpu", "bf16"): "compile"}
"""The fastest engine by device and precision, as measured; eager for all others."""
MANY = {"onnx": 256, "compile": 4096}
"""Images from which `auto` exports a network: it takes seconds once, or half a minute, which fewer do not win back."""
LARGEST_GPU_BATCH = 256


def choose_device(device: str) -> torch.device:
    """Return the device that is asked for; ``"auto"`` takes a GPU when there is one.

    Raises
    ------
    DeviceError
        When it is not there.
    """
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return torch.device(next(name for name in ("cuda", "mps", "cpu") if present[name]))
    name = device.split(":")[0]
    if name not in present:
        raise DeviceError(f"device {device!r}; expected one of {', '.join(DEVICES)}")
    if not present[name]:
        raise DeviceError(f"device {device!r} is not on this machine; use --device cpu or auto")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise DeviceError(f"device {device!r} cannot be understood; expected e.g. cuda or cuda:0") from error
    count = torch.cuda.device_count() if name == "cuda" else 1
    if (found.index or 0) >= count:
        last = f"{name}:0" if count == 1 else f"{name}:0 to {name}:{count - 1}"
        raise DeviceError(f"device {device!r} is not on this machine, which has {last}; use one of these or auto")
    return found


def choose_engine(engine: str, device: str, precision: str, *, is_worth: Callable[[str], bool] = lambda _: True) -> str:
    """Return the engine to use; ``"auto"`` takes the fastest that is there (`BEST`) where it is worth its export.

    Parameters
    ----------
    engine : str
        One of `ENGINES`.
    device : str
        Type of the device.
    precision : str
        ``"fp32"``, ``"bf16"`` or ``"fp16"``.
    is_worth : callable, optional
        Whether there is an export for an engine already, or enough images to make one for.

    Raises
    ------
    EngineError
        When the engine is unknown, or does not run on this device or at this precision.
    NotInstalledError
        When it needs a library that is not installed.

    Examples
    --------
    >>> choose_engine("auto", "cuda", "fp32"), choose_engine("compile", "cpu", "bf16")
    ('eager', 'compile')
    """
    if engine not in ENGINES:
        raise EngineError(f"no engine {engine!r}; {near_names(engine, ENGINES)}")
    fits = device == "cpu" and precision == "fp32"
    if engine == "onnx" and not fits:
        raise EngineError(f"engine 'onnx' runs fp32 on the cpu, not {precision} on {device}; use eager or compile")
    if engine == "onnx" and not runtimes.is_available("onnx"):
        raise NotInstalledError(f"engine 'onnx' needs ONNX Runtime: {install_hint('onnx')}")
    if engine == "auto":
        best = BEST.get((device, precision), "eager")
        return best if is_worth(best) and runtimes.is_available(best) else "eager"
    return engine


def choose_batch_size(backbone: Backbone, device: torch.device) -> int:
    """Return how many images a forward pass may take, by the memory that there is; see `fitting_batch`."""
    floats = max(math.prod(layer.shape) for layer in backbone.layers.values())
    return fitting_batch(floats, _memory(device), LARGEST_BATCH if device.type == "cpu" else LARGEST_GPU_BATCH)


def _memory(device: torch.device) -> int:
    """Return the bytes of memory: of a GPU those that are free or kept by torch unused, else all of this machine's."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    return physical_memory()


LITTLE = 0.1
"""Share of a GPU's memory; with less of it free, a library that fails may have found too little."""
_UNCLEAR = ("unable to find an engine", "cublas_status_not_initialized", "api call failed at")
"""What cuDNN, cuBLAS and compiled code say when they find no memory, and also of other troubles."""


def is_out_of_memory(error: Exception, device: torch.device | None = None) -> bool:
    """Say whether an error of torch, of its libraries or of ONNX Runtime means that memory ran out.

    Parameters
    ----------
    error : Exception
    device : torch.device, optional
        The GPU that it came from. Some errors have many causes, and mean this one where little of its memory is free.

    Examples
    --------
    >>> is_out_of_memory(MemoryError()), is_out_of_memory(ValueError("no"))
    (True, False)
    >>> is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    True
    """
    is_unclear = any(each in str(error).lower() for each in _UNCLEAR)
    is_known = isinstance(error, torch.OutOfMemoryError) or says_out_of_memory(error)
    return is_known or (is_unclear and _has_little(device))


def _has_little(device: torch.device | None) -> bool:
    if device is None or device.type != "cuda":
        return False
    free, whole = torch.cuda.mem_get_info(device)  # without torch's cache, which was of no use to who failed
    return free < LITTLE * whole
