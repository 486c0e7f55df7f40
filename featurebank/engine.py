"""A captured backbone on a device: prepared images in, one array of embeddings for each layer out."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featurebank._version import __version__
from featurebank.backbones import Backbone, Preprocessing
from featurebank.errors import DeviceError
from featurebank.layers import Capture, get_layer
from featurebank.spec import FeatureSpec

DEVICES = ("auto", "cpu", "cuda", "mps")


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
        return torch.device(device)
    except RuntimeError as error:
        raise DeviceError(f"device {device!r} cannot be understood; expected e.g. cuda or cuda:0") from error


class Engine:
    """Run a backbone up to the deepest of several layers and return their pooled outputs.

    Parameters
    ----------
    backbone : Backbone
        The network and its preprocessing.
    specs : sequence of FeatureSpec
        The layers wanted, in the order of the results.
    device : str, default "auto"
        ``auto``, ``cpu``, ``cuda`` or ``mps``.
    pad_to : int, optional
        Batch size that smaller batches are padded to, so that a row's bits do not depend on its neighbours.
    """

    def __init__(
        self, backbone: Backbone, specs: Sequence[FeatureSpec], *, device: str = "auto", pad_to: int | None = None
    ):
        self.backbone = backbone
        self.device = choose_device(device)
        self.pad_to = pad_to
        wanted = [get_layer(backbone.layers, spec.layer, spec.pool) for spec in specs]
        if self.device.type == "cuda":  # TF32 keeps 10 bits of a float32's 23
            torch.backends.cuda.matmul.allow_tf32 = False
            torch.backends.cudnn.allow_tf32 = False
        model = backbone.model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._capture = Capture(model.eval(), wanted)

    @property
    def made_by(self) -> dict[str, str]:
        """Library versions and device, for the record beside the features."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else platform.machine()
        return {
            "featurebank": __version__,
            "torch": str(torch.__version__),
            "device": f"{self.device.type} {name}",
        }

    def __call__(self, prepared: Sequence[Any]) -> list[NDArray[np.float32]]:
        """Embed prepared images (`Backbone.prepare`).

        Parameters
        ----------
        prepared : sequence of n uint8 arrays (h, w, 3) or float tensors (3, h, w)

        Returns
        -------
        list of ndarray of float32, each of shape (n, …)
            One for each spec.
        """
        count = len(prepared)
        with torch.inference_mode():
            outputs = self._capture(self._batch(prepared))
        return [output[:count].cpu().numpy() for output in outputs]

    def embed_views(self, prepared: Iterable[Any], views: int, at_once: int) -> list[NDArray[np.float32]]:
        """Embed the views of images, a bounded number of them in a forward pass.

        Parameters
        ----------
        prepared : iterable of n times `views` prepared images
            The views of the first image, those of the second, and so on.
        views : int
            Number of views of each image.
        at_once : int
            Most views in one forward pass.

        Returns
        -------
        list of ndarray of float32, each of shape (n, views, …)
            One for each spec.
        """
        stream = iter(prepared)
        outputs = [self(batch) for batch in iter(lambda: list(islice(stream, at_once)), [])]
        joined = [np.concatenate(parts) for parts in zip(*outputs, strict=True)]
        return [rows.reshape(-1, views, *rows.shape[1:]) for rows in joined]

    def _batch(self, prepared: Sequence[Any]) -> Tensor:
        """Stack, pad and normalise to float32 (n, 3, h, w), channels last in memory."""
        preprocessing = self.backbone.preprocessing
        if isinstance(preprocessing, Preprocessing):
            pixels = torch.from_numpy(self._pad(np.stack(prepared))).to(self.device)  # (n, h, w, 3) uint8
            images = pixels.permute(0, 3, 1, 2).float() / 255
            mean, std = (
                torch.tensor(values, device=self.device).view(1, 3, 1, 1)
                for values in (preprocessing.mean, preprocessing.std)
            )
            images = (images - mean) / std
        else:
            stacked = np.stack([image.detach().cpu().float().numpy() for image in prepared])
            images = torch.from_numpy(self._pad(stacked)).to(self.device)
        return images.contiguous(memory_format=torch.channels_last)

    def _pad(self, batch: NDArray[Any]) -> NDArray[Any]:
        missing = (self.pad_to or 0) - len(batch)
        return batch if missing <= 0 else np.concatenate([batch, np.repeat(batch[-1:], missing, axis=0)])
