"""JPEG files decoded, turned, resized and cropped on a CUDA GPU, by nvJPEG through torchvision.

nvJPEG rounds otherwise than libjpeg and doubles the pixels of reduced colour channels where libjpeg interpolates them:
embeddings are near those of the other decoders, and in a feature set of their own. What it does not decode as the pixel
policy wants is decoded on the CPU (`images.decoding.find_jpeg`), and so is a file that it turns down after all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from featurebank.backbones.preprocessing import Preprocessing
from featurebank.errors import DeviceError, ImageError, one_line
from featurebank.images import decoding
from featurebank.images.decoding import EncodedImage

GROUP_PIXELS = 1 << 25
"""Pixels that are decoded together: 100 MB, and four times as much while they are resized."""
_T = Image.Transpose
_Row = tuple[int, EncodedImage]


def check_device(device: torch.device) -> None:
    """Refuse a device that has no nvJPEG.

    Raises
    ------
    DeviceError
        When it is no CUDA GPU.
    """
    if device.type != "cuda":
        raise DeviceError(
            f"decoder 'nvjpeg' needs a CUDA GPU, and this runs on {device.type}: use --device cuda on a machine with "
            "one, or features of another --decoder"
        )


class JpegDecoder:
    """Puts prepared images into one tensor on a GPU, which decodes those that are JPEG files still.

    It works on a stream of its own, so that it may run in a thread beside the network.

    Parameters
    ----------
    preprocessing : Preprocessing
        What follows the decoding.
    device : torch.device
        A CUDA device.

    Attributes
    ----------
    refused : int
        Files that the GPU did not decode, and the CPU did.

    Raises
    ------
    DeviceError
        When the device is no CUDA GPU.
    """

    def __init__(self, preprocessing: Preprocessing, device: torch.device):
        check_device(device)
        index = torch.cuda.current_device() if device.index is None else device.index
        self.preprocessing = preprocessing
        self.device = torch.device("cuda", index)
        self.refused = 0
        self._stream = torch.cuda.Stream(self.device)

    def __call__(self, prepared: Sequence[Any]) -> Tensor:
        """Return prepared images (`Backbone.prepare`) as uint8 (n, h, w, 3) on the device, all of it computed.

        Its memory belongs to a stream of its own: a reader on another one has to say so (`Tensor.record_stream`).
        """
        with torch.cuda.stream(self._stream):
            batch = torch.empty(len(prepared), *self.preprocessing.crop, 3, dtype=torch.uint8, device=self.device)
            self.refused += fill(batch, prepared, self.preprocessing)
            self._stream.synchronize()
        return batch


def fill(batch: Tensor, prepared: Sequence[Any], preprocessing: Preprocessing) -> int:
    """Write prepared images into a tensor, where it is.

    Parameters
    ----------
    batch : Tensor of uint8, shape (n, h, w, 3)
        On a GPU, nvJPEG decodes; on the CPU, libjpeg does, which shows how far they are from each other.
    prepared : sequence of n uint8 arrays (h, w, 3) or EncodedImage
        One that cannot be decoded is told its error, and is black.
    preprocessing : Preprocessing

    Returns
    -------
    int
        Files that were left to the CPU, because the device would not decode them.
    """
    encoded = [(row, each) for row, each in enumerate(prepared) if isinstance(each, EncodedImage)]
    plain = [row for row, each in enumerate(prepared) if not isinstance(each, EncodedImage)]
    if plain:
        _put(batch, plain, torch.from_numpy(np.stack([prepared[row] for row in plain])))
    return sum(_fill_group(batch, group, preprocessing) for group in _groups(encoded))


def _groups(encoded: Iterable[_Row]) -> list[list[list[_Row]]]:
    """Bring the views of a file together, and so many files that they have `GROUP_PIXELS` or are just one."""
    files: dict[int, list[_Row]] = {}
    for row, each in encoded:
        files.setdefault(id(each.data), []).append((row, each))
    groups: list[list[list[_Row]]] = [[]]
    pixels = 0
    for views in files.values():
        width, height = views[0][1].size
        if groups[-1] and pixels + width * height > GROUP_PIXELS:
            groups.append([])
            pixels = 0
        groups[-1].append(views)
        pixels += width * height
    return groups if groups[0] else []


def _fill_group(batch: Tensor, files: list[list[_Row]], preprocessing: Preprocessing) -> int:
    """Decode files together; where that fails, by halves, until it is known which the CPU has to decode."""
    try:
        _decode_on_device(batch, files, preprocessing)
        return 0
    except RuntimeError:  # one damaged file, or too little memory, fails all of them, and nvJPEG does not say which
        pass
    if batch.is_cuda:
        torch.cuda.empty_cache()  # nvJPEG takes its memory beside torch's
    if len(files) > 1:
        half = len(files) // 2
        return sum(_fill_group(batch, part, preprocessing) for part in (files[:half], files[half:]))
    _decode_on_cpu(batch, files[0], preprocessing)
    return 1


def _decode_on_device(batch: Tensor, files: list[list[_Row]], preprocessing: Preprocessing) -> None:
    from torchvision.io import ImageReadMode, decode_jpeg

    data = [torch.frombuffer(bytearray(views[0][1].data), dtype=torch.uint8) for views in files]
    if batch.is_cuda:  # nvJPEG writes at once, also where work that is queued here still reads (pytorch/vision#9606)
        torch.cuda.current_stream(batch.device).synchronize()
    decoded = decode_jpeg(data, mode=ImageReadMode.RGB, device=batch.device)
    by_shape: dict[torch.Size, list[tuple[int, Tensor]]] = {}
    for views, image in zip(files, decoded, strict=True):
        for row, each in views:
            turned = reduce(turn, (*each.orientation, *each.turns), image)  # (3, h, w)
            by_shape.setdefault(turned.shape, []).append((row, turned))
    for alike in by_shape.values():
        rows, pixels = zip(*alike, strict=True)
        _put(batch, rows, preprocessing.on_tensor(torch.stack(pixels)))


def _decode_on_cpu(batch: Tensor, views: list[_Row], preprocessing: Preprocessing) -> None:
    """Decode one file under the pixel policy."""
    try:
        image = decoding.decode(views[0][1].data)
        arrays = [preprocessing(reduce(Image.Image.transpose, each.turns, image)) for _, each in views]
    except ImageError as error:
        arrays = [np.zeros(batch.shape[1:], np.uint8) for _ in views]
        for _, each in views:
            each.error = one_line(error)
    _put(batch, [row for row, _ in views], torch.from_numpy(np.stack(arrays)))


def _put(batch: Tensor, rows: Sequence[int], pixels: Tensor) -> None:
    batch[torch.tensor(rows, device=batch.device)] = pixels.to(batch.device)


def turn(image: Tensor, method: Image.Transpose) -> Tensor:
    """Do to a tensor (…, h, w) what `PIL.Image.Image.transpose` does to an image.

    Examples
    --------
    >>> turn(torch.tensor([[1, 2, 3]]), Image.Transpose.ROTATE_90).tolist()
    [[3], [2], [1]]
    """
    if method in (_T.TRANSPOSE, _T.TRANSVERSE):
        flipped = image.transpose(-2, -1)
        return flipped.flip((-2, -1)) if method == _T.TRANSVERSE else flipped
    if method in (_T.FLIP_LEFT_RIGHT, _T.FLIP_TOP_BOTTOM):
        return image.flip(-1 if method == _T.FLIP_LEFT_RIGHT else -2)
    quarters = {_T.ROTATE_90: 1, _T.ROTATE_180: 2, _T.ROTATE_270: 3}[method]
    return image.rot90(quarters, (-2, -1))
