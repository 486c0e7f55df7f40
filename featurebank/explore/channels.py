"""What the channels of a layer respond to: the patches of the user's own images that excite them most."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from featurebank.errors import ImageError, LayerError
from featurebank.explore.activation_maps import as_maps
from featurebank.explore.drawing import require_matplotlib
from featurebank.explore.occlusion import window_of
from featurebank.images.reading import Progress, read_images
from featurebank.images.sources import Source

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from featurebank.backbones import Backbone
    from featurebank.backbones.layers import Layer

CHANNELS, PATCHES = 8, 9
SIDE = 96
"""Pixels on each side of a patch as it is shown."""
MASS = 0.9
"""Share of a unit's gradient that its effective receptive field holds."""
_BATCH = 32
_NOISE_IMAGES = 4
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class ChannelPatches:
    """The patches that excite one channel most, from the strongest down.

    Attributes
    ----------
    channel : int
    values : list of float
        The activation at each peak.
    paths : list of str
    boxes : list of tuple of int
        Left, top, right and bottom of each patch in its image's pixels; it may reach beyond the image.
    patches : list of PIL.Image.Image
        `SIDE` pixels on each side, black beyond the image.
    """

    channel: int
    values: list[float]
    paths: list[str]
    boxes: list[Box]
    patches: list[Image.Image]


def top_patches(
    source: Source,
    backbone: Backbone,
    layer: str,
    *,
    channels: Sequence[int] | None = None,
    count: int = PATCHES,
    on_error: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> list[ChannelPatches]:
    """Find the patches of images that excite the channels of a layer most (Zeiler and Fergus 2014).

    A patch is what the unit at the peak sees: its effective receptive field (Luo, Li, Urtasun and Zemel 2016), the
    square around the unit that holds nine tenths of the gradient.

    Parameters
    ----------
    source : Source
        From `featurebank.scan`, or `featurebank.bank.images.source_of` for the samples of a bank.
    backbone : Backbone
    layer : str
        One that gives maps or tokens.
    channels : sequence of int, optional
        By default the eight most selective: their strongest patches stand out most from the images' usual peak.
    count : int, default 9
        Patches of each channel; of one image at most one.
    on_error : callable, optional
        Called with a line about each image that cannot be read; without it that is an error.
    progress : callable, optional
        Called with (images done, images in all).

    Returns
    -------
    list of ChannelPatches

    Raises
    ------
    LayerError
        When there is no such layer or channel, or the layer gives a vector.
    ImageError
        When an image cannot be read, or none can.

    Examples
    --------
    >>> found = top_patches(scan("photos/"), load_backbone("resnet18"), "layer2")  # doctest: +SKIP
    >>> draw_channels(found).savefig("channels.png")  # doctest: +SKIP
    """
    from featurebank.backbones.layers import get_layer

    found, _ = get_layer(backbone.layers, layer)
    wide = _channels(found)
    wrong = [number for number in channels or () if not 0 <= number < wide]
    if wrong:
        raise LayerError(f"no channel {wrong[0]} of {layer!r}; expected 0 to {wide - 1}")
    peaks = _Peaks(wide, count)
    for numbers, maps in _maps(source, backbone, found, on_error, progress):
        peaks.add(numbers, maps)
    if not peaks.images:
        raise ImageError("no image of the source could be read; expected at least one")
    chosen = peaks.most_selective(CHANNELS) if channels is None else list(channels)
    side = effective_field(backbone, found)
    return [_patches(source, backbone, peaks, number, side) for number in chosen]


def _channels(layer: Layer) -> int:
    """Return the number of channels of a layer that has places."""
    if layer.layout == "vector":
        raise LayerError(f"layer {layer.name!r} gives a vector, which has no place in an image; name one with maps")
    return int(layer.shape[0] if layer.layout == "NCHW" else layer.shape[-1])


def _maps(
    source: Source,
    backbone: Backbone,
    layer: Layer,
    on_error: Callable[[str], None] | None,
    progress: Progress | None,
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Yield the numbers of some images and their maps (n, channels, h, w), a batch at a time."""
    from featurebank.backbones.engine import Engine

    engine = Engine(backbone, [backbone.spec(f"{layer.name}:none", store="float32")], images=len(source.paths))
    read = enumerate(read_images(source, backbone.prepare, least=backbone.least_side, progress=progress))
    while some := list(islice(read, _BATCH)):
        for _, error in some:
            if isinstance(error, ImageError):
                if on_error is None:
                    raise error
                on_error(str(error))
        good = [(number, each) for number, each in some if not isinstance(each, ImageError)]
        if good:
            (values,) = engine([each for _, each in good])
            yield np.array([number for number, _ in good]), as_maps(values, layer.layout, layer.prefix)


class _Peaks:
    """The strongest peaks of each channel over images that come in batches.

    Attributes
    ----------
    values : ndarray of float32, shape (count, channels)
        From the strongest down; -inf where there are fewer images.
    image, cell : ndarray of int64, shape (count, channels)
        Number of the image, and of the cell in its map.
    """

    def __init__(self, channels: int, count: int):
        self.values = np.full((count, channels), -np.inf, np.float32)
        self.image, self.cell = (np.full((count, channels), -1) for _ in range(2))
        self.images, self.total, self.square = 0, np.zeros(channels), np.zeros(channels)
        self.shape: tuple[int, int] = (1, 1)

    def add(self, numbers: NDArray[np.int64], maps: NDArray[np.float32]) -> None:
        """Take in the maps (n, channels, h, w) of some images."""
        self.shape = maps.shape[2:]
        cells = maps.reshape(*maps.shape[:2], -1)
        where = cells.argmax(axis=2)
        peak = np.take_along_axis(cells, where[..., None], 2)[..., 0]  # (n, channels)
        self.images += len(peak)
        self.total += peak.sum(axis=0)
        self.square += (peak.astype(np.float64) ** 2).sum(axis=0)
        values = np.concatenate([self.values, peak])
        order = np.argsort(-values, axis=0, kind="stable")[: len(self.values)]
        image = np.concatenate([self.image, np.broadcast_to(numbers[:, None], where.shape)])
        cell = np.concatenate([self.cell, where])
        self.values, self.image, self.cell = (np.take_along_axis(each, order, 0) for each in (values, image, cell))

    def most_selective(self, count: int) -> list[int]:
        """Return the channels whose strongest peaks stand out most, in deviations of the images' peaks."""
        mean = self.total / self.images
        deviation = np.sqrt(np.maximum(self.square / self.images - mean**2, 0))
        strongest = np.where(np.isfinite(self.values), self.values, mean).mean(axis=0)
        # a channel that never moves is not selective
        stands_out = np.divide(strongest - mean, deviation, out=np.zeros_like(mean), where=deviation > 1e-6)
        return np.argsort(-stands_out, kind="stable")[:count].tolist()


def _patches(source: Source, backbone: Backbone, peaks: _Peaks, channel: int, side: float) -> ChannelPatches:
    """Cut out the patches of one channel."""
    some = np.flatnonzero(np.isfinite(peaks.values[:, channel]))
    paths, boxes, patches = [], [], []
    for rank in some:
        number, cell = int(peaks.image[rank, channel]), int(peaks.cell[rank, channel])
        image = source.read(number)[1]()
        box = _box(backbone, image.size, divmod(cell, peaks.shape[1]), peaks.shape, side)
        paths.append(os.fsdecode(source.paths[number]))
        boxes.append(box)
        patches.append(image.crop(box).resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    return ChannelPatches(channel, peaks.values[some, channel].tolist(), paths, boxes, patches)


def _box(backbone: Backbone, size: tuple[int, int], cell: tuple[int, int], shape: tuple[int, int], side: float) -> Box:
    """Return what a unit sees of an image, in the image's pixels; `side` is a share of what the network sees."""
    left, top, right, bottom = window_of(backbone, size)
    across, down = right - left, bottom - top
    x, y = left + (cell[1] + 0.5) / shape[1] * across, top + (cell[0] + 0.5) / shape[0] * down
    reach = (max(side * across / 2, 1), max(side * down / 2, 1))
    return round(x - reach[0]), round(y - reach[1]), round(x + reach[0]), round(y + reach[1])


def effective_field(backbone: Backbone, layer: Layer) -> float:
    """Return the side of the effective receptive field of a layer's middle unit, as a share of the network's input.

    Measured on seeded noise, and at least one unit wide (Luo, Li, Urtasun and Zemel 2016, Understanding the effective
    receptive field in deep convolutional neural networks).
    """
    import torch

    from featurebank.backbones.layers import Capture

    device = next((each.device for each in backbone.model.parameters()), torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    size = backbone.input_size
    noise = torch.randn(_NOISE_IMAGES, 3, *size, generator=generator).to(device).requires_grad_()
    with torch.enable_grad():
        (values,) = Capture(backbone.model, [(layer, "none")])(noise)
        maps = as_maps(values, layer.layout, layer.prefix)  # (n, c, h, w)
        row, column = maps.shape[2] // 2, maps.shape[3] // 2
        signs = torch.randn(maps.shape[:2], generator=generator).to(device)
        (maps[:, :, row, column] * signs).sum().backward()
    assert noise.grad is not None
    mass = noise.grad.abs().sum(dim=(0, 1)).cpu().numpy()  # (h, w)
    y, x = ((cell + 0.5) / count for cell, count in ((row, maps.shape[2]), (column, maps.shape[3])))
    rows, columns = ((np.arange(length) + 0.5) / length for length in size)
    distance = np.maximum(np.abs(rows[:, None] - y), np.abs(columns[None] - x)).ravel()
    order = np.argsort(distance, kind="stable")
    held = np.cumsum(mass.ravel()[order])
    reach = distance[order][np.searchsorted(held, MASS * held[-1])] if held[-1] > 0 else 0.0
    return float(min(max(2 * reach, 1 / min(maps.shape[2:])), 1.0))


def draw_channels(found: Sequence[ChannelPatches], title: str = "") -> Figure:
    """Draw the patches, a row for each channel, the strongest on the left.

    Parameters
    ----------
    found : sequence of ChannelPatches
    title : str, default ""

    Raises
    ------
    NotInstalledError
        When matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    most = max(len(each.patches) for each in found)
    figure = Figure(figsize=(most + 1, len(found) + 0.5), layout="constrained")
    for ax, each in zip(figure.subplots(len(found), squeeze=False)[:, 0], found, strict=True):
        strip = Image.new("RGB", (most * (SIDE + 4) - 4, SIDE), "white")
        for number, patch in enumerate(each.patches):
            strip.paste(patch, (number * (SIDE + 4), 0))
        ax.imshow(np.asarray(strip), interpolation="none")
        ax.set_ylabel(str(each.channel), rotation=0, ha="right", va="center")
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    figure.suptitle(title.replace("$", r"\$"))
    return figure


def describe(found: Sequence[ChannelPatches]) -> list[dict[str, Any]]:
    """Return the facts of patches as JSON can hold them."""
    return [
        {
            "channel": each.channel,
            "patches": [
                {"path": path, "value": value, "box": list(box)}
                for path, value, box in zip(each.paths, each.values, each.boxes, strict=True)
            ],
        }
        for each in found
    ]
