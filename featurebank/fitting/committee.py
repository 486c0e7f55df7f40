"""Committees of a fit: predictors that were made elsewhere as members, and the predictor of a committee."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from featurebank.bank.bank import Bank
from featurebank.bank.features import as_keys
from featurebank.bank.spec import FeatureSpec
from featurebank.errors import BankError, FeatureBankError, PredictorError, shell_word
from featurebank.fitting.result import FitResult
from featurebank.fitting.training_data import TrainingData
from featurebank.predictor.cost import measure_cost
from featurebank.predictor.evaluation import known_contents
from featurebank.predictor.features import PredictorFeature, predictor_features
from featurebank.predictor.predictor import Predictor
from featurebank.predictor.task import Task
from featurebank.topmodels.committees.search import Committee, GivenMember, Member
from featurebank.topmodels.transforms import SelectDimensions

BEFORE_THE_MODEL = ("columns", "views")
"""Steps that a predictor does without: it computes just the features and views that its model sees."""


@dataclass(frozen=True, eq=False)
class GivenFile:
    """A predictor file whose models may be members.

    Attributes
    ----------
    path : str
    predictor : Predictor
    names : list of str
        Of its feature sets in the bank.
    """

    path: str
    predictor: Predictor
    names: list[str]


@dataclass(frozen=True, eq=False)
class GivenPredictor(GivenMember):
    """One task of a predictor file as a member: what else its committee's predictor needs of it."""

    parts: Sequence[PredictorFeature]
    tensors: Mapping[str, bytes]


def read_given(bank: Bank, paths: Sequence[str | os.PathLike[str]], views: Sequence[str]) -> list[GivenFile]:
    """Read predictor files whose models may be members of a committee.

    Parameters
    ----------
    bank : Bank
        It has the feature sets of them all.
    paths : sequence of path-like
    views : sequence of str
        What the fit learns from of an image's views.

    Raises
    ------
    PredictorError
        When a file cannot be read, or sees other views than the fit.
    BankError
        When the bank lacks one of its feature sets.
    """
    found = []
    for path in paths:
        predictor = Predictor.load(path)
        names = [_name_in(bank, each.spec, path) for each in predictor.features]
        for each in predictor.features:
            if each.spec.views != "none" and [each.views] != list(views):
                raise PredictorError(
                    f"{os.fspath(path)!r} sees the {each.views!r} of an image's views, this fit {', '.join(views)}: "
                    f"fit with --views {each.views}"
                )
        found.append(GivenFile(os.fspath(path), predictor, names))
    return found


def _name_in(bank: Bank, spec: FeatureSpec, path: str | os.PathLike[str]) -> str:
    """Return the name of a predictor's feature set in a bank."""
    for each in bank.feature_sets:
        if each.spec.fingerprint == spec.fingerprint:
            return each.name
    views = "" if spec.views == "none" else f" --views {spec.views}"
    store = "" if spec.store == "float16" else f" --store {spec.store}"
    made_by = f"--bank {shell_word(bank.path)} --backbone {shell_word(os.fspath(path))}"
    raise BankError(
        f"the bank has no embeddings of {spec.name} as {os.fspath(path)!r} makes them; run `featurebank extract SOURCE "
        f"{made_by} --layer {spec.layer}{views}{store}` first"
    )


def given_members(given: Sequence[GivenFile], rows: TrainingData, target: str) -> list[GivenPredictor]:
    """Return the members that predictor files give a fit of a target; those without such a task give none.

    Raises
    ------
    PredictorError
        When a file's task is not of these classes, or it does not say what it learned from.
    """
    return [_given_member(each, each.predictor.tasks[target], rows) for each in given if target in each.predictor.tasks]


def check_targets(given: Sequence[GivenFile], targets: Sequence[str]) -> None:
    """Refuse a predictor file that predicts none of the targets.

    Raises
    ------
    PredictorError
    """
    for each in given:
        if not set(each.predictor.tasks) & set(targets):
            raise PredictorError(
                f"{each.path!r} predicts {', '.join(each.predictor.tasks)}, this fit is of {', '.join(targets)}; "
                "expected a predictor of the same column"
            )


def check_held_out(given: Sequence[GivenFile], test: TrainingData, target: str) -> None:
    """Refuse a predictor file that learned from rows that are held out of a fit of a target.

    Raises
    ------
    PredictorError
    """
    for each in given:
        known = _learned(each, each.predictor.tasks[target], test).sum() if target in each.predictor.tasks else 0
        if known:
            raise PredictorError(
                f"{each.path!r} learned from {known} of the samples that are held out, so their score would mean "
                "nothing; expected a predictor of the train part alone"
            )


def _given_member(file: GivenFile, task: Task, rows: TrainingData) -> GivenPredictor:
    order = _order(file, task, rows)
    names = [file.names[file.predictor.features.index(each)] for each in task.features]
    columns = np.concatenate([np.arange(rows.X.shape[1])[rows.blocks[name]] for name in names])
    answers = _answers(task, np.asarray(rows.X[:, columns]))
    answers = answers if order is None else answers[:, order]
    answers[_learned(file, task, rows)] = np.nan
    model = Pipeline([("columns", SelectDimensions(columns).fit(np.asarray(rows.X[:2]))), *task.model.steps])
    name = os.path.basename(file.path)
    return GivenPredictor(name, tuple(names), model, task.calibrator, answers, task.features, file.predictor.tensors)


def _answers(task: Task, X: NDArray[np.float32]) -> NDArray[np.float64]:
    said = task.model.predict(X) if task.kind == "regression" else task.probabilities(X)
    return np.array(said, np.float64)


def _order(file: GivenFile, task: Task, rows: TrainingData) -> NDArray[np.intp] | None:
    """Return where each class of the fit is among those of a predictor; None for numbers.

    Raises
    ------
    PredictorError
        When they are other classes, or another kind of task.
    """
    if task.kind != rows.task or rows.labels is not None:
        raise PredictorError(f"{file.path!r} is of {task.kind}, this fit of {rows.task}: a committee is of one kind")
    if task.kind == "regression":
        return None
    known, classes = task.classes.tolist(), np.unique(rows.y).tolist()
    if known != classes:
        sides = {"not of this fit": set(known) - set(classes), "not of the predictor": set(classes) - set(known)}
        shown = "; ".join(f"{', '.join(sorted(map(str, each))[:5])} is {side}" for side, each in sides.items() if each)
        raise PredictorError(
            f"{file.path!r} knows the classes {', '.join(map(str, known[:5]))}, this fit is of "
            f"{', '.join(map(str, classes[:5]))}; expected the same, but {shown}: make the predictor again of the "
            "labels that the bank has now"
        )
    return np.arange(len(classes))


def _learned(file: GivenFile, task: Task, rows: TrainingData) -> NDArray[np.bool_]:
    """Return which rows a predictor learned from, by their content."""
    known = known_contents([task.report])
    if not known:
        raise PredictorError(
            f"{file.path!r} does not say which images it learned from, so it cannot be scored here: make it again"
        )
    return np.array([bytes(digest).hex()[:16] in known for digest in as_keys(rows.table.rows["digest"])], bool)


# --- the predictor -----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Shipped:
    """What a predictor is made of: feature sets, their tensors, a model, and how its rows come from those of a fit.

    Attributes
    ----------
    features : list of PredictorFeature
    tensors : dict of str to bytes
    model : Pipeline
        It takes the features side by side.
    blocks : list of (str, str)
        Feature set and views of each, in the order of the features.
    """

    features: list[PredictorFeature]
    tensors: dict[str, bytes]
    model: Pipeline
    blocks: list[tuple[str, str]]

    def seen(self, rows: TrainingData, chosen: NDArray[np.intp]) -> NDArray[Any]:
        """Return what the model sees of some rows of the fit, shape (m, d)."""
        return np.concatenate([_seen(rows, chosen, *block) for block in self.blocks], axis=1)


def shipped_of(bank: Bank, names: Sequence[str], views: str, fitted: Pipeline) -> Shipped:
    """Return what the predictor of a single candidate is made of."""
    features, tensors = predictor_features(bank, names, views)
    model = Pipeline([step for step in fitted.steps if step[0] not in BEFORE_THE_MODEL])
    return Shipped(features, tensors, model, [(name, views) for name in names])


def shipped_committee(bank: Bank, committee: Committee, fitted: Pipeline, rows: TrainingData) -> Shipped:
    """Return what the predictor of a committee is made of: each feature set that a member sees, once.

    `fitted` is its pipeline, which takes the columns of the fit's rows; perhaps with a threshold about it.
    """
    features: list[PredictorFeature] = []
    tensors: dict[str, bytes] = {}
    blocks: list[tuple[str, str]] = []
    taken = []
    for member in committee.members:
        own, more = _features_of(bank, member)
        tensors |= more
        for name, each in zip(member.candidate.features, own, strict=True):
            if each not in features:
                features.append(each)
                blocks.append((name, each.views))
        taken.append([features.index(each) for each in own])
    ends = np.cumsum([0, *(_seen(rows, np.arange(1), *block).shape[1] for block in blocks)]).tolist()
    spans = [np.arange(start, end) for start, end in pairwise(ends)]
    columns = [np.concatenate([spans[number] for number in numbers]) for numbers in taken]
    last = fitted.steps[-1][1]
    return Shipped(features, tensors, Pipeline([("model", _on_columns(last, columns, ends[-1]))]), blocks)


def _features_of(bank: Bank, member: Member) -> tuple[Sequence[PredictorFeature], Mapping[str, bytes]]:
    if isinstance(member.given, GivenPredictor):
        return member.given.parts, member.given.tensors
    return predictor_features(bank, member.candidate.features, member.candidate.views)


def _on_columns(model: Any, columns: Sequence[NDArray[np.intp]], width: int) -> Any:
    """Return a fitted committee whose members take these columns of `width`, in place of those of the fit's rows."""
    made = copy(model)
    if hasattr(model, "estimator_"):  # a threshold about it
        made.estimator = made.estimator_ = _on_columns(model.estimator_, columns, width)
        return made
    rows = np.zeros((2, width), np.float32)
    made.members_ = [
        Pipeline(
            [
                ("columns", SelectDimensions(taken).fit(rows)),
                *(step for step in each.steps if step[0] not in BEFORE_THE_MODEL),
            ]
        )
        for each, taken in zip(model.members_, columns, strict=True)
    ]
    return type(model).of_fitted(made.members_, model.weights, **_calibrators(model))


def _calibrators(model: Any) -> dict[str, Any]:
    return {"calibrators": model.calibrators} if hasattr(model, "calibrators") else {}


def _seen(rows: TrainingData, chosen: NDArray[np.intp], name: str, views: str) -> NDArray[Any]:
    """Return what a model sees of a feature set: one view, the mean or the first of several, or all side by side."""
    X, count = np.asarray(rows.X[chosen][:, rows.blocks[name]]), rows.n_views.get(name, 1)
    if count == 1 or views == "all":
        return X
    split = X.reshape(len(X), count, -1)
    return split[:, 0] if views == "first" else split.mean(axis=1)


# --- what it costs -----------------------------------------------------------------------------------------


def with_cost(result: FitResult, bank: Bank) -> FitResult:
    """Say in a result, and in its predictor, what new images cost where a committee is shipped."""
    about = [each.report["ensemble"] for each in result.tasks.values() if "ensemble" in each.report]
    if any(each["is_shipped"] for each in about):
        cost = _cost(result.predictor, bank)
        for each in about:
            each["cost"] = cost
    return result


def _cost(predictor: Predictor, bank: Bank) -> dict[str, Any]:
    """Return what a predictor costs on new images, measured on a few of a bank; why not, where none can be read."""
    try:
        return measure_cost(predictor, bank.select())
    except FeatureBankError as error:
        return {"seconds_an_image": None, "backbones": predictor.backbone_names, "why": str(error)}
