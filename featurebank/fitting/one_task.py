"""One task fitted: the search on its rows, what is said of it, and its predictor."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featurebank.fitting import assessment
from featurebank.fitting.checks import check_class_options, check_nested, check_target, check_threshold
from featurebank.fitting.committee import check_held_out, given_members
from featurebank.fitting.group_hints import about_groups
from featurebank.fitting.plan import Plan, class_weight_of, folds_of
from featurebank.fitting.predictor import make_calibrator, make_predictor
from featurebank.fitting.result import FitResult
from featurebank.fitting.second_backbone import about_second_backbone
from featurebank.fitting.targets import Target
from featurebank.fitting.training_data import TrainingData, straddling
from featurebank.images.reading import Progress
from featurebank.predictor.serialization import check_savable
from featurebank.predictor.task import Task
from featurebank.storage.memory import release, releasing
from featurebank.topmodels.folds import Folds, fold_numbers
from featurebank.topmodels.models import is_ours, parse_models
from featurebank.topmodels.search import TopModelSearchCV


def fit_rows(
    plan: Plan, every: TrainingData, target: Target, cv: Any, is_held_out: NDArray[np.bool_], progress: Progress | None
) -> FitResult:
    """Search on the rows that are not held out, say what came of it, and make the predictor.

    Parameters
    ----------
    plan : Plan
    every : TrainingData
        Rows that have a value of the target.
    target : Target
    cv : splitter or list of (train, test)
        Of the rows that are not held out.
    is_held_out : ndarray of bool, shape (n,)
    progress : callable or None

    Raises
    ------
    FeatureBankError
        When the target, the options or the models do not fit each other.
    """
    started = time.perf_counter()
    check_class_options(plan.class_options, {every.task})
    rows = every.take(~is_held_out)
    if plan.given and is_held_out.any():
        check_held_out(plan.given, every.take(is_held_out), target.name)
    check_target(rows)
    check_threshold(rows, plan.threshold)
    if plan.nested:
        check_nested(rows, cv)
    _check_models(plan, rows)
    parts = 1 + plan.nested * (cv.get_n_splits() if isinstance(cv, Folds) else len(cv))
    search = _search(plan, rows, target, cv, _part(progress, 0, parts))
    report = assessment.facts(search, rows, target) | ({} if plan.groups is None else {"groups": plan.groups})
    report["warnings"] = rows.notes + straddling(every, _place(search, is_held_out), plan.groups) + search.warnings_
    about, oof = _about_labels(plan, search, rows)
    report |= about
    if rows.task == "classification":
        report["warnings"] += assessment.unlearned(search.oof_, rows.paths)
        report["warnings"] += assessment.far_off(
            search.oof_, search.best_model_, plan.calibrate, _is_weighted(search, rows)
        )
    model = search.best_estimator_
    if plan.threshold is not None:
        report["threshold"], model = assessment.thresholded(search, rows, plan.threshold)
    method = report["calibration"]["method"] if "calibration" in report else plan.calibrate
    calibrator = make_calibrator(search, model, method)
    if is_held_out.any():
        test = every.take(is_held_out)
        task = Task([], model, target.name, rows.task, rows.labels, calibrator)
        report["held_out"] = task.score(test.X, test.y, test.weight, test.groups)
    report |= _fitted_again(plan, search, rows, cv, lambda number: _part(progress, number + 1, parts))
    if search.interrupted_ and (plan.nested or plan.learning_curve):
        report["warnings"].append("interrupted: neither a nested score nor a learning curve was made")
    hint = about_second_backbone(plan.bank, report)
    if hint is not None:
        report["second_backbone"] = hint
    groups = about_groups(rows, target.columns) if plan.groups is None and isinstance(cv, Folds) else None
    if groups is not None:
        report["likely_groups"] = groups
    report["seconds"] = time.perf_counter() - started
    predictor = make_predictor(plan.bank, search, model, rows, target, report, oof, calibrator)
    return FitResult(report, predictor, search=search)


def _check_models(plan: Plan, rows: TrainingData) -> None:
    """Refuse top models that a predictor file may not hold, before they are fitted."""
    for model in [] if plan.models is None else parse_models(plan.models, rows.task):
        if model.trainer is None and not is_ours(model):
            check_savable(model.estimator)


def _search(plan: Plan, rows: TrainingData, target: Target, cv: Any, progress: Progress | None) -> TopModelSearchCV:
    """Return the search over the plan's candidates, fitted."""
    search = TopModelSearchCV(
        plan.models,
        task=rows.task,
        cv=cv,
        blocks={name: rows.blocks[name] for name in plan.tried},
        given=given_members(plan.given, rows, target.name),
        n_views=rows.n_views,
        class_weight=class_weight_of(plan, rows),
        progress=progress,
        **plan.options,
    ).fit(rows.X, rows.y, groups=rows.groups, sample_weight=rows.weight)
    release()
    return search


def _about_labels(plan: Plan, search: TopModelSearchCV, rows: TrainingData) -> tuple[dict[str, Any], pd.DataFrame]:
    """Return what is said of each class or label, and the out-of-fold predictions with honest probabilities."""
    oof = _frame(rows, search)
    if rows.labels is not None:
        return {"per_label": assessment.per_label(search.oof_, rows.labels)}, oof
    if rows.task != "classification":
        return {}, oof
    is_weighted = _is_weighted(search, rows)
    return assessment.class_report(search.oof_, search.best_model_, plan.calibrate, oof, is_weighted=is_weighted)


def _is_weighted(search: TopModelSearchCV, rows: TrainingData) -> bool:
    return search.class_weight is not None or rows.weight is not None


def _fitted_again(
    plan: Plan, search: TopModelSearchCV, rows: TrainingData, cv: Any, progress: Callable[[int], Progress | None]
) -> dict[str, Any]:
    """Return what more fits tell, where they are asked for: the score of the whole procedure, a learning curve."""
    found: dict[str, Any] = {}
    if search.interrupted_:
        return found
    if plan.nested:
        inner = cv if isinstance(cv, Folds) else folds_of(plan, rows)
        found["nested"] = assessment.nested(search, rows, inner, progress)
    if plan.learning_curve:
        found["learning_curve"] = assessment.learning_curve(search, rows)
    return found


def _place(search: TopModelSearchCV, is_held_out: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the fold that tests each row, -1 for rows that only train, -2 for rows that are held out."""
    place = np.full(len(is_held_out), -2)
    place[~is_held_out] = fold_numbers(search.folds_, int((~is_held_out).sum()))
    return place


@releasing
def _frame(rows: TrainingData, search: TopModelSearchCV) -> pd.DataFrame:
    """Return the out-of-fold predictions, and which rows they are about."""
    frame = search.oof_.to_frame(rows.labels)
    frame["row"] = frame["row"].astype(np.int32)
    return frame


def _part(progress: Progress | None, part: int, parts: int) -> Progress | None:
    """Return a progress callback for one of several searches of equal size."""
    if progress is None:
        return None
    return lambda done, total: progress(part * total + done, parts * total)
