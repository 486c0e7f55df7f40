"""Predictor: one file that goes from image files to labels, saved without pickle."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featurebank.bank.features import as_keys
from featurebank.bank.samples import SampleTable, values_of, weights_of
from featurebank.errors import ImageError, PredictorError
from featurebank.images.reading import Progress
from featurebank.predictor import file
from featurebank.predictor.embedding import Embedder, Item
from featurebank.predictor.file import Contents, PredictorFeature
from featurebank.storage import files
from featurebank.storage.memory import releasing
from featurebank.topmodels import scores
from featurebank.topmodels.novelty import FLAG, Unlike

if TYPE_CHECKING:
    from featurebank.backbones.base import Backbone
    from featurebank.bank.bank import Bank
    from featurebank.images.sources import Source


class Predictor(Embedder):
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
    unlike : Unlike, optional
        Says how unlike the training images an image is (`featurebank.topmodels.novelty`).
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
        unlike: Unlike | None = None,
        backbone: Backbone | None = None,
        weights_file: str | os.PathLike[str] | None = None,
        allow_download: bool = True,
    ):
        options: dict[str, Any] = {"backbone": backbone, "weights_file": weights_file, "allow_download": allow_download}
        super().__init__(features, tensors=tensors, **options)
        self.model = model
        self.target = target
        self.task = task
        self.labels = None if labels is None else list(labels)
        self.calibrator = calibrator
        self.fit = dict(fit or {})
        self.unlike = unlike

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

    def predict_table(self, paths: Sequence[str | os.PathLike[str]], progress: Progress | None = None) -> pd.DataFrame:
        """Label image files; an unreadable one keeps its row, with the reason.

        Returns
        -------
        DataFrame
            ``path, label, probability`` (of the label), ``unlike`` (the share of the training images that are less
            unusual, from 0 to 1) and ``is_unlike`` (whether that is above 0.99), ``error``, and ``proba_CLASS`` for
            each class. A predictor of an earlier version, or of fewer than 20 images, cannot tell what is unlike.
        """
        parts, errors = self.embed_some(list(paths), progress)
        readable = np.array([not error for error in errors], bool)
        return self.table([str(path) for path in paths], np.concatenate(parts, axis=1), readable, errors)

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
        X = self.load_rows(bank, table)
        frame = self.table(table.paths, X, np.ones(len(table), bool), [""] * len(table))
        frame.insert(0, "source", table.rows["source"])
        return frame

    def load_rows(self, bank: Bank, table: SampleTable) -> NDArray[np.float32]:
        """Return what the model sees of samples of a bank, shape (n, d); see `predict_bank`."""
        return np.concatenate(self.read(bank, as_keys(table.rows["digest"])), axis=1)

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

    def table(self, paths: list[str], X: NDArray[np.float32], ok: NDArray[np.bool_], errors: list[str]) -> pd.DataFrame:
        """Return what the model says of embeddings as `predict_table` does.

        Parameters
        ----------
        paths : list of n str
        X : ndarray of float32, shape (m, d)
            Of the images that could be read.
        ok : ndarray of bool, shape (n,)
            Whether each could.
        errors : list of n str
            Why not.
        """
        labels, best = np.full(len(paths), None, object), np.full(len(paths), np.nan)
        table = np.full((len(paths), len(self.classes)), np.nan)
        if ok.any():
            labels[ok] = self._names(self.model.predict(X))
        if ok.any() and self.task != "regression":
            table[ok] = self.probabilities(X)
        if ok.any() and self.task == "classification":
            where = np.searchsorted(self.classes, labels[ok].astype(self.classes.dtype))
            best[ok] = table[ok][np.arange(int(ok.sum())), where]
        columns = {"path": pd.Series(paths, dtype=object), "label": labels, "probability": best}
        columns |= {**unlike_columns(self._unlike_shares(X, ok)), "error": errors}
        if self.task != "classification":
            del columns["probability"]
        chances = {f"proba_{name}": table[:, i] for i, name in enumerate(self.classes)}
        return pd.DataFrame({**columns, **chances})

    def _unlike_shares(self, X: NDArray[np.float32], ok: NDArray[np.bool_]) -> NDArray[np.float64] | None:
        """Return the share of the training images that are less unusual than each; None where that is not known."""
        if self.unlike is None:
            return None
        share = np.full(len(ok), np.nan)
        if ok.any():
            share[ok] = self.unlike.share(X)
        return share

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
        progress: Progress | None = None,
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
            See `featurebank.topmodels.scores.classification_scores`; ``failures`` lists the unreadable images.

        Raises
        ------
        PredictorError
            When the source has no such column, or labels that the predictor does not know.
        ColumnError
            When the column of weights holds something else.
        """
        names = [target] if target else self.target_columns
        wanted = names + ([sample_weight] if sample_weight else [])
        absent = [column for column in wanted if column not in source.columns]
        if absent:
            have = ", ".join(map(repr, source.columns)) or "none"
            raise PredictorError(
                f"the source has no column {absent[0]!r}; it has {have}: name one of them with --target"
            )
        labelled = [i for i in range(len(source.paths)) if not source.columns[wanted].iloc[i].isna().any()]
        given = SampleTable(pd.DataFrame(), source.columns.iloc[labelled])
        y = self.true_values(given, names)
        weight = weights_of(given, sample_weight) if sample_weight else None
        items = [Item(source, i) for i in labelled]
        parts, errors = self.embed_some(items, progress)
        ok = np.array([not error for error in errors], bool)
        if not ok.any():
            raise PredictorError("no labelled image of the source could be read; expected at least one")
        failures = [
            {"path": os.fsdecode(source.paths[i]), "error": error}
            for i, error in zip(labelled, errors, strict=True)
            if error
        ]
        return {
            **self.score_rows(np.concatenate(parts, axis=1), y[ok], None if weight is None else weight[ok]),
            "failures": failures,
            "unlabelled": len(source.paths) - len(labelled),
            "seen_in_training": count_seen([self.fit], items),
        }

    @property
    def target_columns(self) -> list[str]:
        """The columns it predicts: several where each holds 0 and 1."""
        return self.labels if self.labels is not None and "+" in self.target else [self.target]

    def true_values(self, given: SampleTable, names: list[str]) -> NDArray[Any]:
        """Return the true values as the model knows them, from columns without missing values.

        Raises
        ------
        PredictorError
            When a label is not one that the model knows.
        """
        if self.task == "classification":
            return self._known_classes(given.columns[names[0]], names[0])
        if self.task == "regression":
            return self._numbers(given, names[0])
        assert self.labels is not None
        if len(names) > 1:
            return np.column_stack([self._numbers(given, name) for name in names]).astype(np.int64)
        cells = [set(str(cell).split(self.fit.get("separator") or ";")) for cell in values_of(given, names[0])]
        return np.array([[label in cell for label in self.labels] for cell in cells], np.int64)

    def score_rows(self, X: NDArray[np.float32], y: NDArray[Any], weight: NDArray[np.float64] | None) -> dict[str, Any]:
        """Score the model on embeddings with true values; see `evaluate`."""
        predicted = self.model.predict(X)
        if self.task == "regression":
            return scores.regression_scores(y, predicted, weight)
        if self.task == "multilabel":
            return scores.label_scores(y, predicted, self.labels or [])
        return scores.classification_scores(y, predicted, self.probabilities(X), self.classes, weight)

    def _numbers(self, given: SampleTable, name: str) -> NDArray[np.float64]:
        values = values_of(given, name)
        if values.dtype.kind not in "fiub":
            raise PredictorError(
                f"column {name!r} holds text; this predictor gives numbers of {self.target!r}: name a column of numbers"
            )
        return values.astype(np.float64)

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
        files.commit(Path(path), file.encode(self.contents()))

    def contents(self) -> Contents:
        """Return what a predictor file holds of it."""
        return Contents(
            self.features,
            self.model,
            self.target,
            self.task,
            self.labels,
            self.calibrator,
            self.fit,
            self.tensors,
            self.unlike,
        )

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
        found = file.read(path)
        return cls.of(found, backbone=backbone, weights_file=weights_file, allow_download=allow_download)

    @classmethod
    def of(cls, found: Contents, **options: Any) -> Predictor:
        """Return the predictor that a file holds; `options` are those of `load`."""
        return cls(
            found.features,
            found.model,
            found.target,
            task=found.task,
            labels=found.labels,
            calibrator=found.calibrator,
            fit=found.fit,
            tensors=found.tensors,
            unlike=found.unlike,
            **options,
        )


def unlike_columns(share: NDArray[np.float64] | None) -> dict[str, Any]:
    """Return the columns ``unlike`` and ``is_unlike`` of a table, none where nothing is known.

    Parameters
    ----------
    share : ndarray of float64, shape (n,), or None
        Of the training images that are less unusual than each image, NaN for an image that could not be read.

    Examples
    --------
    >>> unlike_columns(np.array([0.5, 1.0, np.nan]))["is_unlike"]
    [False, True, None]
    """
    if share is None:
        return {}
    return {"unlike": share, "is_unlike": [None if np.isnan(each) else bool(each > FLAG) for each in share]}


@releasing
def contents_of(digests: Any) -> str:
    """Return how each distinct content's digest begins, 16 hex digits each, so that training images are known again.

    One text: a million of them, as text each, would take five times the memory.

    Examples
    --------
    >>> contents_of([bytes(32), b"\\x01" * 32, bytes(32)])
    '00000000000000000101010101010101'
    """
    heads = as_keys(digests).view(">u8")[::4]
    return np.unique(heads).astype(">u8").tobytes().hex()


def _as_text(contents: str | list[str]) -> str:
    """Return contents as one text; earlier files have a list of them."""
    return contents if isinstance(contents, str) else "".join(contents)


def count_seen(fits: Iterable[Mapping[str, Any]], items: Sequence[Item]) -> int:
    """Return how many readable images of a source are among those that predictors learned from, given their fits."""
    contents = "".join(_as_text(fit.get("contents", "")) for fit in fits)
    known, seen = {contents[start : start + 16] for start in range(0, len(contents), 16)}, 0
    for item in items if known else []:
        try:
            seen += item.source.read(item.position)[0].hex()[:16] in known
        except ImageError:
            continue
    return seen
