"""Scores of an estimator that is fitted to ever larger parts of each fold's training rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from joblib import Parallel
from numpy.typing import NDArray
from sklearn.base import is_regressor
from sklearn.pipeline import Pipeline, make_pipeline
from threadpoolctl import threadpool_limits

from featurebank.errors import TopModelError, one_line
from featurebank.images.reading import Progress
from featurebank.topmodels.evaluation import scorer_of
from featurebank.topmodels.folds import Fold
from featurebank.topmodels.refitting import fit_and_score
from featurebank.topmodels.threads import delayed

LEAST_SHOTS = 5
"""Fewer rows a class say nothing of the curve."""
BALANCED = 1.5
"""Few-shot sets hold all classes alike: the curve takes them where no class is more times as large as another."""


class Size(NamedTuple):
    """A number of rows a class or a share of the training part, and whether the power law takes its score."""

    amount: float
    is_share: bool
    is_fitted: bool

    def __str__(self) -> str:
        if self.is_share:
            return f"{self.amount:.0%} of the training part"
        return f"{self.amount} row{'s' * (self.amount > 1)} a class"


class Draw(NamedTuple):
    """Row numbers of one part of one fold's training part; draws of one number are nested over the sizes."""

    size: int
    fold: int
    number: int
    rows: NDArray[np.int64]


class Measured(NamedTuple):
    """Mean number of rows of a size, and its scores, shape (folds, draws), nan where there is none."""

    size: Size
    n_train: float
    scores: NDArray[np.float64]


Outcome = tuple[float, str]
"""A score and no text, or nan and why there is none."""


@dataclass(frozen=True)
class Subsampling:
    """What all fits share; ``classes`` is None for numbers and for several labels."""

    pipeline: Pipeline
    X: NDArray[Any]
    y: NDArray[Any]
    classes: NDArray[Any] | None
    groups: NDArray[Any] | None
    weight: NDArray[Any] | None
    folds: Sequence[Fold]
    scorer: Any

    def sizes(self, shots: Sequence[int], shares: Sequence[float]) -> tuple[list[Size], list[str]]:
        """Return what every fold can give, and a note of what some cannot."""
        parts = [Size(share, True, True) for share in sorted({float(each) for each in shares})]
        if self.classes is None:
            return parts, []
        counts = [np.unique(self.classes[train], return_counts=True)[1] for train, _ in self.folds]
        least = min(count.min() for count in counts)
        wanted = sorted({int(each) for each in shots})
        is_alike = self.groups is None and all(count.max() <= BALANCED * count.min() for count in counts)
        few = [Size(k, False, is_alike and k >= LEAST_SHOTS) for k in wanted if k <= least]
        over = ", ".join(str(k) for k in wanted if k > least)
        notes = [f"{over} rows a class left out: a class has {least} in some training part"] if over else []
        return few + parts, notes

    def draws(self, sizes: Sequence[Size], count: int, random_state: int) -> Iterator[Draw]:
        """Yield every part to fit; a draw shuffles all sizes alike, so that its parts are nested."""
        for (size_number, size), (fold, (train, _)) in product(enumerate(sizes), enumerate(self.folds)):
            for number in range(1 if size.is_share and size.amount == 1 else count):
                random = np.random.default_rng([random_state, fold, number])
                yield Draw(size_number, fold, number, train[self._chosen(size, train, random)])

    def _chosen(self, size: Size, train: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.bool_]:
        """Choose some rows a class, whole groups, or rows with the classes in proportion."""
        strata = np.zeros(len(train)) if self.classes is None else self.classes[train]
        if not size.is_share:
            return _ranks(strata, random)[0] < size.amount
        wanted = max(1, round(size.amount * len(train)))
        if self.groups is not None:
            return _whole_groups(self.groups[train], wanted, random)
        ranks, counts = _ranks(strata, random)
        order = np.lexsort((random.random(len(train)), (ranks + 0.5) / counts))
        return np.isin(np.arange(len(train)), order[:wanted])

    def outcome(self, draw: Draw) -> Outcome:
        """Fit a part and score it on the whole test part of its fold."""
        test = self.folds[draw.fold][1]
        try:
            score = fit_and_score(self.pipeline, self.scorer, self.X, self.y, draw.rows, test, self.weight)
        except Exception as error:  # estimators raise all kinds
            return np.nan, one_line(error)[:160]
        return (score, "") if np.isfinite(score) else (np.nan, f"the score is {score}")

    def outcomes(self, draws: Sequence[Draw], n_jobs: int, progress: Progress | None) -> list[Outcome]:
        """Return the outcome of every draw, in their order."""
        outcomes = []
        with threadpool_limits(1):
            jobs = (delayed(self.outcome)(draw) for draw in draws)
            for outcome in Parallel(n_jobs, prefer="threads", return_as="generator")(jobs):
                outcomes.append(outcome)
                if progress is not None:
                    progress(len(outcomes), len(draws))
        return outcomes


def subsampling(
    estimator: Any, X: Any, y: Any, folds: Sequence[Fold], groups: Any, sample_weight: Any, scoring: Any
) -> Subsampling:
    """Return what all fits share.

    Raises
    ------
    TopModelError
        When columns have other numbers of rows than X, or there is no fold.
    """
    X, y, groups, weight = (None if each is None else np.asarray(each) for each in (X, y, groups, sample_weight))
    columns = {"y": y, "groups": groups, "sample weights": weight}
    for name, column in columns.items():
        if column is not None and len(column) != len(X):
            raise TopModelError(f"{len(X)} rows of X and {len(column)} of {name}; expected as many")
    if not len(folds):
        raise TopModelError("no folds; expected at least one (train, test)")
    pipeline = estimator if isinstance(estimator, Pipeline) else make_pipeline(estimator)
    is_number = is_regressor(pipeline)
    scorer = scorer_of(scoring, "regression" if is_number else "classification")
    return Subsampling(pipeline, X, y, None if is_number or y.ndim == 2 else y, groups, weight, folds, scorer)


def _ranks(strata: NDArray[Any], random: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the place of each row among those of its class, in random order, and how many these are."""
    shuffled = random.permutation(len(strata))
    _, codes, counts = np.unique(strata[shuffled], return_inverse=True, return_counts=True)
    by_class = np.argsort(codes, kind="stable")
    ranks = np.empty(len(strata), np.int64)
    ranks[shuffled[by_class]] = np.arange(len(strata)) - np.repeat(np.cumsum(counts) - counts, counts)
    return ranks, counts[codes[np.argsort(shuffled)]]


def _whole_groups(groups: NDArray[Any], wanted: int, random: np.random.Generator) -> NDArray[np.bool_]:
    """Choose whole groups until the wanted number of rows is reached."""
    _, codes, counts = np.unique(groups, return_inverse=True, return_counts=True)
    order = random.permutation(len(counts))
    enough = 1 + np.searchsorted(np.cumsum(counts[order]), wanted)
    return np.isin(codes, order[:enough])


def failures(sizes: Sequence[Size], draws: Sequence[Draw], outcomes: Sequence[Outcome]) -> list[str]:
    """Return a note for each size of which a fit failed, or raise when all did."""
    notes = []
    for number, size in enumerate(sizes):
        reasons = [reason for draw, (_, reason) in zip(draws, outcomes, strict=True) if draw.size == number]
        failed = [reason for reason in reasons if reason]
        if failed:
            notes.append(f"{len(failed)} of {len(reasons)} fits on {size} failed: {failed[0]}")
    if not any(np.isfinite(score) for score, _ in outcomes):
        first = notes[0] if notes else "every number of shots is left out"
        raise TopModelError(f"no part of the rows could be fitted and scored ({first}); give larger shots or shares")
    return notes


def measured(
    sizes: Sequence[Size], draws: Sequence[Draw], outcomes: Sequence[Outcome], shape: tuple[int, int]
) -> list[Measured]:
    """Gather what was scored, the sizes by their number of rows."""
    found = []
    for number, size in enumerate(sizes):
        pairs = zip(draws, outcomes, strict=True)
        done = [(draw, score) for draw, (score, _) in pairs if draw.size == number and np.isfinite(score)]
        scores = np.full(shape, np.nan)
        for draw, score in done:
            scores[draw.fold, draw.number] = score
        if done:
            found.append(Measured(size, float(np.mean([len(draw.rows) for draw, _ in done])), scores))
    return sorted(found, key=lambda each: each.n_train)
