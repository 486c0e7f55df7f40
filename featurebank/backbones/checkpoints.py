"""Weights: named, from a checkpoint file or from a seed; what is read from a file is checked before it is used."""

from __future__ import annotations

import hashlib
import math
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurebank.errors import WeightsError, one_line

if TYPE_CHECKING:
    from torch import Tensor, nn

CHECKPOINT_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")
_WRAPPERS = ("state_dict", "model", "model_state_dict", "state_dict_ema")


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


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Read a checkpoint's tensors without running any code in it.

    Parameters
    ----------
    path : Path
        ``.safetensors``, or a torch file of tensors; ``state_dict`` and ``model`` wrappers and a ``module.``
        prefix are taken off.

    Raises
    ------
    WeightsError
        When it is missing, holds anything but tensors, or declares more than its own bytes.
    """
    import torch

    if not path.is_file():
        raise WeightsError(f"no checkpoint at {str(path)!r}; expected a {', '.join(CHECKPOINT_SUFFIXES)} file")
    state: Any
    try:
        state = _read_tensors(path)
    except Exception as error:  # many kinds, from a truncated zip to a refused pickle
        raise WeightsError(f"{str(path)!r} is no file of plain tensors: {one_line(error)[:160]}") from error
    for wrapper in _WRAPPERS:
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    if not isinstance(state, Mapping) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state.items()
    ):
        raise WeightsError(f"{str(path)!r} does not hold a dictionary of tensors; save model.state_dict() instead")
    for name, tensor in state.items():
        _check_tensor(path, name, tensor)
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def _read_tensors(path: Path) -> Any:
    """Read a safetensors file, whose own header holds its shapes to its bytes, or a torch file."""
    import torch
    from safetensors.torch import load_file

    if path.suffix == ".safetensors":
        return load_file(path)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            unpacked, size = sum(info.file_size for info in archive.infolist()), path.stat().st_size
        if unpacked > size:
            raise WeightsError(f"its {size} bytes unpack to {unpacked}; expected a file that torch.save wrote")
    return torch.load(path, "cpu", weights_only=True)


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


def load_state(model: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Load tensors into a network, all of them or none.

    Raises
    ------
    WeightsError
        When names or shapes differ.
    """
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise WeightsError(f"the tensors of {where!r} do not fit this backbone: {one_line(error)[:200]}") from error


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
    """
    return Path(weights) if weights.endswith(CHECKPOINT_SUFFIXES) else None


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch inside, and put its random state back afterwards; builders' warnings are silenced."""
    import torch

    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        yield


def make_network(
    weights: str, make: Callable[[], Any], around: Callable[[Mapping[str, Tensor]], Any], official: Callable[[], Any]
) -> Any:
    """Make a network: with random weights, around the tensors of a file, or with weights that have a name.

    Parameters
    ----------
    weights : str
        See `featurebank.backbones.registry.load_backbone`.
    make, around, official : callable
        Make it untrained, around tensors, and with the weights of the name.
    """
    seed, path = parse_seed(weights), checkpoint_path(weights)
    if seed is not None:
        with seeded(seed):
            return make()
    return official() if path is None else around(read_checkpoint(path))


def make_around(
    make: Callable[..., Any],
    state: Mapping[str, Tensor] | Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]],
    where: str,
) -> Any:
    """Make a network around tensors; its head takes their number of classes, which `make` gets as ``num_classes``.

    The tensors may also be a function of those that the network has untrained.

    Raises
    ------
    WeightsError
        When the tensors do not fit.
    """
    model = make()
    state = state(model.state_dict()) if callable(state) else state
    classes = classes_in(state, model)
    if classes is not None:
        model = make(num_classes=classes)
    load_state(model, state, where)
    return model


def classes_in(state: Mapping[str, Tensor], model: nn.Module) -> int | None:
    """Return the number of classes of a checkpoint whose head differs from the model's; None if it does not.

    The head is every module with a tensor of another shape. Unless all tensors of these modules are there and differ
    from the model's in their first length alone, which is one number, the checkpoint does not fit: None.
    """
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    heads = {_module_of(name) for name in own if found.get(name, own[name]) != own[name]}
    parts = [name for name in own if _module_of(name) in heads]
    classes = {found[name][0] for name in parts if found.get(name)}
    fits = len(classes) == 1 and all(own[name] and found.get(name) == (*classes, *own[name][1:]) for name in parts)
    return classes.pop() if fits else None


def _module_of(name: str) -> str:
    """Return the name of the module that a tensor belongs to."""
    return name.rpartition(".")[0]
