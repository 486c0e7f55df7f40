"""Predictor: one file that goes from image files to labels, saved without pickle."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featurebank import scores, storage
from featurebank._version import __version__
from featurebank.allowed import ALLOWED_TYPES
from featurebank.backbones.base import checkpoint_path
from featurebank.bank import weights_of
from featurebank.errors import CorruptError, FeatureBankError, ImageError, PredictorError, one_line
from featurebank.features import as_keys, to_stored
from featurebank.samples import SampleTable
from featurebank.spec import FeatureSpec

if TYPE_CHECKING:
    from featurebank.backbones import Backbone
    from featurebank.bank import Bank
    from featurebank.sources import Source

FORMAT = "featurebank-predictor"
VERSION = 1
EMBEDDED = "embedded"
BATCH = 16
_FACTS, _MODEL, _CALIBRATOR, _FIT = "predictor.json", "model.skops", "calibrator.skops", "fit.json"
_LIMITS = {_FACTS: 1 << 20, _MODEL: 4 << 30, _CALIBRATOR: 16 << 20, _FIT: 1 << 30}
_WEIGHTS = re.compile(r"weights/[0-9a-f]{64}\.safetensors")
_WEIGHTS_LIMIT = 16 << 30
_SAFE_WEIGHTS = re.compile(r"[A-Za-z0-9_.]+|random:[0-9]+")


@dataclass(frozen=True)
class PredictorFeature:
    """One feature set that a predictor's model sees, and how to get its backbone.

    Attributes
    ----------
    spec : FeatureSpec
        What decides the numbers.
    weights : str
        What `load_backbone` is asked for; ``"embedded"`` when the tensors are in the predictor file, empty for a
        custom module, which the user brings.
    size : int or None
        Input size that was asked for.
    """

    spec: FeatureSpec
    weights: str
    size: int | None


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
    calibrator : LogisticRegression, optional
        Turns decision values into probabilities where the model has none.
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
        self.calibrator = calibrator
        self.fit = dict(fit or {})
        self.tensors = dict(tensors or {})
        self.backbone = backbone
        self.weights_file = weights_file
        self.allow_download = allow_download
        self._engines: list[tuple[Backbone, Any, list[int]]] | None = None

    @property
    def classes(self) -> NDArray[Any]:
        """The classes, sorted, shape (k,)."""
        return self.model.classes_

    # --- predictions ---------------------------------------------------------------------------------------

    def predict(self, images: Sequence[Any]) -> NDArray[Any]:
        """Label images.

        Parameters
        ----------
        images : sequence of path-like, PIL images or uint8 arrays

        Returns
        -------
        ndarray, shape (n,)

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
        if hasattr(self.model, "predict_proba"):
            return self.model.predict_proba(X)
        return self.calibrator.predict_proba(self.model.decision_function(X).reshape(len(X), -1))

    def _table(
        self, paths: list[str], X: NDArray[np.float32], ok: NDArray[np.bool_], errors: list[str]
    ) -> pd.DataFrame:
        labels, best = np.full(len(paths), None, object), np.full(len(paths), np.nan)
        table = np.full((len(paths), len(self.classes)), np.nan)
        if ok.any():
            labels[ok] = self.model.predict(X).tolist()
            table[ok] = self.probabilities(X)
            where = np.searchsorted(self.classes, labels[ok].astype(self.classes.dtype))
            best[ok] = table[ok][np.arange(int(ok.sum())), where]
        columns = {"path": pd.Series(paths, dtype=object), "label": labels, "probability": best, "error": errors}
        chances = {f"proba_{name}": table[:, i] for i, name in enumerate(self.classes)}
        return pd.DataFrame({**columns, **chances})

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
        name = target or self.target
        wanted = [name] + ([sample_weight] if sample_weight else [])
        absent = [column for column in wanted if column not in source.columns]
        if absent:
            have = ", ".join(map(repr, source.columns)) or "none"
            raise PredictorError(f"the source has no column {absent[0]!r}; it has {have}: name one of them")
        labelled = [i for i in range(len(source.paths)) if not source.columns[wanted].iloc[i].isna().any()]
        y = self._known_classes(source.columns[name].iloc[labelled], name)
        X, errors = self._embed_some([_Item(source, i) for i in labelled], progress)
        ok = np.array([not error for error in errors], bool)
        if not ok.any():
            raise PredictorError("no labelled image of the source could be read; expected at least one")
        given = SampleTable(pd.DataFrame(), source.columns.iloc[labelled])
        weight = weights_of(given, sample_weight)[ok] if sample_weight else None
        report = scores.classification_scores(y[ok], self.model.predict(X), self.probabilities(X), self.classes, weight)
        failures = [
            {"path": os.fsdecode(source.paths[i]), "error": error}
            for i, error in zip(labelled, errors, strict=True)
            if error
        ]
        return {**report, "failures": failures, "unlabelled": len(source.paths) - len(labelled)}

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
        for start in range(0, len(items), BATCH):
            images = []
            for item in items[start : start + BATCH]:
                try:
                    images.append(_open(item))
                    errors.append("")
                except ImageError as error:
                    errors.append(one_line(error))
            if images:
                parts.append(self._embed_batch(images))
            if progress is not None:
                progress(len(errors), len(items))
        return np.concatenate(parts) if parts else np.empty((0, 0), np.float32), errors

    def _embed_batch(self, images: list[Any]) -> NDArray[np.float32]:
        """Embed RGB images, rounded as the bank stores them, shape (n, d)."""
        parts: dict[int, NDArray[np.float32]] = {}
        for backbone, engine, numbers in self._open_engines():
            outputs = engine([backbone.prepare(image) for image in images])
            for number, output in zip(numbers, outputs, strict=True):
                stored = to_stored(output, self.features[number].spec)
                parts[number] = stored.astype(np.float32).reshape(len(images), -1)
        return np.concatenate([parts[number] for number in sorted(parts)], axis=1)

    def _open_engines(self) -> list[tuple[Backbone, Any, list[int]]]:
        """Load each backbone once, with the numbers of the features that it gives."""
        if self._engines is None:
            from featurebank.engine import Engine

            engines = []
            for numbers in _by_backbone(self.features):
                backbone = self._load_backbone(self.features[numbers[0]])
                specs = [self.features[number].spec for number in numbers]
                for spec in specs:
                    _check_spec(backbone, spec)
                engines.append((backbone, Engine(backbone, specs, device="auto"), numbers))
            self._engines = engines
        return self._engines

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
        if not _SAFE_WEIGHTS.fullmatch(feature.weights):
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
        members = {_FIT: _json(self.fit), _MODEL: _dump(self.model)}
        if self.calibrator is not None:
            members[_CALIBRATOR] = _dump(self.calibrator)
        members |= {f"weights/{digest}.safetensors": data for digest, data in self.tensors.items()}
        facts = {
            "format": FORMAT,
            "version": VERSION,
            "written_by": f"featurebank {__version__}",
            "target": self.target,
            "features": [
                {"spec": each.spec.to_dict(), "weights": each.weights, "size": each.size} for each in self.features
            ],
            "members": {name: hashlib.sha256(data).hexdigest() for name, data in members.items()},
        }
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
            for name, data in {_FACTS: _json(facts), **members}.items():
                archive.writestr(name, data)
        storage.commit(Path(path), buffer.getbuffer())

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
        try:
            with zipfile.ZipFile(path) as archive:
                members = _read_members(archive)
            facts = json.loads(members[_FACTS])
            _check_facts(facts, path)
            _check_members(facts, members)
            model = _undump(members[_MODEL])
            calibrator = _undump(members[_CALIBRATOR]) if _CALIBRATOR in members else None
            _check_model(model, calibrator)
            return cls(
                _features(facts, members),
                model,
                str(facts["target"]),
                calibrator=calibrator,
                fit=json.loads(members[_FIT]),
                tensors={name[8:72]: data for name, data in members.items() if _WEIGHTS.fullmatch(name)},
                backbone=backbone,
                weights_file=weights_file,
                allow_download=allow_download,
            )
        except PredictorError:
            raise
        except FileNotFoundError as error:
            raise PredictorError(
                f"no predictor at {str(path)!r}; expected a .featurebank file from `featurebank fit`"
            ) from error
        except CorruptError as error:
            raise PredictorError(
                f"{str(path)!r} is damaged or no predictor: {one_line(error)}; make it again with `featurebank fit`"
            ) from error
        except Exception as error:  # zip, JSON and skops raise many kinds on damaged or hostile bytes
            raise PredictorError(
                f"{str(path)!r} is no predictor that this featurebank reads ({type(error).__name__}: "
                f"{one_line(error)[:160]}); make it again with `featurebank fit`"
            ) from error


@dataclass(frozen=True)
class _Item:
    """One sample of a source, as an image to open."""

    source: Source
    position: int


def _open(item: Any) -> Any:
    """Return the RGB image of a path, a source's sample, a PIL image or an array."""
    from featurebank import images, sources

    if isinstance(item, _Item):
        return item.source.read(item.position)[1]()
    if isinstance(item, (str, Path)):
        return images.decode(sources.read_file(item))
    return sources.as_image(item)


def _by_backbone(features: Sequence[PredictorFeature]) -> list[list[int]]:
    groups: dict[str, list[int]] = {}
    for number, each in enumerate(features):
        spec = each.spec
        key = json.dumps([spec.backbone, spec.version, spec.weights, spec.preprocessing], sort_keys=True)
        groups.setdefault(key, []).append(number)
    return list(groups.values())


def _check_facts(facts: Any, path: Any) -> None:
    if facts["format"] != FORMAT:
        raise PredictorError(f"{str(path)!r} is no predictor; expected format {FORMAT!r}")
    if facts["version"] != VERSION:
        raise PredictorError(
            f"{str(path)!r} is a predictor of version {facts['version']}, this reads {VERSION}: upgrade"
        )


def _features(facts: dict[str, Any], members: Mapping[str, bytes]) -> list[PredictorFeature]:
    features = [
        PredictorFeature(FeatureSpec.from_dict(each["spec"]), str(each["weights"]), each["size"])
        for each in facts["features"]
    ]
    for each in features:
        if each.weights and (not _SAFE_WEIGHTS.fullmatch(each.weights) or checkpoint_path(each.weights) is not None):
            raise CorruptError(f"its weights are {each.weights[:60]!r}, not a name: bring them with --weights FILE")
        if each.weights == EMBEDDED and f"weights/{each.spec.weights}.safetensors" not in members:
            raise CorruptError(f"the weights of {each.spec.name} are not in it")
        if each.size is not None and type(each.size) is not int:
            raise CorruptError(f"the input size of {each.spec.name} is no number")
    if not features:
        raise CorruptError("it names no feature set")
    return features


def _check_model(model: Any, calibrator: Any) -> None:
    if not hasattr(model, "classes_") or not any(hasattr(each, "predict_proba") for each in (model, calibrator)):
        raise CorruptError("its model is no classifier with probabilities")


def _check_spec(backbone: Backbone, spec: FeatureSpec) -> None:
    """Refuse a backbone whose features differ in any way from those that the model was trained on."""
    own = backbone.spec(f"{spec.layer}:{spec.pool}", store=spec.store).to_dict()
    for name, value in spec.to_dict().items():
        if own[name] != value:
            raise PredictorError(
                f"the {name} of {spec.name} is {own[name]!r} here, the predictor was trained with {value!r}: "
                "use the featurebank and the backbone it was trained with"
            )


def _read_members(archive: zipfile.ZipFile) -> dict[str, bytes]:
    """Read the members of a predictor, refusing any that `Predictor.save` would not write."""
    infos = archive.infolist()
    names = [info.filename for info in infos]
    if len(set(names)) != len(names) or not {_FACTS, _FIT, _MODEL} <= set(names):
        raise CorruptError(f"it has the members {names[:6]}; expected each of {_FACTS}, {_FIT}, {_MODEL} once")
    for info in infos:
        limit = _WEIGHTS_LIMIT if _WEIGHTS.fullmatch(info.filename) else _LIMITS.get(info.filename, -1)
        if info.file_size > limit or info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise CorruptError(f"member {info.filename!r} is unknown, compressed or too large")
    return {name: archive.read(name) for name in names}


def _check_members(facts: Any, members: dict[str, bytes]) -> None:
    """Compare every member with the digest that the facts list, before anything in it is parsed."""
    found = {name: hashlib.sha256(data).hexdigest() for name, data in members.items() if name != _FACTS}
    if found != facts["members"]:
        torn = sorted(set(found.items()) ^ set(facts["members"].items()))
        raise CorruptError(f"member {torn[0][0]!r} does not match its digest")


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True).encode("ascii")


def _dump(model: Any) -> bytes:
    import skops.io

    data = skops.io.dumps(model)
    unknown = sorted(set(skops.io.get_untrusted_types(data=data)) - set(ALLOWED_TYPES))
    if unknown:
        raise PredictorError(
            f"the model holds {unknown[0]}, which a predictor may not: use a plain scikit-learn pipeline"
        )
    return data


def _undump(data: bytes) -> Any:
    import skops.io

    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
                raise CorruptError("its model is compressed, which may hide a bomb")
        return skops.io.loads(data, trusted=list(ALLOWED_TYPES))
    except FeatureBankError:
        raise
    except Exception as error:  # a refused type, or damaged bytes
        raise CorruptError(f"its model cannot be trusted or read: {one_line(error)[:160]}") from error
