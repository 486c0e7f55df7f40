"""What every backbone is: a frozen network in eval mode, its weights' digest, its own preprocessing, its layers."""

from __future__ import annotations

import hashlib
import math
import warnings
import zipfile
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from featurebank.backbones.preprocessing import Preprocessing
from featurebank.bank.spec import FeatureSpec, split_pool
from featurebank.errors import BackboneError, WeightsError, one_line
from featurebank.images import decoding
from featurebank.images.views import check_encoded, make_views

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

    from featurebank.backbones.layers import Layers

CHECKPOINT_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")
_WRAPPERS = ("state_dict", "model", "model_state_dict", "state_dict_ema")


@dataclass
class Backbone:
    """A frozen network, its preprocessing, and what identifies both.

    Attributes
    ----------
    name : str
        Name it is asked for by.
    model : torch.nn.Module
        The network; it is put in eval mode and its parameters need no gradient.
    preprocessing : Preprocessing or callable
        Turns an RGB PIL image into what the network sees. A callable returns a float tensor (3, h, w).
    version : str
        Version of a custom module; empty for named ones.
    classifier : str or None
        Name of the module that is the last classifier, where its source knows it.
    """

    name: str
    model: nn.Module
    preprocessing: Preprocessing | Callable[[Image.Image], Any]
    version: str = ""
    classifier: str | None = None

    def __post_init__(self) -> None:
        self.model.eval().requires_grad_(False)

    @classmethod
    def from_module(
        cls,
        module: nn.Module,
        *,
        name: str | None = None,
        version: str | None = None,
        transform: Preprocessing | Callable[[Image.Image], Any] | None = None,
    ) -> Backbone:
        """Make a backbone of your own network.

        Parameters
        ----------
        module : torch.nn.Module
            Takes images (n, 3, h, w). It is put in eval mode.
        name, version : str, optional
            What it is called in feature specs; by default the module's attributes of these names. Raise the
            version whenever its code changes.
        transform : Preprocessing or callable, optional
            RGB PIL image to float tensor (3, h, w); by default the module's attribute ``transform``.

        Raises
        ------
        BackboneError
            When a name, a version or a transform is missing.

        Examples
        --------
        >>> import torch
        >>> half = Preprocessing(8, (8, 8), "bilinear", (0.5,) * 3, (0.5,) * 3)
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 4))
        >>> Backbone.from_module(net, name="tiny", version="1", transform=half).spec("logits").name
        'tiny/logits'
        """
        name = name or getattr(module, "name", None)
        version = version or getattr(module, "version", None)
        transform = transform or getattr(module, "transform", None)
        if not name or not version or transform is None:
            raise BackboneError(
                "your own module needs a name, a version and a transform: Backbone.from_module(module, name=…, "
                "version=…, transform=…)"
            )
        return cls(str(name), module, transform, str(version))

    @property
    def is_named(self) -> bool:
        """Whether it can be built anew from its name and tensors, unlike a module of the user's own."""
        return not self.version and isinstance(self.preprocessing, Preprocessing)

    @cached_property
    def weights(self) -> str:
        """SHA-256 (hex) of the network's tensors: names, dtypes, shapes and bytes."""
        return state_digest(self.model.state_dict())

    @cached_property
    def input_size(self) -> tuple[int, int]:
        """Height and width of what the network sees."""
        if isinstance(self.preprocessing, Preprocessing):
            return self.preprocessing.crop
        tensor = self._tensor(Image.new("RGB", (256, 256)))
        return int(tensor.shape[-2]), int(tensor.shape[-1])

    @property
    def decoder(self) -> str:
        """How images are decoded and resized; see `Preprocessing`."""
        return self.preprocessing.decoder if isinstance(self.preprocessing, Preprocessing) else "pil"

    @property
    def least_side(self) -> int:
        """What `featurebank.images.decoding.decode` is to be told; see `Preprocessing.least_side`.

        Raises
        ------
        BackboneError
            When a GPU is to decode: `opening` is for those who have an engine do that.
        """
        if self.decoder == "nvjpeg":
            raise BackboneError(
                "decoder 'nvjpeg' is for extracting and predicting alone, not for what is done here; use a feature set "
                "of another --decoder"
            )
        return int(self.opening["least"])

    @property
    def opening(self) -> dict[str, Any]:
        """What `featurebank.images.decoding.decode_or_leave` is to be told of this backbone's decoder."""
        least = self.preprocessing.least_side if isinstance(self.preprocessing, Preprocessing) else 0
        return {"least": least, "on_gpu": self.decoder == "nvjpeg"}

    def with_decoder(self, decoder: str) -> Backbone:
        """Return the same backbone with another way to decode and resize images (`Preprocessing`).

        Raises
        ------
        BackboneError
            When the preprocessing is a callable of your own, which takes whole images.
        """
        if decoder == "pil":
            return self
        if not isinstance(self.preprocessing, Preprocessing):
            raise BackboneError(f"decoder {decoder!r} does not go with a transform of your own; use decoder pil")
        return replace(self, preprocessing=replace(self.preprocessing, decoder=decoder))

    @cached_property
    def layers(self) -> Layers:
        """Every layer that can be captured, by name, in the order of computation."""
        from featurebank.backbones.layers import probe

        return probe(self.model, self.input_size, self.classifier)

    def prepare(self, image: Image.Image | decoding.EncodedImage) -> Any:
        """Preprocess one RGB image: uint8 (h, w, 3), or the float tensor (3, h, w) of a callable.

        An image that the GPU decodes stays as it is, and is preprocessed there.

        Raises
        ------
        BackboneError
            When a callable gives something else, or not the same size for every image.
        ImageError
            When the image is so long that it cannot be resized.
        """
        if isinstance(image, decoding.EncodedImage):
            assert isinstance(self.preprocessing, Preprocessing)
            self.preprocessing.target(image.size)
            return image
        if isinstance(self.preprocessing, Preprocessing):
            return self.preprocessing(image)
        prepared = self._tensor(image)
        if prepared.shape[-2:] != self.input_size:
            sizes = [f"{height}x{width}" for height, width in (prepared.shape[-2:], self.input_size)]
            raise BackboneError(f"the transform gave {sizes[0]}, and {sizes[1]} before; expected one size: crop to it")
        return prepared

    def prepare_views(self, image: Image.Image | decoding.EncodedImage, views: str, digest: bytes) -> Iterator[Any]:
        """Preprocess the views of one RGB image, one at a time; see `prepare` and `images.views.make_views`."""
        if isinstance(image, decoding.EncodedImage):
            check_encoded(views)
        return map(self.prepare, make_views(image, views, digest))

    def _tensor(self, image: Image.Image) -> Any:
        """Return what a callable makes of an image."""
        prepared = self.preprocessing(image)
        if getattr(prepared, "ndim", 0) != 3 or not hasattr(prepared, "detach"):
            raise BackboneError(f"the transform gave a {type(prepared).__name__}; expected a float tensor (3, h, w)")
        return prepared

    def describe_preprocessing(self) -> dict[str, Any]:
        """Return the preprocessing as it stands in a feature spec."""
        if isinstance(self.preprocessing, Preprocessing):
            return self.preprocessing.to_dict()
        text = repr(self.preprocessing)
        if " at 0x" in text:  # a function's address says nothing; its name and the version stand for it
            text = getattr(self.preprocessing, "__qualname__", type(self.preprocessing).__qualname__)
        return {"transform": text, "crop": list(self.input_size)}

    def spec(self, layer: str, *, store: str = "float16", views: str = "none", precision: str = "fp32") -> FeatureSpec:
        """Return the feature spec of one layer.

        Parameters
        ----------
        layer : str
            ``LAYER[:POOL]``.
        store : str, default "float16"
            Stored dtype.
        views : str, default "none"
            See `featurebank.images.views.count_views`.
        precision : str, default "fp32"
            Compute dtype.

        Raises
        ------
        LayerError
            When there is no such layer, or the pooling does not fit it.
        """
        from featurebank.backbones.layers import get_layer

        found, pool = get_layer(self.layers, *split_pool(layer))
        return FeatureSpec(
            backbone=self.name,
            version=self.version,
            weights=self.weights,
            layer=found.name,
            layout=found.layout,
            prefix=found.prefix,
            pool=pool,
            preprocessing=self.describe_preprocessing(),
            pixel_policy=decoding.PIXEL_POLICY,
            views=views,
            precision=precision,
            store=store,
        )


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
