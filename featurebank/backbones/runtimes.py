"""The ways to run a captured backbone with torch: plain and eager, or compiled by TorchInductor.

What ONNX Runtime computes is in `featurebank.backbones.exported`.
"""

from __future__ import annotations

import importlib.util
import platform
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from importlib.metadata import PackageNotFoundError, version
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from featurebank.backbones.base import Backbone
from featurebank.backbones.capture import Capture
from featurebank.backbones.layers import get_layer
from featurebank.backbones.preprocessing import Preprocessing
from featurebank.bank.spec import FeatureSpec, digest_of
from featurebank.errors import EngineError, one_line
from featurebank.storage import files

Runtime = Callable[[Tensor], Sequence[Tensor]]
"""Takes pixels, a tensor (n, …) on the device, and gives one float32 tensor (n, …) for each layer."""

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_AFTER_THE_NETWORK = ("store", "views", "pixel_policy")
"""Fields of a feature spec that the network knows nothing of."""
_PROCESSOR, _DRIVER = Path("/proc/cpuinfo"), Path("/proc/driver/nvidia/version")
_CPU = torch.device("cpu")


class CapturedModel(nn.Module):
    """Normalisation, backbone and pooling as one module, from pixels to embeddings.

    Parameters
    ----------
    backbone : Backbone
        The network and its preprocessing.
    specs : sequence of FeatureSpec
        The layers wanted, of one precision, in the order of the results.
    device : torch.device, optional
        Where all of it lies; the CPU by default, whatever device the backbone lies on.
    stop : bool, default True
        See `featurebank.backbones.capture.Capture`.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: Backbone,
        specs: Sequence[FeatureSpec],
        device: torch.device = _CPU,
        *,
        stop: bool = True,
    ):
        super().__init__()
        wanted = [get_layer(backbone.layers, spec.layer, spec.pool) for spec in specs]
        self.network = backbone.network_on(device).eval()
        self.precision = specs[0].precision
        self._capture = Capture(self.network, wanted, stop=stop)
        preprocessing = backbone.preprocessing
        self.is_raw = isinstance(preprocessing, Preprocessing)
        if isinstance(preprocessing, Preprocessing):
            self.register_buffer("mean", torch.tensor(preprocessing.mean, device=device).view(1, 3, 1, 1))
            self.register_buffer("std", torch.tensor(preprocessing.std, device=device).view(1, 3, 1, 1))

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Embed a batch.

        Parameters
        ----------
        pixels : Tensor
            uint8 (n, h, w, 3), or what a callable transform gave: float32 (n, 3, h, w).

        Returns
        -------
        tuple of Tensor of float32, each of shape (n, …)
        """
        images = self._normalise(pixels) if self.is_raw else pixels.contiguous(memory_format=torch.channels_last)
        dtype = DTYPES[self.precision]
        with torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32):
            return tuple(self._capture(images))

    def _normalise(self, pixels: Tensor) -> Tensor:
        """Bring uint8 (n, h, w, 3) to float32 (n, 3, h, w); in memory the channels stay last."""
        return (pixels.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std


def run_eagerly(model: CapturedModel) -> Runtime:
    """Return a runtime that calls the module, operation by operation."""

    def run(pixels: Tensor) -> Sequence[Tensor]:
        with torch.inference_mode():
            outputs: Sequence[Tensor] = model(pixels)
        return outputs

    return run


def is_available(engine: str) -> bool:
    """Say whether an engine's libraries are installed: ONNX Runtime and its exporter, or a C++ compiler."""
    if engine == "onnx":
        return all(importlib.util.find_spec(name) for name in ("onnxruntime", "onnxscript"))
    return engine == "eager" or any(map(shutil.which, ("c++", "g++", "clang++", "cl")))


def compiled_path(specs: Sequence[FeatureSpec], device: str, batch_size: int) -> Path:
    """Return where the compiled network of feature specs lies, or would lie, in the user's cache folder.

    Parameters
    ----------
    specs : sequence of FeatureSpec
    device : str
        With `batch_size`, what the code is made for.
    batch_size : int
    """
    layers = [{**spec.to_dict(), **dict.fromkeys(_AFTER_THE_NETWORK)} for spec in specs]
    made_for = [device, batch_size, *_machine()]
    key = digest_of({"layers": layers, "torch": str(torch.__version__), "made_for": made_for})
    return files.cache_folder() / "compile" / f"{key}.pt2"


def _machine() -> list[str]:
    """Return what compiled code is made for beside a device's name: the processor, the driver, and the compiler."""
    processor = [platform.machine(), torch.backends.cpu.get_cpu_capability(), _said_by(_PROCESSOR, "flags", "Features")]
    return [*processor, _said_by(_DRIVER, "NVRM"), _version("triton")]


def _said_by(file: Path, *starts: str) -> str:
    """Return the first line of a file that begins so; nothing where there is none, as on other systems than Linux."""
    try:
        return next((line for line in file.read_text().splitlines() if line.startswith(starts)), "")
    except OSError:
        return ""


def _version(library: str) -> str:
    with suppress(PackageNotFoundError):
        return version(library)
    return ""


def export_compiled(model: CapturedModel, example: Tensor, path: Path) -> None:
    """Have TorchInductor compile a network ahead of time, its weights frozen into the code.

    Parameters
    ----------
    model : CapturedModel
        Made with ``stop=False``.
    example : Tensor
        A batch of the size and on the device that it will run with.
    path : Path
        See `compiled_path`.

    Raises
    ------
    EngineError
        When the network cannot be traced, or there is no compiler.
    """
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder, path.name)
        with engine_errors("compile"), torch.no_grad():
            traced = torch.export.export(model, (example,), strict=False)
            options = {"freezing": True}
            torch._inductor.aoti_compile_and_package(traced, package_path=str(package), inductor_configs=options)
        files.make_folder(path.parent)
        files.commit(path, package.read_bytes())


def open_compiled(path: Path, device: torch.device) -> Runtime:
    """Return a runtime of compiled code on the device that it was made for.

    Raises
    ------
    EngineError
        When it cannot be loaded.
    """
    with engine_errors("compile"):
        index = -1 if device.index is None else device.index
        compiled: Any = torch._inductor.aoti_load_package(str(path), device_index=index)

    def run(pixels: Tensor) -> Sequence[Tensor]:
        with torch.no_grad():
            outputs: Sequence[Tensor] = compiled(pixels)
        return outputs

    return run


@contextmanager
def engine_errors(engine: str) -> Iterator[None]:
    """Turn whatever a tracer, an exporter or a compiler raises into an `EngineError`, and keep them quiet."""
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            yield
    except Exception as error:  # each of these libraries has errors of its own, and many
        raise EngineError(
            f"engine {engine!r} cannot run this network here ({one_line(error)[:160]}): use --engine eager"
        ) from error
