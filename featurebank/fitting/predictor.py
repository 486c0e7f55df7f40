"""The predictor of a fit: the best candidate's features and model, its calibrator, and what tells the unlike apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline

from featurebank.bank.bank import Bank
from featurebank.bank.features import DigestIndex, as_keys
from featurebank.fitting.assessment import AUTO
from featurebank.fitting.committee import Shipped, shipped_committee, shipped_of
from featurebank.fitting.targets import Target
from featurebank.fitting.training_data import TrainingData
from featurebank.predictor.evaluation import contents_of
from featurebank.predictor.predictor import Predictor
from featurebank.predictor.task import Task
from featurebank.storage.memory import releasing
from featurebank.topmodels.calibration import Calibrator, LabelsCalibrator
from featurebank.topmodels.folds import fold_numbers
from featurebank.topmodels.novelty import LEAST_ROWS, Unlike, draw
from featurebank.topmodels.search import TopModelSearchCV


@releasing
def make_predictor(
    bank: Bank,
    search: TopModelSearchCV,
    fitted: Pipeline,
    rows: TrainingData,
    target: Target,
    report: dict[str, Any],
    oof: pd.DataFrame,
    calibrator: Calibrator | LabelsCalibrator | None,
) -> Predictor:
    """Make the predictor of a search's best candidate."""
    shipped = _shipped(bank, search, fitted, rows)
    kept = {**report, "contents": contents_of(rows.table.rows["digest"]), "samples": _fold_of_each(rows, search)}
    unlike = _unlike(shipped, rows)
    task = Task(shipped.features, shipped.model, target.name, rows.task, rows.labels, calibrator, kept, unlike, oof)
    return Predictor(task, tensors=shipped.tensors)


def _shipped(bank: Bank, search: TopModelSearchCV, fitted: Pipeline, rows: TrainingData) -> Shipped:
    best = search.best_candidate_
    if search.committee_ is not None and best is search.committee_.candidate:
        return shipped_committee(bank, search.committee_, fitted, rows)
    return shipped_of(bank, best.features, best.views, fitted)


@releasing
def _unlike(shipped: Shipped, rows: TrainingData) -> Unlike | None:
    """Return what tells whether a new image is unlike the training images; None of too few."""
    keys = as_keys(rows.table.rows["digest"])
    first = DigestIndex(keys).first
    if len(first) < LEAST_ROWS:
        return None
    drawn = first[np.argsort(keys[first])[draw(len(first))]]  # the same rows in whatever order they come
    return Unlike().fit(shipped.seen(rows, drawn), rows.y[drawn] if rows.task == "classification" else None)


@releasing
def make_calibrator(
    search: TopModelSearchCV, model: Pipeline, method: str | None
) -> Calibrator | LabelsCalibrator | None:
    """Return what turns scores into probabilities; None for numbers, and for a model that has its own."""
    if search.task == "regression" or (method is None and hasattr(model, "predict_proba")):
        return None
    if search.task == "multilabel":
        found = search.oof_
        return LabelsCalibrator("sigmoid" if method in (None, AUTO) else method).fit(
            found.scores, found.true, found.weight
        )
    return None if method is None else search.calibrate(method)


def _fold_of_each(rows: TrainingData, search: TopModelSearchCV) -> list[list[Any]]:
    """Return [source, path, fold] of each row, so that others can use the same folds."""
    numbers = map(int, fold_numbers(search.folds_, len(rows.y)))
    return [list(row) for row in zip(rows.table.rows["source"], rows.paths, numbers, strict=True)]
