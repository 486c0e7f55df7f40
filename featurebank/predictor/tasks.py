"""MultiTaskPredictor: from images to what every task says of them, each backbone run once."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featurebank.bank.features import as_keys
from featurebank.bank.samples import SampleTable, weights_of
from featurebank.errors import PredictorError
from featurebank.images.reading import Progress
from featurebank.predictor import file
from featurebank.predictor.embedding import Embedder, Item, Parts
from featurebank.predictor.file import PredictorFeature, TaskContents
from featurebank.predictor.predictor import Predictor, count_seen, unlike_columns
from featurebank.storage import files

if TYPE_CHECKING:
    from featurebank.backbones.base import Backbone
    from featurebank.bank.bank import Bank
    from featurebank.images.sources import Source

_OF_AN_IMAGE = ("path", "error", "unlike", "is_unlike")


class MultiTaskPredictor(Embedder):
    """From images to the labels or numbers of several tasks.

    Parameters
    ----------
    tasks : mapping of str to Predictor
        What predicts each; they may see different feature sets.
    fit : dict, optional
        What the fit says of all of them.
    backbone, weights_file, allow_download
        See `Predictor`.

    Examples
    --------
    >>> predictor = MultiTaskPredictor.load("cells.featurebank")  # doctest: +SKIP
    >>> predictor.predict(["new.png"])  # doctest: +SKIP
       type  probability
    0  mono         0.02
    """

    def __init__(
        self,
        tasks: Mapping[str, Predictor],
        *,
        fit: Mapping[str, Any] | None = None,
        backbone: Backbone | None = None,
        weights_file: str | os.PathLike[str] | None = None,
        allow_download: bool = True,
    ):
        features: list[PredictorFeature] = []
        tensors: dict[str, bytes] = {}
        for each in tasks.values():
            features += [feature for feature in each.features if feature not in features]
            tensors |= each.tensors
        options: dict[str, Any] = {"backbone": backbone, "weights_file": weights_file}
        super().__init__(features, tensors=tensors, allow_download=allow_download, **options)
        self.tasks = dict(tasks)
        self.fit = dict(fit or {})

    @property
    def target(self) -> str:
        """The names of the tasks as one text."""
        return "+".join(self.tasks)

    @property
    def classes(self) -> dict[str, NDArray[Any]]:
        """The classes of each task, sorted; none for numbers."""
        return {name: each.classes for name, each in self.tasks.items()}

    # --- predictions ---------------------------------------------------------------------------------------

    def predict(self, images: Sequence[Any]) -> pd.DataFrame:
        """Predict every task of images.

        Parameters
        ----------
        images : sequence of path-like, PIL images or uint8 arrays

        Returns
        -------
        DataFrame
            One row an image, one column a task: classes or numbers.

        Raises
        ------
        ImageError
            When an image cannot be read.
        PredictorError
            When a backbone's weights are not the ones the models were trained on.
        """
        parts = self.embed_all(images)
        return pd.DataFrame({name: each.model.predict(self._seen_by(each, parts)) for name, each in self.tasks.items()})

    def predict_proba(self, images: Sequence[Any]) -> dict[str, NDArray[np.float64]]:
        """Return class probabilities of each task of classes, shape (n, k), in the order of `classes`."""
        parts = self.embed_all(images)
        asked = {name: each for name, each in self.tasks.items() if each.task != "regression"}
        return {name: each.probabilities(self._seen_by(each, parts)) for name, each in asked.items()}

    def predict_table(self, paths: Sequence[str | os.PathLike[str]], progress: Progress | None = None) -> pd.DataFrame:
        """Predict every task of image files; an unreadable one keeps its row, with the reason.

        Returns
        -------
        DataFrame
            ``path``; ``label_TASK`` and, for classes, ``probability_TASK`` of each task; ``unlike`` and ``is_unlike``,
            the highest of the tasks' (see `Predictor.predict_table`), where they are known; ``error``; and
            ``proba_TASK_CLASS`` for each class.
        """
        parts, errors = self.embed_some(list(paths), progress)
        return self._table([str(path) for path in paths], parts, errors)

    def predict_bank(self, bank: Bank) -> pd.DataFrame:
        """Predict every task of every readable sample of a bank, from the embeddings it already has.

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

    def _seen_by(self, task: Predictor, parts: Parts) -> NDArray[np.float32]:
        """Return what a task's model sees, shape (n, d)."""
        return np.concatenate([parts[self.features.index(each)] for each in task.features], axis=1)

    def _table(self, paths: list[str], parts: Parts, errors: list[str]) -> pd.DataFrame:
        ok = np.array([not error for error in errors], bool)
        front: dict[str, Any] = {"path": pd.Series(paths, dtype=object)}
        back: dict[str, Any] = {}
        shares: list[NDArray[np.float64]] = []
        for name, each in self.tasks.items():
            own = each.table(paths, self._seen_by(each, parts), ok, errors)
            shares += [own["unlike"].to_numpy()] if "unlike" in own else []
            for column in own.columns.difference(_OF_AN_IMAGE, sort=False):
                (back if column.startswith("proba_") else front)[task_column(column, name)] = own[column]
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
        """Score the tasks on labelled images that they were not trained on, each on those that have its label.

        Parameters
        ----------
        source : Source
            From `featurebank.scan`.
        target : str, optional
            The one task to score; by default all of them.
        sample_weight : str, optional
            Column of weights.
        progress : callable, optional
            Called with (images done, images in all).

        Returns
        -------
        dict
            ``tasks``: the scores of each, see `Predictor.evaluate`; ``n_samples`` (readable images with a label of
            any), ``failures, unlabelled, seen_in_training``.

        Raises
        ------
        PredictorError
            When there is no such task, the source lacks its column, or holds labels that it does not know.
        ColumnError
            When the column of weights holds something else.
        """
        names = self._asked(source, target, sample_weight)
        known = source.columns[names].notna()
        if sample_weight:
            known[source.columns[sample_weight].isna()] = False
        rows = np.flatnonzero(known.any(axis=1))
        items = [Item(source, int(row)) for row in rows]
        if not items:
            raise PredictorError(f"no image of the source has a value of {', '.join(names)}; expected some to score")
        given = {name: self._given(source, rows, known, name, sample_weight) for name in names}
        parts, errors = self.embed_some(items, progress)
        ok = np.array([not error for error in errors], bool)
        paths = [os.fsdecode(source.paths[row]) for row in rows]
        return {
            "n_samples": int(ok.sum()),
            "tasks": {name: self._scores(name, parts, ok, *given[name]) for name in names},
            "failures": [{"path": p, "error": error} for p, error in zip(paths, errors, strict=True) if error],
            "unlabelled": len(source.paths) - len(rows),
            "seen_in_training": count_seen([task.fit for task in self.tasks.values()], items),
        }

    def _asked(self, source: Source, target: str | None, sample_weight: str | None) -> list[str]:
        """Return the tasks to score, once the source has their columns."""
        if target is not None and target not in self.tasks:
            raise PredictorError(f"no task {target!r}; this predictor knows {', '.join(self.tasks)}: name one of them")
        names = [target] if target else list(self.tasks)
        absent = [name for name in [*names, *([sample_weight] if sample_weight else [])] if name not in source.columns]
        if absent:
            have = ", ".join(map(repr, source.columns)) or "none"
            raise PredictorError(
                f"the source has no column {absent[0]!r}; it has {have}: give a manifest with columns named as "
                "the tasks, or score one of them with --target"
            )
        return names

    def _given(
        self, source: Source, rows: NDArray[np.int64], known: pd.DataFrame, name: str, sample_weight: str | None
    ) -> tuple[NDArray[np.bool_], NDArray[Any], NDArray[np.float64] | None]:
        """Return which rows have a label of a task, its true values there, and their weights."""
        is_known = known[name].to_numpy()[rows]
        if not is_known.any():
            raise PredictorError(f"no image of the source has a value of {name!r}; name another task with --target")
        table = SampleTable(pd.DataFrame(), source.columns.iloc[rows[is_known]])
        weight = weights_of(table, sample_weight) if sample_weight else None
        return is_known, self.tasks[name].true_values(table, [name]), weight

    def _scores(
        self,
        name: str,
        parts: Parts,
        ok: NDArray[np.bool_],
        is_known: NDArray[np.bool_],
        y: NDArray[Any],
        weight: NDArray[np.float64] | None,
    ) -> dict[str, Any]:
        """Score a task on the readable images that have its label; `y` and `weight` are of the labelled ones."""
        task, read = self.tasks[name], ok[is_known]
        if not read.any():
            raise PredictorError(f"no image labelled with {name!r} could be read; expected at least one")
        X = self._seen_by(task, parts)[is_known[ok]]
        return task.score_rows(X, y[read], None if weight is None else weight[read])

    # --- files ---------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the predictor as one file; see `Predictor.save`."""
        contents = {name: each.contents() for name, each in self.tasks.items()}
        files.commit(Path(path), file.encode_tasks(TaskContents(contents, self.fit)))

    @classmethod
    def load(cls, path: str | os.PathLike[str], **options: Any) -> MultiTaskPredictor:
        """Read a predictor file of several tasks; see `Predictor.load`.

        Raises
        ------
        PredictorError
            When the file is missing or damaged, or predicts one task.
        """
        found = load_predictor(path, **options)
        if not isinstance(found, MultiTaskPredictor):
            raise PredictorError(f"{str(path)!r} predicts {found.target!r} alone; load it with featurebank.Predictor")
        return found


def load_predictor(
    path: str | os.PathLike[str], *, allow_download: bool = False, **options: Any
) -> Predictor | MultiTaskPredictor:
    """Read a predictor file of one task or of several; see `Predictor.load`.

    Raises
    ------
    PredictorError
        When the file is missing, damaged, or holds anything but what `save` writes.
    """
    found = file.read_any(path)
    options["allow_download"] = allow_download
    if not isinstance(found, TaskContents):
        return Predictor.of(found, **options)
    tasks = {name: Predictor.of(each, **options) for name, each in found.tasks.items()}
    return MultiTaskPredictor(tasks, fit=found.fit, **options)


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


def column_names(name: str, classes: NDArray[Any], task: str) -> list[str]:
    """Return the columns that a task has in a table of predictions.

    Examples
    --------
    >>> column_names("type", np.array(["mono", "poly"]), "classification")
    ['label_type', 'probability_type', 'proba_type_mono', 'proba_type_poly']
    """
    own = [] if task == "regression" else ["probability", *(f"proba_{each}" for each in classes)]
    return [task_column(column, name) for column in ["label", *own]]
