"""An exported network as an engine: prepared images in, embeddings out, with PIL, NumPy and ONNX Runtime alone."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from itertools import islice
from types import SimpleNamespace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from featurebank import __version__
from featurebank.backbones.base import Backbone
from featurebank.backbones.batches import stacked
from featurebank.backbones.exported.network import ExportedNetwork
from featurebank.backbones.framing import average_tiles, flatten_tiles
from featurebank.backbones.memory import fitting_batch, says_out_of_memory
from featurebank.bank.spec import FeatureSpec
from featurebank.errors import EngineError
from featurebank.images.views import count_views, share_batches

_Tag = TypeVar("_Tag")


class ExportedEngine:
    """What `featurebank.backbones.engine.Engine` is, for a network that was exported; torch is never imported.

    Parameters
    ----------
    network : ExportedNetwork
    backbone : Backbone
        What prepares images; its network is not touched.
    specs : sequence of FeatureSpec
        The layers wanted, in the order of the results.
    batch_size : int, optional
        Most views in a forward pass; by default as many as memory allows.
    pad : bool, default True
        Fill the last batch up where a row's bits depend on its neighbours; where they do not, none is.
    """

    engine, device = "onnx", SimpleNamespace(type="cpu")

    def __init__(
        self,
        network: ExportedNetwork,
        backbone: Backbone,
        specs: Sequence[FeatureSpec],
        *,
        batch_size: int | None = None,
        pad: bool = True,
    ):
        self.backbone = backbone
        self.specs = list(specs)
        self.views = count_views(self.specs[0].views)
        wanted = batch_size or fitting_batch(network.record.floats)
        self.images_at_once, self.batch_size = share_batches(self.views, wanted)
        self.pad = pad and not network.is_apart
        self.warnings: list[str] = []
        self._network = network

    @property
    def made_by(self) -> dict[str, str]:
        """Library versions, device and engine, for the record beside the features."""
        return {
            "featurebank": __version__,
            "torch": self._network.record.made_by["torch"],
            "onnxruntime": version("onnxruntime"),
            "device": f"cpu {platform.machine()}",
            "engine": self.engine,
        }

    def __str__(self) -> str:
        return f"{self.engine} on cpu in batches of {self.batch_size}"

    def __call__(self, prepared: Sequence[Any]) -> list[NDArray[np.float32]]:
        """Embed prepared images, a batch at a time; see `featurebank.backbones.engine.Engine`.

        Raises
        ------
        EngineError
            When not even one image fits the memory.
        """
        prepared, tiles = flatten_tiles(prepared)
        parts: list[list[NDArray[np.float32]]] = []
        start = 0
        while start < len(prepared):
            part = prepared[start : start + self.batch_size]
            try:
                parts.append(self._run(part))
            except Exception as error:  # ONNX Runtime has many kinds
                self._halve(error)
                continue
            start += len(part)
        joined = [np.concatenate(rows) if len(rows) > 1 else rows[0] for rows in zip(*parts, strict=True)]
        return [average_tiles(rows, tiles) for rows in joined]

    def embed_views(self, prepared: Iterable[Any]) -> list[NDArray[np.float32]]:
        """Embed the views of images, each result of shape (n, views, …); see `featurebank.backbones.engine.Engine`."""
        stream = iter(prepared)
        outputs = [self(batch) for batch in iter(lambda: list(islice(stream, self.batch_size)), [])]
        return [self._by_image(np.concatenate(parts)) for parts in zip(*outputs, strict=True)]

    def stream(self, batches: Iterable[tuple[_Tag, Sequence[Any]]]) -> Iterator[tuple[_Tag, list[NDArray[np.float32]]]]:
        """Embed batch after batch, each with its tag; see `featurebank.backbones.engine.Engine`."""
        for tag, prepared in batches:
            yield tag, list(map(self._by_image, self(prepared)))

    def _by_image(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        return rows.reshape(-1, self.views, *rows.shape[1:])

    def _run(self, prepared: Sequence[Any]) -> list[NDArray[np.float32]]:
        """Stack prepared images, fill them up where that is wanted, and embed them."""
        count = len(prepared)
        pixels = stacked(prepared)
        if self.pad and count < self.batch_size:
            pixels = np.concatenate([pixels, np.repeat(pixels[-1:], self.batch_size - count, axis=0)])
        return [output[:count] for output in self._network.run(pixels)]

    def _halve(self, error: Exception) -> None:
        """Halve the batch size when an error says that memory ran out; raise any other one."""
        if not says_out_of_memory(error):
            raise error
        if self.batch_size == 1:
            raise EngineError("one image does not fit the memory: use a smaller --size or backbone") from error
        self.batch_size //= 2
        self.warnings.append(f"memory ran out: batches of {self.batch_size} from here on")
