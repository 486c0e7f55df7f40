"""From images to what a predictor's models see: embeddings, made as those they were trained on."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from featurebank.backbones.keeping import Network
from featurebank.backbones.opening import device_type, open_engine
from featurebank.backbones.unloaded import UnloadedBackbone
from featurebank.bank.features import as_loaded
from featurebank.bank.spec import FeatureSpec
from featurebank.errors import BankError, ImageError, PredictorError, one_line
from featurebank.extraction.embedding import ImageEmbedder, ImageList, Outputs
from featurebank.images.decoding import PIXEL_POLICY
from featurebank.images.frames import as_items
from featurebank.images.reading import Progress
from featurebank.images.views import count_views
from featurebank.predictor.features import EMBEDDED, PredictorFeature, made_views

if TYPE_CHECKING:
    from featurebank.backbones.base import Backbone
    from featurebank.backbones.engine import Engine
    from featurebank.backbones.exported.engine import ExportedEngine
    from featurebank.bank.bank import Bank
    from featurebank.images.sources import Source

CPU_BATCH = 16
"""Images in a pass on a CPU: larger ones are hardly faster there, and a progress bar moves less often."""
_BACKBONE = ("backbone", "version", "weights", "preprocessing")
Parts = list[NDArray[np.float32]]
"""What the models see of each feature set, each of shape (n, d)."""


class Embedded(NamedTuple):
    """The feature sets of the images that could be read, and an error or "" and the content of every image."""

    parts: Parts
    errors: list[str]
    digests: list[bytes]


class Embedder:
    """Makes the embeddings of images that some feature specs describe, each backbone loaded once.

    Parameters
    ----------
    features : sequence of PredictorFeature
    tensors : mapping of str to bytes, optional
        Safetensors of backbones whose weights came from a file, by weights digest.
    backbone : Backbone, optional
        The backbone to use in place of the named one (needed for a custom module).
    weights_file : path-like, optional
        A checkpoint to take the backbone's weights from; their digest must be the one the features were made with.
    allow_download : bool, default True
        Whether a hub may be asked for weights that are not on this machine.
    device : str, default "auto"
        ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Raises
    ------
    DeviceError
        When the device is not on this machine.
    """

    def __init__(
        self,
        features: Sequence[PredictorFeature],
        *,
        tensors: Mapping[str, bytes] | None = None,
        backbone: Backbone | None = None,
        weights_file: str | os.PathLike[str] | None = None,
        allow_download: bool = True,
        device: str = "auto",
    ):
        self.features = list(features)
        self.tensors = dict(tensors or {})
        self.backbone = backbone
        self.weights_file = weights_file
        self.allow_download = allow_download
        self.device = _present(device)
        self._engines: list[tuple[Backbone, Any, list[int]]] | None = None
        self._beside: Embedder | None = None

    def embed(self, images: Any) -> NDArray[np.float32]:
        """Return the feature sets of images side by side, shape (n, d).

        Parameters
        ----------
        images : sequence of path-like, PIL images or uint8 arrays
            Or a column or table that has them (`featurebank.images.frames.as_items`).

        Raises
        ------
        ImageError
            When an image cannot be read.
        PredictorError
            When the backbone's weights are not those that the features were made with.
        """
        return np.concatenate(self.embed_all(images), axis=1)

    def embed_all(self, images: Any) -> Parts:
        """Return each feature set of images; see `embed`."""
        items = as_items(images)
        if not items:
            raise PredictorError("no images; expected at least one")
        found = self.embed_some(items)
        for item, error in zip(items, found.errors, strict=True):
            if error:
                name = item if isinstance(item, (str, Path)) else type(item).__name__
                raise ImageError(f"{str(name)!r}: {error}")
        return found.parts

    def seen_by(self, features: Sequence[PredictorFeature], parts: Parts) -> NDArray[np.float32]:
        """Return what the model of some of `features` sees, shape (n, d)."""
        return np.concatenate([parts[self.features.index(each)] for each in features], axis=1)

    def read(self, bank: Bank, digests: NDArray[np.bytes_]) -> Parts:
        """Return each feature set of contents that a bank has embedded.

        Raises
        ------
        BankError
            When the bank lacks one of the feature sets, or rows of it.
        """
        parts = [bank.feature_set_of(each.spec).read(digests, each.views) for each in self.features]
        return [part.reshape(len(part), -1) for part in parts]

    def embed_some(self, items: list[Any], progress: Progress | None = None) -> Embedded:
        """Embed the readable ones of some images."""
        engines = self._open_engines(len(items))
        self._check_opening()
        embedder = ImageEmbedder([engine for _, engine, _ in engines], _Images(items), len(items))
        batches = [self._as_loaded(outputs) for outputs in embedder.outputs(progress)]
        for line in embedder.warnings:
            warnings.warn(line, stacklevel=2)
        parts = [np.concatenate(rows) for rows in zip(*batches, strict=True)]
        nothing = [np.empty((0, 0), np.float32) for _ in self.features]
        return Embedded(parts or nothing, embedder.errors, embedder.digests)

    def _as_loaded(self, outputs: list[Outputs]) -> Parts:
        """Return each feature set of a batch as the bank stores and loads it."""
        parts: dict[int, NDArray[np.float32]] = {}
        for (_, _, numbers), rows in zip(self._open_engines(1), outputs, strict=True):
            for number, output in zip(numbers, rows, strict=True):
                parts[number] = as_loaded(output, self.features[number].spec, self.features[number].views)
        return [parts[number] for number in sorted(parts)]

    def _check_opening(self) -> None:
        """Refuse backbones that do not all open images in one way (`Backbone.opening`)."""
        first, *others = [backbone.opening for backbone, _, _ in self._open_engines(1)]
        if any(other != first for other in others):
            raise PredictorError(
                "the features of this predictor were extracted with decoders or pixel rules that open images "
                "differently: fit it on feature sets of one --decoder, one --size and one --range"
            )

    def _open_engines(self, count: int) -> list[tuple[Backbone, Any, list[int]]]:
        """Load each backbone once, for so many images, with the numbers of the features that one pass of it gives."""
        if self._engines is None:
            engines = []
            for alike in _groups(range(len(self.features)), self.features, _BACKBONE):
                backbone = self._backbone([self.features[number] for number in alike])
                parts = _groups(alike, self.features, ("views", "precision"))
                engines += [(backbone, self._engine(backbone, numbers, count), numbers) for numbers in parts]
            self._engines = engines
        return self._engines

    @property
    def backbone_names(self) -> list[str]:
        """The networks that embed each new image, by name, each once."""
        alike = _groups(range(len(self.features)), self.features, _BACKBONE)
        return [self.features[numbers[0]].spec.backbone for numbers in alike]

    @property
    def engine_names(self) -> list[str]:
        """What runs each network, in the order of `backbone_names`; they are loaded for it."""
        return [engine.engine for _, engine, _ in self._open_engines(1)]

    def backbone_of(self, feature: PredictorFeature) -> Backbone:
        """Return the backbone of one of `features`, loaded once and checked against the feature's spec.

        Raises
        ------
        PredictorError
            See `embed`.
        """
        number = self.features.index(feature)
        return next(backbone for backbone, _, numbers in self._open_engines(1) if number in numbers)

    def embedder_of(self, features: Sequence[PredictorFeature]) -> Embedder:
        """Return what embeds other feature sets with the same weights; it is kept for the next time."""
        if self._beside is None or self._beside.features != list(features):
            self._beside = Embedder(
                features,
                tensors=self.tensors,
                backbone=self.backbone,
                weights_file=self.weights_file,
                allow_download=self.allow_download,
                device=self.device,
            )
        return self._beside

    def networks(self) -> list[Network]:
        """Return the networks that can be exported, so that images start at once."""
        alike = _groups(range(len(self.features)), self.features, (*_BACKBONE, "views", "precision"))
        found = [[self.features[number] for number in numbers] for numbers in alike]
        return [
            Network(partial(self._backbone, features), [each.spec for each in features])
            for features in found
            if features[0].weights
        ]

    def _engine(self, backbone: Backbone, numbers: Sequence[int], count: int) -> Engine | ExportedEngine:
        views = made_views(self.features[numbers[0]])
        made = [replace(self.features[number].spec, views=views) for number in numbers]
        size = CPU_BATCH if device_type(self.device) == "cpu" else None
        return open_engine(backbone, made, device=self.device, batch_size=size, images=count, pad=False)

    def _backbone(self, features: Sequence[PredictorFeature]) -> Backbone:
        """Return the backbone of features, whose network is loaded only where no exported one gives what they say."""
        spec, is_brought = features[0].spec, self.backbone is not None or self.weights_file is not None
        is_known = all(_is_known(each.spec) for each in features)
        if is_brought or not is_known or not features[0].weights or spec.origin is not None:
            return self._load_backbone(features)
        return UnloadedBackbone(spec, partial(self._load_backbone, features))

    def _load_backbone(self, features: Sequence[PredictorFeature]) -> Backbone:
        """Load the backbone of features, and check it against what they say."""
        spec = features[0].spec
        if spec.origin is not None:
            raise PredictorError(f"{spec.about_origin}: this predictor takes rows of a bank (--bank), not images")
        given = self.backbone
        backbone = given if given is not None and given.name == spec.backbone else self._named_backbone(features[0])
        if backbone.weights != spec.weights:
            raise PredictorError(
                f"the weights of {spec.backbone} here have digest {backbone.weights[:12]}, the predictor was trained "
                f"on {spec.weights[:12]}: bring the weights it was trained on"
            )
        backbone = backbone.with_pixels(spec.pixels)
        for each in features:
            _check_spec(backbone, each.spec)
        return backbone

    def _named_backbone(self, feature: PredictorFeature) -> Backbone:
        """Load a backbone by name, with the preprocessing that the predictor was trained with."""
        from featurebank.backbones.preprocessing import Preprocessing
        from featurebank.backbones.registry import load_backbone, load_tensors

        name = feature.spec.backbone
        if not feature.weights:
            raise PredictorError(f"{name!r} is your own module: give it as backbone= to Predictor.load")
        preprocessing = Preprocessing.from_dict(feature.spec.preprocessing)
        if feature.weights == EMBEDDED:
            return load_tensors(name, self.tensors[feature.spec.weights], preprocessing, feature.size)
        weights = feature.weights if self.weights_file is None else os.fspath(self.weights_file)
        backbone = load_backbone(name, weights, feature.size, allow_download=self.allow_download)
        return replace(backbone, preprocessing=preprocessing)


@dataclass(frozen=True)
class Item:
    """One sample of a source, as an image to open."""

    source: Source
    position: int

    def __str__(self) -> str:
        return os.path.join(self.source.root, os.fsdecode(self.source.paths[self.position]))


class _Images(ImageList):
    """Images in a list, some of them samples of sources."""

    def read(self, position: int) -> tuple[bytes, Callable[..., Any]]:
        """Read an image once."""
        item = self.items[position]
        return item.source.read(item.position) if isinstance(item, Item) else super().read(position)

    def place(self, position: int) -> str | None:
        """Return the path or the address of an image, None for one in memory."""
        item = self.items[position]
        return item.source.place(item.position) if isinstance(item, Item) else super().place(position)

    def path(self, position: int) -> bytes:
        """Return the path of an image, or what it is."""
        item = self.items[position]
        return item.source.path(item.position) if isinstance(item, Item) else super().path(position)


def _present(device: str) -> str:
    """Return a device's name; one that this machine lacks is refused at once, what always is there costs nothing."""
    if device not in ("auto", "cpu"):
        from featurebank.backbones.devices import choose_device

        choose_device(device)
    return device


def _groups(numbers: Iterable[int], features: Sequence[PredictorFeature], fields: Sequence[str]) -> list[list[int]]:
    """Group features by fields of their specs."""
    groups: dict[str, list[int]] = {}
    for number in numbers:
        key = json.dumps([getattr(features[number].spec, field) for field in fields], sort_keys=True)
        groups.setdefault(key, []).append(number)
    return list(groups.values())


def _is_known(spec: FeatureSpec) -> bool:
    """Say whether images are prepared as they were for a spec."""
    try:
        return count_views(spec.views) > 0 and spec.pixel_policy == PIXEL_POLICY
    except BankError:
        return False


def _check_spec(backbone: Backbone, spec: FeatureSpec) -> None:
    """Refuse a backbone whose features differ in any way from those that the model was trained on."""
    try:
        count_views(spec.views)
    except BankError as error:
        raise PredictorError(f"{spec.name}: {one_line(error)}; use the featurebank it was trained with") from error
    own = backbone.spec(
        f"{spec.layer}:{spec.pool}", store=spec.store, views=spec.views, precision=spec.precision
    ).to_dict()
    for name, value in spec.to_dict().items():
        if own[name] != value:
            raise PredictorError(
                f"the {name} of {spec.name} is {own[name]!r} here, the predictor was trained with {value!r}: "
                "use the featurebank and the backbone it was trained with"
            )
