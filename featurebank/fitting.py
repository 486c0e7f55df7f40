"""fit(): a bank's embeddings -> cross-validated top models -> the predictor of the best."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from featurebank import assessment
from featurebank.backbones import is_predictor_file
from featurebank.bank import Bank
from featurebank.calibration import Calibrator, LabelsCalibrator
from featurebank.errors import BankError, ColumnError, TopModelError, near_names
from featurebank.folds import Folds, default_kind, fold_numbers
from featurebank.learning_curve import learning_curve as make_learning_curve
from featurebank.predictor import Predictor
from featurebank.predictor_file import EMBEDDED, PredictorFeature, check_savable
from featurebank.rows import Rows, Target, load_rows, predefined, straddling
from featurebank.search import TopModelSearchCV
from featurebank.spec import FeatureSpec
from featurebank.topmodels import TASKS, parse_models

PREDEFINED = "predefined:"

Progress = Callable[[int, int], None]


@dataclass
class FitResult:
    """What `fit` found.

    Attributes
    ----------
    search : TopModelSearchCV
        The fitted search, over the blocks of `report`'s features.
    report : dict
        What ``featurebank fit --json`` prints.
    predictor : Predictor
        The best candidate, refitted on all rows.
    oof : DataFrame
        Out-of-fold predictions of the best candidate: ``source, path, fold, true, predicted`` and ``proba_CLASS``.
    """

    search: TopModelSearchCV = field(repr=False)
    report: dict[str, Any] = field(repr=False)
    predictor: Predictor = field(repr=False)
    oof: pd.DataFrame = field(repr=False)

    def __repr__(self) -> str:
        best = self.search.best_candidate_
        return f"<FitResult: {best.model} on {'+'.join(best.features)}, {best.mean:.3f} of {len(self.oof)} rows>"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the predictor file; see `Predictor.save`."""
        self.predictor.save(path)


def fit(
    bank: str | os.PathLike[str] | Bank,
    *,
    features: str | Sequence[str] | None = None,
    models: Any = None,
    target: str | Sequence[str] | None = None,
    separator: str | None = None,
    task: str | None = None,
    groups: str | None = None,
    sample_weight: str | None = None,
    cv: str | None = None,
    folds: int = 5,
    repeats: int = 1,
    nested: bool = False,
    scoring: str | None = None,
    normalize: str | Sequence[str] = "standardize",
    select: Any = None,
    class_weight: Any = None,
    rule: str = "best",
    calibrate: str | None = None,
    threshold: str | None = None,
    learning_curve: bool = False,
    time_limit: float | None = None,
    seed: int = 0,
    jobs: int = -1,
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
        Column of classes or numbers, or several columns of 0 and 1; by default ``label``, or the bank's only column.
    separator : str, optional
        Divides the labels in a cell of the target, where a sample has several.
    task : str, optional
        ``"classification"`` or ``"regression"``; by default a column of fractions is a regression.
    groups : str, optional
        Column of groups that never straddle folds, or ``"@near-duplicates"`` to tie images that look alike. Rows of
        identical content never straddle folds.
    sample_weight : str, optional
        Column of weights, used in fitting and in scoring.
    cv : str, optional
        ``"stratified"``, ``"group"``, ``"stratified-group"``, ``"logo"`` (one group out), ``"plain"``, or
        ``"predefined:COLUMN"`` (`featurebank.rows.predefined`). By default stratified, grouped where rows belong
        together.
    folds : int, default 5
        Number of folds.
    repeats : int, default 1
        How often the folds are drawn anew.
    nested : bool, default False
        Also score the whole procedure, selection included, on test parts that the search never saw.
    scoring : str, optional
        Any scikit-learn scorer; accuracy by default, R² for numbers.
    normalize, select, class_weight, rule, time_limit
        See `TopModelSearchCV`.
    calibrate : str, optional
        ``"sigmoid"``, ``"isotonic"`` or ``"temperature"``: probabilities are calibrated on out-of-fold scores. A
        model without probabilities gets the sigmoid in any case.
    threshold : str, optional
        A scorer of labels, for instance ``"f1"``, that the decision threshold of two classes is tuned for.
    learning_curve : bool, default False
        Also tell what more labels would bring.
    seed : int, default 0
        Of the folds and the estimators.
    jobs : int, default -1
        Threads; -1 for one a core.
    progress : callable, optional
        Called with (fits done, fits in all).

    Returns
    -------
    FitResult

    Raises
    ------
    FeatureBankError
        A child of it says what was found, what was expected and what to do.

    Examples
    --------
    >>> result = fit("photos.bank", models=["logreg"])  # doctest: +SKIP
    >>> result.report["best"]["mean"]  # doctest: +SKIP
    0.91
    """
    started = time.perf_counter()
    bank = bank if isinstance(bank, Bank) else Bank(bank)
    wanted = Target([target] if isinstance(target, str) else list(target or [default_target(bank)]), separator, task)
    candidates = candidate_features(bank, features)
    names = list(dict.fromkeys(name for candidate in candidates for name in candidate))
    every = load_rows(bank, names, wanted, groups, sample_weight)
    splitter, is_held_out = _splitter(every, cv, folds, repeats, seed, nested)
    rows = every.take(~is_held_out)
    if threshold is not None:
        assessment.label_metric(threshold)
    for model in [] if models is None else parse_models(models, every.task):
        if model.name not in TASKS[every.task]:
            check_savable(model.estimator)
    parts = 1 + nested * folds * repeats
    search = TopModelSearchCV(
        models,
        task=rows.task,
        cv=splitter,
        scoring=scoring,
        blocks=rows.blocks,
        features="all" if features == "all" else candidates,
        normalize=normalize,
        select=select,
        class_weight=_class_weight(class_weight, rows),
        rule=rule,
        time_limit=time_limit,
        random_state=seed,
        n_jobs=jobs,
        progress=_part(progress, 0, parts),
    ).fit(rows.X, rows.y, groups=rows.groups, sample_weight=rows.weight)
    report = _facts(search, rows, wanted, scoring)
    report["warnings"] = rows.notes + straddling(every, _place(search, is_held_out), groups) + search.warnings_
    oof = _frame(rows, search)
    if rows.task == "classification":
        report |= _class_report(search, rows, calibrate, oof)
    if rows.labels is not None:
        report["per_label"] = assessment.per_label(search.oof_, rows.labels)
    model = search.best_estimator_
    if threshold is not None:
        report["threshold"], model = assessment.thresholded(search, rows, threshold)
    if is_held_out.any():
        report["held_out"] = assessment.held_out(search, every.take(is_held_out))
    if (nested or learning_curve) and search.interrupted_:
        report["warnings"].append("interrupted: neither a nested score nor a learning curve was made")
    elif nested:
        report["nested"] = assessment.nested(search, rows, lambda number: _part(progress, number + 1, parts))
    if learning_curve and not search.interrupted_:
        report["learning_curve"] = _learning_curve(search, rows, jobs)
    report["seconds"] = time.perf_counter() - started
    kept = {**report, "samples": _fold_of_each(rows, search), "contents": _contents(rows)}
    return FitResult(search, report, _predictor(bank, search, model, rows, wanted, calibrate, kept), oof)


def _facts(search: TopModelSearchCV, rows: Rows, target: Target, scoring: str | None) -> dict[str, Any]:
    """Return the part of the report that every fit has."""
    return {
        "n_samples": len(rows.y),
        "classes": rows.labels or getattr(search, "classes_", np.empty(0)).tolist(),
        "target": target.name,
        "separator": target.separator,
        "task": rows.task,
        "scoring": scoring or ("r2" if rows.task == "regression" else "accuracy"),
        "folds": len(search.folds_),
        "grouped": rows.groups is not None,
        "seed": search.random_state,
        "candidates": [candidate.to_dict() for candidate in search.candidates_],
        "best": search.best_candidate_.to_dict(),
        "comparison": search.comparison_,
        "interrupted": search.interrupted_,
        "timed_out": search.timed_out_,
    }


def _place(search: TopModelSearchCV, is_held_out: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the fold that tests each row, -1 for rows that only train, -2 for rows that are held out."""
    place = np.full(len(is_held_out), -2)
    place[~is_held_out] = fold_numbers(search.folds_, int((~is_held_out).sum()))
    return place


def _splitter(
    rows: Rows, cv: str | None, folds: int, repeats: int, seed: int, nested: bool
) -> tuple[Any, NDArray[np.bool_]]:
    """Return the folds as the search takes them, and the rows that are held out of it."""
    nobody = np.zeros(len(rows.y), bool)
    if cv is not None and cv.startswith(PREDEFINED):
        if nested or repeats > 1:
            raise TopModelError("predefined folds can be neither nested nor repeated; leave out one or the other")
        return predefined(rows.table, cv.removeprefix(PREDEFINED))
    is_grouped = rows.groups is not None
    kind = cv or default_kind(rows.task, is_grouped)
    if is_grouped and kind in ("stratified", "plain"):
        kind = {"stratified": "stratified-group", "plain": "group"}[kind]
    return Folds(kind, folds, repeats, seed), nobody


def _class_weight(given: Any, rows: Rows) -> Any:
    """Return class weights under the classes themselves, which a command names as text; 1 where none is given."""
    if not isinstance(given, Mapping) or rows.task != "classification":
        return given
    classes = {str(name): name for name in np.unique(rows.y).tolist()}
    weights = {str(name): weight for name, weight in given.items()}
    unknown = sorted(set(weights) - set(classes))
    if unknown:
        raise TopModelError(f"a weight for the class {unknown[0]!r}; {near_names(unknown[0], classes)}")
    return {name: weights.get(text, 1.0) for text, name in classes.items()}


def _part(progress: Progress | None, part: int, parts: int) -> Progress | None:
    """Return a progress callback for one of several searches of equal size."""
    if progress is None:
        return None
    return lambda done, total: progress(part * total + done, parts * total)


def _class_report(search: TopModelSearchCV, rows: Rows, calibrate: str | None, oof: pd.DataFrame) -> dict[str, Any]:
    """Return what is said about classes; the honest probabilities go into `oof`."""
    report: dict[str, Any] = {
        "imbalanced": assessment.is_imbalanced(rows.y),
        "per_class": assessment.per_class(search.oof_),
    }
    report["calibration"], whole, proba = assessment.calibrated(search.oof_, search.best_model_, calibrate)
    report["abstention"] = assessment.abstention(whole, proba)
    for number, name in enumerate(search.classes_.tolist()):
        column = np.full(len(oof), np.nan)
        column[np.isin(search.oof_.fold, whole.fold)] = proba[:, number]
        oof[f"proba_{name}"] = column
    return report


def _learning_curve(search: TopModelSearchCV, rows: Rows, jobs: int) -> dict[str, Any]:
    """Return the learning curve of the best pipeline on the folds of the search."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # small sets make scikit-learn warn at every turn
        curve = make_learning_curve(
            clone(search.best_estimator_),
            rows.X,
            rows.y,
            search.folds_,
            groups=rows.groups,
            sample_weight=rows.weight,
            scoring=search.scoring,
            random_state=search.random_state,
            n_jobs=jobs,
        )
    return curve.to_dict()


def default_target(bank: Bank) -> str:
    """Return the column that is meant when none is named: ``label``, or the only one.

    Raises
    ------
    ColumnError
        When there is neither.
    """
    columns = list(bank.table.columns)
    if "label" in columns:
        return "label"
    if len(columns) != 1:
        have = ", ".join(map(repr, columns)) or "none"
        raise ColumnError(
            f"the bank has the columns {have}; name the one to learn (--target), or add it with `featurebank label`"
        )
    return columns[0]


def candidate_features(bank: Bank, features: str | Sequence[str] | None) -> list[list[str]]:
    """Return the feature sets of each candidate; by default every pooled set alone.

    Raises
    ------
    BankError
        When the bank has no pooled feature set.
    FeatureSetError
        When a name is not in the bank.
    """
    if features is not None and features != "all":
        given = [features] if isinstance(features, str) else list(features)
        return [[bank.feature_set(name).name for name in each.split("+")] for each in given]
    pooled = [each.name for each in bank.feature_sets if each.spec.pool != "none" or each.spec.layout == "vector"]
    if not pooled:
        raise BankError(f"{str(bank.path)!r} has no pooled feature set; run `featurebank extract` first")
    return [[name] for name in pooled]


def _fold_of_each(rows: Rows, search: TopModelSearchCV) -> list[list[Any]]:
    """Return [source, path, fold] of each row, so that others can use the same folds."""
    numbers = fold_numbers(search.folds_, len(rows.y)).tolist()
    return [list(row) for row in zip(rows.table.rows["source"], _paths(rows), numbers, strict=True)]


def _contents(rows: Rows) -> list[str]:
    """Return the beginning of each row's content digest, so that training images are known again."""
    return sorted({digest.hex()[:16] for digest in rows.table.rows["digest"]})


def _paths(rows: Rows) -> list[str]:
    return [os.fsdecode(path) for path in rows.table.rows["path"]]


def _frame(rows: Rows, search: TopModelSearchCV) -> pd.DataFrame:
    """Return the out-of-fold predictions with the samples they are about."""
    found, paths = search.oof_, _paths(rows)
    frame = pd.DataFrame(
        {
            "source": rows.table.rows["source"].to_numpy()[found.row],
            "path": pd.Series([paths[row] for row in found.row], dtype=object),
            "fold": found.fold,
        }
    )
    if rows.labels is None:
        return frame.assign(true=found.true, predicted=found.predicted)
    for number, label in enumerate(rows.labels):
        frame[f"true_{label}"], frame[f"predicted_{label}"] = found.true[:, number], found.predicted[:, number]
    return frame


def _predictor(
    bank: Bank,
    search: TopModelSearchCV,
    fitted: Pipeline,
    rows: Rows,
    target: Target,
    calibrate: str | None,
    report: dict[str, Any],
) -> Predictor:
    """Make the predictor of a search's best candidate."""
    steps = dict(fitted.steps)
    steps.pop("columns", None)  # a predictor computes just the features that its model sees
    model = Pipeline(list(steps.items()))
    specs = [bank.feature_set(name).spec for name in search.best_features_]
    features = [_predictor_feature(bank, spec) for spec in specs]
    tensors = _tensors(bank, features)
    return Predictor(
        features,
        model,
        target.name,
        task=rows.task,
        labels=rows.labels,
        calibrator=_calibrator(search, model, calibrate),
        fit=report,
        tensors=tensors,
    )


def _calibrator(search: TopModelSearchCV, model: Pipeline, method: str | None) -> Calibrator | LabelsCalibrator | None:
    """Return what turns scores into probabilities; None for numbers, and for a model that has its own."""
    if search.task == "regression" or (method is None and hasattr(model, "predict_proba")):
        return None
    if search.task == "multilabel":
        found = search.oof_
        return LabelsCalibrator(method or "sigmoid").fit(found.scores, found.true, found.weight)
    return search.calibrate(method or "sigmoid")


def _predictor_feature(bank: Bank, spec: FeatureSpec) -> PredictorFeature:
    requests = bank.requests_of(spec)
    if not requests:
        return PredictorFeature(spec, "", None)
    last = requests[-1]
    if is_predictor_file(last["backbone"]):
        return PredictorFeature(spec, EMBEDDED, spec.preprocessing["crop"][0])
    from_file = last["file"] is not None and last["weights"] != "DEFAULT"
    return PredictorFeature(spec, EMBEDDED if from_file else last["weights"], last["size"])


def _tensors(bank: Bank, features: Sequence[PredictorFeature]) -> dict[str, bytes]:
    """Return the tensors of backbones whose weights came from a file, which no name would find elsewhere."""
    tensors: dict[str, bytes] = {}
    for each in features:
        if each.weights == EMBEDDED and each.spec.weights not in tensors:
            from featurebank.backbones import dump_tensors, load_backbone

            request = bank.requests_of(each.spec)[-1]
            backbone = load_backbone(request["backbone"], request["weights"], request["size"])
            if backbone.weights != each.spec.weights:
                raise BankError(
                    f"{request['weights']!r} has changed since its features were extracted: bring the old file"
                )
            tensors[each.spec.weights] = dump_tensors(backbone)
    return tensors


def default_output(bank: Bank) -> Path:
    """Return where a predictor goes when nothing is said: the bank's stem with ``.featurebank``, beside it."""
    return bank.path.with_suffix(".featurebank")
