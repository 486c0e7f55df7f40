"""What the advice stands on, measured: counts, duplicates, the layer curve, the learning curve, the gap."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from joblib import effective_n_jobs
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from featurebank.bank.bank import Bank
from featurebank.bank.defaults import candidate_features
from featurebank.bank.features import FeatureSet
from featurebank.bank.neighbours import near_duplicate_pairs
from featurebank.bank.repair_hints import moved_command
from featurebank.explore.advice.networks import Network, complete_sets, find_networks
from featurebank.explore.advice.probe import (
    PROBE,
    Interval,
    best_by_features,
    chance,
    compared,
    crossed,
    permutation_test,
    read_curve,
    search_rows,
)
from featurebank.explore.advice.rules import HALF, Evidence
from featurebank.fitting.assessment import is_imbalanced
from featurebank.fitting.targets import Target
from featurebank.fitting.training_data import NEAR_DUPLICATE_ROWS, TrainingData, load_rows, straddling
from featurebank.images.reading import Progress
from featurebank.topmodels.candidates import Candidate
from featurebank.topmodels.evaluation import scorer_of
from featurebank.topmodels.folds import Fold, Folds, default_kind, fold_numbers, sizes_of
from featurebank.topmodels.learning_curve import LearningCurve, learning_curve
from featurebank.topmodels.models import TASKS
from featurebank.topmodels.refitting import fit_and_score, over_folds
from featurebank.topmodels.search import TopModelSearchCV
from featurebank.topmodels.transforms import normalization

DRAWS = 2
"""Parts of each size that the learning curve draws from a fold: a glance, where `featurebank fit` takes five."""


@dataclass(frozen=True)
class Question:
    """What is asked about a bank; see `featurebank.explore.advice.advice.advise`."""

    target: str
    groups: str | None = None
    sample_weight: str | None = None
    scoring: str | None = None
    folds: int = 5
    repeats: int = 1
    random_state: int = 0
    n_jobs: int = -1


@dataclass(frozen=True)
class Measurements:
    """What was measured, and what it was measured on.

    Attributes
    ----------
    network : Network
        The network that is advised on: of those with a layer curve, or else of all, that with the best probe.
    class_weight : str or None
        ``"balanced"`` for classes of very different size.
    best : dict of tuple of str to Candidate
        Best probe of each of the network's candidates.
    copies, alike : int
        Samples that repeat the content of another, or look like another (None: too many to look).
    chance : float
        What a guess scores.
    plateau : FeatureSet
        Where the plateau begins; the top layer where there is no layer curve.
    """

    rows: TrainingData
    network: Network
    evidence: Evidence
    scoring: str
    class_weight: str | None
    best: dict[tuple[str, ...], Candidate]
    copies: int
    alike: int | None
    learning: LearningCurve
    chance: float
    plateau: FeatureSet
    notes: list[str]

    @property
    def winner(self) -> Candidate:
        """The best probe."""
        return max(self.best.values(), key=lambda each: each.mean)

    @property
    def lower(self) -> Candidate:
        """The best probe on anything but the top layer alone; the top layer's own where there is nothing else."""
        others = [each for each in self.best.values() if each.features != (self.network.top.name,)]
        return max(others or self.best.values(), key=lambda each: each.mean)


def measure(bank: Bank, question: Question, progress: Progress | None = None) -> Measurements:
    """Measure what the advice stands on.

    Classes of very different size (`fitting.assessment.IMBALANCE`) are weighted alike, and scored by the balanced
    accuracy: the plain one would hardly notice the small ones.
    """
    rows, networks, notes = _load(bank, question)
    is_uneven = rows.task == "classification" and is_imbalanced(rows.y)
    usual = "r2" if rows.task == "regression" else "balanced_accuracy" if is_uneven else "accuracy"
    scoring, weights = question.scoring or usual, "balanced" if is_uneven else None
    search = _probe(rows, networks, question, scoring, weights, _phase(progress, 0))
    folds = search.folds_
    every = best_by_features(search.candidates_, PROBE)
    network = max(networks, key=lambda each: (each.has_curve, max(every[(name,)].mean for name in each.names)))
    best = {names: every[names] for names in network.candidates}
    guess = chance(rows, folds, search.scorer_)
    winner = max(best.values(), key=lambda each: each.mean)
    model = TASKS[rows.task][PROBE].pipeline(
        winner.params, question.random_state, normalization("standardize", widths=rows.widths(winner.features)), weights
    )
    X = rows.features(winner.features)
    learning = _learning_curve(model, X, rows, folds, scoring, question, _phase(progress, 1))
    at, evidence = _evidence(rows, network, search, guess, scoring)
    doubling = learning.doubling
    digests = rows.table.rows["digest"]
    return Measurements(
        rows=rows,
        network=network,
        evidence=replace(
            evidence,
            doubling=None if doubling is None else Interval(doubling["gain"], *doubling["ci95"]),
            shuffled=_shuffled(rows, network, evidence, question),
            gap=_training_score(model, X, rows, folds, scoring) - winner.mean,
            no_tuning=_no_tuning(bank, rows, network),
        ),
        scoring=scoring,
        class_weight=weights,
        best=best,
        copies=len(digests) - digests.nunique(),
        alike=len(np.unique(near_duplicate_pairs(rows.alike))) if len(rows.y) <= NEAR_DUPLICATE_ROWS else None,
        learning=learning,
        chance=float(np.mean(guess)),
        plateau=at,
        notes=notes + straddling(rows, fold_numbers(folds, len(rows.y)), question.groups) + search.warnings_,
    )


def _load(bank: Bank, question: Question) -> tuple[TrainingData, list[Network], list[str]]:
    """Return the rows of every complete feature set, the networks these come from, and what was noticed."""
    columns = [question.target, *([question.sample_weight] if question.sample_weight else [])]
    candidates, _, notes = complete_sets(bank, candidate_features(bank, None), bank.select(*columns))
    names = [name for (name,) in candidates]
    rows = load_rows(bank, names, Target([question.target]), question.groups, question.sample_weight)
    networks = find_networks(bank, names)
    notes += [f"the layers {', '.join(each.names)} are ordered by name" for each in networks if not each.is_ordered]
    return rows, networks, notes + rows.notes


def _probe(
    rows: TrainingData,
    networks: Sequence[Network],
    question: Question,
    scoring: str,
    weights: Any,
    progress: Progress | None,
) -> TopModelSearchCV:
    """Score the probe on every layer, and on those of each network side by side."""
    singles = [(name,) for each in networks for name in each.names]
    wanted = list(dict.fromkeys([*singles, *(names for each in networks for names in each.candidates)]))
    kind = default_kind(rows.task, rows.groups is not None)
    cv = Folds(kind, question.folds, question.repeats, question.random_state)
    return search_rows(
        rows, wanted, [PROBE], cv, scoring=scoring, class_weight=weights, n_jobs=question.n_jobs, progress=progress
    )


def _evidence(
    rows: TrainingData, network: Network, search: TopModelSearchCV, guess: Sequence[float], scoring: str
) -> tuple[FeatureSet, Evidence]:
    """Return where the plateau begins, and what the probe says."""
    sizes, wanted = sizes_of(search.folds_), network.candidates
    mine = [each for each in search.candidates_ if each.features in wanted]
    layers, trials = network.curve, search.trials_
    curve = (
        read_curve(mine, [each.name for each in layers], sizes, HALF, scoring, trials) if network.has_curve else None
    )
    counts = np.unique(rows.y, return_counts=True)[1] if rows.task == "classification" else np.array([])
    return network.top if curve is None else layers[curve.plateau], Evidence(
        n_samples=len(rows.y),
        n_classes=len(counts),
        smallest_class=int(counts.min(initial=len(rows.y))),
        largest_class=int(counts.max(initial=0)) or len(rows.y),
        score=max(each.mean for each in mine),
        above_chance=compared(crossed(mine), guess, sizes, scoring, trials),
        lead=None if curve is None else curve.lead,
        lead_error=0.0 if curve is None else curve.error,
        plateau=1.0 if curve is None else curve.place,
        doubling=None,
        gap=0.0,
    )


def _shuffled(rows: TrainingData, network: Network, evidence: Evidence, question: Question) -> float | None:
    """Return how often shuffled labels are predicted as well, where the interval does not settle it."""
    if evidence.above_chance.low > 0:
        return None
    jobs = int(effective_n_jobs(question.n_jobs))
    seed = question.random_state
    return permutation_test(rows, network.candidates, folds=question.folds, random_state=seed, n_jobs=jobs)


def _learning_curve(
    model: Pipeline,
    X: NDArray[np.float32],
    rows: TrainingData,
    folds: Sequence[Fold],
    scoring: str,
    question: Question,
    progress: Progress | None,
) -> LearningCurve:
    """Return a quick learning curve of the best probe, on the same folds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # small sets make scikit-learn warn at every turn
        return learning_curve(
            model,
            X,
            rows.y,
            folds,
            groups=rows.groups,
            sample_weight=rows.weight,
            scoring=scoring,
            shots=(),
            seeds=DRAWS,
            random_state=question.random_state,
            n_jobs=question.n_jobs,
            progress=progress,
        )


def _training_score(
    model: Pipeline, X: NDArray[np.float32], rows: TrainingData, folds: Sequence[Fold], scoring: str
) -> float:
    """Return the mean score on the rows that each fold trains on."""
    scorer = scorer_of(scoring, rows.task)

    def score(train: NDArray[np.int64], _: NDArray[np.int64]) -> float:
        return fit_and_score(model, scorer, X, rows.y, train, train, rows.weight)

    return float(np.mean(over_folds(score, folds)))


def _no_tuning(bank: Bank, rows: TrainingData, network: Network) -> str:
    """Return why the network cannot be fine-tuned by a command; empty where it can."""
    if rows.task != "classification":
        return "fine-tuning learns classes, and the target holds numbers"
    if network.request is None:
        return f"{network.top.spec.backbone!r} is a module of your own: give it to `featurebank.finetune` in Python"
    first = rows.table.rows.drop_duplicates("source")
    for source, root, path in zip(first["source"], first["root"], first["path"], strict=True):
        if not os.path.exists(os.path.join(os.fsencode(root), path)):
            return f"the images of {source!r} are not where they were: `{moved_command(bank, source)}`"
    return ""


def _phase(progress: Progress | None, number: int) -> Progress | None:
    """Return a callback for one of two phases of equal length."""
    if progress is None:
        return None
    return lambda done, total: progress(100 * number + 100 * done // max(1, total), 200)
