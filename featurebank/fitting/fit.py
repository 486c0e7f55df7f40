"""fit(): a bank's embeddings -> cross-validated top models -> the predictor of the best."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurebank.bank.bank import Bank, BankLike
from featurebank.bank.defaults import candidate_features, default_target
from featurebank.bank.features import check_views
from featurebank.bank.matrix import BankMatrix
from featurebank.errors import BankError, TopModelError, renamed
from featurebank.fitting import assessment
from featurebank.fitting.checks import check_class_options
from featurebank.fitting.committee import check_targets, read_given, with_cost
from featurebank.fitting.one_class import fit_normal, options_of
from featurebank.fitting.one_task import fit_rows
from featurebank.fitting.plan import Plan, splitter_of
from featurebank.fitting.result import FitResult
from featurebank.fitting.targets import Target
from featurebank.fitting.task_data import Labels, TaskData, is_multitask, load_tasks
from featurebank.fitting.tasks import fit_tasks
from featurebank.fitting.training_data import TrainingData, bytes_of, load_rows
from featurebank.images.progress import shown
from featurebank.images.reading import Progress
from featurebank.storage import files
from featurebank.storage.memory import available_memory
from featurebank.topmodels.class_weights import ClassWeight, resolve_class_weight
from featurebank.topmodels.folds import Fold
from featurebank.topmodels.models import Models, TopModel
from featurebank.topmodels.streaming.trainer import check_streamed

_OF_SEARCH = [
    "scoring",
    "positive",
    "normalize",
    "select",
    "rule",
    "ensemble",
    "members",
    "time_limit",
    "random_state",
    "n_jobs",
]
"""Options of `fit` that are those of the search."""
_OF_PLAN = [
    "models",
    "class_weight",
    "groups",
    "cv",
    "split",
    "folds",
    "repeats",
    "calibrate",
    "threshold",
    "nested",
    "learning_curve",
]
"""Options of `fit` that are those of its plan."""


@renamed(seed="random_state", jobs="n_jobs")
def fit(
    bank: BankLike,
    *,
    features: str | Sequence[str] | None = None,
    models: Models | None = None,
    target: str | Sequence[str] | None = None,
    separator: str | None = None,
    task: str | None = None,
    groups: str | None = None,
    sample_weight: str | None = None,
    cv: str | int | None = None,
    split: str | None = None,
    folds: int = 5,
    repeats: int = 1,
    nested: bool = False,
    scoring: str | None = None,
    positive: object = None,
    views: str | Sequence[str] = "mean",
    normalize: str | Sequence[str] = "standardize",
    select: float | Sequence[float | None] | None = None,
    class_weight: ClassWeight = None,
    rule: str = "best",
    ensemble: bool = False,
    members: int | None = None,
    given: Sequence[str | os.PathLike[str]] = (),
    calibrate: str | None = None,
    threshold: str | None = None,
    learning_curve: bool = False,
    time_limit: float | None = None,
    normal: object = None,
    false_alarms: float | None = None,
    random_state: int = 0,
    n_jobs: int = -1,
    memory: float | None = None,
    progress: Progress | None = None,
) -> FitResult:
    """Cross-validate top models over a bank's feature sets, on the same folds, and refit the best.

    Parameters
    ----------
    bank : path-like or Bank
    features : str or sequence of str, optional
        Candidates: names of feature sets, ``A+B`` for a concatenation, ``"all"`` for every pooled set and the best
        concatenations. By default every pooled set of the bank.
    models : str, sequence, or mapping of str to grid, optional
        See `TopModelSearchCV`.
    target : str or sequence of str, optional
        Column of classes or numbers; several columns of 0 and 1, which are labels of one task; or several columns of
        any kind, some labels missing, which are tasks of their own (see Returns). By default ``label``, or the bank's
        only column.
    separator : str, optional
        Divides the labels in a cell of the target, where a sample has several.
    task : str, optional
        ``"classification"`` or ``"regression"``; by default a column of fractions is a regression.
    groups : str, optional
        Column of groups that never straddle folds, or ``"@near-duplicates"`` to tie images that look alike. Rows of
        identical content never straddle folds.
    sample_weight : str, optional
        Column of weights, used in fitting and in scoring.
    cv : str or int, optional
        ``"stratified"``, ``"group"``, ``"stratified-group"``, ``"logo"`` (one group out), ``"plain"``, or
        ``"predefined:COLUMN"`` (`fitting.given_split.predefined`). By default stratified, grouped where rows belong
        together; an integer means so many of these.
    split : str, optional
        Column of words for train, val and test: models learn from train and are compared on val, and test is held out
        to the end. Without val, or where `cv`, `nested` or `repeats` ask for folds, these are drawn from all that is
        not test. By default the column ``split`` where it has such words alone, as `extract` makes it of folders;
        ``"none"`` takes all samples alike.
    folds : int, default 5
        Number of folds.
    repeats : int, default 1
        How often the folds are drawn anew.
    nested : bool, default False
        Also score the whole procedure, selection included, on test parts that the search never saw.
    scoring : str, optional
        Any scikit-learn scorer; accuracy by default, R² for numbers.
    views : str or sequence of str, default "mean"
        What is learned from, where `extract` made several views of an image: their ``"mean"``, the ``"first"``, or
        ``"all"`` as rows of their own, whose answers are averaged. Several are tried. The predictor does the same with
        a new image.
    positive, normalize, select, class_weight, rule, time_limit
        See `TopModelSearchCV`; the positive class is that of `threshold` as well.
    ensemble : bool, default False
        Also average what several models say, of one backbone or of several (`TopModelSearchCV`). The committee is
        shipped where it is better by `rule`; the report says under ``ensemble`` whether it paid, and what its
        predictor costs: seconds an image, measured on a few of the bank's, for which its networks are loaded.
    members : int, optional
        At most so many models in it.
    given : sequence of path-like, optional
        Predictor files, as of fine-tuned networks, whose models may be in it; the bank has their feature sets. One
        that learned from samples which the folds test is refused.
    calibrate : str, optional
        ``"auto"`` (a temperature, or one a class, by what the rows allow), or a method of
        `featurebank.topmodels.calibration.Calibrator`: probabilities are calibrated on out-of-fold scores. A
        model without probabilities of its own gets ``"auto"`` in any case.
    threshold : str, optional
        A scorer of labels, for instance ``"f1"``, that the decision threshold of two classes is tuned for.
    learning_curve : bool, default False
        Also tell what more labels would bring.
    normal : object, optional
        The value of the target that normal images have, or ``"*"``: every row is normal. Then the top models learn
        from these rows alone what is normal (`featurebank.topmodels.one_class`: ``mahalanobis``, ``knn``,
        ``pca-residual``, ``ocsvm``, ``gmm``), and rows of another value, the anomalies, only score. What tells folds,
        weights and labels apart does not go with it.
    false_alarms : float, optional
        With `normal`: the share of new normal images that may be flagged, in expectation; by default 0.01, or the
        least that so few normals can promise.
    random_state : int, default 0
        Of the folds and the estimators.
    n_jobs : int, default -1
        Threads; -1 for one a core.
    memory : float, optional
        Bytes that the embeddings may take in memory; by default a third of what is free. Larger ones are read in
        batches, by models that learn from batches: ``ridge`` and ``lda`` (exact), ``sgd-logreg``, ``sgd-svm``, ``mlp``,
        and estimators with ``partial_fit``; by default ``ridge lda sgd-logreg``, or ``ridge mlp`` for numbers.
    progress : callable, optional
        Called with (fits done, fits in all).

    Returns
    -------
    FitResult
        Of several tasks with the result of each in ``tasks``. They share their folds, and each has the top model that
        is best for it. With ``mlp`` among the models, one network whose hidden layer they all share (``shared-mlp``)
        is tried beside a network for each (``mlp``), and the report says for which of them sharing paid. Class
        weights, calibration and a threshold are for those of classes.

    Raises
    ------
    FeatureBankError
        A child of it says what was found, what was expected and what to do.

    See Also
    --------
    TopModelSearchCV : The search alone, for any X.
    adapt : Labels in one domain, images of another.
    finetune : Train the network too.
    FitResult.save : Keep the best as a file.

    Examples
    --------
    >>> result = fit("photos.bank", models=["ridge", "logreg"])
    >>> result.report["n_samples"], result.report["best"]["mean"]
    (24, 1.0)
    """
    asked = dict(locals())
    progress = shown(progress, "fit")
    if cv is not None and not isinstance(cv, str | int):
        raise TopModelError(f"cv of {type(cv).__name__}; expected a number of folds or a name, as 'stratified'")
    bank = Bank.of(bank)
    if false_alarms is not None and normal is None:
        raise TopModelError("a rate of false alarms goes with normal images; name their value: --normal VALUE")
    if normal is not None:
        return fit_normal(bank, **options_of(asked, signature(fit)))
    wanted = Target([target] if isinstance(target, str) else list(target or [default_target(bank)]), separator, task)
    plan = _plan(bank, asked, wanted)
    names = list(dict.fromkeys([*plan.tried, *(name for each in plan.given for name in each.names)]))
    rows = (bank, names, wanted, groups, sample_weight, plan.options["views"])
    memory = available_memory() / 3 if memory is None else memory
    if is_multitask(bank, wanted):
        if bytes_of(bank, names, bank.select(), plan.options["views"]) > memory:
            check_streamed({"several tasks": True})
        return with_cost(_fit_tasks(plan, load_tasks(*rows), progress), bank)
    every = load_rows(*rows, memory)
    if isinstance(every.X, BankMatrix):
        check_streamed({"nested": nested, "a learning curve": learning_curve, "a threshold": threshold})
    splitter, is_held_out, split_facts = splitter_of(plan, every)
    return with_cost(_with_split(fit_rows(plan, every, wanted, splitter, is_held_out, progress), split_facts), bank)


def _plan(bank: Bank, asked: dict[str, Any], wanted: Target) -> Plan:
    """Return the plan of a fit: what it was asked for, checked where that takes no rows."""
    features, given, threshold = asked["features"], asked["given"], asked["threshold"]
    candidates = candidate_features(bank, features)
    tried = list(dict.fromkeys(name for candidate in candidates for name in candidate))
    views = _chosen_views(bank, tried, asked["views"])
    if asked["nested"] and len(given):
        raise TopModelError("a nested score fits again, which a given predictor cannot; leave out one or the other")
    others = read_given(bank, given, views)
    check_targets(others, list(dict.fromkeys([*wanted.columns, wanted.name])))
    if threshold is not None:
        assessment.label_metric(threshold)
    options = {"features": "all" if features == "all" else candidates, "views": views}
    options |= {name: asked[name] for name in _OF_SEARCH}
    return Plan(bank=bank, options=options, tried=tried, given=others, **{name: asked[name] for name in _OF_PLAN})


def _chosen_views(bank: Bank, names: Sequence[str], views: str | Sequence[str]) -> list[str]:
    """Return what is to be learned from, once each; refused where no image has several views to choose from.

    Raises
    ------
    BankError
        When a choice is unknown, or there is none.
    """
    chosen = list(dict.fromkeys([views] if isinstance(views, str) else views))
    for each in chosen:
        check_views(each)
    if chosen != ["mean"] and all(bank.feature_set(name).spec.views == "none" for name in names):
        raise BankError(
            f"views {', '.join(chosen) or 'of no kind'} of feature sets with one view; run extract with --views first"
        )
    return chosen


def _fit_tasks(plan: Plan, tasks: TaskData, progress: Progress | None) -> FitResult:
    """Fit several tasks on the same folds; what fits one task again, and knows no other, goes without sharing."""
    splitter, is_held_out, split_facts = splitter_of(plan, tasks.every)
    count, scoring = len(tasks.tasks), plan.options["scoring"]
    if scoring is not None and len({each.task for each in tasks.tasks}) > 1:
        raise TopModelError(f"scoring {scoring!r} for tasks of classes and of numbers; leave it out, or fit them apart")
    check_class_options(plan.class_options, {each.task for each in tasks.tasks})
    parts = iter(_in_turn(progress, count))

    def fit_one(
        labels: Labels, rows: TrainingData, folds: list[Fold], is_out: NDArray[np.bool_], models: list[TopModel]
    ) -> FitResult:
        return fit_rows(_for_task(plan, labels, models, count), rows, Target([labels.name]), folds, is_out, next(parts))

    result = fit_tasks(
        tasks,
        splitter,
        is_held_out,
        plan.models,
        fit_one,
        class_weights={
            each.name: resolve_class_weight(plan.class_weight, each.y)
            for each in tasks.tasks
            if each.task == "classification"
        },
        is_shared=not (plan.nested or plan.learning_curve or plan.threshold is not None),
        has_limit=plan.options["time_limit"] is not None,
        seed=plan.options["random_state"],
        n_jobs=plan.options["n_jobs"],
    )
    return _with_split(result, split_facts)


def _for_task(plan: Plan, labels: Labels, models: list[TopModel], count: int) -> Plan:
    """Return the plan of one of several tasks: its own top models, its part of the time, no classes for numbers."""
    limit = plan.options["time_limit"]
    options = {**plan.options, "time_limit": limit and limit / count}
    if labels.task == "regression":
        plan = replace(plan, class_weight=None, calibrate=None, threshold=None)
        options["positive"] = None
    return replace(plan, models=models, options=options)


def _with_split(result: FitResult, facts: dict[str, Any] | None) -> FitResult:
    """Put into a result's report, and its predictor's, by which column the rows were split."""
    if facts is not None:
        result.report["split"] = result.predictor.report["split"] = facts
    return result


def _in_turn(progress: Progress | None, count: int) -> list[Progress | None]:
    """Return progress callbacks of searches that follow each other, each of a size of its own."""
    sizes = [0] * count

    def part(number: int) -> Progress:
        def show(done: int, total: int) -> None:
            assert progress is not None
            sizes[number] = total
            progress(sum(sizes[:number]) + done, sum(sizes[:number]) + total * (count - number))

        return show

    return [None if progress is None else part(number) for number in range(count)]


def default_output(bank: Bank) -> Path:
    """Return where a predictor goes when nothing is said: the bank's stem with ``.featurebank``, beside it."""
    return files.beside(bank.path, ".featurebank")
