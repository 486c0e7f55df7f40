"""fit(normal=…): what is normal, learned from normal images alone, and a threshold that keeps its promise."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from inspect import Signature, signature
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featurebank.bank.bank import Bank
from featurebank.bank.defaults import candidate_features, default_target, middle_blocks
from featurebank.bank.samples import column_of
from featurebank.bank.spec import LOGITS, short
from featurebank.errors import ColumnError, TopModelError, counted, near_names
from featurebank.fitting.given_split import GivenSplit, given_split
from featurebank.fitting.normal_maps import patch_maps
from featurebank.fitting.result import FitResult
from featurebank.fitting.training_data import TrainingData, load_table
from featurebank.images.reading import Progress
from featurebank.predictor.evaluation import contents_of
from featurebank.predictor.features import predictor_features
from featurebank.predictor.predictor import Predictor
from featurebank.predictor.task import ANOMALY, Task, has_value
from featurebank.topmodels.candidates import Candidate
from featurebank.topmodels.formatting import interval_text, score_text
from featurebank.topmodels.one_class.choosing import FOLDS, SCORING, compare, fuse
from featurebank.topmodels.one_class.conformal import check_rate, least_rate, least_units
from featurebank.topmodels.one_class.detectors import make_detector, parse_detectors
from featurebank.topmodels.one_class.judging import detection_scores
from featurebank.topmodels.one_class.model import OneClassModel

EVERY = "*"
"""Stands for a value that every row has."""
FALSE_ALARMS = 0.01
CONTAMINATIONS = (0.01, 0.05)
"""Shares of anomalies among the normals for which the report says what they may cost."""


@dataclass(frozen=True)
class Normals:
    """Rows of a bank, and which of them are normal.

    Attributes
    ----------
    rows : TrainingData
    is_normal, is_held_out : ndarray of bool, shape (n,)
    target : str
    value : str or None
        What normal rows have as target; None where every row is normal.
    split : dict or None
        What the report says of a given split.
    """

    rows: TrainingData
    is_normal: NDArray[np.bool_]
    is_held_out: NDArray[np.bool_]
    target: str
    value: str | None
    split: dict[str, Any] | None

    @cached_property
    def learned(self) -> NDArray[np.int64]:
        """The rows that are learned from."""
        return np.flatnonzero(self.is_normal & ~self.is_held_out)

    @property
    def groups(self) -> NDArray[np.int64] | None:
        """The groups of the rows that are learned from."""
        return None if self.rows.groups is None else self.rows.groups[self.learned]

    @property
    def units(self) -> int:
        """How many rows, or groups of them, are learned from."""
        return len(self.learned) if self.groups is None else len(np.unique(self.groups))


def fit_normal(
    bank: Bank,
    *,
    normal: object = EVERY,
    features: str | Sequence[str] | None = None,
    models: str | Sequence[str] | None = None,
    target: str | None = None,
    groups: str | None = None,
    split: str | None = None,
    false_alarms: float | None = None,
    random_state: int = 0,
    n_jobs: int = 1,
    progress: Progress | None = None,
) -> FitResult:
    """Learn what is normal; see `featurebank.fit`, whose ``normal=`` this is.

    The report has ``one_class``: how many ``normals`` were learned from (and ``units``, of groups), the rate of
    ``false_alarms`` that is promised, the ``least`` that so many can promise, the ``fused`` detectors, ``scores`` of
    the anomalies that the bank has, what anomalies among the normals may cost, and ``sentences`` that say it.
    """
    started = time.perf_counter()
    candidates = _candidates(bank, features)
    known = _load(bank, candidates, normal, target, groups, split)
    rate = _promised(known.units, false_alarms)
    rows = known.rows
    found = compare(
        rows.X[known.learned],
        {tuple(names): _columns(rows, names) for names in candidates},
        parse_detectors(models),
        groups=known.groups,
        random_state=random_state,
        n_jobs=n_jobs,
        progress=progress,
    )
    chosen = fuse(found)
    names = list(dict.fromkeys(name for each in chosen for name in each.features))
    X = rows.features(names)
    places = _places(rows, names)
    seen = [np.concatenate([places[name] for name in each.features]) for each in chosen]
    detectors = [
        (each.model, make_detector(each.model, columns, len(known.learned)))
        for each, columns in zip(chosen, seen, strict=True)
    ]
    model = OneClassModel(detectors, false_alarms=rate, random_state=random_state, n_jobs=n_jobs)
    model.fit(X[known.learned], groups=known.groups)
    said = _said(model, X, known)
    maps, map_tensors = patch_maps(bank, rows.table.take(known.learned), known.groups, names, rate, random_state)
    report = _report(known, found, chosen, model, said) | ({} if groups is None else {"groups": groups})
    report["one_class"]["maps"] = [] if maps is None else [each.spec.name for each in maps.features]
    report["seconds"] = time.perf_counter() - started
    specs, tensors = predictor_features(bank, names)
    kept = {
        **report,
        "contents": contents_of(rows.table.take(known.learned).rows["digest"]),
        "samples": [
            list(row) for row in zip(rows.table.rows["source"], rows.paths, said["fold"].tolist(), strict=True)
        ],
    }
    task = Task(specs, model, known.target, "anomaly", report=kept, out_of_fold=said, patches=maps)
    return FitResult(report, Predictor(task, tensors={**tensors, **map_tensors}))


def options_of(given: Mapping[str, Any], fit: Signature) -> dict[str, Any]:
    """Return `fit_normal`'s options of those of `featurebank.fit`.

    Raises
    ------
    TopModelError
        When another one is given: it has no meaning where normal rows alone are learned from.
    """
    own = signature(fit_normal).parameters
    for name, option in fit.parameters.items():
        if name not in own and given[name] != option.default:
            words = {"given": "a given predictor (--with)"}.get(name, name.replace("_", " "))
            raise TopModelError(f"{words} and normal images alone do not go together; leave one or the other out")
    target = given["target"]
    named = [target] if isinstance(target, str) else list(target or [])
    if len(named) > 1:
        raise TopModelError("several targets and normal images alone do not go together; name one target")
    return {name: given[name] for name in own if name != "bank"} | {"target": named[0] if named else None}


# --- what is learned from ----------------------------------------------------------------------------------


def _candidates(bank: Bank, features: str | Sequence[str] | None) -> list[list[str]]:
    """Return the feature sets of each candidate: by default every pooled one, and the middle blocks side by side."""
    if features not in (None, "all"):
        return candidate_features(bank, features)
    alone = [names for names in candidate_features(bank, None) if bank.feature_set(names[0]).spec.layer != LOGITS]
    return [*alone, *(names for names in middle_blocks(bank) if len(names) > 1)]


def _load(
    bank: Bank,
    candidates: Sequence[Sequence[str]],
    normal: object,
    target: str | None,
    groups: str | None,
    split: str | None,
) -> Normals:
    """Load all rows whose kind is known, and say which are normal."""
    is_every = str(normal) == EVERY
    if is_every and target is not None:
        raise TopModelError(f"every row is normal, and a target {target!r} is given; name its value: --normal VALUE")
    name = ANOMALY if is_every else target or default_target(bank)
    table = bank.select() if is_every else bank.select(name)
    is_normal = np.ones(len(table), bool) if is_every else has_value(column_of(table, name), normal)
    if not is_normal.any():
        known = sorted({str(value) for value in column_of(table, name)})
        raise ColumnError(f"no readable sample has {name} {str(normal)!r}; {near_names(str(normal), known, most=20)}")
    sets = list(dict.fromkeys(name for names in candidates for name in names))
    rows = load_table(bank, sets, table, groups, None, ["mean"])
    given = given_split(table, np.arange(len(table)), split)
    is_held_out = given.is_held_out if isinstance(given, GivenSplit) else np.zeros(len(table), bool)
    facts = given.facts(False) if isinstance(given, GivenSplit) else None
    return Normals(rows, is_normal, is_held_out, name, None if is_every else str(normal), facts)


def _promised(units: int, false_alarms: float | None) -> float:
    """Return the rate that is promised: the one that is asked for, else 1 %, or the least that so few can promise."""
    if false_alarms is None:
        return max(FALSE_ALARMS, least_rate(units))
    check_rate(false_alarms, units)
    return false_alarms


def _places(rows: TrainingData, names: Sequence[str]) -> dict[str, NDArray[np.int64]]:
    """Return the columns that each feature set has where these lie side by side."""
    widths = [rows.blocks[name].stop - rows.blocks[name].start for name in names]
    ends = np.cumsum([0, *widths])
    return {name: np.arange(start, start + width) for name, start, width in zip(names, ends, widths, strict=False)}


def _columns(rows: TrainingData, names: Sequence[str]) -> NDArray[np.int64]:
    """Return the columns of `rows.X` that feature sets have."""
    return np.concatenate([np.arange(rows.blocks[name].start, rows.blocks[name].stop) for name in names])


# --- what is said ------------------------------------------------------------------------------------------


def _said(model: OneClassModel, X: NDArray[np.float32], known: Normals) -> pd.DataFrame:
    """Return what is said of every row: of those that were learned from, out of fold."""
    scores, fold = np.empty(len(X)), np.full(len(X), -1, np.int32)
    others = np.setdiff1d(np.arange(len(X)), known.learned)
    scores[known.learned], fold[known.learned] = model.out_of_fold_, model.folds_
    if len(others):
        scores[others] = model.score_samples(X[others])
    usual = known.value or "normal"
    return pd.DataFrame(
        {
            "row": np.arange(len(X), dtype=np.int32),
            "fold": fold,
            "true": np.where(known.is_normal, usual, ANOMALY).astype(object),
            "predicted": np.where(scores < model.offset_, ANOMALY, usual).astype(object),
            "score": scores,
            "anomaly": model.conformal_.p_values(scores),
        }
    )


def _report(
    known: Normals, found: Sequence[Candidate], chosen: Sequence[Candidate], model: OneClassModel, said: pd.DataFrame
) -> dict[str, Any]:
    rate, units = model.false_alarms, known.units
    scores = _scores(known, model, said)
    one_class: dict[str, Any] = {
        "normals": len(known.learned),
        "units": units,
        "false_alarms": rate,
        "least": least_rate(units),
        "fused": [{"features": list(each.features), "model": each.model} for each in chosen],
        "scores": scores,
        "contamination": [_contaminated(share, rate, known, said) for share in CONTAMINATIONS],
    }
    one_class["sentences"] = _sentences(one_class, known, found)
    return {
        "n_samples": len(known.learned),
        "classes": [],
        "target": known.target,
        "normal": known.value,
        "task": "anomaly",
        "scoring": SCORING,
        "folds": FOLDS,
        "grouped": known.groups is not None,
        "seed": model.random_state,
        "candidates": [each.to_dict() for each in found],
        "best": found[int(np.argmax([each.mean for each in found]))].to_dict(),
        "comparison": None,
        "interrupted": False,
        "timed_out": False,
        "warnings": known.rows.notes,
        **({} if known.split is None else {"split": known.split}),
        "one_class": one_class,
    }


def _scores(known: Normals, model: OneClassModel, said: pd.DataFrame) -> dict[str, Any] | None:
    """Score the anomalies of the bank beside held-out normals, or those learned from out of fold; None of neither."""
    held_out = known.is_normal & known.is_held_out
    if known.is_normal.all() and not held_out.any():
        return None
    shown = ~known.is_normal | held_out if held_out.any() else np.ones(len(said), bool)
    scores = said["score"].to_numpy()[shown]
    groups = None if known.rows.groups is None else known.rows.groups[shown]
    found = detection_scores(~known.is_normal[shown], scores, scores < model.offset_, groups)
    if not held_out.any():  # their share of false alarms is what the threshold was set by
        del found["false_alarms"], found["intervals"]["false_alarms"]
    return {**found, "normals": "held out" if held_out.any() else "out of fold"}


def _contaminated(share: float, rate: float, known: Normals, said: pd.DataFrame) -> dict[str, Any]:
    """Return what is left, at worst, where a share of the normals are anomalies: they may all lie beyond the threshold.

    Then the rest of the normals is flagged at a lower rate, and only anomalies that are as rare.
    """
    left = max(0.0, (rate - share) / (1 - share))
    p_values = said["anomaly"].to_numpy()[~known.is_normal]
    detection = float((p_values <= left).mean()) if len(p_values) else None
    return {"share": share, "false_alarms": left, "detection": detection}


def _sentences(found: dict[str, Any], known: Normals, judged: Sequence[Candidate]) -> list[str]:
    """Say what was learned, what is promised, what was found, and what anomalies among the normals may cost."""
    what = "normal images" if known.groups is None else "groups of normal images"
    rate, units = found["false_alarms"], found["units"]
    fused = "; ".join(f"{each['model']} on {short('+'.join(each['features']))}" for each in found["fused"])
    said = [
        _judged_text(judged),
        f"Learned from {units} {what}; chosen by artificial anomalies and fused: {fused}",
        f"False alarms: at most {_percent(rate)} of new normal images are expected to be flagged; {units} {what} can "
        f"promise {_percent(found['least'])} at least, 5 % takes {least_units(0.05)}, 1 % {least_units(0.01)}, 0.1 % "
        f"{least_units(0.001)}",
    ]
    if found["scores"] is not None:
        said.append(_scores_text(found["scores"]))
    for each in found["contamination"]:
        if each["share"] * units < 1 or each["false_alarms"] < found["least"]:  # not one image, or nothing is left
            continue
        less = f"as few as {_percent(each['false_alarms'])} of normal images would be flagged"
        if each["detection"] is not None:
            less += f", and of the anomalies {_percent(each['detection'])}"
        said.append(f"If {_percent(each['share'])} of the normals were anomalies in truth, {less}")
    return said


def _judged_text(judged: Sequence[Candidate]) -> str:
    """Say what the scores of detectors are of, and whether they could choose among these."""
    text = "The table judges detectors by artificial anomalies, mixed from normal images: no measure of real ones"
    is_arbitrary = not any(each.ci95[0] > 0.5 for each in judged)
    arbitrary = "; none is surely better than a coin's toss (50 %), so the choice among them is arbitrary"
    return text + arbitrary * is_arbitrary


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _scores_text(scores: dict[str, Any]) -> str:
    """Say how well the anomalies of the bank are told from normals that were not learned from."""
    shown = {"detection": "detected", "false_alarms": "false alarms", "roc_auc": "AUROC", "average_precision": "AUPR"}
    parts = [
        f"{words} {score_text(scores[name], name)} (95 % {interval_text(scores['intervals'][name], name)})"
        for name, words in shown.items()
        if name in scores
    ]
    normals = counted(scores["n_samples"] - scores["n_anomalies"], "normal")
    of_anomalies = ""
    if scores["n_anomalies"]:
        anomalies = counted(scores["n_anomalies"], "anomaly", "anomalies")
        of_anomalies = f"{anomalies}, from which nothing was learned, and "
    return f"Scored on {of_anomalies}{normals} {scores['normals']}: {', '.join(parts)}"
