"""What a report says: facts, per class, calibration, when to abstain, a threshold, held-out rows, a learning curve."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.metrics import f1_score, recall_score, roc_auc_score
from sklearn.model_selection import FixedThresholdClassifier
from sklearn.pipeline import Pipeline

from featurebank.errors import TopModelError, counted
from featurebank.fitting.targets import Target
from featurebank.fitting.training_data import TrainingData
from featurebank.images.columns import join_frames
from featurebank.storage.memory import releasing
from featurebank.topmodels.calibration import KEEP_LABELS
from featurebank.topmodels.calibration_error import confidence_of, expected_calibration_error
from featurebank.topmodels.candidates import Candidate
from featurebank.topmodels.comparison import selection_bias
from featurebank.topmodels.cross_calibration import choose_method, cross_calibrated
from featurebank.topmodels.evaluation import SearchData, scorer_of
from featurebank.topmodels.folds import Folds, sizes_of
from featurebank.topmodels.formatting import score_name, told_apart_text
from featurebank.topmodels.learning_curve import learning_curve as make_learning_curve
from featurebank.topmodels.models import OVERSURE
from featurebank.topmodels.out_of_fold import OutOfFold
from featurebank.topmodels.refitting import fit_pipeline, guess_scores, over_folds, score_fitted
from featurebank.topmodels.scores import fold_difference
from featurebank.topmodels.search import TopModelSearchCV
from featurebank.topmodels.solvers.problem import Prediction, prediction_of
from featurebank.topmodels.thresholds import abstention_curve, best_threshold, cross_thresholds
from featurebank.topmodels.uncertainty import Uncertainty

AUTO = "auto"
GUESSED = "the best of these"
FAR_OFF = 0.1
"""Distance of the mean probability from the accuracy from which it is told of, where it is no chance."""
CONFIDENT = 2.0
"""Standard errors of the accuracy that are no chance."""
IMBALANCE = 3.0
"""Largest class over smallest from which the table shows the balanced accuracy."""


def facts(search: TopModelSearchCV, rows: TrainingData, target: Target) -> dict[str, Any]:
    """Return the part of the report that every fit has."""
    return {
        "n_samples": len(rows.y),
        "classes": rows.labels or getattr(search, "classes_", np.empty(0)).tolist(),
        "target": target.name,
        "separator": target.separator,
        "task": rows.task,
        "scoring": search.scoring or ("r2" if rows.task == "regression" else "accuracy"),
        "folds": len(search.folds_),
        "grouped": rows.groups is not None,
        "seed": search.random_state,
        "candidates": [candidate.to_dict() for candidate in search.candidates_],
        "best": search.best_candidate_.to_dict(),
        "guess": _about_guess(search, rows),
        "comparison": search.comparison_,
        "selection": {
            "candidates": len(search.candidates_),
            "bias": selection_bias(search.candidates_, search.best_candidate_),
        },
        **({} if search.committee_ is None else {"ensemble": _about_committee(search)}),
        "interrupted": search.interrupted_,
        "timed_out": search.timed_out_,
    }


def _about_guess(search: TopModelSearchCV, rows: TrainingData) -> dict[str, Any] | None:
    """Return what a guess scores, and whether the best candidate can be told from it; None where it has no score."""
    scores = guess_scores(search.scorer_, rows.task, rows.y, search.folds_, rows.weight)
    if scores is None:
        return None
    best, scoring = search.best_candidate_, score_name(search.scoring, rows.task)
    found = fold_difference(best.fold_scores, scores, *sizes_of(search.folds_), scoring, trials=search.trials_)
    return {"mean": float(np.mean(scores)), **found, "sentence": told_apart_text(GUESSED, "a guess", found, scoring)}


def _about_committee(search: TopModelSearchCV) -> dict[str, Any]:
    """Return what is said of the committee: its scores, its members, whether it paid, whether it is shipped."""
    found = search.committee_
    assert found is not None
    return {**found.candidate.to_dict(), **found.report, "is_shipped": search.best_candidate_ is found.candidate}


@releasing
def class_report(
    found: OutOfFold, model: str, calibrate: str | None, oof: pd.DataFrame, *, is_weighted: bool = False
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Return what is said about classes, and `oof` with the honest probabilities in it.

    With weights (of classes or samples) a label need not be the most probable class.
    """
    assert found.classes is not None
    report: dict[str, Any] = {
        "imbalanced": is_imbalanced(found.true),
        "per_class": per_class(found),
    }
    report["calibration"], proba = calibrated(found, model, calibrate, is_weighted)
    curve = abstention_curve(found.true, found.predicted, proba, found.weight, classes=found.classes)
    report["abstention"] = list(curve.to_dict("records"))
    names = pd.Index([f"proba_{name}" for name in found.classes.tolist()], dtype=object)
    beside = pd.DataFrame(proba, oof.index, names, copy=False)
    return report, join_frames(oof.drop(columns=names, errors="ignore"), beside)


def per_class(found: OutOfFold) -> list[dict[str, Any]]:
    """Return the number of rows and the recall of each class."""
    assert found.classes is not None
    recalls = recall_score(
        found.true, found.predicted, labels=found.classes, average=None, sample_weight=found.weight, zero_division=0
    )
    counts = [int((found.true == name).sum()) for name in found.classes]
    return [
        {"class": name, "n": count, "recall": float(recall)}
        for name, count, recall in zip(found.classes.tolist(), counts, recalls, strict=True)
    ]


def per_label(found: OutOfFold, labels: list[str]) -> list[dict[str, Any]]:
    """Return how often each label occurs, and its accuracy, F1 and area under the ROC curve."""
    assert found.scores is not None
    rows = []
    for number, name in enumerate(labels):
        true, said, score = found.true[:, number], found.predicted[:, number], found.scores[:, number]
        rows.append(
            {
                "label": name,
                "n": int(true.sum()),
                "accuracy": float(np.average(true == said, weights=found.weight)),
                "f1": float(f1_score(true, said, sample_weight=found.weight, zero_division=0)),
                "roc_auc": float(roc_auc_score(true, np.maximum(score, -1e30), sample_weight=found.weight)),
            }
        )
    return rows


def is_imbalanced(y: NDArray[Any]) -> bool:
    """Say whether the largest class has at least three times the rows of the smallest."""
    counts = np.unique(y, return_counts=True)[1]
    return bool(counts.max() >= IMBALANCE * counts.min())


def unlearned(found: OutOfFold, paths: Sequence[str]) -> list[str]:
    """Say which rows were tested by folds that had not learned their class.

    Parameters
    ----------
    found : OutOfFold
    paths : sequence of str
        Of every row.
    """
    lost = np.flatnonzero(~found.is_learned)
    if not len(lost):
        return []
    classes = ", ".join(repr(name) for name in np.unique(found.true[lost]).tolist()[:5])
    rows = np.unique(found.row[lost])
    what = f"of the rare class {classes} (e.g. {paths[int(rows[0])]!r})"
    tested = counted(len(rows), f"row {what} was tested by folds", f"rows {what} were tested by folds")
    return [
        f"{tested} that had not learned it: a mistake in any case; label more of it, or correct it with "
        "`featurebank label`"
    ]


def calibrated(
    found: OutOfFold, model: str, method: str | None, is_weighted: bool
) -> tuple[dict[str, Any], NDArray[Any]]:
    """Return the calibration's report, and the honest probabilities of the rows, shape (m, k).

    The probabilities of a fold come from a calibrator that saw the other folds only; without a method they are the
    model's own, where it has any.
    """
    known, own, parts = found.is_learned, found.proba, found.parts
    used = calibration_of(found, model, method, is_weighted)
    proba = own
    if used is not None:
        options: dict[str, Any] = {"classes": found.classes, "is_learned": known}
        proba = cross_calibrated(found.scores, found.true, parts, used, found.weight, **options)
    assert proba is not None
    assert found.classes is not None

    def error(proba: NDArray[Any]) -> float:
        judged: dict[str, Any] = {"predicted": found.predicted, "sample_weight": found.weight}
        return expected_calibration_error(found.true, proba, found.classes, **judged)

    return {"method": used, "ece_before": None if own is None else error(own), "ece_after": error(proba)}, proba


def calibration_of(found: OutOfFold, model: str, method: str | None, is_weighted: bool) -> str | None:
    """Return the method of calibration: the one asked for, the one that the rows allow, or none.

    Raises
    ------
    TopModelError
        When the model has no scores, or too few rows are known to learn from.
    """
    learned = found.learned(model)
    if method not in (None, AUTO) or (method is None and found.proba is not None and model not in OVERSURE):
        return method
    methods = (*KEEP_LABELS, "sigmoid") if is_weighted and found.is_learned.all() else KEEP_LABELS
    options: dict[str, Any] = {"classes": found.classes, "methods": methods}
    return choose_method(learned.scores, learned.true, learned.parts, learned.weight, **options)


def far_off(found: OutOfFold, model: str, calibrate: str | None, is_weighted: bool) -> list[str]:
    """Say that a model's own probabilities are far from the share of right answers, where calibration mends that.

    Models of equal accuracy may be very unsure: logistic regression with little freedom says 0.5 of every row, and is
    right each time.
    """
    if found.proba is None or calibration_of(found, model, calibrate, is_weighted) is not None:
        return []
    accuracy = float(np.average(found.true == found.predicted, weights=found.weight))
    own = _confidence(found, found.proba)
    chance = CONFIDENT * np.sqrt(accuracy * (1 - accuracy) / len(found.row))
    if abs(own - accuracy) < max(FAR_OFF, chance):
        return []
    mended = _confidence(found, calibrated(found, model, AUTO, is_weighted)[1])
    if abs(mended - accuracy) > abs(own - accuracy) / 2:
        return []
    return [
        f"{model}'s probabilities are too {'low' if own < accuracy else 'high'}: {own:.2f} on average, where "
        f"{accuracy:.2f} of the answers are right; --calibrate auto brings them to {mended:.2f}"
    ]


def _confidence(found: OutOfFold, proba: NDArray[Any]) -> float:
    """Return the mean probability of the class that was said."""
    return float(np.average(confidence_of(proba, found.predicted, found.classes), weights=found.weight))


def thresholded(search: TopModelSearchCV, rows: TrainingData, scoring: str) -> tuple[dict[str, Any], Pipeline]:
    """Tune the decision threshold of two classes on out-of-fold scores, and refit the pipeline with it.

    Each fold's threshold comes from the other folds, so that the score is honest.

    Raises
    ------
    TopModelError
        When the scoring does not judge labels.
    """
    metric, classes = label_metric(scoring), search.classes_
    found = search.oof_.learned(search.best_model_)
    positive = search.positive_
    has_proba, is_second = found.proba is not None, positive == classes[1]
    if found.proba is not None:
        score = found.proba[:, int(is_second)]
    else:
        score = np.asarray(found.scores).reshape(-1) * (1 if is_second else -1)
    true = found.true == positive
    said = cross_thresholds(true, score, found.parts, metric, found.weight)
    threshold = best_threshold(true, score, metric, found.weight)
    options = {} if found.weight is None else {"sample_weight": found.weight}
    pipeline = clone(search.best_estimator_)
    name, model = pipeline.steps[-1]
    response = "predict_proba" if has_proba else "decision_function"
    fixed = FixedThresholdClassifier(model, threshold=threshold, pos_label=positive, response_method=response)
    pipeline.steps[-1] = (name, fixed)
    before, after = (float(metric(true, each, **options)) for each in (found.predicted == positive, said))
    report = {
        "scoring": scoring,
        "threshold": threshold,
        "on": response,
        "positive": np.asarray(positive).tolist(),
        "before": before,
        "after": after,
        "is_shipped": after >= before,
    }
    if after < before:
        return report, search.best_estimator_
    return report, fit_pipeline(pipeline, rows.X, rows.y, rows.weight)


def label_metric(scoring: str) -> Callable[..., float]:
    """Return a scorer of labels as a function of true and predicted labels, the higher the better.

    Raises
    ------
    TopModelError
        When there is no such scorer, or it judges scores.
    """
    scorer: Any = scorer_of(scoring, "classification")
    if scorer._response_method != "predict":
        raise TopModelError(f"{scoring!r} judges scores, not labels; tune a threshold for accuracy, f1 or the like")
    kwargs = {**scorer._kwargs, "pos_label": True} if "pos_label" in scorer._kwargs else scorer._kwargs

    def metric(true: Any, said: Any, **options: Any) -> float:
        return float(scorer._sign * scorer._score_func(true, said, **kwargs, **options))

    return metric


def nested(search: TopModelSearchCV, rows: TrainingData, cv: Any, progress: Callable[[int], Any]) -> dict[str, Any]:
    """Score the whole procedure: the search runs again inside each fold's training part.

    Its interval rests on the rows, or groups of them, as that of every candidate.

    Parameters
    ----------
    search : TopModelSearchCV
        Fitted.
    rows : TrainingData
    cv : splitter
        Of the inner searches.
    progress : callable
        Number of the inner search to its progress callback.
    """
    scorer, numbers = search.scorer_, count()

    def run(train: NDArray[np.int64], test: NDArray[np.int64]) -> tuple[float, Prediction]:
        part, rest, number = rows.take(train), rows.take(test), next(numbers)
        inner = clone(search).set_params(cv=_as_many(cv, part), progress=progress(number))
        best = inner.fit(part.X, part.y, groups=part.groups, sample_weight=part.weight).best_estimator_
        return score_fitted(scorer, best, rest.X, rest.y, rest.weight), prediction_of(best, rest.X, fold=number)

    scores, found = map(list, zip(*over_folds(run, search.folds_), strict=True))
    data = SearchData(rows.X, rows.y, {}, search.folds_, search.task, rows.weight)
    interval = Uncertainty(data, search.scoring, scorer, rows.groups).interval(
        Candidate((), "nested", {}, fold_scores=scores), found
    )
    return {"mean": float(np.mean(scores)), "ci95": list(interval.ends), "fold_scores": scores}


def _as_many(cv: Any, rows: TrainingData) -> Any:
    """Return folds for an inner search: as many as asked for, or as its rows have groups, where those are fewer."""
    if rows.groups is None or not isinstance(cv, Folds):
        return cv
    return replace(cv, n_splits=min(cv.n_splits, len(np.unique(rows.groups))))


def learning_curve(search: TopModelSearchCV, rows: TrainingData) -> dict[str, Any]:
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
            scoring=search.scorer_,
            random_state=search.random_state,
            n_jobs=-1 if search.n_jobs is None else search.n_jobs,
        )
    return curve.to_dict()
