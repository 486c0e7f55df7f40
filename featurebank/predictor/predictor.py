"""Predictor: one file that goes from image files to labels, of one task or of several, saved without pickle."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from featurebank.bank.display import as_html
from featurebank.bank.features import as_keys
from featurebank.bank.samples import SampleTable
from featurebank.errors import PredictorError, notice
from featurebank.images.columns import text_frame
from featurebank.images.dataframes import pd
from featurebank.images.frames import as_items
from featurebank.images.progress import shown
from featurebank.images.reading import Progress
from featurebank.predictor import file
from featurebank.predictor.embedding import Embedder, Parts
from featurebank.predictor.evaluation import evaluate, is_of_pages, task_named
from featurebank.predictor.features import PredictorFeature
from featurebank.predictor.task import Task, task_column, unlike_columns
from featurebank.storage import files

if TYPE_CHECKING:
    from featurebank.backbones.base import Backbone
    from featurebank.bank.bank import Bank, BankLike
    from featurebank.images.sources import Source
    from featurebank.topmodels.calibration import Calibrator, LabelsCalibrator

_KEYS = ["source", "path", "fold"]
_OF_ALL = ("unlike", "is_unlike")
"""Columns that several tasks have in common."""
R = TypeVar("R")


class Predictor(Embedder):
    """From images to labels or numbers, of one task or of several, each backbone run once.

    Parameters
    ----------
    tasks : Task, or sequence of Task
        What predicts each target; they may see different feature sets.
    report : dict, optional
        The report of the fit that made several tasks; of one task it is the task's own.
    tensors : mapping of str to bytes, optional
        Safetensors of backbones whose weights came from a file, by weights digest.
    backbone : Backbone, optional
        The backbone to use in place of the named one (needed for a custom module).
    weights_file : path-like, optional
        A checkpoint to take the backbone's weights from; their digest must be the one the model was trained on.
    allow_download : bool, default True
        Whether a hub may be asked for weights that are not on this machine.
    device : str, default "auto"
        Where images are embedded: ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Attributes
    ----------
    tasks : dict of str to Task
        By target.
    report : dict
        What the fit that made it reported.

    See Also
    --------
    fit : What makes one.
    export_predictor : The same as ONNX.
    explain : Where it looks.

    Examples
    --------
    >>> predictor = Predictor.load("photos.featurebank")
    >>> predictor.predict(["new.jpg"])
    array(['dog'], dtype='<U3')
    >>> predictor.predict_proba(["new.jpg"]).shape
    (1, 2)
    """

    def __init__(
        self,
        tasks: Task | Sequence[Task],
        *,
        report: dict[str, Any] | None = None,
        tensors: Mapping[str, bytes] | None = None,
        backbone: Backbone | None = None,
        weights_file: str | os.PathLike[str] | None = None,
        allow_download: bool = True,
        device: str = "auto",
    ):
        every = [tasks] if isinstance(tasks, Task) else list(tasks)
        features: list[PredictorFeature] = []
        for each in every:
            features += [feature for feature in each.features if feature not in features]
        brought: dict[str, Any] = {"tensors": tensors, "backbone": backbone, "weights_file": weights_file}
        super().__init__(features, **brought, allow_download=allow_download, device=device)
        self.tasks = {each.target: each for each in every}
        self.report: dict[str, Any] = every[0].report if len(every) == 1 else dict(report or {})

    # --- what it is ----------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        return f"Predictor({', '.join(self.tasks)} from {'+'.join(each.spec.name for each in self.features)})"

    def _repr_html_(self) -> str:
        rows = [(name, each.kind, ", ".join(map(str, each.classes))) for name, each in self.tasks.items()]
        return as_html(self, pd.DataFrame(rows, columns=["target", "task", "classes"]))

    @property
    def is_of_pages(self) -> bool:
        """Whether it learned from single pages of stacks (`extract --pages each`), so that each page is an image."""
        return is_of_pages(self.tasks)

    @property
    def single(self) -> Task:
        """The only task.

        Raises
        ------
        PredictorError
            When there are several.
        """
        if len(self.tasks) != 1:
            raise PredictorError(f"this predictor predicts several tasks, {', '.join(self.tasks)}; expected one")
        return next(iter(self.tasks.values()))

    def task_of(self, target: str | None = None) -> Task:
        """Return the task of a target, by default the only one.

        Raises
        ------
        PredictorError
            When there is no such task, or none is named and there are several.
        """
        return task_named(self.tasks, target)

    @property
    def target(self) -> str:
        """The names of the tasks as one text."""
        return "+".join(self.tasks)

    @property
    def task(self) -> str:
        """The kind of the only task, see `Task`; ``"multitask"`` for several."""
        return self.single.kind if len(self.tasks) == 1 else "multitask"

    @property
    def classes(self) -> NDArray[Any] | dict[str, NDArray[Any]]:
        """The classes of the only task, sorted, shape (k,), see `Task.classes`; of several, a dict by task."""
        return self._each(lambda task: task.classes)

    @property
    def model(self) -> Any:
        """The fitted pipeline, or `OneClassModel`, of the only task."""
        return self.single.model

    @property
    def calibrator(self) -> Calibrator | LabelsCalibrator | None:
        """What turns scores into probabilities in the only task; None where its model has them."""
        return self.single.calibrator

    @property
    def oof(self) -> pd.DataFrame | None:
        """Out-of-fold predictions: what the models said of each sample of the fit when they had not seen it.

        ``source, path, fold, true, predicted`` and ``proba_CLASS``; of several tasks ``true_TASK, predicted_TASK`` and
        ``proba_TASK_CLASS``, missing where an image has no label of it. None in files of earlier versions.
        """
        found = {name: each.oof for name, each in self.tasks.items()}
        frames = {name: frame for name, frame in found.items() if frame is not None}
        if len(frames) < len(self.tasks):
            return None
        if len(frames) == 1:
            return frames[self.target]
        named = [
            frame.rename(columns={column: task_column(column, name) for column in frame if column not in _KEYS})
            for name, frame in frames.items()
        ]
        return reduce(lambda one, two: one.merge(two, on=_KEYS, how="outer"), named)

    @property
    def fit(self) -> dict[str, Any]:
        """`report`, under its old name."""
        notice("Predictor.fit", "Predictor.report")
        return self.report

    def _each(self, ask: Callable[[Task], R]) -> R | dict[str, R]:
        """Return what the only task answers, or a dict of the answers of several."""
        return ask(self.single) if len(self.tasks) == 1 else {name: ask(each) for name, each in self.tasks.items()}

    # --- predictions ---------------------------------------------------------------------------------------

    def predict(self, images: Any) -> NDArray[Any] | pd.DataFrame:
        """Predict images.

        Parameters
        ----------
        images : sequence of path-like, PIL images or uint8 arrays
            One of these alone, a column of a DataFrame, or a DataFrame with one of them will do as well.

        Returns
        -------
        ndarray, shape (n,), or of 0 and 1 with shape (n, labels)
            Of normal images and anomalies 1 and -1, as scikit-learn's outlier detection has them. Of several tasks a
            DataFrame: one row an image, one column a task.

        Raises
        ------
        ImageError
            When an image cannot be read.
        PredictorError
            When the backbone's weights are not the ones the model was trained on.
        """
        parts = self.embed_all(images)
        found = self._each(lambda task: task.predict(self.seen_by(task.features, parts)))
        return text_frame(found) if isinstance(found, dict) else found

    def predict_proba(self, images: Any) -> NDArray[np.float64] | dict[str, NDArray[np.float64]]:
        """Return class probabilities, shape (n, k), in the order of `classes`; of several tasks, a dict by task.

        Tasks of numbers and of anomalies, which have none, are left out of the dict; see `predict`.
        """
        parts = self.embed_all(images)
        if len(self.tasks) == 1:
            return self.single.probabilities(self.seen_by(self.single.features, parts))
        asked = {name: each for name, each in self.tasks.items() if each.has_probabilities}
        return {name: each.probabilities(self.seen_by(each.features, parts)) for name, each in asked.items()}

    def predict_table(self, paths: Sequence[str | os.PathLike[str]], progress: Progress | None = None) -> pd.DataFrame:
        """Predict image files; an unreadable one keeps its row, with the reason.

        Returns
        -------
        DataFrame
            ``path, label, probability`` (of the label), ``unlike`` (the share of the training images that are less
            unusual, from 0 to 1) and ``is_unlike`` (whether that is above 0.99), ``error``, and ``proba_CLASS`` for
            each class. A predictor of an earlier version, or of fewer than 20 images, cannot tell what is unlike.
            Of several tasks ``label_TASK, probability_TASK, proba_TASK_CLASS``, and the highest ``unlike`` of them.
            Of a predictor that learned from normal images ``path, label, score`` (the higher the more normal),
            ``anomaly`` (a p-value: the share of the normals that are at least as unusual), ``is_anomaly`` (whether it
            is at most the promised rate of false alarms), ``error``.
        """
        return _as_frame(self.predict_columns(paths, progress))

    def predict_columns(
        self, paths: Sequence[str | os.PathLike[str]], progress: Progress | None = None
    ) -> dict[str, Any]:
        """Predict image files without pandas: the columns of `predict_table` by name, each a list or an array (n,)."""
        items = as_items(paths)
        parts, errors, _ = self.embed_some(items, progress)
        return self._columns([str(path) for path in items], parts, errors)

    def predict_bank(self, bank: BankLike) -> pd.DataFrame:
        """Predict every readable sample of a bank from the embeddings it already has.

        Parameters
        ----------
        bank : Bank or path

        Returns
        -------
        DataFrame
            As `predict_table`, with the column ``source`` in front.

        Raises
        ------
        BankError
            When the bank lacks one of the feature sets, or rows of it.
        """
        from featurebank.bank.bank import Bank

        bank = Bank.of(bank)
        table = bank.select()
        parts = self.read(bank, as_keys(table.rows["digest"]))
        frame = _as_frame(self._columns(table.paths, parts, [""] * len(table)))
        frame.insert(0, "source", table.rows["source"])
        return frame

    def probabilities(self, X: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return class probabilities of embeddings, of the only task; see `Task.probabilities`."""
        return self.single.probabilities(X)

    def load_rows(self, bank: Bank, table: SampleTable, task: Task | None = None) -> NDArray[np.float32]:
        """Return what the model of a task, by default the only one, sees of samples of a bank, shape (n, d)."""
        return self.seen_by((task or self.single).features, self.read(bank, as_keys(table.rows["digest"])))

    def _columns(self, paths: list[str], parts: Parts, errors: list[str]) -> dict[str, Any]:
        """Return what all tasks say of the embeddings of the images without an error."""
        ok = np.array([not error for error in errors], bool)
        front: dict[str, Any] = {"path": paths}
        back: dict[str, Any] = {}
        shares: list[NDArray[np.float64]] = []
        for name, each in self.tasks.items():
            own = each.answers(self.seen_by(each.features, parts), ok)
            shares += [own["unlike"]] if "unlike" in own else []
            for column in (each for each in own if each not in _OF_ALL):
                place = back if column.startswith("proba_") else front
                place[column if len(self.tasks) == 1 else task_column(column, name)] = own[column]
        highest = np.max(shares, axis=0) if shares else None
        return {**front, **unlike_columns(highest), "error": errors, **back}

    # --- scores --------------------------------------------------------------------------------------------

    def evaluate(
        self,
        source: Source,
        *,
        target: str | None = None,
        sample_weight: str | None = None,
        groups: str | None = None,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        """Score the predictor on labelled images that it was not trained on, each task on those that have its label.

        Parameters
        ----------
        source : Source
            From `featurebank.scan`.
        target : str, optional
            Column of labels, by default the one the predictor was trained on; of several tasks, the one to score, by
            default all.
        sample_weight : str, optional
            Column of weights.
        groups : str, optional
            Column of what belongs together, e.g. patients: intervals then rest on the groups, not on the images.
            Pages of one stack belong together by themselves.
        progress : callable, optional
            Called with (images done, images in all).

        Returns
        -------
        dict
            See `featurebank.topmodels.held_out.classification_scores`; of several tasks ``n_samples`` (readable images
            with a label of any) and ``tasks``, the scores of each. ``failures`` lists the unreadable images,
            ``unlabelled`` and ``seen_in_training`` count images.

        Raises
        ------
        PredictorError
            When the source has no such column, or labels that the predictor does not know.
        ColumnError
            When the column of weights or groups holds something else, or lacks values.
        """
        return evaluate(self, self.tasks, source, target, sample_weight, groups, shown(progress, "evaluate"))

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
        files.commit(Path(path), file.encode(list(self.tasks.values()), self.report, self.tensors))

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        backbone: Backbone | None = None,
        weights_file: str | os.PathLike[str] | None = None,
        allow_download: bool = False,
        device: str = "auto",
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
        device : str, default "auto"
            Where images are embedded: ``auto``, ``cpu``, ``cuda`` or ``mps``.

        Raises
        ------
        DeviceError
            When the device is not on this machine.
        PredictorError
            When the file is missing, damaged, or holds anything but what `save` writes.
        """
        tasks, report, tensors = file.read(path)
        return cls(
            tasks,
            report=report,
            tensors=tensors,
            backbone=backbone,
            weights_file=weights_file,
            allow_download=allow_download,
            device=device,
        )


def _as_frame(columns: dict[str, Any]) -> pd.DataFrame:
    """Return columns as a table, whose paths are objects whatever they are."""
    return text_frame({**columns, "path": pd.Series(columns["path"], dtype=object)})
