"""A captured backbone on a device: prepared images in, one array of embeddings for each layer out."""

from __future__ import annotations

import math
import platform
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featurebank import __version__
from featurebank.backbones import runtimes
from featurebank.backbones.base import Backbone
from featurebank.backbones.batches import stacked
from featurebank.backbones.devices import MANY, choose_batch_size, choose_device, choose_engine, is_out_of_memory
from featurebank.backbones.exported import cache
from featurebank.backbones.framing import average_tiles, flatten_tiles
from featurebank.backbones.nvjpeg import JpegDecoder
from featurebank.backbones.preprocessing import Preprocessing
from featurebank.backbones.runtimes import CapturedModel, Runtime
from featurebank.bank.spec import FeatureSpec
from featurebank.errors import EngineError, ImageError, StorageError, one_line
from featurebank.images.decoding import EncodedImage
from featurebank.images.reading import read_ahead
from featurebank.images.views import count_views, share_batches
from featurebank.storage import files

CHECKED = 8
"""Images of the first batch that are compared with plain eager PyTorch."""
TOLERANCE = {"fp32": 1e-4, "fp16": 5e-2, "bf16": 3e-1}
"""Largest relative distance to plain float32 eager; eager itself is up to 0.2 away in bf16."""
_Tag = TypeVar("_Tag")
_Launched = tuple[NDArray[np.int64] | None, list[tuple[int, Sequence[Tensor], Any]]]


class Engine:
    """Run a backbone up to the deepest of several layers and return their pooled outputs.

    Parameters
    ----------
    backbone : Backbone
        The network and its preprocessing.
    specs : sequence of FeatureSpec
        The layers wanted, of one precision and of the same views, in the order of the results.
    device : str, default "auto"
        ``auto``, ``cpu``, ``cuda`` or ``mps``.
    engine : str, default "auto"
        ``eager``, ``compile`` (TorchInductor), ``onnx`` (ONNX Runtime) or ``auto``, see `choose_engine`. What
        ``auto`` takes is compared with eager on the first batch, and eager takes over, with a warning, where it is
        further off than `TOLERANCE`; an engine that was named is refused then.
    batch_size : int, optional
        Most views in a forward pass; by default as many as memory allows, see `choose_batch_size`. It is halved when
        memory runs out all the same.
    images : int, default 0
        How many images are expected; from some (`MANY`) on ``auto`` exports a network that has not been exported.
    pad : bool, default True
        Fill the last batch up, so that a row's bits do not depend on its neighbours.

    Raises
    ------
    DeviceError, EngineError, NotInstalledError
        When what was named cannot be had.
    """

    def __init__(
        self,
        backbone: Backbone,
        specs: Sequence[FeatureSpec],
        *,
        device: str = "auto",
        engine: str = "auto",
        batch_size: int | None = None,
        images: int = 0,
        pad: bool = True,
    ):
        self.backbone = backbone
        self.specs = list(specs)
        self.device = choose_device(device)
        self.views = count_views(self.specs[0].views)
        self.images_at_once, self.batch_size = share_batches(
            self.views, batch_size or choose_batch_size(backbone, self.device)
        )
        self.pad = pad
        self._warnings: list[str] = []
        self._is_named = engine != "auto"
        self._passes = images * self.views
        self.engine = choose_engine(engine, self.device.type, self.specs[0].precision, is_worth=self._is_worth)
        self._eager = runtimes.run_eagerly(self._captured(self.specs))
        self._runtime: Runtime | None = None
        self._decoder: JpegDecoder | None = None
        if backbone.decoder == "nvjpeg":
            assert isinstance(backbone.preprocessing, Preprocessing)
            self._decoder = JpegDecoder(backbone.preprocessing, self.device)

    @property
    def warnings(self) -> list[str]:
        """What the reader of the embeddings should know."""
        refused = 0 if self._decoder is None else self._decoder.refused
        return self._warnings + ([f"nvJPEG turned {refused} JPEG files down; the CPU decoded them"] if refused else [])

    @property
    def made_by(self) -> dict[str, str]:
        """Library versions, device and engine, for the record beside the features."""
        return {
            "featurebank": __version__,
            "torch": str(torch.__version__),
            "device": f"{self.device.type} {self._device_name}",
            "engine": self.engine,
        }

    def __str__(self) -> str:
        return f"{self.engine} on {self.device} in batches of {self.batch_size}"

    @property
    def _device_name(self) -> str:
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else platform.machine()

    def _is_worth(self, engine: str) -> bool:
        return engine != "eager" and (self._passes >= MANY[engine] or self._path(engine).is_file())

    def _path(self, engine: str) -> Path:
        if engine == "onnx":
            return cache.path_of(self.specs)
        device = f"cuda {self._device_name}" if self.device.type == "cuda" else self.device.type
        return runtimes.compiled_path(self.specs, device, self.batch_size)  # a GPU's code is for its kind alone

    def __call__(self, prepared: Sequence[Any]) -> list[NDArray[np.float32]]:
        """Embed prepared images (`Backbone.prepare`), a batch at a time.

        Parameters
        ----------
        prepared : sequence of n uint8 arrays ([tiles,] h, w, 3), files (`EncodedImage`), or float tensors (3, h, w)

        Returns
        -------
        list of ndarray of float32, each of shape (n, …)
            One for each spec.

        Raises
        ------
        ImageError
            When a JPEG file cannot be decoded.
        EngineError
            When not even one image fits the memory, or the engine that was named is not as exact as eager.
        """
        outputs = _collect(self._launch(self._placed(prepared)))
        error = next((each.error for each in prepared if isinstance(each, EncodedImage) and each.error), "")
        if error:
            raise ImageError(error)
        return outputs

    def embed_views(self, prepared: Iterable[Any]) -> list[NDArray[np.float32]]:
        """Embed the views of images, a bounded number of them in a forward pass.

        Parameters
        ----------
        prepared : iterable of n times `views` prepared images
            The views of the first image, those of the second, and so on.

        Returns
        -------
        list of ndarray of float32, each of shape (n, views, …)
            One for each spec.
        """
        stream = iter(prepared)
        outputs = [self(batch) for batch in iter(lambda: list(islice(stream, self.batch_size)), [])]
        joined = [np.concatenate(parts) for parts in zip(*outputs, strict=True)]
        return [rows.reshape(-1, self.views, *rows.shape[1:]) for rows in joined]

    def stream(self, batches: Iterable[tuple[_Tag, Sequence[Any]]]) -> Iterator[tuple[_Tag, list[NDArray[np.float32]]]]:
        """Embed batch after batch; a GPU computes one while the next is put together.

        Parameters
        ----------
        batches : iterable of (tag, prepared)
            Whatever belongs to a batch, and its n images times `views` prepared views.

        Yields
        ------
        tag : as it was given
        outputs : list of ndarray of float32, each of shape (n, views, …)
            Rows of an `EncodedImage` that could not be decoded, and has an error now, mean nothing.
        """
        ahead = 1 if self.device.type == "cuda" else 0
        waiting: deque[tuple[_Tag, _Launched]] = deque()
        try:
            for tag, prepared in batches if self._decoder is None else self._decoded_ahead(batches):
                waiting.append((tag, self._launch(prepared)))
                if len(waiting) > ahead:
                    yield self._finish(*waiting.popleft())
        except (Exception, KeyboardInterrupt):  # what was launched before is as good as if nothing had happened
            yield from self._finish_all(waiting)
            raise
        yield from self._finish_all(waiting)

    def _finish_all(self, waiting: deque[tuple[_Tag, _Launched]]) -> Iterator[tuple[_Tag, list[NDArray[np.float32]]]]:
        while waiting:
            yield self._finish(*waiting.popleft())

    def _finish(self, tag: _Tag, launched: _Launched) -> tuple[_Tag, list[NDArray[np.float32]]]:
        return tag, [rows.reshape(-1, self.views, *rows.shape[1:]) for rows in _collect(launched)]

    def _decoded_ahead(self, batches: Iterable[tuple[_Tag, Sequence[Any]]]) -> Iterator[tuple[_Tag, Any]]:
        """Have a thread decode a batch while the network computes the one before it."""
        return read_ahead(
            lambda batch: (batch[0], self._placed(batch[1])), batches, workers=1, most=2, name="featurebank-nvjpeg"
        )

    def _placed(self, prepared: Sequence[Any]) -> Any:
        """Have JPEG files decoded where the GPU does that; the tensor is as good as the sequence from here on."""
        try:
            return prepared if self._decoder is None else self._decoder(prepared)
        except torch.OutOfMemoryError as error:
            raise EngineError(
                f"no memory is left on {self.device} to decode into: use a smaller --batch-size"
            ) from error

    def _launch(self, prepared: Sequence[Any] | Tensor) -> _Launched:
        """Start the forward passes of prepared images; with half as many at once whenever memory runs out."""
        prepared, tiles = flatten_tiles(prepared)
        launched: list[tuple[int, Sequence[Tensor], Any]] = []
        start = 0
        while start < len(prepared):
            part = prepared[start : start + self.batch_size]
            try:
                launched.append(self._launch_batch(part))
                start += len(part)
                continue
            except Exception as error:
                self._check_short_of_memory(error)
            self._halve()  # out here nothing holds the tensors of the pass that failed
        return tiles, launched

    def _launch_batch(self, prepared: Sequence[Any] | Tensor) -> tuple[int, Sequence[Tensor], Any]:
        pixels = self._pixels(prepared)
        outputs = self._first(pixels) if self._runtime is None else self._runtime(pixels)
        if self.device.type != "cuda":
            return len(prepared), [output.cpu() for output in outputs], None
        copies = [output.to("cpu", non_blocking=True) for output in outputs]  # into pinned memory
        return len(prepared), copies, torch.cuda.current_stream(self.device).record_event()

    def _check_short_of_memory(self, error: Exception) -> None:
        """Raise an error that fewer images at once do not help against."""
        if not is_out_of_memory(error, self.device):
            raise error
        if self.batch_size == 1:
            raise EngineError(
                f"one image does not fit the memory of {self.device}: use a smaller --size or backbone"
            ) from error

    def _halve(self) -> None:
        self.batch_size //= 2
        self._runtime = None if self.engine == "compile" else self._runtime  # its code is for the larger batch
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self._warnings.append(f"memory ran out: batches of {self.batch_size} from here on")

    def _first(self, pixels: Tensor) -> Sequence[Tensor]:
        """Choose the runtime, which is to give what eager gives on a first batch, and return what it gave."""
        if self.engine != "eager":
            try:
                return self._exported(pixels) if self.engine == "onnx" else self._agreeing(pixels)
            except (EngineError, StorageError) as error:
                if self._is_named:
                    raise
                self._warnings.append(f"{error}; eager is used instead")
                self.engine = "eager"
        self._runtime = self._eager
        return self._eager(pixels)

    def _exported(self, pixels: Tensor) -> Sequence[Tensor]:
        """Open the exported network, which is made, and compared with eager, where there is none that fits."""
        from featurebank.backbones.exported.making import export

        network = export(self.backbone, self.specs, pixels.numpy())
        self._runtime = lambda pixels: list(map(torch.from_numpy, network.run(pixels.numpy())))
        return self._runtime(pixels)

    def _agreeing(self, pixels: Tensor) -> Sequence[Tensor]:
        """Open the compiled network and compare; one in the cache that is not this network's is made anew."""
        exact = [replace(spec, precision="fp32") for spec in self.specs]
        expected = runtimes.run_eagerly(self._captured(exact))(pixels[:CHECKED])
        path = self._path(self.engine)
        if path.is_file():
            with suppress(EngineError):
                return self._compared(pixels, expected)
            files.remove(path)
        return self._compared(pixels, expected)

    def _compared(self, pixels: Tensor, expected: Sequence[Tensor]) -> Sequence[Tensor]:
        """Open the engine, and refuse it where it is further off than the tolerance."""
        runtime = self._open(pixels)
        outputs = self._run_first(runtime, pixels)
        far = max(map(_distance, outputs, expected))
        tolerance = TOLERANCE[self.specs[0].precision]
        if far > tolerance:
            raise EngineError(
                f"engine {self.engine!r} is {far:.1e} off plain float32 PyTorch on the first batch (relative; expected "
                f"below {tolerance:g}): use --engine eager"
            )
        self._runtime = runtime
        return outputs

    def _run_first(self, runtime: Runtime, pixels: Tensor) -> Sequence[Tensor]:
        """Run an engine for the first time, where code that was compiled for another machine shows itself."""
        try:
            return runtime(pixels)
        except Exception as error:  # whatever the engine raises
            if is_out_of_memory(error, self.device):
                raise
            raise EngineError(
                f"engine {self.engine!r} fails when it runs ({one_line(error)[:160]}): use --engine eager"
            ) from error

    def _open(self, pixels: Tensor) -> Runtime:
        """Open the compiled network, which is made where there is none."""
        path = self._path(self.engine)
        if not path.is_file():
            runtimes.export_compiled(self._captured(self.specs, stop=False), pixels, path)
        return runtimes.open_compiled(path, self.device)

    def _captured(self, specs: Sequence[FeatureSpec], *, stop: bool = True) -> CapturedModel:
        return CapturedModel(self.backbone, specs, self.device, stop=stop)

    def _pixels(self, prepared: Sequence[Any] | Tensor) -> Tensor:
        """Stack and pad prepared images, and bring them to the device."""
        if isinstance(prepared, Tensor):
            if prepared.is_cuda:  # its memory is the decoder's again only when this stream, too, is done with it
                prepared.record_stream(torch.cuda.current_stream(self.device))
            short = self.batch_size - len(prepared) if self.pad else 0
            return torch.cat([prepared, prepared[-1:].expand(short, -1, -1, -1)]) if short else prepared
        arrays = [each if isinstance(each, np.ndarray) else each.detach().cpu().float().numpy() for each in prepared]
        arrays += arrays[-1:] * (self.batch_size - len(arrays) if self.pad else 0)
        pixels = torch.from_numpy(stacked(arrays))
        return self._copied(pixels) if self.device.type == "cuda" else pixels.to(self.device)

    def _copied(self, pixels: Tensor) -> Tensor:
        """Copy pixels to a GPU beside what it computes."""
        source = pixels if pixels.is_pinned() else pixels.pin_memory()
        computing = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self._copying):
            copied = source.to(self.device, non_blocking=True)
        computing.wait_stream(self._copying)
        copied.record_stream(computing)  # its memory is free again only when the network, too, is done with it
        return copied

    @cached_property
    def _copying(self) -> torch.cuda.Stream:
        return torch.cuda.Stream(self.device)


def _collect(launched: _Launched) -> list[NDArray[np.float32]]:
    """Wait for launched batches and join their rows, without those that only filled a batch up; average tiles."""
    parts = []
    tiles, batches = launched
    for count, outputs, done in batches:
        if done is not None:
            done.synchronize()
        parts.append([output[:count].float().numpy() for output in outputs])
    joined = [np.concatenate(rows) if len(rows) > 1 else rows[0] for rows in zip(*parts, strict=True)]
    return [average_tiles(rows, tiles) for rows in joined]


def _distance(found: Tensor, expected: Tensor) -> float:
    """Return the largest relative distance of the rows that both have."""
    found, expected = found[: len(expected)].float().flatten(1), expected[: len(found)].float().flatten(1)
    lengths = expected.norm(dim=1).clamp(min=1e-12)
    return float(((found - expected).norm(dim=1) / lengths).nan_to_num(math.inf).max())
