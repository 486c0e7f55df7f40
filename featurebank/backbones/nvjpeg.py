"""JPEG files decoded, turned, resized and cropped on a CUDA GPU, by nvJPEG through torchcodec.

nvJPEG rounds otherwise than libjpeg and doubles the pixels of reduced colour channels where libjpeg interpolates them:
embeddings are near those of the other decoders, and in a feature set of their own. What it does not decode as the pixel
policy wants is decoded on the CPU (`images.decoding.find_jpeg`), and so is a file that it turns down after all.
"""

from __future__ import annotations

import importlib.util
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from featurebank.backbones.placing import settled
from featurebank.backbones.preprocessing import Preprocessing
from featurebank.errors import DeviceError, ImageError, NotInstalledError, install_hint, one_line
from featurebank.images import decoding
from featurebank.images.decoding import EncodedImage

GROUP_PIXELS = 1 << 25
"""Pixels that are decoded together: 100 MB, and four times as much while they are resized."""
ENOUGH = 8
"""Sound files that nvJPEG turns down before it has decoded any show that it does not work here."""
_T = Image.Transpose
_EXIF, _NO_EXIF = re.compile(rb"\xff\xe1(..Exif\0\0)", re.DOTALL), b"\xff\xef\\1"
"""The segment of a JPEG file that EXIF data lie in, and one that no decoder looks at."""
_Row = tuple[int, EncodedImage]


def check_device(device: torch.device) -> None:
    """Refuse a device that has no nvJPEG.

    Raises
    ------
    DeviceError
        When it is no CUDA GPU.
    NotInstalledError
        When torchcodec is not installed.
    """
    if device.type != "cuda":
        raise DeviceError(
            f"decoder 'nvjpeg' needs a CUDA GPU, and this runs on {device.type}: use --device cuda on a machine with "
            "one, or features of another --decoder"
        )
    if importlib.util.find_spec("torchcodec") is None:
        raise NotInstalledError(f"decoder 'nvjpeg' needs torchcodec: {install_hint('nvjpeg')}")


def check_decoding(device: torch.device) -> None:
    """Refuse nvJPEG where it does not decode a small file that every decoder takes.

    Raises
    ------
    DeviceError
        With what it says.
    """
    file = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(file, "JPEG")
    try:
        _decoded([file.getvalue()], device)
    except (RuntimeError, ImportError, OSError) as error:  # torchcodec's library may not fit torch, or CUDA
        raise DeviceError(
            f"nvJPEG does not work on {device} ({one_line(error)[:160]}): use another --decoder, or install a "
            "torchcodec that fits this torch"
        ) from error


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
    counts : Counts
        Of the files.

    Raises
    ------
    DeviceError
        When the device is no CUDA GPU, or its nvJPEG does not work.
    NotInstalledError
        When torchcodec is not installed.
    """

    def __init__(self, preprocessing: Preprocessing, device: torch.device):
        check_device(device)
        self.preprocessing = preprocessing
        self.device = settled(device)
        check_decoding(self.device)
        self.counts = Counts()
        self._stream = torch.cuda.Stream(self.device)

    @property
    def refused(self) -> int:
        """Files that the GPU did not decode, and were left to the CPU."""
        return self.counts.refused

    def __call__(self, prepared: Sequence[Any]) -> Tensor:
        """Return prepared images (`Backbone.prepare`) as uint8 (n, h, w, 3) on the device, all of it computed.

        Its memory belongs to a stream of its own: a reader on another one has to say so (`Tensor.record_stream`).
        """
        with torch.cuda.stream(self._stream):
            batch = torch.empty(len(prepared), *self.preprocessing.crop, 3, dtype=torch.uint8, device=self.device)
            refused = fill(batch, prepared, self.preprocessing)
            self._stream.synchronize()
        self.counts.add(prepared, refused)
        return batch


@dataclass
class Counts:
    """What became of the files that nvJPEG was given.

    Attributes
    ----------
    decoded, refused : int
        By the GPU; the refused ones were left to the CPU.
    sound : int
        Those of the refused that the CPU decoded.
    """

    decoded: int = 0
    refused: int = 0
    sound: int = 0

    def add(self, prepared: Sequence[Any], refused: int) -> None:
        """Take the files of a batch, of which so many were refused.

        Raises
        ------
        DeviceError
            When nvJPEG has refused `ENOUGH` sound files and decoded none: features of the CPU's pixels would be named
            after nvJPEG.
        """
        files = {id(each.data): each for each in prepared if isinstance(each, EncodedImage)}
        self.decoded += len(files) - refused
        self.refused += refused
        self.sound += refused - sum(bool(each.error) for each in files.values())
        if not self.decoded and self.sound >= ENOUGH:
            raise DeviceError(
                f"nvJPEG turned down all of the first {self.refused} JPEG files, and the CPU decoded {self.sound} of "
                "them: use another --decoder"
            )


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
    decoded = _decoded([views[0][1].data for views in files], batch.device)
    by_shape: dict[torch.Size, list[tuple[int, Tensor]]] = {}
    for views, image in zip(files, decoded, strict=True):
        for row, each in views:
            turned = reduce(turn, (*each.orientation, *each.turns), image)  # (3, h, w)
            by_shape.setdefault(turned.shape, []).append((row, turned))
    for alike in by_shape.values():
        rows, pixels = zip(*alike, strict=True)
        _put(batch, rows, preprocessing.on_tensor(torch.stack(pixels)))


def _decoded(data: Sequence[bytes], device: torch.device) -> list[Tensor]:
    """Return the pixels of JPEG files, (3, h, w) as they are stored; torchcodec decodes in the order of the stream."""
    from torchcodec.decoders import decode_jpeg

    unturned = [bytearray(_EXIF.sub(_NO_EXIF, each)) for each in data]  # it would turn them by rules of its own
    files = [torch.frombuffer(each, dtype=torch.uint8) for each in unturned]
    found = decode_jpeg(files, mode="RGB", device=device)
    assert isinstance(found, list)  # as several files are given
    return found


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
