"""Weights: named, from a checkpoint file or from a seed; what is read from a file is checked before it is used."""

from __future__ import annotations

import hashlib
import logging
import math
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from featurebank.backbones.entries import COUNTER, NOTHING, Checkpoint, Fit, Own, Shapes, find_fit
from featurebank.errors import WeightsError, one_line
from featurebank.images.formats import kind_of

if TYPE_CHECKING:
    from torch import Tensor, nn

CHECKPOINT_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".safetensors", ".pth.tar", ".pt.tar")
_BESIDE_TENSORS = ("argparse.", "pathlib.", "numpy.")
"""Packages of what training scripts keep beside the tensors; none of it is made when the tensors are read."""
_DEPTH = 4
_LOG = logging.getLogger(__name__)


def state_digest(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 (hex) of a state dictionary, whatever the order of its entries."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.flatten().view(_byte_type()).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()


def _byte_type() -> Any:
    import torch

    return torch.uint8


def read_checkpoint(path: Path, asked: str = "") -> Checkpoint:
    """Read a checkpoint's tensors without running any code in it.

    Parameters
    ----------
    path : Path
        ``.safetensors``, or a torch file of tensors, in dictionaries of any depth.
    asked : str, default ""
        The entry that is to be taken.

    Raises
    ------
    WeightsError
        When it is missing, holds objects that are code, no dictionary of tensors, or declares more than its own bytes.
    """
    if not path.is_file():
        raise WeightsError(f"no checkpoint at {str(path)!r}; expected a {', '.join(CHECKPOINT_SUFFIXES)} file")
    try:
        content = _read_tensors(path)
    except Exception as error:  # many kinds, from a truncated zip to a refused pickle
        raise WeightsError(f"{str(path)!r} is no file of plain tensors: {_about_unreadable(error, path)}") from error
    entries = dict(_entries(content, ""))
    if not entries:
        raise WeightsError(f"{str(path)!r} does not hold a dictionary of tensors; save model.state_dict() instead")
    for tensors in entries.values():
        for name, tensor in tensors.items():
            _check_tensor(path, name, tensor)
    return Checkpoint(str(path), entries, asked)


def _entries(content: Any, at: str, depth: int = 0) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
    """Return every dictionary of nothing but tensors, by where it lies."""
    import torch

    if not isinstance(content, Mapping) or depth > _DEPTH or not all(isinstance(name, str) for name in content):
        return
    if all(isinstance(value, torch.Tensor) for value in content.values()):
        if content or not depth:
            yield at, content
        return
    for name, value in content.items():
        yield from _entries(value, f"{at}.{name}".lstrip("."), depth + 1)


class Inert:
    """What stands for a training's options and figures beside the tensors of a torch file; it does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Take any arguments."""
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        """Forget what it is told."""


def _read_tensors(path: Path) -> Any:
    """Read a safetensors file, whose own header holds its shapes to its bytes, or a torch file."""
    import torch
    from safetensors.torch import load_file
    from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

    if path.suffix == ".safetensors":
        return load_file(path)
    if not zipfile.is_zipfile(path):
        return torch.load(path, "cpu", weights_only=True)
    with zipfile.ZipFile(path) as archive:
        unpacked, size = sum(info.file_size for info in archive.infolist()), path.stat().st_size
    if unpacked > size:
        raise WeightsError(f"its {size} bytes unpack to {unpacked}; expected a file that torch.save wrote")
    beside = [name for name in get_unsafe_globals_in_checkpoint(path) if name.startswith(_BESIDE_TENSORS)]
    with safe_globals([(Inert, name) for name in beside]):
        return torch.load(path, "cpu", weights_only=True)


def _is_torch_archive(path: Path) -> bool:
    """Say whether a file is a ZIP archive as torch.save writes one."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/data.pkl") for name in archive.namelist())


def _about_unreadable(error: Exception, path: Path) -> str:
    """Say what a file is, or holds beside tensors and how to save them alone; otherwise what its reader said."""
    with open(path, "rb") as file:
        kind = kind_of(file.read(256))
    if kind and not _is_torch_archive(path):
        return f"it is {kind}; expected what torch.save or safetensors wrote: fetch it anew"
    refused = re.search(r"GLOBAL (\S+) was not", str(error))
    if refused is None:
        return one_line(error)[:160]
    return (
        f"it holds {refused[1][:80]}, which is code; expected tensors alone: where you trust the file, load it "
        "in Python (torch.load without weights_only) and torch.save the network's state_dict()"
    )


def _check_tensor(path: Path, name: str, tensor: Tensor) -> None:
    """Refuse a tensor that is not all there: what is built after its shape must not outgrow the file."""
    import torch

    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        raise WeightsError(
            f"tensor {name[:80]!r} of {str(path)!r} is sparse, quantized or empty; expected plain numbers: "
            "save dense tensors"
        )
    declared = math.prod(tensor.shape) * tensor.element_size()
    held = min(tensor.untyped_storage().nbytes(), path.stat().st_size)
    if declared > held:
        raise WeightsError(
            f"tensor {name[:80]!r} of {str(path)!r} declares {declared} bytes and holds {held}; expected all of them: "
            "save tensor.contiguous()"
        )


def parse_seed(weights: str) -> int | None:
    """Return the seed of ``random:SEED``, or None for any other weights.

    Raises
    ------
    WeightsError
        When the seed is no whole number.

    Examples
    --------
    >>> parse_seed("random:7"), parse_seed("DEFAULT")
    (7, None)
    """
    head, _, seed = weights.partition(":")
    if head != "random":
        return None
    if not seed.isdecimal() or int(seed) >= 1 << 63:
        raise WeightsError(f"weights {weights!r}; expected random:SEED with a whole number below 2**63, e.g. random:0")
    return int(seed)


def checkpoint_path(weights: str) -> Path | None:
    """Return the path that `weights` names, or None where it names something else.

    Examples
    --------
    >>> checkpoint_path("IMAGENET1K_V1") is None, checkpoint_path("mine.pth").name
    (True, 'mine.pth')
    >>> checkpoint_path("mine.pth#teacher").name
    'mine.pth'
    """
    path = weights.removesuffix(f"#{checkpoint_entry(weights)}")
    return Path(path) if path.endswith(CHECKPOINT_SUFFIXES) else None


def checkpoint_entry(weights: str) -> str:
    """Return which entry of a checkpoint `weights` asks for behind a ``#``; empty for whichever fits.

    Examples
    --------
    >>> checkpoint_entry("mine.pth#teacher"), checkpoint_entry("a#b.pth")
    ('teacher', '')
    """
    path, _, entry = weights.rpartition("#")
    return entry if path.endswith(CHECKPOINT_SUFFIXES) and not entry.endswith(CHECKPOINT_SUFFIXES) else ""


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch inside, and put its random state back afterwards; builders' warnings are silenced."""
    import torch

    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        yield


def make_network(
    weights: str, make: Callable[[], Any], around: Callable[[Checkpoint], Any], official: Callable[[], Any]
) -> Any:
    """Make a network: with random weights, around the tensors of a file, or with weights that have a name.

    Parameters
    ----------
    weights : str
        See `featurebank.backbones.registry.load_backbone`.
    make, around, official : callable
        Make it untrained, around a checkpoint, and with the weights of the name.
    """
    seed, path = parse_seed(weights), checkpoint_path(weights)
    if seed is not None:
        with seeded(seed):
            return make()
    return official() if path is None else around(read_checkpoint(path, checkpoint_entry(weights)))


def make_around(
    make: Callable[..., Any],
    checkpoint: Checkpoint,
    classifier_of: Callable[[Any], str | None],
    settled: str = NOTHING,
    options_of: Callable[[Mapping[str, Tensor], Shapes], dict[str, Any]] = lambda state, own: {},
) -> Any:
    """Make a network around the tensors of a checkpoint that fit it, and say in the log which were taken.

    Parameters
    ----------
    make : callable
        Makes the network untrained. A classifier takes its number of classes from the tensors, as ``num_classes``.
    checkpoint : Checkpoint
    classifier_of : callable
        Returns the name of a network's last classifier.
    settled : str
        A pattern of names of tensors that decide how the network is built.
    options_of : callable
        Returns these options for `make`, from the tensors found and the network's own shapes.

    Raises
    ------
    WeightsError
        When the tensors do not fit.
    """
    model = make()
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    fit, note = find_fit(checkpoint, Own(shapes, classifier_of(model), settled))
    options = options_of(fit.state, shapes) | ({} if fit.classes is None else {"num_classes": fit.classes})
    model = make(**options) if options else model
    _load(model, fit, checkpoint.where)
    if note:
        _LOG.info("weights: %s", note)
    return model


def _load(model: nn.Module, fit: Fit, where: str) -> None:
    """Load tensors into a network, all of them or none; an absent classifier leaves its place to nothing."""
    from featurebank.backbones.layers import Absent

    for name in fit.absent:
        model.set_submodule(name, Absent())
    counters = {name: tensor for name, tensor in model.state_dict().items() if name.endswith(COUNTER)}
    try:
        model.load_state_dict({**counters, **fit.state}, strict=True)
    except RuntimeError as error:
        raise WeightsError(f"the tensors of {where!r} do not fit this backbone: {one_line(error)[:200]}") from error
