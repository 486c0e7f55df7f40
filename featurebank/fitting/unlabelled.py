"""Few labels, many images: fits that use rows without a label, compared with those that do not, on the same folds."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from featurebank.bank.bank import Bank, BankLike
from featurebank.bank.defaults import default_target
from featurebank.bank.samples import column_of, other_contents
from featurebank.errors import TopModelError, near_names
from featurebank.fitting.assessment import class_report
from featurebank.fitting.fit import fit
from featurebank.fitting.result import FitResult
from featurebank.fitting.semi_supervised import METHODS, TrainingRows, supervised
from featurebank.fitting.targets import Target, read_target
from featurebank.fitting.training_data import left_out, load_table
from featurebank.images.reading import Progress
from featurebank.predictor.predictor import Predictor
from featurebank.predictor.task import Task
from featurebank.topmodels.calibration import Calibrator
from featurebank.topmodels.evaluation import SearchData
from featurebank.topmodels.folds import sizes_of
from featurebank.topmodels.formatting import gain_text, score_name
from featurebank.topmodels.models import TASKS, TopModel, parse_models
from featurebank.topmodels.out_of_fold import OutOfFold, gather
from featurebank.topmodels.refitting import over_folds, score_fitted
from featurebank.topmodels.scores import fold_difference, fold_interval
from featurebank.topmodels.search import TopModelSearchCV
from featurebank.topmodels.solvers.problem import Prediction, prediction_of

SUPERVISED = "supervised"
_NEEDS_PROBA = "self-training needs a top model with probabilities; add one: --model logreg"
_REFUSED = ("sample_weight", "threshold", "separator", "memory", "ensemble", "normal", "false_alarms")


def fit_semi_supervised(
    bank: BankLike,
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

    See Also
    --------
    fit : Labelled rows alone.
    next_to_label : Which images to label.

    Examples
    --------
    >>> import pandas as pd
    >>> bank = Bank("photos.bank")
    >>> bank.label(pd.read_csv("few.csv"))
    12
    >>> found = fit_semi_supervised(bank, ["spreading"], target="kind", features="penultimate", models=["logreg"])
    >>> found.predictor.predict(["new.jpg"]).tolist()
    ['dog']
    """
    bank = Bank.of(bank)
    named = options.get("target") or default_target(bank)
    target = Target([named] if isinstance(named, str) else list(named), task=options.get("task"))
    _check(bank, methods, target, options)
    result = fit(bank, **{**options, "memory": np.inf})  # the methods need all rows at once
    absent = int(column_of(bank.select(), target.name).isna().sum())
    told = left_out(absent, f"has no {target.name}", f"have no {target.name}")
    result.report["warnings"] = [note for note in result.report["warnings"] if note != told]
    if result.report["interrupted"]:
        return _uncompared(result)
    searched, is_grouped = result.predictor.report["samples"], bool(result.report["grouped"])
    rows = _load(bank, result.search.best_features_, target, options.get("groups"), searched, is_grouped)
    searches = {name: _alone(result.search, rows.blocks, name == "self-training") for name in (SUPERVISED, *methods)}
    try:
        scores, found = _cross_validate(rows, searches, result.search, on_compared)
    except KeyboardInterrupt:
        return _uncompared(result)
    return _shipped(result, rows, searches, scores, found, options.get("calibrate"))


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
        article = "an" if what[0] in "aeio" else "a"
        raise TopModelError(f"{article} {what} does not go with rows without a label; leave one or the other out")
    if read_target(bank.select(*target.columns), target).task != "classification":
        raise TopModelError(f"{target.name!r} holds numbers; rows without a label help to learn classes only")
    if "self-training" in methods and not any(map(_has_proba, _models(options.get("models")).values())):
        raise TopModelError(_NEEDS_PROBA)
    if not column_of(bank.select(), target.name).isna().any():
        raise TopModelError(f"every readable sample has a value of {target.name!r}; expected some without one")


# --- rows and models --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PartlyLabelled:
    """Labelled rows in the order of the search, rows held out of it, and rows without a label.

    `y` is meaningless where there is no label. Rows of one of the `groups` are never on both sides, and no content of
    the pool is in the others, or twice; `is_grouped` says whether labelled rows share groups.
    """

    X: NDArray[np.float32]
    blocks: Mapping[str, slice]
    y: NDArray[Any]
    groups: NDArray[np.int64]
    labelled: NDArray[np.int64]
    held_out: NDArray[np.int64]
    pool: NDArray[np.int64]
    is_grouped: bool

    def training(self, train: NDArray[np.int64], test: NDArray[np.int64]) -> TrainingRows:
        """Return what is learned from when rows `test` are to be scored."""
        never = np.concatenate([self.groups[test], self.groups[self.held_out]])
        pool = self.pool[~np.isin(self.groups[self.pool], never)]
        groups = self.groups[train] if self.is_grouped else None
        return TrainingRows(self.X[train], self.y[train], groups, self.X[pool])


def _load(
    bank: Bank,
    names: Sequence[str],
    target: Target,
    groups: str | None,
    searched: Sequence[Sequence[Any]],
    is_grouped: bool,
) -> PartlyLabelled:
    """Load every readable row of a bank.

    `searched` are the labelled rows, ``[source, path, …]`` in the order that the folds count in; others with a label
    are held out. Without `groups`, identical content alone is a group.
    """
    table = bank.select()
    has_label = column_of(table, target.name).notna().to_numpy()
    known = read_target(table.take(has_label), target).y
    y = np.empty(len(table), known.dtype)
    y[has_label] = known
    rows = load_table(bank, names, table, groups, None, ["mean"])
    keys = zip(table.rows["source"], table.paths, strict=True)
    position = {key: number for number, key in enumerate(keys)}
    labelled = np.array([position[source, path] for source, path, *_ in searched])
    held_out = np.setdiff1d(np.flatnonzero(has_label), labelled)
    ties = np.arange(len(table)) if rows.groups is None else rows.groups
    return PartlyLabelled(
        rows.X, rows.blocks, y, ties, labelled, held_out, other_contents(table, has_label), is_grouped
    )


def _models(models: Any) -> dict[str, TopModel]:
    return {model.name: model for model in parse_models("all" if models is None else models)}


def _has_proba(model: TopModel) -> bool:
    return hasattr(model.estimator, "predict_proba")


def _alone(search: TopModelSearchCV, blocks: Mapping[str, slice], needs_proba: bool) -> TopModelSearchCV:
    """Return the search of the best candidate's top model alone, or of the best with probabilities on its features."""
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
    alone = {"blocks": blocks, "features": [tuple(blocks)], "time_limit": None, "progress": None}
    return clone(search).set_params(**single, **alone)


# --- comparison --------------------------------------------------------------------------------------------


def _cross_validate(
    rows: PartlyLabelled, searches: dict[str, TopModelSearchCV], made: TopModelSearchCV, progress: Progress | None
) -> tuple[dict[str, list[float]], dict[str, OutOfFold]]:
    """Fit every method on the training part of every fold; return its scores and what it said of the test parts."""
    labelled, folds, scorer = rows.labelled, made.folds_, made.scorer_
    data = SearchData(rows.X[labelled], rows.y[labelled], {}, list(folds))
    scores: dict[str, list[float]] = {name: [] for name in searches}
    said: dict[str, list[Prediction]] = {name: [] for name in searches}

    def compare(train: NDArray[np.int64], test: NDArray[np.int64]) -> None:
        training = rows.training(labelled[train], labelled[test])
        for name, search in searches.items():
            model = _fit(name, search, training)
            scores[name].append(score_fitted(scorer, model, data.X[test], data.y[test]))
            said[name].append(prediction_of(model, data.X[test], fold=len(said[name])))
            if progress is not None:
                progress(sum(map(len, scores.values())), len(searches) * len(folds))

    over_folds(compare, folds)
    return scores, {name: gather(data, said[name]) for name in searches}


def _fit(name: str, search: TopModelSearchCV, rows: TrainingRows) -> Pipeline:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # rows that no label reaches, labels that none is sure of
        return {SUPERVISED: supervised, **METHODS}[name](search, rows)


def _model_name(search: TopModelSearchCV) -> str:
    assert search.models is not None
    return str(next(iter(search.models)))


def _compared(
    searches: dict[str, TopModelSearchCV], scores: dict[str, list[float]], made: TopModelSearchCV
) -> list[dict[str, Any]]:
    """Return a row of facts for each method, the supervised one first."""
    sizes, scoring, trials, facts = sizes_of(made.folds_), score_name(made.scoring, made.task), made.trials_, []
    for name, mine in scores.items():
        about: dict[str, Any] = {
            "method": name,
            "model": _model_name(searches[name]),
            "mean": float(np.mean(mine)),
            "ci95": list(fold_interval(mine, *sizes, scoring, trials=trials).ends),
            "fold_scores": mine,
        }
        if name != SUPERVISED:
            gain = fold_difference(mine, scores[SUPERVISED], *sizes, scoring, trials=trials)
            about |= {"difference_ci95": gain.pop("ci95"), **gain}
        facts.append(about)
    return facts


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
    result: FitResult,
    rows: PartlyLabelled,
    searches: dict[str, TopModelSearchCV],
    scores: dict[str, list[float]],
    found: dict[str, OutOfFold],
    calibrate: str | None,
) -> FitResult:
    """Return the result of what has the best mean, refitted on all rows."""
    report, search = result.report, result.search
    methods = _compared(searches, scores, search)
    name = max(methods, key=lambda row: row["mean"])["method"]  # the supervised one, the first, of equals
    report["unlabelled"] = {
        "rows": len(rows.pool),
        "methods": methods,
        "shipped": name,
        "sentence": _sentence(methods, name, report["scoring"]),
    }
    old = result.predictor.single
    old.report["unlabelled"] = report["unlabelled"]
    if name == SUPERVISED:
        return result
    model = _fit(name, searches[name], rows.training(rows.labelled, rows.held_out))
    mine, model_name = found[name], _model_name(searches[name])
    assert old.out_of_fold is not None
    said = old.out_of_fold.assign(predicted=mine.predicted)
    about, oof = class_report(mine, model_name, calibrate, said, is_weighted=search.class_weight is not None)
    report |= about
    calibrator = _calibrator(mine, model_name, about["calibration"]["method"])
    if len(rows.held_out):
        report["held_out"] = _held_out(rows, model, calibrator)
    known = {**old.report, **report}
    task = replace(old, model=model, calibrator=calibrator, report=known, out_of_fold=oof)
    return FitResult(report, Predictor(task, tensors=result.predictor.tensors), search=search)


def _calibrator(found: OutOfFold, name: str, method: str | None) -> Calibrator | None:
    known = found.learned(name)
    return None if method is None else Calibrator(method).fit(known.scores, known.true, classes=found.classes)


def _held_out(rows: PartlyLabelled, model: Pipeline, calibrator: Calibrator | None) -> dict[str, Any]:
    X, y = rows.X[rows.held_out], rows.y[rows.held_out]
    return Task([], model, "", calibrator=calibrator).score(X, y, None)
