"""How rows are fitted, whatever is to be learned of them: the options of `fit`, and the folds that these ask for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurebank.bank.bank import Bank
from featurebank.errors import TopModelError
from featurebank.fitting.committee import GivenFile
from featurebank.fitting.given_split import NO_SPLIT, given_split, predefined
from featurebank.fitting.training_data import TrainingData
from featurebank.topmodels.class_weights import ClassWeight, resolve_class_weight
from featurebank.topmodels.folds import Folds, default_kind
from featurebank.topmodels.models import Models

PREDEFINED = "predefined:"


@dataclass(frozen=True)
class Plan:
    """The options of `fit`."""

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


def splitter_of(plan: Plan, rows: TrainingData) -> tuple[Any, NDArray[np.bool_], dict[str, Any] | None]:
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
        return folds_of(plan, rows), np.zeros(len(rows.y), bool), facts
    fold = given.fold(rows.y, rows.task) if plan.cv is None and not plan.nested and plan.repeats == 1 else []
    return fold or folds_of(plan, rows), given.is_held_out, given.facts(bool(fold))


def folds_of(plan: Plan, rows: TrainingData) -> Folds:
    """Return the folds that are drawn."""
    is_grouped = rows.groups is not None
    count, name = (plan.cv, None) if isinstance(plan.cv, int) else (plan.folds, plan.cv)
    kind = name or default_kind(rows.task, is_grouped)
    if is_grouped and kind in ("stratified", "plain"):
        kind = {"stratified": "stratified-group", "plain": "group"}[kind]
    return Folds(kind, count, plan.repeats, plan.options["random_state"])


def class_weight_of(plan: Plan, rows: TrainingData) -> ClassWeight:
    """Return the weights of the classes themselves, which are 0 and 1 for each of several labels."""
    return None if rows.task == "regression" else resolve_class_weight(plan.class_weight, rows.y)
