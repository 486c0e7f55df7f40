"""FeatureExtractor: a scikit-learn transformer from image paths to embeddings, over a bank."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags

from featurebank.backbones.request import Request
from featurebank.bank.bank import Bank
from featurebank.bank.features import as_keys, as_loaded
from featurebank.bank.spec import FeatureSpec
from featurebank.errors import ImageError
from featurebank.extraction.embedding import ImageEmbedder, ImageList
from featurebank.extraction.pipeline import Compute
from featurebank.extraction.pixel_range import settle_range
from featurebank.images.frames import as_items
from featurebank.images.pixels import PixelRules
from featurebank.images.reading import image_digest, naming
from featurebank.storage import files

if TYPE_CHECKING:
    from torch import nn

    from featurebank.backbones.base import Backbone
    from featurebank.backbones.engine import Engine
    from featurebank.backbones.exported.engine import ExportedEngine


class FeatureExtractor(TransformerMixin, BaseEstimator):
    """Embed images; what the bank already has is read, the rest is computed once and kept.

    A row of the bank is found by the content of the file, so folds, clones and workers share it. Feature rows are
    written, never samples.

    Parameters
    ----------
    backbone : str, Backbone or torch.nn.Module, default "efficientnet_lite0"
        See `featurebank.load_backbone`.
    layer : str or sequence of str, default "penultimate"
        ``LAYER[:POOL]``; several are concatenated.
    bank : path-like, optional
        Where embeddings are kept; made when it does not exist. Without it nothing is kept. One that was extracted
        with other options (`size`, `weights`, …) than the defaults wants them here too.
    weights : str, default "DEFAULT"
        ``DEFAULT``, a weight enum's name, a checkpoint file, or ``random:SEED``.
    size : int, optional
        Input size in pixels.
    store : str, default "float16"
        Stored dtype; embeddings are rounded to it with or without a bank.
    views : str, default "none"
        ``none``, ``hflip``, ``flips``, ``dihedral`` or ``augment:K``; see `featurebank.extract`. A row is the mean
        over the views.
    precision : str, default "fp32"
        Dtype that the network computes in: ``"fp32"``, ``"bf16"`` or ``"fp16"``.
    decoder : str, default "pil"
        ``"pil"``, ``"tensor"``, ``"reduced"`` or ``"nvjpeg"``, see `featurebank.extract`.
    range : str or tuple of float, default "auto"
        What is black and white in images of more than 8 bits, see `featurebank.extract`; ``"auto"`` is the bank's, and
        the full one without a bank: a transformer that learns nothing cannot measure it.
    pages, channels : optional
        Which pages of a stack and which channels are seen, see `featurebank.extract`.
    framing : str, optional
        ``"crop"``, ``"squash"``, ``"pad"`` or ``"tiles"``, see `featurebank.extract`.
    device : str, default "auto"
        ``auto``, ``cpu``, ``cuda`` or ``mps``.
    engine : str, default "auto"
        See `featurebank.extract`.
    batch_size : int, optional
        Images a forward pass; each view of an image counts as one. By default as many as memory allows.

    See Also
    --------
    extract : Fill a bank from a whole source.
    Bank.load : The arrays, when they are all there.

    Examples
    --------
    >>> pixels = np.random.default_rng(0).integers(0, 255, (2, 40, 40, 3), dtype="uint8")
    >>> FeatureExtractor(weights="random:0").fit_transform(list(pixels)).shape
    (2, 1280)
    """

    def __init__(
        self,
        backbone: str | Backbone | nn.Module = "efficientnet_lite0",
        *,
        layer: str | Sequence[str] = "penultimate",
        bank: str | os.PathLike[str] | None = None,
        weights: str = "DEFAULT",
        size: int | None = None,
        store: str = "float16",
        views: str = "none",
        precision: str = "fp32",
        decoder: str = "pil",
        range: str | tuple[float, float] = "auto",
        pages: str | None = None,
        channels: str | Sequence[int] | None = None,
        framing: str | None = None,
        device: str = "auto",
        engine: str = "auto",
        batch_size: int | None = None,
    ):
        self.backbone = backbone
        self.layer = layer
        self.bank = bank
        self.weights = weights
        self.size = size
        self.store = store
        self.views = views
        self.precision = precision
        self.decoder = decoder
        self.range = range
        self.pages = pages
        self.channels = channels
        self.framing = framing
        self.device = device
        self.engine = engine
        self.batch_size = batch_size

    def fit(self, X: Any = None, y: Any = None) -> FeatureExtractor:
        """Do nothing: a frozen backbone learns nothing from the images.

        Parameters
        ----------
        X, y : ignored
        """
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Embed images.

        Parameters
        ----------
        X : sequence of n path-like, PIL images or uint8 arrays
            Or a column of a DataFrame, or a DataFrame with one of them.

        Returns
        -------
        ndarray of float32, shape (n, d)

        Raises
        ------
        ImageError
            When an image cannot be read; a transformer cannot leave out a row.
        BankError
            When the bank was extracted with options that are left at their default here.
        """
        items = as_items(X)
        request = self._request()
        if self.bank is not None:
            return self._through_bank(self._open_bank(self.bank, request), request, items)
        specs = request.specs()
        outputs = self._compute(self._engine(request, specs, len(items)), items)
        return np.concatenate([as_loaded(out, spec) for out, spec in zip(outputs, specs, strict=True)], axis=1)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Return a name for each column: backbone, layer, pooling and number.

        Parameters
        ----------
        input_features : ignored
        """
        return np.array([f"{name}_{i}" for name, width in self._widths(self._request()) for i in range(width)], object)

    def _widths(self, request: Request) -> list[tuple[str, int]]:
        """Return name and number of columns of each feature set, from the bank where it has rows."""
        if self.bank is not None:
            bank = self._open_bank(self.bank, request)
            sets = [bank.feature_set_of(spec) for spec in request.specs(bank)]
            if all(each.segments for each in sets):
                return [(each.spec.name, each.width) for each in sets]
        specs = request.specs()
        outputs = self._compute(self._engine(request, specs, 1), [np.zeros((64, 64, 3), np.uint8)])
        return [(spec.name, out[0, 0].size) for spec, out in zip(specs, outputs, strict=True)]

    def _request(self) -> Request:
        request = Request(
            self.backbone,
            self.layer,
            weights=self.weights,
            size=self.size,
            store=self.store,
            views=self.views,
            precision=self.precision,
            decoder=self.decoder,
            pixels=PixelRules.parse(self.range, self.pages, self.channels),
            framing=self.framing,
        )
        settled = settle_range(request, None if self.bank is None else Bank.create(self.bank))
        return replace(request, pixels=request.pixels.with_range(None)) if settled is None else settled

    @staticmethod
    def _open_bank(path: str | os.PathLike[str], request: Request) -> Bank:
        bank = Bank.create(path)
        request.check_unasked(bank)
        return bank

    def _through_bank(self, bank: Bank, request: Request, items: list[Any]) -> NDArray[np.float32]:
        """Read what the bank has and compute the rest, once, whichever worker comes first."""
        specs = request.specs(bank)
        digests = [image_digest(item) for item in items]
        if any(bank.missing(spec, digests) for spec in specs):
            request.register(bank)
            with _locked(bank, specs):
                self._fill(bank, request, specs, dict(zip(digests, items, strict=True)))
        keys = as_keys(digests)
        return np.concatenate([bank.feature_set_of(spec).read(keys) for spec in specs], axis=1)

    def _fill(self, bank: Bank, request: Request, specs: list[FeatureSpec], items: dict[bytes, Any]) -> None:
        """Compute and write the rows that the bank still lacks, for just the feature sets that lack them."""
        lacking = {spec: absent for spec in specs if (absent := bank.missing(spec, items))}
        if not lacking:
            return
        missing = [digest for digest in items if any(digest in each for each in lacking.values())]
        engine = self._engine(request, list(lacking), len(missing))
        outputs = self._compute(engine, [items[digest] for digest in missing], missing)
        for (spec, absent), out in zip(lacking.items(), outputs, strict=True):
            rows = [row for row, digest in enumerate(missing) if digest in absent]
            digests = [missing[row] for row in rows]
            bank.add_features(spec, digests, out[rows], engine.made_by)

    def _engine(self, request: Request, specs: list[FeatureSpec], count: int) -> Engine | ExportedEngine:
        return Compute(self.device, self.engine, self.batch_size).open(request.known_by(specs[0]), specs, images=count)

    def _compute(
        self, engine: Engine | ExportedEngine, items: list[Any], digests: list[bytes] | None = None
    ) -> list[NDArray[np.float32]]:
        """Embed images in padded batches: an array (n, views, …) for each spec; a file must still have its digest."""
        embedder = ImageEmbedder([engine], ImageList(items), len(items))
        parts = [outputs for (outputs,) in embedder.outputs()]
        read = zip(items, embedder.errors, embedder.digests, digests or embedder.digests, strict=True)
        for item, error, digest, key in read:
            with naming(item):
                if error:
                    raise ImageError(error)
                if digest != key:
                    raise ImageError("changed while it was read: try again")
        for line in embedder.warnings:
            warnings.warn(line, stacklevel=2)
        return [np.concatenate(rows) for rows in zip(*parts, strict=True)]

    def __sklearn_tags__(self) -> Tags:
        tags: Tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.requires_fit = False
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return True


@contextmanager
def _locked(bank: Bank, specs: list[FeatureSpec]) -> Iterator[None]:
    """Hold the lock of each feature set, always in the same order, so that no two workers wait for each other."""
    with ExitStack() as held:
        for folder in sorted(bank.feature_folder(spec) for spec in specs):
            held.enter_context(files.locked(folder / ".lock"))
        yield
