"""What a predictor says of one target: the feature sets its model takes, the model, and what goes with it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featurebank.bank.matrix import BankMatrix, in_batches
from featurebank.bank.samples import SampleTable, values_of
from featurebank.errors import PredictorError
from featurebank.images.columns import join_frames
from featurebank.images.dataframes import pd
from featurebank.predictor.features import PredictorFeature
from featurebank.topmodels.calibration_error import confidence_of
from featurebank.topmodels.formulas import FLAG

if TYPE_CHECKING:
    from featurebank.predictor.patch_maps import PatchMaps
    from featurebank.topmodels.calibration import Calibrator, LabelsCalibrator
    from featurebank.topmodels.novelty import Unlike


@dataclass(eq=False)
class Task:
    """One target that a predictor predicts, from embeddings.

    Attributes
    ----------
    features : list of PredictorFeature
        The feature sets whose concatenation the model takes.
    model : Pipeline or OneClassModel
        Fitted on that concatenation.
    target : str
        Name of the column it predicts.
    kind : str, default "classification"
        ``"classification"``, ``"multilabel"``, ``"regression"`` or ``"anomaly"``: its model is then a
        `featurebank.topmodels.one_class.model.OneClassModel`.
    labels : list of str, optional
        Names of the labels where an image has several.
    calibrator : Calibrator, optional
        Turns the model's scores into probabilities.
    report : dict
        The report of the fit that made it.
    unlike : Unlike, optional
        Says how unlike the training images an image is (`featurebank.topmodels.novelty`).
    out_of_fold : DataFrame, optional
        What the fit said of each sample when it had not seen it: ``row`` (a number in the report's ``samples``),
        ``fold, true, predicted`` and ``proba_CLASS``.
    patches : PatchMaps, optional
        Says where an image is strange.
    """

    features: Sequence[PredictorFeature]
    model: Any
    target: str
    kind: str = "classification"
    labels: list[str] | None = None
    calibrator: Calibrator | LabelsCalibrator | None = None
    report: dict[str, Any] = field(default_factory=dict)
    unlike: Unlike | None = None
    out_of_fold: pd.DataFrame | None = None
    patches: PatchMaps | None = None

    @property
    def has_probabilities(self) -> bool:
        """Whether it gives probabilities of classes or labels."""
        return self.kind in ("classification", "multilabel")

    @property
    def classes(self) -> NDArray[Any]:
        """The classes, sorted, shape (k,); the names of the labels where an image has several; none of other kinds."""
        if not self.has_probabilities:
            return np.empty(0)
        return self.model.classes_ if self.labels is None else np.array(self.labels)

    @property
    def normal(self) -> str:
        """The value of the target that normal images have, as text; ``"normal"`` where it learned from every row."""
        return str(self.report.get("normal") or "normal")

    @property
    def columns(self) -> list[str]:
        """The columns it predicts: several where each holds 0 and 1."""
        return self.labels if self.labels is not None and "+" in self.target else [self.target]

    @property
    def oof(self) -> pd.DataFrame | None:
        """`out_of_fold` with the samples it is about: their ``source`` and ``path`` in place of ``row``."""
        if self.out_of_fold is None:
            return None
        samples = self.report["samples"]
        rows = self.out_of_fold["row"].tolist()
        names = {name: pd.Series([samples[row][i] for row in rows], dtype=object) for i, name in enumerate(_NAMES)}
        return join_frames(pd.DataFrame(names), self.out_of_fold.drop(columns="row"))

    @property
    def knows_unlike(self) -> bool:
        """Whether it can say how unlike the training images an image is."""
        return self.unlike is not None

    def predict(self, X: NDArray[np.float32]) -> NDArray[Any]:
        """Return what the model says of embeddings: labels or numbers, shape (n,), or of 0 and 1, (n, labels)."""
        return self.model.predict(X)

    def share(self, X: NDArray[np.float32]) -> NDArray[np.float64] | None:
        """Return the share of the training images that are less unusual than each image, None where not known."""
        return None if self.unlike is None else self.unlike.share(X)

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
        if not self.has_probabilities:
            gives = "numbers" if self.kind == "regression" else "p-values"
            raise PredictorError(f"this predictor gives {gives} of {self.target!r}, which have no probabilities")
        from featurebank.topmodels.committees.models import probabilities_of

        return probabilities_of(self.model, self.calibrator, X)

    def answers(self, X: NDArray[np.float32], ok: NDArray[np.bool_]) -> dict[str, Any]:
        """Return what the model says of embeddings (m, d) of the readable ones (m of n True in `ok`) of n images."""
        if self.kind == "anomaly":
            return anomaly_answers(self, X, ok)
        labels, best = np.full(len(ok), None, object), np.full(len(ok), np.nan)
        proba = np.full((len(ok), len(self.classes)), np.nan)
        share = np.full(len(ok), np.nan) if self.knows_unlike else None
        if ok.any():
            labels[ok] = self._as_shown(self.predict(X))
            if self.has_probabilities:
                proba[ok] = self.probabilities(X)
            if self.kind == "classification":
                best[ok] = confidence_of(proba[ok], labels[ok].astype(self.classes.dtype), self.classes)
            if share is not None:
                share[ok] = self.share(X)
        columns: dict[str, Any] = {"label": labels}
        if self.kind == "classification":
            columns["probability"] = best
        columns |= unlike_columns(share)
        return {**columns, **{f"proba_{name}": proba[:, i] for i, name in enumerate(self.classes)}}

    def _as_shown(self, predicted: NDArray[Any]) -> list[Any]:
        """Return predictions as a table shows them: several labels of an image divided by semicolons."""
        if self.labels is None:
            return predicted.tolist()
        return [
            ";".join(name for name, is_there in zip(self.labels, row, strict=True) if is_there) for row in predicted
        ]

    # --- scores --------------------------------------------------------------------------------------------

    def true_values(self, table: SampleTable, names: list[str]) -> NDArray[Any]:
        """Return the true values as the model knows them, from columns without missing values.

        Raises
        ------
        PredictorError
            When a label is not one that the model knows.
        """
        if self.kind == "anomaly":
            return self._normal_rows(table.columns[names[0]])
        if self.kind == "classification":
            return self._known_classes(table.columns[names[0]], names[0])
        if self.kind == "regression":
            return self._numbers(table, names[0])
        assert self.labels is not None
        if len(names) > 1:
            return np.column_stack([self._numbers(table, name) for name in names]).astype(np.int64)
        cells = [set(str(cell).split(self.report.get("separator") or ";")) for cell in values_of(table, names[0])]
        return np.array([[label in cell for label in self.labels] for cell in cells], np.int64)

    def score(
        self,
        X: NDArray[np.float32] | BankMatrix,
        y: NDArray[Any],
        weight: NDArray[np.float64] | None,
        groups: NDArray[Any] | None = None,
    ) -> dict[str, Any]:
        """Score the model on embeddings with true values; see `featurebank.Predictor.evaluate`."""
        from featurebank.topmodels import held_out

        if self.kind == "anomaly":
            if weight is not None:
                raise PredictorError("a predictor of anomalies is scored without weights; leave out --sample-weight")
            from featurebank.topmodels.one_class.judging import detection_scores

            scores = np.concatenate([self.model.score_samples(part) for part in in_batches(X)])
            return detection_scores(~y, scores, scores < self.model.offset_, groups)
        predicted = np.concatenate([self.predict(part) for part in in_batches(X)])
        if self.kind == "regression":
            return held_out.regression_scores(y, predicted, weight, groups)
        if self.kind == "multilabel":
            return held_out.label_scores(y, predicted, self.labels or [], groups)
        proba = np.concatenate([self.probabilities(part) for part in in_batches(X)])
        return held_out.classification_scores(y, predicted, proba, self.classes, weight, groups)

    def _numbers(self, table: SampleTable, name: str) -> NDArray[np.float64]:
        values = values_of(table, name)
        if values.dtype.kind not in "fiub":
            raise PredictorError(
                f"column {name!r} holds text; this predictor gives numbers of {self.target!r}: name a column of numbers"
            )
        return values.astype(np.float64)

    def _normal_rows(self, values: pd.Series) -> NDArray[np.bool_]:
        if self.report.get("normal") is None:
            raise PredictorError(
                "this predictor learned from every row, and knows no value that normal images have: fit it with "
                "--normal VALUE to score labelled images"
            )
        found = has_value(values, self.normal)
        if not found.any():
            warnings.warn(
                f"none of these {len(found)} images has the value {self.normal!r} of normal ones, so all are scored as "
                "anomalies: where some are normal, name another column",
                stacklevel=2,
            )
        return found

    def _known_classes(self, labels: Iterable[Any], name: str) -> NDArray[Any]:
        """Map labels to the predictor's classes by their text, so that a folder named 1 is the class 1."""
        known = {str(value): value for value in self.classes.tolist()}
        texts = [str(value) for value in labels]
        unknown = sorted(set(texts) - set(known))
        if unknown:
            raise PredictorError(f"column {name!r} holds {unknown[:3]}; this predictor knows {', '.join(known)}")
        return np.array([known[text] for text in texts], self.classes.dtype)


_NAMES = ("source", "path")
ANOMALY = "anomaly"
"""The label of an image that is called an anomaly."""


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


def has_value(column: pd.Series, value: object) -> NDArray[np.bool_]:
    """Return where a column has a value, which may be given as text, shape (n,).

    Examples
    --------
    >>> has_value(pd.Series([0.0, 1.0]), "0").tolist(), has_value(pd.Series(["good", None]), "good").tolist()
    ([True, False], [True, False])
    """
    texts = np.array([str(cell) == str(value) for cell in column], bool)
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        with suppress(ValueError):
            return texts | (column.astype(float) == float(str(value))).to_numpy()
    return texts


def anomaly_answers(task: Task, X: NDArray[np.float32], ok: NDArray[np.bool_]) -> dict[str, Any]:
    """Return what a one-class model says of embeddings: ``label, score, anomaly`` (a p-value), ``is_anomaly``."""
    scores, p_values = np.full(len(ok), np.nan), np.full(len(ok), np.nan)
    if ok.any():
        scores[ok] = task.model.score_samples(X)
        p_values[ok] = task.model.conformal_.p_values(scores[ok])
    flags = [bool(each < task.model.offset_) if good else None for each, good in zip(scores, ok, strict=True)]
    labels = [None if flag is None else ANOMALY if flag else task.normal for flag in flags]
    return {"label": labels, "score": scores, "anomaly": p_values, "is_anomaly": flags}


def task_column(column: str, task: str) -> str:
    """Return the name that a column of one task's table has among those of others.

    Examples
    --------
    >>> task_column("label", "type"), task_column("proba_mono", "type")
    ('label_type', 'proba_type_mono')
    """
    if column.startswith("proba_"):
        return f"proba_{task}_{column.removeprefix('proba_')}"
    return f"{column}_{task}"


def column_names(name: str, classes: NDArray[Any], kind: str) -> list[str]:
    """Return the columns that a task has in a table of predictions.

    Examples
    --------
    >>> column_names("type", np.array(["mono", "poly"]), "classification")
    ['label_type', 'probability_type', 'proba_type_mono', 'proba_type_poly']
    """
    own = [] if kind == "regression" else ["probability", *(f"proba_{each}" for each in classes)]
    return [task_column(column, name) for column in ["label", *own]]
