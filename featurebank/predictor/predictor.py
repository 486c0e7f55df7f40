"""Predictor: one file that goes from image files to labels, of one task or of several, saved without pickle."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from featurebank.bank.features import as_keys
from featurebank.bank.samples import SampleTable, weights_of
from featurebank.errors import ImageError, PredictorError, notice
from featurebank.images.reading import Progress
from featurebank.predictor import file
from featurebank.predictor.embedding import Embedder, Item, Parts
from featurebank.predictor.features import PredictorFeature
from featurebank.predictor.task import Task, task_column, unlike_columns
from featurebank.storage import files
from featurebank.storage.memory import releasing
from featurebank.topmodels.calibration import Calibrator, LabelsCalibrator

if TYPE_CHECKING:
    from featurebank.backbones.base import Backbone
    from featurebank.bank.bank import Bank
    from featurebank.images.sources import Source

_KEYS = ["source", "path", "fold"]
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

    Attributes
    ----------
    tasks : dict of str to Task
        By target.
    report : dict
        What the fit that made it reported.

    Examples
    --------
    >>> predictor = Predictor.load("photos.featurebank")  # doctest: +SKIP
    >>> predictor.predict(["new.jpg"])  # doctest: +SKIP
    array(['cat'], dtype='<U3')
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
    ):
        every = [tasks] if isinstance(tasks, Task) else list(tasks)
        features: list[PredictorFeature] = []
        for each in every:
            features += [feature for feature in each.features if feature not in features]
        super().__init__(
            features, tensors=tensors, backbone=backbone, weights_file=weights_file, allow_download=allow_download
        )
        self.tasks = {each.target: each for each in every}
        self.report: dict[str, Any] = every[0].report if len(every) == 1 else dict(report or {})

    # --- what it is ----------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        return f"Predictor({', '.join(self.tasks)} from {'+'.join(each.spec.name for each in self.features)})"

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
        if target is None and len(self.tasks) > 1:
            raise PredictorError(
                f"this predictor predicts several tasks, {', '.join(self.tasks)}; expected one: name it with --target"
            )
        if target is not None and target not in self.tasks:
            raise PredictorError(f"no task {target!r}; this predictor knows {', '.join(self.tasks)}: name one of them")
        return self.tasks[target or self.target]

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
    def model(self) -> Pipeline:
        """The fitted pipeline of the only task."""
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

    def predict(self, images: Sequence[Any]) -> NDArray[Any] | pd.DataFrame:
        """Predict images.

        Parameters
        ----------
        images : sequence of path-like, PIL images or uint8 arrays

        Returns
        -------
        ndarray, shape (n,), or of 0 and 1 with shape (n, labels)
            Of several tasks a DataFrame: one row an image, one column a task.

        Raises
        ------
        ImageError
            When an image cannot be read.
        PredictorError
            When the backbone's weights are not the ones the model was trained on.
        """
        parts = self.embed_all(images)
        found = self._each(lambda task: task.model.predict(self._seen_by(task, parts)))
        return pd.DataFrame(found) if isinstance(found, dict) else found

    def predict_proba(self, images: Sequence[Any]) -> NDArray[np.float64] | dict[str, NDArray[np.float64]]:
        """Return class probabilities, shape (n, k), in the order of `classes`; of several tasks, a dict by task.

        Tasks of numbers, which have none, are left out of the dict; see `predict`.
        """
        parts = self.embed_all(images)
        if len(self.tasks) == 1:
            return self.single.probabilities(self._seen_by(self.single, parts))
        asked = {name: each for name, each in self.tasks.items() if each.kind != "regression"}
        return {name: each.probabilities(self._seen_by(each, parts)) for name, each in asked.items()}

    def predict_table(self, paths: Sequence[str | os.PathLike[str]], progress: Progress | None = None) -> pd.DataFrame:
        """Predict image files; an unreadable one keeps its row, with the reason.

        Returns
        -------
        DataFrame
            ``path, label, probability`` (of the label), ``unlike`` (the share of the training images that are less
            unusual, from 0 to 1) and ``is_unlike`` (whether that is above 0.99), ``error``, and ``proba_CLASS`` for
            each class. A predictor of an earlier version, or of fewer than 20 images, cannot tell what is unlike.
            Of several tasks ``label_TASK, probability_TASK, proba_TASK_CLASS``, and the highest ``unlike`` of them.
        """
        parts, errors = self.embed_some(list(paths), progress)
        return self._table([str(path) for path in paths], parts, errors)

    def predict_bank(self, bank: Bank) -> pd.DataFrame:
        """Predict every readable sample of a bank from the embeddings it already has.

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
        frame = self._table(table.paths, self.read(bank, as_keys(table.rows["digest"])), [""] * len(table))
        frame.insert(0, "source", table.rows["source"])
        return frame

    def probabilities(self, X: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return class probabilities of embeddings, of the only task; see `Task.probabilities`."""
        return self.single.probabilities(X)

    def load_rows(self, bank: Bank, table: SampleTable, task: Task | None = None) -> NDArray[np.float32]:
        """Return what the model of a task, by default the only one, sees of samples of a bank, shape (n, d)."""
        return self._seen_by(task or self.single, self.read(bank, as_keys(table.rows["digest"])))

    def _seen_by(self, task: Task, parts: Parts) -> NDArray[np.float32]:
        """Return what a task's model sees, shape (n, d)."""
        return np.concatenate([parts[self.features.index(each)] for each in task.features], axis=1)

    def _table(self, paths: list[str], parts: Parts, errors: list[str]) -> pd.DataFrame:
        """Return what all tasks say of the embeddings of the images without an error."""
        ok = np.array([not error for error in errors], bool)
        front: dict[str, Any] = {"path": pd.Series(paths, dtype=object)}
        back: dict[str, Any] = {}
        shares: list[NDArray[np.float64]] = []
        for name, each in self.tasks.items():
            own = each.table(self._seen_by(each, parts), ok)
            shares += [own["unlike"].to_numpy()] if "unlike" in own else []
            for column in own.columns.drop(["unlike", "is_unlike"], errors="ignore"):
                place = back if column.startswith("proba_") else front
                place[column if len(self.tasks) == 1 else task_column(column, name)] = own[column]
        highest = np.max(shares, axis=0) if shares else None
        return pd.DataFrame({**front, **unlike_columns(highest), "error": errors, **back})

    # --- scores --------------------------------------------------------------------------------------------

    def evaluate(
        self,
        source: Source,
        *,
        target: str | None = None,
        sample_weight: str | None = None,
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
            When the column of weights holds something else.
        """
        columns = self._scored_columns(target)
        names = [name for names in columns.values() for name in names]
        _check_columns(source, names, sample_weight, self._ways(target))
        known = pd.DataFrame({task: source.columns[names].notna().all(axis=1) for task, names in columns.items()})
        if sample_weight:
            known[source.columns[sample_weight].isna()] = False
        rows = np.flatnonzero(known.any(axis=1))
        if not len(rows):
            raise PredictorError(f"no image of the source has a value of {', '.join(columns)}; expected some to score")
        labelled = {
            task: _labels(self.tasks[task], source, rows, known, names, sample_weight)
            for task, names in columns.items()
        }
        items = [Item(source, int(row)) for row in rows]
        parts, errors = self.embed_some(items, progress)
        ok = np.array([not error for error in errors], bool)
        if not ok.any():
            raise PredictorError("no labelled image of the source could be read; expected at least one")
        found = {task: self._score(self.tasks[task], parts, ok, *labels) for task, labels in labelled.items()}
        paths = [os.fsdecode(source.paths[row]) for row in rows]
        return {
            **(found[self.target] if len(self.tasks) == 1 else {"n_samples": int(ok.sum()), "tasks": found}),
            "failures": [{"path": p, "error": error} for p, error in zip(paths, errors, strict=True) if error],
            "unlabelled": len(source.paths) - len(rows),
            "seen_in_training": count_seen([task.report for task in self.tasks.values()], items),
        }

    def _scored_columns(self, target: str | None) -> dict[str, list[str]]:
        """Return the columns of true values of each task to score."""
        if len(self.tasks) == 1:
            return {self.target: [target] if target else self.single.columns}
        return {name: self.task_of(name).columns for name in ([target] if target else self.tasks)}

    def _ways(self, target: str | None) -> str:
        """Say what to do about a source that has columns, but not those that are to be scored."""
        if len(self.tasks) > 1:
            manifest = "give a manifest with columns named as the tasks"
            return manifest if target else f"{manifest}, or score one of them with --target"
        if target is None:
            return "name one of them with --target"
        return f"give the one with the true values of {self.target!r} as --target"

    def _score(
        self,
        task: Task,
        parts: Parts,
        ok: NDArray[np.bool_],
        is_known: NDArray[np.bool_],
        y: NDArray[Any],
        weight: NDArray[np.float64] | None,
    ) -> dict[str, Any]:
        """Score a task on the readable images that have its label; `y` and `weight` are of the labelled ones."""
        read = ok[is_known]
        if not read.any():
            raise PredictorError(f"no image labelled with {task.target!r} could be read; expected at least one")
        X = self._seen_by(task, parts)[is_known[ok]]
        return task.score(X, y[read], None if weight is None else weight[read])

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
        tasks, report, tensors = file.read(path)
        return cls(
            tasks,
            report=report,
            tensors=tensors,
            backbone=backbone,
            weights_file=weights_file,
            allow_download=allow_download,
        )


def _check_columns(source: Source, names: list[str], sample_weight: str | None, ways: str) -> None:
    """Refuse to score on a source that lacks a column; `ways` says how to bring one of labels."""
    absent = [name for name in [*names, *([sample_weight] if sample_weight else [])] if name not in source.columns]
    if not absent:
        return
    have = ", ".join(map(repr, source.columns))
    if not have:
        ways = f"give folders named by class, or a manifest with a column {absent[0]!r}"
    elif absent[0] == sample_weight:
        ways = "name one of them with --sample-weight"
    raise PredictorError(f"the source has no column {absent[0]!r}; it has {have or 'none'}: {ways}")


def _labels(
    task: Task,
    source: Source,
    rows: NDArray[np.int64],
    known: pd.DataFrame,
    columns: list[str],
    sample_weight: str | None,
) -> tuple[NDArray[np.bool_], NDArray[Any], NDArray[np.float64] | None]:
    """Return which rows have a label of a task, its true values there, and their weights."""
    is_known = known[task.target].to_numpy()[rows]
    if not is_known.any():
        raise PredictorError(f"no image of the source has a value of {task.target!r}; name another task with --target")
    table = SampleTable(pd.DataFrame(), source.columns.iloc[rows[is_known]])
    return is_known, task.true_values(table, columns), weights_of(table, sample_weight) if sample_weight else None


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


def count_seen(reports: Iterable[Mapping[str, Any]], items: Sequence[Item]) -> int:
    """Return how many readable images of a source are among those that fits learned from, given their reports."""
    found = [report.get("contents", "") for report in reports]
    contents = "".join(each if isinstance(each, str) else "".join(each) for each in found)  # a list in earlier files
    known, seen = {contents[start : start + 16] for start in range(0, len(contents), 16)}, 0
    for item in items if known else []:
        try:
            seen += item.source.read(item.position)[0].hex()[:16] in known
        except ImageError:
            continue
    return seen
