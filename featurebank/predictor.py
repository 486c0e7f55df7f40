"""Predictor: one file that goes from image files to labels, saved without pickle."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featurebank import predictor_file, scores, storage
from featurebank.bank import values_of, weights_of
from featurebank.errors import BankError, ImageError, PredictorError, one_line
from featurebank.features import as_keys, as_loaded
from featurebank.predictor_file import EMBEDDED, Contents, PredictorFeature
from featurebank.samples import SampleTable
from featurebank.spec import FeatureSpec
from featurebank.views import count_views

if TYPE_CHECKING:
    from featurebank.backbones import Backbone
    from featurebank.bank import Bank
    from featurebank.engine import Engine
    from featurebank.sources import Source

BATCH = 16
_BACKBONE = ("backbone", "version", "weights", "preprocessing")


class Predictor:
    """From images to labels: feature specs, a top model, class names.

    Parameters
    ----------
    features : sequence of PredictorFeature
        The feature sets whose concatenation the model takes.
    model : Pipeline
        Fitted on that concatenation.
    target : str
        Name of the column it predicts.
    task : str, default "classification"
        ``"classification"``, ``"multilabel"`` or ``"regression"``.
    labels : list of str, optional
        Names of the labels where an image has several.
    calibrator : Calibrator, optional
        Turns the model's scores into probabilities.
    fit : dict, optional
        The report of the fit that made it.
    tensors : mapping of str to bytes, optional
        Safetensors of backbones whose weights came from a file, by weights digest.
    backbone : Backbone, optional
        The backbone to use in place of the named one (needed for a custom module).
    weights_file : path-like, optional
        A checkpoint to take the backbone's weights from; their digest must be the one the model was trained on.
    allow_download : bool, default True
        Whether a hub may be asked for weights that are not on this machine.

    Examples
    --------
    >>> predictor = Predictor.load("photos.featurebank")  # doctest: +SKIP
    >>> predictor.predict(["new.jpg"])  # doctest: +SKIP
    array(['cat'], dtype='<U3')
    """

    def __init__(
        self,
        features: Sequence[PredictorFeature],
        model: Any,
        target: str,
        *,
        task: str = "classification",
        labels: Sequence[str] | None = None,
        calibrator: Any = None,
        fit: Mapping[str, Any] | None = None,
        tensors: Mapping[str, bytes] | None = None,
        backbone: Backbone | None = None,
        weights_file: str | os.PathLike[str] | None = None,
        allow_download: bool = True,
    ):
        self.features = list(features)
        self.model = model
        self.target = target
        self.task = task
        self.labels = None if labels is None else list(labels)
        self.calibrator = calibrator
        self.fit = dict(fit or {})
        self.tensors = dict(tensors or {})
        self.backbone = backbone
        self.weights_file = weights_file
        self.allow_download = allow_download
        self._engines: list[tuple[Backbone, Any, list[int]]] | None = None

    @property
    def classes(self) -> NDArray[Any]:
        """The classes, sorted, shape (k,); the names of the labels where an image has several; none for numbers."""
        if self.task == "regression":
            return np.empty(0)
        return self.model.classes_ if self.labels is None else np.array(self.labels)

    # --- predictions ---------------------------------------------------------------------------------------

    def predict(self, images: Sequence[Any]) -> NDArray[Any]:
        """Label images.

        Parameters
        ----------
        images : sequence of path-like, PIL images or uint8 arrays

        Returns
        -------
        ndarray, shape (n,), or of 0 and 1 with shape (n, labels)

        Raises
        ------
        ImageError
            When an image cannot be read.
        PredictorError
            When the backbone's weights are not the ones the model was trained on.
        """
        return self.model.predict(self.embed(images))

    def predict_proba(self, images: Sequence[Any]) -> NDArray[np.float64]:
        """Return class probabilities, shape (n, k), in the order of `classes`; see `predict`."""
        return self.probabilities(self.embed(images))

    def predict_table(
        self, paths: Sequence[str | os.PathLike[str]], progress: Callable[[int, int], None] | None = None
    ) -> pd.DataFrame:
        """Label image files; an unreadable one keeps its row, with the reason.

        Returns
        -------
        DataFrame
            ``path, label, probability`` (of the label), ``error``, and ``proba_CLASS`` for each class.
        """
        X, errors = self._embed_some(list(paths), progress)
        readable = [not error for error in errors]
        return self._table([str(path) for path in paths], X, np.array(readable, bool), errors)

    def predict_bank(self, bank: Bank) -> pd.DataFrame:
        """Label every readable sample of a bank from the embeddings it already has.

        Returns
        -------
        DataFrame
            As `predict_table`, with the column ``source`` in front.

        Raises
        ------
        BankError
            When the bank lacks one of the feature sets, or rows of it.
        """
        table = bank.select()
        digests = as_keys(table.rows["digest"])
        X = np.concatenate([bank.feature_set_of(each.spec).read(digests) for each in self.features], axis=1)
        paths = [os.fsdecode(path) for path in table.rows["path"]]
        frame = self._table(paths, X, np.ones(len(paths), bool), [""] * len(paths))
        frame.insert(0, "source", table.rows["source"])
        return frame

    def probabilities(self, X: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return class probabilities of embeddings.

        Parameters
        ----------
        X : ndarray of float32, shape (n, d)
            The concatenated feature sets.

        Returns
        -------
        ndarray of float64, shape (n, k)
        """
        if self.task == "regression":
            raise PredictorError(f"this predictor gives numbers of {self.target!r}, which have no probabilities")
        if self.calibrator is None:
            return self.model.predict_proba(X)
        if not hasattr(self.model, "predict_proba"):
            return self.calibrator.predict_proba(self.model.decision_function(X).reshape(len(X), -1))
        with np.errstate(divide="ignore"):
            return self.calibrator.predict_proba(np.log(self.model.predict_proba(X)))

    def _table(
        self, paths: list[str], X: NDArray[np.float32], ok: NDArray[np.bool_], errors: list[str]
    ) -> pd.DataFrame:
        labels, best = np.full(len(paths), None, object), np.full(len(paths), np.nan)
        table = np.full((len(paths), len(self.classes)), np.nan)
        if ok.any():
            labels[ok] = self._names(self.model.predict(X))
        if ok.any() and self.task != "regression":
            table[ok] = self.probabilities(X)
        if ok.any() and self.task == "classification":
            where = np.searchsorted(self.classes, labels[ok].astype(self.classes.dtype))
            best[ok] = table[ok][np.arange(int(ok.sum())), where]
        columns = {"path": pd.Series(paths, dtype=object), "label": labels, "probability": best, "error": errors}
        if self.task != "classification":
            del columns["probability"]
        chances = {f"proba_{name}": table[:, i] for i, name in enumerate(self.classes)}
        return pd.DataFrame({**columns, **chances})

    def _names(self, predicted: NDArray[Any]) -> list[Any]:
        """Return predictions as a table shows them: several labels of an image divided by semicolons."""
        if self.labels is None:
            return predicted.tolist()
        return [
            ";".join(name for name, is_there in zip(self.labels, row, strict=True) if is_there) for row in predicted
        ]

    def evaluate(
        self,
        source: Source,
        *,
        target: str | None = None,
        sample_weight: str | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, Any]:
        """Score the predictor on labelled images that it was not trained on.

        Parameters
        ----------
        source : Source
            From `featurebank.scan`.
        target : str, optional
            Column of labels; by default the one the predictor was trained on.
        sample_weight : str, optional
            Column of weights.
        progress : callable, optional
            Called with (images done, images in all).

        Returns
        -------
        dict
            See `featurebank.scores.classification_scores`; ``failures`` lists the unreadable images.

        Raises
        ------
        PredictorError
            When the source has no such column, or labels that the predictor does not know.
        ColumnError
            When the column of weights holds something else.
        """
        names = [target] if target else self._target_columns()
        wanted = names + ([sample_weight] if sample_weight else [])
        absent = [column for column in wanted if column not in source.columns]
        if absent:
            have = ", ".join(map(repr, source.columns)) or "none"
            raise PredictorError(f"the source has no column {absent[0]!r}; it has {have}: name one of them")
        labelled = [i for i in range(len(source.paths)) if not source.columns[wanted].iloc[i].isna().any()]
        given = SampleTable(pd.DataFrame(), source.columns.iloc[labelled])
        y = self._true(given, names)
        weight = weights_of(given, sample_weight) if sample_weight else None
        items = [_Item(source, i) for i in labelled]
        X, errors = self._embed_some(items, progress)
        ok = np.array([not error for error in errors], bool)
        if not ok.any():
            raise PredictorError("no labelled image of the source could be read; expected at least one")
        failures = [
            {"path": os.fsdecode(source.paths[i]), "error": error}
            for i, error in zip(labelled, errors, strict=True)
            if error
        ]
        return {
            **self._scores(X, y[ok], None if weight is None else weight[ok]),
            "failures": failures,
            "unlabelled": len(source.paths) - len(labelled),
            "seen_in_training": self._count_seen(items),
        }

    def _target_columns(self) -> list[str]:
        return self.labels if self.labels is not None and "+" in self.target else [self.target]

    def _true(self, given: SampleTable, names: list[str]) -> NDArray[Any]:
        """Return the true values as the model knows them."""
        if self.task == "classification":
            return self._known_classes(given.columns[names[0]], names[0])
        if self.task == "regression":
            return values_of(given, names[0]).astype(np.float64)
        assert self.labels is not None
        if len(names) > 1:
            return np.column_stack([values_of(given, name) for name in names]).astype(np.int64)
        cells = [set(str(cell).split(self.fit.get("separator") or ";")) for cell in values_of(given, names[0])]
        return np.array([[label in cell for label in self.labels] for cell in cells], np.int64)

    def _scores(self, X: NDArray[np.float32], y: NDArray[Any], weight: NDArray[np.float64] | None) -> dict[str, Any]:
        predicted = self.model.predict(X)
        if self.task == "regression":
            return scores.regression_scores(y, predicted, weight)
        if self.task == "multilabel":
            return scores.label_scores(y, predicted, self.labels or [])
        return scores.classification_scores(y, predicted, self.probabilities(X), self.classes, weight)

    def _count_seen(self, items: Sequence[_Item]) -> int:
        """Return how many readable images were in the training rows, by content."""
        known, seen = set(self.fit.get("contents", [])), 0
        for item in items if known else []:
            try:
                seen += item.source.read(item.position)[0].hex()[:16] in known
            except ImageError:
                continue
        return seen

    def _known_classes(self, labels: Iterable[Any], name: str) -> NDArray[Any]:
        """Map labels to the predictor's classes by their text, so that a folder named 1 is the class 1."""
        known = {str(value): value for value in self.classes.tolist()}
        texts = [str(value) for value in labels]
        unknown = sorted(set(texts) - set(known))
        if unknown or not texts:
            raise PredictorError(
                f"column {name!r} holds {unknown[:3] or 'no label'}; this predictor knows {', '.join(known)}"
            )
        return np.array([known[text] for text in texts], self.classes.dtype)

    # --- embedding -----------------------------------------------------------------------------------------

    def embed(self, images: Sequence[Any]) -> NDArray[np.float32]:
        """Return what the model sees of images, shape (n, d); see `predict`."""
        items = [images] if isinstance(images, (str, Path)) else list(images)
        if not items:
            raise PredictorError("no images; expected at least one")
        X, errors = self._embed_some(items, None)
        for item, error in zip(items, errors, strict=True):
            if error:
                name = item if isinstance(item, (str, Path)) else type(item).__name__
                raise ImageError(f"{str(name)!r}: {error}")
        return X

    def _embed_some(
        self, items: list[Any], progress: Callable[[int, int], None] | None
    ) -> tuple[NDArray[np.float32], list[str]]:
        """Embed the readable ones of some images; return X of those, and an error or "" for each."""
        errors: list[str] = []
        parts: list[NDArray[np.float32]] = []
        try_open = partial(_try_open, least=self._least_side(len(items)))
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for start in range(0, len(items), BATCH):
                tried = list(pool.map(try_open, items[start : start + BATCH]))
                opened = [each for each, _ in tried if each is not None]
                errors += [error for _, error in tried]
                if opened:
                    parts.append(self._embed_batch(opened))
                if progress is not None:
                    progress(len(errors), len(items))
        for line in [line for _, engine, _ in self._open_engines(len(items)) for line in engine.warnings]:
            warnings.warn(line, stacklevel=2)
        return np.concatenate(parts) if parts else np.empty((0, 0), np.float32), errors

    def _embed_batch(self, opened: list[tuple[Any, bytes]]) -> NDArray[np.float32]:
        """Embed RGB images with their digests as the bank stores and loads them, shape (n, d)."""
        parts: dict[int, NDArray[np.float32]] = {}
        for backbone, engine, numbers in self._open_engines(len(opened)):
            views = self.features[numbers[0]].spec.views
            prepared = (view for image, digest in opened for view in backbone.prepare_views(image, views, digest))
            outputs = engine.embed_views(prepared)
            for number, output in zip(numbers, outputs, strict=True):
                parts[number] = as_loaded(output, self.features[number].spec)
        return np.concatenate([parts[number] for number in sorted(parts)], axis=1)

    def _least_side(self, count: int) -> int:
        """Return what so many images are decoded to, which is one for all backbones."""
        sides = {backbone.least_side for backbone, _, _ in self._open_engines(count)}
        if len(sides) > 1:
            raise PredictorError(
                "the features of this predictor were extracted with decoders that reduce images differently: fit it "
                "on feature sets of one --decoder and one --size"
            )
        return sides.pop()

    def _open_engines(self, count: int) -> list[tuple[Backbone, Any, list[int]]]:
        """Load each backbone once, for so many images, with the numbers of the features that one pass of it gives."""
        if self._engines is None:
            engines = []
            for alike in _groups(range(len(self.features)), self.features, _BACKBONE):
                backbone = self._load_backbone(self.features[alike[0]])
                parts = _groups(alike, self.features, ("views", "precision"))
                engines += [(backbone, self._engine(backbone, numbers, count), numbers) for numbers in parts]
            self._engines = engines
        return self._engines

    def backbone_of(self, feature: PredictorFeature) -> Backbone:
        """Return the backbone of one of `features`, loaded once and checked against the feature's spec.

        Raises
        ------
        PredictorError
            See `predict`.
        """
        number = self.features.index(feature)
        return next(backbone for backbone, _, numbers in self._open_engines(1) if number in numbers)

    def _engine(self, backbone: Backbone, numbers: Sequence[int], count: int) -> Engine:
        from featurebank.engine import Engine

        specs = [self.features[number].spec for number in numbers]
        for spec in specs:
            _check_spec(backbone, spec)
        return Engine(backbone, specs, batch_size=BATCH, images=count, pad=False)

    def _load_backbone(self, feature: PredictorFeature) -> Backbone:
        spec = feature.spec
        given = self.backbone
        backbone = given if given is not None and given.name == spec.backbone else self._named_backbone(feature)
        if backbone.weights != spec.weights:
            raise PredictorError(
                f"the weights of {spec.backbone} here have digest {backbone.weights[:12]}, the predictor was trained "
                f"on {spec.weights[:12]}: bring the weights it was trained on"
            )
        return backbone

    def _named_backbone(self, feature: PredictorFeature) -> Backbone:
        """Load a backbone by name, with the preprocessing that the predictor was trained with."""
        from featurebank.backbones import Preprocessing, load_backbone, load_tensors

        name = feature.spec.backbone
        if not feature.weights:
            raise PredictorError(f"{name!r} is your own module: give it as backbone= to Predictor.load")
        preprocessing = Preprocessing.from_dict(feature.spec.preprocessing)
        if feature.weights == EMBEDDED:
            return load_tensors(name, self.tensors[feature.spec.weights], preprocessing, feature.size)
        weights = feature.weights if self.weights_file is None else os.fspath(self.weights_file)
        backbone = load_backbone(name, weights, feature.size, allow_download=self.allow_download)
        return replace(backbone, preprocessing=preprocessing)

    # --- files ---------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the predictor as one file: JSON, skops and safetensors in a zip.

        Raises
        ------
        PredictorError
            When the model holds a type outside the fixed allow-list.
        StorageError
            When the file system refuses.
        """
        contents = Contents(
            self.features, self.model, self.target, self.task, self.labels, self.calibrator, self.fit, self.tensors
        )
        storage.commit(Path(path), predictor_file.encode(contents))

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        backbone: Backbone | None = None,
        weights_file: str | os.PathLike[str] | None = None,
        allow_download: bool = False,
    ) -> Predictor:
        """Read a predictor file; no code in it is run, and it cannot name a file or have anything fetched.

        Parameters
        ----------
        path : path-like
        backbone : Backbone, optional
            The custom module it was trained on.
        weights_file : path-like, optional
            A checkpoint with the backbone's weights.
        allow_download : bool, default False
            Whether a hub may be asked for weights that are not on this machine.

        Raises
        ------
        PredictorError
            When the file is missing, damaged, or holds anything but what `save` writes.
        """
        found = predictor_file.read(path)
        return cls(
            found.features,
            found.model,
            found.target,
            task=found.task,
            labels=found.labels,
            calibrator=found.calibrator,
            fit=found.fit,
            tensors=found.tensors,
            backbone=backbone,
            weights_file=weights_file,
            allow_download=allow_download,
        )


@dataclass(frozen=True)
class _Item:
    """One sample of a source, as an image to open."""

    source: Source
    position: int


def _try_open(item: Any, least: int) -> tuple[tuple[Any, bytes] | None, str]:
    """Return what `_open` does and no error, or nothing and why."""
    try:
        return _open(item, least), ""
    except ImageError as error:
        return None, one_line(error)


def _open(item: Any, least: int) -> tuple[Any, bytes]:
    """Return the RGB image of a path, a source's sample, a PIL image or an array, and its content digest."""
    from featurebank import images, sources

    if isinstance(item, _Item):
        digest, decode = item.source.read(item.position)
        return decode(least), digest
    if isinstance(item, (str, Path)):
        data = sources.read_file(item)
        return images.decode(data, least), images.content_digest(data)
    image = sources.as_image(item)
    return image, images.pixel_digest(image)


def _groups(numbers: Iterable[int], features: Sequence[PredictorFeature], fields: Sequence[str]) -> list[list[int]]:
    """Group features by fields of their specs."""
    groups: dict[str, list[int]] = {}
    for number in numbers:
        key = json.dumps([getattr(features[number].spec, field) for field in fields], sort_keys=True)
        groups.setdefault(key, []).append(number)
    return list(groups.values())


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
