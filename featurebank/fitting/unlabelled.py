"""Few labels, many images: fits that use rows without a label, compared with those that do not, on the same folds."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from featurebank.bank.bank import Bank
from featurebank.bank.defaults import default_target
from featurebank.bank.samples import column_of
from featurebank.errors import TopModelError, near_names
from featurebank.fitting.fit import class_report, fit
from featurebank.fitting.known_labels import Given, load_given
from featurebank.fitting.result import FitResult
from featurebank.fitting.rows import Target, read_target
from featurebank.fitting.semi_supervised import METHODS, Part, Recipe, supervised
from featurebank.images.reading import Progress
from featurebank.predictor.predictor import Predictor
from featurebank.predictor.task import Task
from featurebank.topmodels.calibration import Calibrator
from featurebank.topmodels.evaluation import SearchData, scorer_of
from featurebank.topmodels.folds import Fold, sizes_of
from featurebank.topmodels.formatting import gain_text
from featurebank.topmodels.models import TASKS, TopModel, parse_models
from featurebank.topmodels.outoffold import OutOfFold, gather
from featurebank.topmodels.refitting import over_folds, score_fitted
from featurebank.topmodels.scores import corrected_interval, paired_interval
from featurebank.topmodels.search import TopModelSearchCV
from featurebank.topmodels.solvers.problem import Prediction, prediction_of

SUPERVISED = "supervised"
_NEEDS_PROBA = "self-training needs a top model with probabilities; add one: --model logreg"
_REFUSED = ("sample_weight", "threshold", "separator", "memory")


def fit_semi_supervised(
    bank: str | os.PathLike[str] | Bank,
    methods: Sequence[str] = tuple(METHODS),
    *,
    on_compared: Progress | None = None,
    **options: Any,
) -> FitResult:
    """Fit as `featurebank.fit`, then compare the best top model with fits that use the rows without a label.

    All of them learn from the training rows of each fold and choose their parameters within it; the methods also get
    the readable samples that have no label, less those of a test row's content or group. So nothing that is scored
    was used in any way. The best mean is shipped, as a plain pipeline; Ctrl-C keeps the supervised fit.

    Parameters
    ----------
    bank : path-like or Bank
    methods : sequence of str, default all
        ``"self-training"``, ``"spreading"`` or ``"whiten"`` (`featurebank.fitting.semi_supervised`).
    on_compared : callable, optional
        Called with (fits done, fits in all) of the comparison, as ``progress`` is of the search before it.
    **options
        Of `featurebank.fit`; a target of classes, without sample weights or a tuned threshold.

    Returns
    -------
    FitResult
        Its report has ``unlabelled``: ``rows``, how many were used; ``methods``, with ``supervised`` first (``method,
        model, mean, ci95, fold_scores, difference, difference_ci95, told_apart``); ``shipped`` and a ``sentence``. The
        predictor, the out-of-fold predictions and what is said of classes are those of what is shipped.

    Raises
    ------
    FeatureBankError
        As `featurebank.fit`; also when every sample has a label, or a method does not fit.

    Examples
    --------
    >>> fit_semi_supervised("photos.bank", ["self-training"])  # doctest: +SKIP
    <FitResult: logreg on resnet18/penultimate, 0.910 of 120 rows>
    """
    bank = bank if isinstance(bank, Bank) else Bank(bank)
    named = options.get("target") or default_target(bank)
    target = Target([named] if isinstance(named, str) else list(named), task=options.get("task"))
    _check(bank, methods, target, options)
    result = fit(bank, **{**options, "memory": np.inf})  # the methods need all rows at once
    left_out = (
        f"{int(column_of(bank.select(), target.name).isna().sum())} samples have no {target.name} and are left out"
    )
    result.report["warnings"] = [note for note in result.report["warnings"] if note != left_out]
    if result.report["interrupted"]:
        return _uncompared(result)
    rows, is_grouped = result.predictor.report["samples"], bool(result.report["grouped"])
    given = load_given(bank, result.search.best_features_, target, options.get("groups"), rows, is_grouped)
    recipes = {name: _recipe(result.search, name == "self-training") for name in (SUPERVISED, *methods)}
    try:
        sides = _cross_validate(given, recipes, result.search.folds_, on_compared)
    except KeyboardInterrupt:
        return _uncompared(result)
    return _shipped(result, given, recipes, sides, options.get("calibrate"))


def _uncompared(result: FitResult) -> FitResult:
    result.report["warnings"].append("interrupted: the supervised fit is kept, rows without a label were not tried")
    return result


def _check(bank: Bank, methods: Sequence[str], target: Target, options: dict[str, Any]) -> None:
    """Refuse what cannot be done, before any work."""
    for name in methods:
        if name not in METHODS:
            raise TopModelError(f"no use of rows without a label {name!r}; {near_names(name, METHODS)}")
    if not methods or len(set(methods)) < len(methods):
        raise TopModelError(f"the methods {list(methods)}; expected some of {', '.join(METHODS)}, each once")
    refused = [name for name in _REFUSED if options.get(name)]
    refused += ["choice of views"] if options.get("views") not in (None, "mean", ["mean"]) else []
    if refused or len(target.columns) > 1:
        what = refused[0].replace("_", " ") if refused else "second target"
        raise TopModelError(f"a {what} does not go with rows without a label; leave one or the other out")
    if read_target(bank.select(*target.columns), target)[1] != "classification":
        raise TopModelError(f"{target.name!r} holds numbers; rows without a label help to learn classes only")
    if "self-training" in methods and not any(map(_has_proba, _models(options.get("models")).values())):
        raise TopModelError(_NEEDS_PROBA)
    if not column_of(bank.select(), target.name).isna().any():
        raise TopModelError(f"every readable sample has a value of {target.name!r}; expected some without one")


# --- recipes ----------------------------------------------------------------------------------------------------------


def _models(given: Any) -> dict[str, TopModel]:
    return {model.name: model for model in parse_models("all" if given is None else given)}


def _has_proba(model: TopModel) -> bool:
    return hasattr(model.estimator, "predict_proba")


def _recipe(search: TopModelSearchCV, needs_proba: bool) -> Recipe:
    """Return the recipe of the best candidate, or of the best with probabilities on the same features."""
    models = _models(search.models)
    able = [
        candidate
        for candidate in search.candidates_
        if candidate.features == search.best_features_ and (not needs_proba or _has_proba(models[candidate.model]))
    ]
    if not able:
        raise TopModelError(_NEEDS_PROBA)
    best = max(able, key=lambda candidate: candidate.mean) if needs_proba else search.best_candidate_
    model = models[best.model]
    grid: Any = (model.estimator, model.grid)
    if model.name in TASKS["classification"]:
        grid = None if model.is_default_grid else model.grid
    single = {"models": {model.name: grid}, "normalize": best.normalize, "select": best.select}
    alone = {"blocks": None, "features": None, "time_limit": None, "progress": None}
    return Recipe(model.name, clone(search).set_params(**single, **alone))


# --- comparison --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Side:
    """One way to fit, cross-validated: its scores and what it said of the test rows."""

    scores: list[float]
    found: OutOfFold


def _cross_validate(
    given: Given, recipes: dict[str, Recipe], folds: Sequence[Fold], progress: Progress | None
) -> dict[str, Side]:
    """Fit every method on the training part of every fold, and score it on the test part."""
    labelled = given.labelled
    data = SearchData(given.X[labelled], given.y[labelled], {}, list(folds))
    scorer = scorer_of(recipes[SUPERVISED].search.scoring, "classification")
    scores: dict[str, list[float]] = {name: [] for name in recipes}
    said: dict[str, list[Prediction]] = {name: [] for name in recipes}

    def compare(train: NDArray[np.int64], test: NDArray[np.int64]) -> None:
        part = given.part(labelled[train], labelled[test])
        for name, recipe in recipes.items():
            model = _fit(name, recipe, part)
            scores[name].append(score_fitted(scorer, model, data.X[test], data.y[test]))
            said[name].append(prediction_of(model, data.X[test], fold=len(said[name])))
            if progress is not None:
                progress(sum(map(len, scores.values())), len(recipes) * len(folds))

    over_folds(compare, folds)
    return {name: Side(scores[name], gather(data, said[name])) for name in recipes}


def _fit(name: str, recipe: Recipe, part: Part) -> Pipeline:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # rows that no label reaches, labels that none is sure of
        return supervised(recipe, part) if name == SUPERVISED else METHODS[name](recipe, part)


def _compared(given: Given, recipes: dict[str, Recipe], sides: dict[str, Side], folds: Sequence[Fold]) -> list[Any]:
    """Return a row of facts for each method, the supervised one first."""
    sizes, rows = sizes_of(folds), []
    for name, side in sides.items():
        row: dict[str, Any] = {
            "method": name,
            "model": recipes[name].model,
            "mean": float(np.mean(side.scores)),
            "ci95": list(corrected_interval(side.scores, *sizes)),
            "fold_scores": side.scores,
        }
        if name != SUPERVISED:
            found = paired_interval(side.scores, sides[SUPERVISED].scores, *sizes)
            row |= {"difference_ci95": found.pop("ci95"), **found}
        rows.append(row)
    return rows


def _sentence(rows: Sequence[dict[str, Any]], shipped: str, scoring: str) -> str:
    """Say whether the rows without a label paid."""
    best = max(rows[1:], key=lambda row: row["mean"])
    change = f"{best['method']} {gain_text({**best, 'ci95': best['difference_ci95']}, scoring)}"
    if shipped == SUPERVISED:
        return f"The rows without a label did not pay: {change}; the supervised top model is kept"
    if not best["told_apart"]:
        return f"The rows without a label may or may not pay: {change}; {shipped} is shipped for its better mean"
    return f"The rows without a label paid: {change}; {shipped} is shipped"


def _shipped(
    result: FitResult, given: Given, recipes: dict[str, Recipe], sides: dict[str, Side], calibrate: str | None
) -> FitResult:
    """Return the result of what has the best mean, refitted on all rows."""
    report, search = result.report, result.search
    rows = _compared(given, recipes, sides, search.folds_)
    name = max(rows, key=lambda row: row["mean"])["method"]  # the supervised one, the first, of equals
    report["unlabelled"] = {
        "rows": len(given.pool),
        "methods": rows,
        "shipped": name,
        "sentence": _sentence(rows, name, report["scoring"]),
    }
    old = result.predictor.single
    old.report["unlabelled"] = report["unlabelled"]
    if name == SUPERVISED:
        return result
    model = _fit(name, recipes[name], given.part(given.labelled, given.held_out))
    found = sides[name].found
    assert old.outoffold is not None
    oof = old.outoffold.assign(predicted=found.predicted)
    about, oof = class_report(found, recipes[name].model, calibrate, oof)
    report |= about
    calibrator = _calibrator(model, found, recipes[name].model, calibrate)
    if len(given.held_out):
        report["held_out"] = _held_out(given, model, calibrator)
    known = {**old.report, **report}
    task = replace(old, model=model, calibrator=calibrator, report=known, outoffold=oof)
    return FitResult(report, Predictor(task, tensors=result.predictor.tensors), search=search)


def _calibrator(model: Pipeline, found: OutOfFold, name: str, method: str | None) -> Calibrator | None:
    if method is None and hasattr(model, "predict_proba"):
        return None
    whole = found.complete(name)
    return Calibrator(method or "sigmoid").fit(whole.scores, whole.true)


def _held_out(given: Given, model: Pipeline, calibrator: Calibrator | None) -> dict[str, Any]:
    X, y = given.X[given.held_out], given.y[given.held_out]
    return Task([], model, "", calibrator=calibrator).score(X, y, None)
