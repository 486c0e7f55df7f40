"""Several tasks fitted on the same folds: a search for each, with one network for all among its candidates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurebank.errors import ColumnError, FeatureBankError, TopModelError
from featurebank.fitting.result import FitResult
from featurebank.fitting.sharing import ALONE, SharedNetwork, compared, networks
from featurebank.fitting.task_data import Labels, TaskData, folds_of
from featurebank.fitting.training_data import TrainingData
from featurebank.predictor.predictor import Predictor
from featurebank.predictor.task import column_names
from featurebank.topmodels.folds import Fold
from featurebank.topmodels.models import DEFAULT_MODELS, TASKS, TopModel, parse_models

FitOne = Callable[[Labels, TrainingData, list[Fold], NDArray[np.bool_], list[TopModel]], FitResult]


def fit_tasks(
    rows: TaskData,
    splitter: Any,
    is_held_out: NDArray[np.bool_],
    models: Any,
    fit_one: FitOne,
    *,
    class_weights: Mapping[str, Any],
    is_shared: bool,
    has_limit: bool,
    seed: int,
    n_jobs: int,
) -> FitResult:
    """Fit every task on shared folds.

    Parameters
    ----------
    rows : TaskData
    splitter : splitter or list of (train, test)
        Of the rows that are not held out.
    is_held_out : ndarray of bool, shape (n,)
    models : str, sequence, mapping or None
        Top models; each task takes those that are for its kind.
    fit_one : callable
        Fits one task: its labels, its rows, its folds, which of its rows are held out, its top models.
    class_weights : mapping of str to class weights
        By task of classes, for the shared network.
    is_shared : bool
        Whether a network that all tasks share is tried beside the ``mlp`` of each.
    has_limit : bool
        Whether time is limited, so that by default all top models are tried, the cheap ones first.
    seed, n_jobs : int

    Raises
    ------
    FeatureBankError
        When a task cannot be fitted; the message names it.
    """
    kept = np.flatnonzero(~is_held_out)
    folds = rows.folds(splitter, kept, seed)
    tasks = [each.among(kept) for each in rows.tasks]
    own_folds = [folds_of(each, folds) for each in tasks]
    _check_names(tasks)
    wanted = models_of(models, tasks, has_limit, rows.every.weight is not None)
    shared, notes = None, []
    has_network = any(_is_mlp(model, labels) for labels, given in zip(tasks, wanted, strict=True) for model in given)
    if has_network and not is_shared:
        notes = ["a nested score, a learning curve or a threshold fits one task again: no network is shared"]
    elif has_network:
        weight = None if rows.every.weight is None else rows.every.weight[kept]
        X = rows.every.X[kept] if len(kept) < len(is_held_out) else rows.every.X
        shared = SharedNetwork(X, tasks, folds, weight, class_weights, seed, n_jobs)
    results = {}
    for labels, task, own, given in zip(rows.tasks, tasks, own_folds, wanted, strict=True):
        tried = [each for model in given for each in _with_networks(model, task, shared)]
        try:
            results[task.name] = fit_one(labels, rows.of(labels), own, is_held_out[labels.where], tried)
        except FeatureBankError as error:
            raise type(error)(f"task {task.name!r}: {error}") from error
    return _gathered(results, rows, notes, len(folds), seed)


def _with_networks(model: TopModel, labels: Labels, shared: SharedNetwork | None) -> list[TopModel]:
    return networks(model, labels, shared) if _is_mlp(model, labels) else [model]


def _is_mlp(model: TopModel, labels: Labels) -> bool:
    """Say whether a top model is our own ``mlp``, not an estimator that the caller calls so."""
    return model.estimator is TASKS[labels.task][ALONE].estimator


def models_of(models: Any, tasks: Sequence[Labels], has_limit: bool, is_weighted: bool) -> list[list[TopModel]]:
    """Return the top models of each task: of those that are asked for, the ones for its kind.

    Raises
    ------
    TopModelError
        When one is for no task, or a task has none.
    """
    kinds = sorted({each.task for each in tasks})
    if models is None or (isinstance(models, str) and models == "all"):
        is_all = has_limit or models is not None
        names = {kind: list(TASKS[kind]) if is_all else list(DEFAULT_MODELS[kind]) for kind in kinds}
        found = {kind: parse_models(names[kind], kind) for kind in kinds}
        if models is None and is_weighted:
            found = {kind: [each for each in some if each.takes("sample_weight")] for kind, some in found.items()}
    else:
        found = _sorted_by_kind(models, kinds)
    for each in tasks:
        if not found[each.task]:
            known = ", ".join(TASKS[each.task])
            raise TopModelError(f"no top model asked for is one for {each.name!r} ({each.task}); add one of {known}")
    return [found[each.task] for each in tasks]


def _sorted_by_kind(models: Any, kinds: Sequence[str]) -> dict[str, list[TopModel]]:
    """Return the top models that are asked for, by the kind of task that each is for."""
    found: dict[str, list[TopModel]] = {kind: [] for kind in kinds}
    single = isinstance(models, str) or not isinstance(models, (Mapping, Sequence))
    entries = [{name: grid} for name, grid in models.items()] if isinstance(models, Mapping) else models
    for each in [models] if single else entries:
        errors = []
        for kind in kinds:
            try:
                found[kind] += parse_models(each if isinstance(each, Mapping) else [each], kind)
            except TopModelError as error:
                errors.append(error)
        if len(errors) == len(kinds):
            raise errors[0]
    return found


def _check_names(tasks: Sequence[Labels]) -> None:
    """Refuse tasks whose columns could not be told apart in a table of predictions.

    Raises
    ------
    ColumnError
    """
    names = [name for each in tasks for name in column_names(each.name, np.unique(each.y), each.task)]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ColumnError(f"two columns of predictions would be called {twice[0]!r}; rename a column or a class")


def _gathered(results: dict[str, FitResult], rows: TaskData, notes: list[str], folds: int, seed: int) -> FitResult:
    """Make one report, one predictor and one table of the results of all tasks."""
    sharing = {name: compared(each.search, name) for name, each in results.items()}
    report = {
        "target": "+".join(results),
        "task": "multitask",
        "n_samples": len(rows.every.y),
        "folds": folds,
        "grouped": rows.every.groups is not None,
        "seed": seed,
        "tasks": {name: each.report for name, each in results.items()},
        "sharing": {name: each for name, each in sharing.items() if each is not None},
        "warnings": rows.every.notes + notes + _warnings(results),
        "interrupted": any(each.report["interrupted"] for each in results.values()),
        "timed_out": any(each.report["timed_out"] for each in results.values()),
        "seconds": sum(each.report["seconds"] for each in results.values()),
    }
    facts = {name: value for name, value in report.items() if name != "tasks"}
    tensors = {digest: data for each in results.values() for digest, data in each.predictor.tensors.items()}
    predictor = Predictor([each.predictor.single for each in results.values()], report=facts, tensors=tensors)
    return FitResult(report, predictor, tasks=results)


def _warnings(results: Mapping[str, FitResult]) -> list[str]:
    """Return the warnings of all tasks, each once, with the tasks that it is about."""
    about: dict[str, list[str]] = {}
    for name, each in results.items():
        for note in each.report["warnings"]:
            about.setdefault(note, []).append(name)
    return [f"{', '.join(names)}: {note}" for note, names in about.items()]
