"""Live images: read, changed and run through the frozen part anew, in threads ahead of the training."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from random import Random
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featurebank.backbones.base import Backbone
from featurebank.backbones.layers import Capture
from featurebank.backbones.preprocessing import Preprocessing
from featurebank.errors import ImageError
from featurebank.finetuning.augment import parse
from featurebank.finetuning.cache import Plan, Rows
from featurebank.finetuning.cut import layer_at
from featurebank.images.sources import Source
from featurebank.images.views import MAX_VIEWS, count_views, make_views

AHEAD = 3
"""Batches that may lie ready before the network."""
_SEEDS = 1 << 48


class Live:
    """The input of the module at the cut for images that are read when they are needed.

    What is done to an image is a number: below `views` it is that fixed view, the same as in a bank; from
    `featurebank.images.views.MAX_VIEWS` on it is the seed of a random change.

    Parameters
    ----------
    backbone : Backbone
        Its network runs up to the cut, without gradients.
    module : str
        From `featurebank.finetuning.cut.find_cut`; empty for the images themselves.
    source : Source
        The images, in the order in which their numbers are used.
    digests : sequence of bytes
        Their contents; a file that holds another one now is an error.
    augment : str, default "live"
        See `featurebank.finetuning.augment.parse`.
    views : str, default "none"
        The fixed views.
    device : torch.device
    workers : int, optional
        Threads that read and decode; by default one a core.
    """

    def __init__(
        self,
        backbone: Backbone,
        module: str,
        source: Source,
        digests: Sequence[bytes],
        *,
        augment: str = "live",
        views: str = "none",
        device: torch.device,
        workers: int | None = None,
    ):
        self.backbone, self.source, self.digests = backbone, source, list(digests)
        self.views = count_views(views)
        self._names, self._augment = views, parse(augment)
        self.device, self.workers = device, workers or os.cpu_count() or 1
        self._capture = Capture(backbone.model, [(layer_at(backbone, module), "none")]) if module else None
        backbone.model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def __len__(self) -> int:
        return len(self.digests)

    def draw(self, random: np.random.Generator, count: int) -> Rows:
        """Draw the seed of a random change for each of `count` images."""
        return random.integers(MAX_VIEWS, _SEEDS, count)

    def stream(self, plan: Plan) -> Iterator[Tensor]:
        """Yield what goes in at the cut for each batch, float32 of shape (n, …), on the device."""
        with ThreadPoolExecutor(self.workers, "featurebank-live") as pool:
            submitted = (
                [pool.submit(self._prepare, int(row), int(draw)) for row, draw in zip(rows, draws, strict=True)]
                for rows, draws in plan
            )
            waiting: deque[list[Future[Any]]] = deque(islice(submitted, AHEAD))
            try:
                while waiting:
                    prepared = [future.result() for future in waiting.popleft()]
                    waiting.extend(islice(submitted, 1))
                    yield self._run(prepared)
            finally:
                for future in (future for batch in waiting for future in batch):
                    future.cancel()

    def _prepare(self, row: int, draw: int) -> Any:
        """Read one image and return the changed one, preprocessed."""
        try:
            digest, decode = self.source.read(row)
            if digest != self.digests[row]:
                raise ImageError("changed since it was extracted: run `featurebank extract` again")
            image = decode(self.backbone.least_side)
        except ImageError as error:
            raise ImageError(f"{os.fsdecode(self.source.paths[row])!r}: {error}") from error
        if draw >= MAX_VIEWS:
            return self.backbone.prepare(self._augment(image.copy(), Random(digest + draw.to_bytes(8, "big"))))
        return self.backbone.prepare(next(islice(make_views(image, self._names, digest), draw, None)))

    def _run(self, prepared: list[Any]) -> Tensor:
        images = self._normalised(prepared).contiguous(memory_format=torch.channels_last)  # (n, 3, h, w)
        if self._capture is None:
            return images
        with torch.no_grad():
            return self._capture(images)[0]

    def _normalised(self, prepared: list[Any]) -> Tensor:
        preprocessing = self.backbone.preprocessing
        if not isinstance(preprocessing, Preprocessing):
            return torch.stack([image.detach().float() for image in prepared]).to(self.device)
        pixels: NDArray[np.uint8] = np.stack(prepared)  # (n, h, w, 3)
        scaled = torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2).float() / 255
        mean, std = (
            torch.tensor(values, device=self.device).view(1, 3, 1, 1)
            for values in (preprocessing.mean, preprocessing.std)
        )
        return (scaled - mean) / std
