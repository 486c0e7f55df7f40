"""What every backbone is: a frozen network in eval mode, its weights' digest, its own preprocessing, its layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from PIL import Image

from featurebank.backbones.checkpoints import state_digest
from featurebank.backbones.preprocessing import Preprocessing
from featurebank.bank.spec import PIXELS, FeatureSpec, split_pool
from featurebank.errors import BackboneError, LayerError
from featurebank.images import decoding
from featurebank.images.pixels import PLAIN, PixelRules
from featurebank.images.views import check_encoded, make_views

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from torch import nn

    from featurebank.backbones.layers import Layers


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
    pixels : PixelRules
        What of an image's values, pages and channels is seen; it belongs to the images, not to the weights.

    See Also
    --------
    load_backbone : One by name.
    Backbone.from_module : One of your own network.
    Preprocessing : What the network sees of an image.

    Examples
    --------
    >>> import torch
    >>> from featurebank.backbones.preprocessing import Preprocessing
    >>> module = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    >>> eyes = Backbone("eyes", module, Preprocessing(72, (64, 64), "bilinear", (0.5,) * 3, (0.5,) * 3), version="1")
    >>> eyes.input_size, list(eyes.layers)
    ((64, 64), ['0', '1', '2', 'logits', 'penultimate'])
    """

    name: str
    model: nn.Module
    preprocessing: Preprocessing | Callable[[Image.Image], Any]
    version: str = ""
    classifier: str | None = None
    pixels: PixelRules = PLAIN

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
    def framing(self) -> str:
        """Which part of an image the network is given; see `Preprocessing`."""
        return self.preprocessing.framing if isinstance(self.preprocessing, Preprocessing) else "crop"

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
        return {"least": least, "on_gpu": self.decoder == "nvjpeg", "pixels": self.pixels}

    @property
    def opening_on_cpu(self) -> dict[str, Any]:
        """What `featurebank.images.decoding.decode` is to be told; refused like `least_side`."""
        return {"least": self.least_side, "pixels": self.pixels}

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

    def with_pixels(self, pixels: PixelRules) -> Backbone:
        """Return the same backbone for images that are seen by these rules; the default ones change nothing."""
        return self if pixels in (PLAIN, self.pixels) else replace(self, pixels=pixels)

    def unseen(self, size: tuple[int, int]) -> float:
        """Return the share of an image of a width and height that the network never sees; 0 where that is not known."""
        return self.preprocessing.unseen(size) if isinstance(self.preprocessing, Preprocessing) else 0.0

    def with_framing(self, framing: str | None) -> Backbone:
        """Return the same backbone that is given another part of an image (`Preprocessing`); None for what it is.

        Raises
        ------
        BackboneError
            When the preprocessing is a callable of your own, which takes whole images, or the decoder makes no tiles.
        """
        if framing is None:
            return self
        if not isinstance(self.preprocessing, Preprocessing):
            raise BackboneError(f"framing {framing!r} does not go with a transform of your own, which frames itself")
        return replace(self, preprocessing=replace(self.preprocessing, framing=framing))

    def network_on(self, device: torch.device) -> nn.Module:
        """Return the network on a device: itself where it lies there, else one copy for all that compute there."""
        from featurebank.backbones.placing import network_on, settled

        there = settled(device)
        found = self._copies.get(there) or network_on(self.model, there)
        if found is not self.model:
            self._copies[there] = found
        return found

    @cached_property
    def _copies(self) -> dict[torch.device, nn.Module]:
        return {}

    def __getstate__(self) -> dict[str, Any]:
        """Go to other processes, and to machines without a GPU, as a network on the CPU."""
        import torch

        kept = {name: value for name, value in vars(self).items() if name != "_copies"}
        return {**kept, "model": self.network_on(torch.device("cpu"))}

    @cached_property
    def layers(self) -> Layers:
        """Every layer that can be captured, by name, in the order of computation."""
        from featurebank.backbones.layers import probe

        return probe(self.model, self.input_size, self.classifier)

    def prepare(self, image: Image.Image | decoding.EncodedImage) -> Any:
        """Preprocess one RGB image: uint8 (h, w, 3), or its tiles, or the float tensor (3, h, w) of a callable.

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
        """Return the preprocessing as it stands in a feature spec, the pixel rules among it where they say anything."""
        return {**self._preprocessing_dict(), **({PIXELS: self.pixels.to_dict()} if self.pixels else {})}

    def _preprocessing_dict(self) -> dict[str, Any]:
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
            When there is no such layer, or the pooling does not fit it or tiles.
        """
        from featurebank.backbones.layers import get_layer

        found, pool = get_layer(self.layers, *split_pool(layer))
        if self.framing == "tiles" and pool == "none" and found.layout != "vector":
            raise LayerError(f"layer {layer!r} keeps its places, and those of tiles cannot be averaged; name a pool")
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
