"""fit(): a bank's embeddings -> cross-validated top models -> the predictor of the best."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featurebank.bank.bank import Bank, BankLike
from featurebank.bank.defaults import candidate_features, default_target
from featurebank.bank.features import check_views
from featurebank.bank.matrix import BankMatrix
from featurebank.errors import BankError, TopModelError, renamed
from featurebank.fitting import assessment
from featurebank.fitting.checks import check_class_options, check_target
from featurebank.fitting.committee import GivenFile, check_targets, given_members, read_given, with_cost
from featurebank.fitting.given_split import NO_SPLIT, given_split, predefined
from featurebank.fitting.one_class import fit_normal, options_of
from featurebank.fitting.predictor import make_calibrator, make_predictor
from featurebank.fitting.result import FitResult
from featurebank.fitting.second_backbone import about_second_backbone
from featurebank.fitting.targets import Target
from featurebank.fitting.task_data import Labels, TaskData, is_multitask, load_tasks
from featurebank.fitting.tasks import fit_tasks
from featurebank.fitting.training_data import TrainingData, bytes_of, load_rows, straddling
from featurebank.images.progress import shown
from featurebank.images.reading import Progress
from featurebank.predictor.serialization import check_savable
from featurebank.predictor.task import Task
from featurebank.storage import files
from featurebank.storage.memory import available_memory, release, releasing
from featurebank.topmodels.class_weights import ClassWeight, resolve_class_weight
from featurebank.topmodels.folds import Fold, Folds, default_kind, fold_numbers
from featurebank.topmodels.models import Models, TopModel, is_ours, parse_models
from featurebank.topmodels.search import TopModelSearchCV
from featurebank.topmodels.streaming.trainer import check_streamed

PREDEFINED = "predefined:"


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
    candidates = candidate_features(bank, features)
    names = list(dict.fromkeys(name for candidate in candidates for name in candidate))
    chosen = _chosen_views(bank, names, views)
    if nested and len(given):
        raise TopModelError("a nested score fits again, which a given predictor cannot; leave out one or the other")
    others = read_given(bank, given, chosen)
    check_targets(others, [*wanted.columns, wanted.name])
    tried, names = names, list(dict.fromkeys([*names, *(name for each in others for name in each.names)]))
    if threshold is not None:
        assessment.label_metric(threshold)
    plan = _Plan(
        bank,
        models,
        {
            "features": "all" if features == "all" else candidates,
            "scoring": scoring,
            "positive": positive,
            "views": chosen,
            "normalize": normalize,
            "select": select,
            "rule": rule,
            "ensemble": ensemble,
            "members": members,
            "time_limit": time_limit,
            "random_state": random_state,
            "n_jobs": n_jobs,
        },
        class_weight,
        groups,
        cv,
        split,
        folds,
        repeats,
        calibrate,
        threshold,
        nested,
        learning_curve,
        tried,
        others,
    )
    memory = available_memory() / 3 if memory is None else memory
    if is_multitask(bank, wanted):
        if bytes_of(bank, names, bank.select(), chosen) > memory:
            check_streamed({"several tasks": True})
        tasks = load_tasks(bank, names, wanted, groups, sample_weight, chosen)
        return with_cost(_fit_tasks(plan, tasks, progress), bank)
    every = load_rows(bank, names, wanted, groups, sample_weight, chosen, memory)
    if isinstance(every.X, BankMatrix):
        check_streamed({"nested": nested, "a learning curve": learning_curve, "a threshold": threshold})
    splitter, is_held_out, split_facts = _splitter(plan, every)
    return with_cost(_with_split(_fit_rows(plan, every, wanted, splitter, is_held_out, progress), split_facts), bank)


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


@dataclass(frozen=True)
class _Plan:
    """How rows are fitted, whatever is to be learned of them: `fit`'s options."""

    bank: Bank
    models: Models | None
    options: dict[str, Any]
    class_weight: ClassWeight
    groups: str | None
    cv: str | int | None
    split: str | None
    folds: int
    repeats: int
    calibrate: str | None
    threshold: str | None
    nested: bool
    learning_curve: bool
    tried: list[str]
    given: list[GivenFile]

    @property
    def class_options(self) -> dict[str, Any]:
        """The options that are about classes, with what was given for each."""
        return {
            "class_weight": self.class_weight,
            "calibrate": self.calibrate,
            "threshold": self.threshold,
            "positive": self.options["positive"],
        }


def _fit_tasks(plan: _Plan, tasks: TaskData, progress: Progress | None) -> FitResult:
    """Fit several tasks on the same folds; what fits one task again, and knows no other, goes without sharing."""
    splitter, is_held_out, split_facts = _splitter(plan, tasks.every)
    count, scoring = len(tasks.tasks), plan.options["scoring"]
    if scoring is not None and len({each.task for each in tasks.tasks}) > 1:
        raise TopModelError(f"scoring {scoring!r} for tasks of classes and of numbers; leave it out, or fit them apart")
    check_class_options(plan.class_options, {each.task for each in tasks.tasks})
    parts = iter(_in_turn(progress, count))

    def fit_one(
        labels: Labels, rows: TrainingData, folds: list[Fold], is_out: NDArray[np.bool_], models: list[TopModel]
    ) -> FitResult:
        return _fit_rows(
            _for_task(plan, labels, models, count), rows, Target([labels.name]), folds, is_out, next(parts)
        )

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


def _for_task(plan: _Plan, labels: Labels, models: list[TopModel], count: int) -> _Plan:
    """Return the plan of one of several tasks: its own top models, its part of the time, no classes for numbers."""
    limit = plan.options["time_limit"]
    options = {**plan.options, "time_limit": limit and limit / count}
    if labels.task == "regression":
        plan = replace(plan, class_weight=None, calibrate=None, threshold=None)
        options["positive"] = None
    return replace(plan, models=models, options=options)


def _fit_rows(
    plan: _Plan, every: TrainingData, target: Target, cv: Any, is_held_out: NDArray[np.bool_], progress: Progress | None
) -> FitResult:
    """Search on the rows that are not held out, say what came of it, and make the predictor."""
    started = time.perf_counter()
    check_class_options(plan.class_options, {every.task})
    rows = every.take(~is_held_out)
    check_target(rows)
    for model in [] if plan.models is None else parse_models(plan.models, rows.task):
        if model.trainer is None and not is_ours(model):
            check_savable(model.estimator)
    parts = 1 + plan.nested * (cv.get_n_splits() if isinstance(cv, Folds) else len(cv))
    search = TopModelSearchCV(
        plan.models,
        task=rows.task,
        cv=cv,
        blocks={name: rows.blocks[name] for name in plan.tried},
        given=given_members(plan.given, rows, target.name),
        n_views=rows.n_views,
        class_weight=_class_weight(plan, rows),
        progress=_part(progress, 0, parts),
        **plan.options,
    ).fit(rows.X, rows.y, groups=rows.groups, sample_weight=rows.weight)
    release()
    report = assessment.facts(search, rows, target)
    report["warnings"] = rows.notes + straddling(every, _place(search, is_held_out), plan.groups) + search.warnings_
    oof = _frame(rows, search)
    if rows.task == "classification":
        is_weighted = search.class_weight is not None or rows.weight is not None
        about, oof = assessment.class_report(
            search.oof_, search.best_model_, plan.calibrate, oof, is_weighted=is_weighted
        )
        report |= about
        report["warnings"] += assessment.unlearned(search.oof_, rows.paths)
    if rows.labels is not None:
        report["per_label"] = assessment.per_label(search.oof_, rows.labels)
    model = search.best_estimator_
    if plan.threshold is not None:
        report["threshold"], model = assessment.thresholded(search, rows, plan.threshold)
    method = report["calibration"]["method"] if "calibration" in report else plan.calibrate
    calibrator = make_calibrator(search, model, method)
    if is_held_out.any():
        test = every.take(is_held_out)
        task = Task([], model, target.name, rows.task, rows.labels, calibrator)
        report["held_out"] = task.score(test.X, test.y, test.weight, test.groups)
    if (plan.nested or plan.learning_curve) and search.interrupted_:
        report["warnings"].append("interrupted: neither a nested score nor a learning curve was made")
    elif plan.nested:
        inner = cv if isinstance(cv, Folds) else _folds(plan, rows)
        report["nested"] = assessment.nested(search, rows, inner, lambda number: _part(progress, number + 1, parts))
    if plan.learning_curve and not search.interrupted_:
        report["learning_curve"] = assessment.learning_curve(search, rows)
    hint = about_second_backbone(plan.bank, report)
    if hint is not None:
        report["second_backbone"] = hint
    report["seconds"] = time.perf_counter() - started
    predictor = make_predictor(plan.bank, search, model, rows, target, report, oof, calibrator)
    return FitResult(report, predictor, search=search)


def _place(search: TopModelSearchCV, is_held_out: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the fold that tests each row, -1 for rows that only train, -2 for rows that are held out."""
    place = np.full(len(is_held_out), -2)
    place[~is_held_out] = fold_numbers(search.folds_, int((~is_held_out).sum()))
    return place


def _splitter(plan: _Plan, rows: TrainingData) -> tuple[Any, NDArray[np.bool_], dict[str, Any] | None]:
    """Return the folds as the search takes them, the rows that are held out of it, and what to say of a split."""
    if isinstance(plan.cv, str) and plan.cv.startswith(PREDEFINED):
        if plan.nested or plan.repeats > 1:
            raise TopModelError("predefined folds can be neither nested nor repeated; leave out one or the other")
        if plan.split not in (None, NO_SPLIT):
            raise TopModelError(f"--cv {plan.cv} and --split {plan.split} are two splits; leave out one or the other")
        return *predefined(rows.table, plan.cv.removeprefix(PREDEFINED)), None
    given = given_split(rows.table, rows.y, plan.split)
    if isinstance(given, str):
        facts: dict[str, Any] | None = {"column": None, "parts": {}, "sentence": given} if given else None
        return _folds(plan, rows), np.zeros(len(rows.y), bool), facts
    fold = given.fold(rows.y, rows.task) if plan.cv is None and not plan.nested and plan.repeats == 1 else []
    return fold or _folds(plan, rows), given.is_held_out, given.facts(bool(fold))


def _folds(plan: _Plan, rows: TrainingData) -> Folds:
    """Return the folds that are drawn."""
    is_grouped = rows.groups is not None
    count, name = (plan.cv, None) if isinstance(plan.cv, int) else (plan.folds, plan.cv)
    kind = name or default_kind(rows.task, is_grouped)
    if is_grouped and kind in ("stratified", "plain"):
        kind = {"stratified": "stratified-group", "plain": "group"}[kind]
    return Folds(kind, count, plan.repeats, plan.options["random_state"])


def _with_split(result: FitResult, facts: dict[str, Any] | None) -> FitResult:
    """Put into a result's report, and its predictor's, by which column the rows were split."""
    if facts is not None:
        result.report["split"] = result.predictor.report["split"] = facts
    return result


def _class_weight(plan: _Plan, rows: TrainingData) -> ClassWeight:
    """Return the weights of the classes themselves; numbers and several labels take them as they are given."""
    return resolve_class_weight(plan.class_weight, rows.y) if rows.task == "classification" else plan.class_weight


def _part(progress: Progress | None, part: int, parts: int) -> Progress | None:
    """Return a progress callback for one of several searches of equal size."""
    if progress is None:
        return None
    return lambda done, total: progress(part * total + done, parts * total)


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


@releasing
def _frame(rows: TrainingData, search: TopModelSearchCV) -> pd.DataFrame:
    """Return the out-of-fold predictions, and which rows they are about."""
    frame = search.oof_.to_frame(rows.labels)
    frame["row"] = frame["row"].astype(np.int32)
    return frame


def default_output(bank: Bank) -> Path:
    """Return where a predictor goes when nothing is said: the bank's stem with ``.featurebank``, beside it."""
    return files.beside(bank.path, ".featurebank")
