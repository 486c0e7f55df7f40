"""The order in which a search evaluates its candidates, within a time limit, until it is told to stop."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurebank.bank.matrix import BankMatrix
from featurebank.errors import TopModelError, counted, one_line
from featurebank.images.reading import Progress
from featurebank.topmodels.candidates import Candidate, CandidateGroup, refinement
from featurebank.topmodels.evaluation import (
    SearchData,
    asks_decisions,
    balanced_accuracy,
    predictions,
    scored,
    scorer_of,
)
from featurebank.topmodels.formatting import score_name
from featurebank.topmodels.models import TopModel
from featurebank.topmodels.solvers.problem import Note, Prediction, SolverOptions
from featurebank.topmodels.uncertainty import Uncertainty

Found = list[tuple[CandidateGroup, Candidate]]
_OF_MODELS = ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RuntimeError
"""What estimators raise of rows that they cannot learn from."""


class SearchRun:
    """One pass of a search over its groups of candidates.

    Parameters
    ----------
    data : SearchData
    scoring : str, callable or None
    settings : SolverOptions
    clusters : ndarray, shape (n,), or None
        Groups of rows that belong together, for the intervals.
    deadline : float or None
        On the clock of `time.perf_counter`.
    progress : callable or None
        Called with (fits done, fits in all).
    scorer : callable, optional
        What `scoring` names, where it was resolved already.
    for_committee : bool, default False
        Whether the predictions are kept that a committee may be made of: also those of the candidate of each group
        that is the best on all folds that share no row with one of them.
    """

    def __init__(
        self,
        data: SearchData,
        scoring: Any,
        settings: SolverOptions,
        clusters: NDArray[Any] | None,
        deadline: float | None,
        progress: Progress | None,
        scorer: Any = None,
        for_committee: bool = False,
    ):
        self.data, self.scoring, self.clusters = data, scoring, clusters
        self.scorer = scorer_of(scoring, data.task) if scorer is None else scorer
        self.uncertainty = Uncertainty(data, scoring, self.scorer, clusters)
        self.settings = replace(settings, decisions=asks_decisions(self.scorer))
        self.deadline, self.progress = deadline, progress
        self.groups: list[CandidateGroup] = []
        self.notes: list[str] = []
        self.failures: list[TopModelError] = []
        self.interrupted = self.timed_out = False
        self.done = self.total = 0
        self.folds = range(len(data.folds))
        self.for_committee = for_committee

    # --- order ---------------------------------------------------------------------------------------------

    def all(self, groups: Sequence[CandidateGroup]) -> None:
        """Evaluate every group on every fold."""
        self._announce(groups, len(self.folds))
        for group in groups:
            self._evaluate(group, self.folds)

    def halving(self, groups: Sequence[CandidateGroup]) -> None:
        """Evaluate the cheap groups first, then the others by successive halving (Jamieson and Talwalkar 2016).

        The resource is the folds: all groups see the first fold, the better half of them the second, and the
        better half of those the rest.
        """
        cheap = [group for group in groups if group.model.is_cheap]
        self.all(cheap)
        promise = {group.features: max(means(group), default=-np.inf) for group in cheap}
        alive = sorted(
            (group for group in groups if not group.model.is_cheap), key=lambda group: -promise.get(group.features, 0)
        )
        for rung in rungs(len(self.folds)):
            self._announce(alive, len(rung))
            for group in alive:
                self._evaluate(group, rung)
            if rung[-1] != self.folds[-1]:
                alive = better_half(alive)

    def catch_up(self, groups: Sequence[CandidateGroup]) -> None:
        """Spend the time that is left on what halving dropped after its first folds, the most promising first."""
        dropped = [group for group in groups if 0 < len(group.scores.get(0, {})) < len(self.folds)]
        for group in sorted(dropped, key=lambda group: -max(means(group))):
            rest = [fold for fold in self.folds if fold not in group.scores[0]]
            self._announce([group], len(rest))
            self._evaluate(group, rest)
        left = sum(not any(candidate.fold_scores for candidate in group.candidates) for group in groups)
        if left:
            self.notes.append(
                f"the time limit left {left} of {counted(len(groups), 'recipe')} without a score on every fold"
            )

    def refine(self, groups: Sequence[CandidateGroup]) -> None:
        """Try cells around the best of each model whose grid is the default one."""
        found = [(group, candidate) for group, candidate in self.finished(groups) if group.model.is_default_grid]
        for name in dict.fromkeys(group.model.name for group, _ in found if group.model.refined):
            group, best = max((each for each in found if each[0].model.name == name), key=lambda each: each[1].mean)
            cells = refinement(best, group.model, list(group.cells.values()), self._gamma(group))
            self.total += len(cells) * len(self.folds)
            self._evaluate(group, self.folds, group.add(cells))

    def ranked(self, features: Sequence[tuple[str, ...]], model: TopModel) -> list[str]:
        """Return the names of single blocks, that with the best score of a quick model on the folds first."""
        scores = {}
        for names in features:
            group = CandidateGroup(names, None, "standardize", model, model.cells())
            quick = SearchRun(self.data, None, self.settings, None, None, None)
            quick.all([group])
            scores[names[0]] = max(means(group), default=-np.inf)
        return sorted(scores, key=lambda name: -scores[name])

    # --- work ----------------------------------------------------------------------------------------------

    def _announce(self, groups: Sequence[CandidateGroup], folds: int) -> None:
        self.total += folds * sum(len(group.candidates) for group in groups)
        self.groups += [group for group in groups if group not in self.groups]

    def _evaluate(self, group: CandidateGroup, folds: Sequence[int], numbers: Sequence[int] | None = None) -> None:
        """Evaluate the cells of a group on some folds, unless the search is to end."""
        if self._must_stop():
            return
        score = scored(self.data, self.scoring, group.model, self.scorer)
        cells = {number: group.cells[number] for number in (group.cells if numbers is None else numbers)}
        events = predictions(self.data, group, folds, replace(self.settings, score=score), cells)
        try:
            for event in events:
                self._take(group, event, score, len(folds))
                if self._must_stop():
                    break
        except KeyboardInterrupt:
            if not self._any_finished():
                raise
            self.interrupted = True
            self.notes.append("interrupted; what was finished is shown")
        except (TopModelError, *_OF_MODELS) as error:
            self._leave_out(group, error)
        finally:
            events.close()  # type: ignore[attr-defined]
        self._finish(group)

    def _leave_out(self, group: CandidateGroup, error: Exception) -> None:
        """Go on without a model that cannot be fitted or scored here."""
        is_ours = isinstance(error, TopModelError)
        text = str(error) if is_ours else f"{group.model.name} cannot be fitted: {one_line(error)}"
        group.scores.clear()
        group.predictions.clear()
        self.failures.append(TopModelError(text))
        self.notes.append(f"left out, on {'+'.join(group.features)}: {text}")

    def _take(
        self, group: CandidateGroup, event: Note | Prediction, score: Callable[[Prediction], float], folds: int
    ) -> None:
        if isinstance(event, Note):
            self.notes.append(f"{group.model.name} on {'+'.join(group.features)}: {event.text}")
            self.total -= folds * len(event.cells) if event.skipped else 0
            return
        group.scores.setdefault(event.cell, {})[event.fold] = score(event)
        group.predictions.setdefault(event.cell, []).append(event)
        group.candidates[event.cell].seconds += event.seconds
        if len(group.scores[event.cell]) == len(self.folds):
            self._finish(group)  # what is known to be worse is not kept: answers of many rows take much memory
        self.done += 1
        if self.progress is not None:
            self.progress(self.done, self.total)

    def _must_stop(self) -> bool:
        is_late = self.deadline is not None and time.perf_counter() > self.deadline
        if is_late and not self.timed_out and self._any_finished():
            self.timed_out = True
            self.notes.append("the time limit ended the search early; what was finished is shown")
        return self.interrupted or self.timed_out

    def _any_finished(self) -> bool:
        return any(len(scores) == len(self.folds) for group in self.groups for scores in group.scores.values())

    def _finish(self, group: CandidateGroup) -> None:
        """Give finished candidates their scores; keep the predictions of the best, and of unfinished ones."""
        for number in self._whole(group):
            candidate = group.candidates[number]
            if number in group.predictions and not candidate.fold_scores:
                scores = [group.scores[number][fold] for fold in self.folds]
                self._set_scores(candidate, scores, group.predictions[number])
        rivals = [
            (each, number)
            for each in (self.groups if self._keeps_one() else [group])
            for number in self._whole(each)
            if number in each.predictions
        ]
        kept = [max(rivals, key=partial(_mean_over, folds), default=None) for folds in self.compared]  # first of equals
        for rival in rivals:
            if rival not in kept:
                rival[0].predictions.pop(rival[1])

    def _set_scores(self, candidate: Candidate, scores: list[float], found: Sequence[Prediction]) -> None:
        candidate.fold_scores = scores
        if self.uncertainty.is_accuracy:
            self._set_interval(candidate, found)
        if self.data.task == "classification":
            candidate.extra["balanced_accuracy"] = balanced_accuracy(self.data, found)

    @cached_property
    def compared(self) -> list[list[int]]:
        """Sets of folds: all of them, and for a committee those that share no row with each; all where none is left."""
        every = list(self.folds)
        if not self.for_committee:
            return [every]
        tested = [np.bincount(test, minlength=len(self.data.y)) > 0 for _, test in self.data.folds]
        apart = [[other for other in every if not (tested[fold] & tested[other]).any()] for fold in every]
        return [every, *(folds or every for folds in apart)]

    def _whole(self, group: CandidateGroup) -> list[int]:
        """Return the numbers of a group's candidates that every fold has scored."""
        return sorted(number for number, scores in group.scores.items() if len(scores) == len(self.folds))

    def _keeps_one(self) -> bool:
        """Whether the predictions of one candidate are kept in all, not one a group.

        Of rows that do not fit into memory they take much of it; intervals that resample rows need each group's.
        """
        return isinstance(self.data.X, BankMatrix) and self.clusters is None and len(self.folds) > 1

    # --- results -------------------------------------------------------------------------------------------

    def finished(self, groups: Sequence[CandidateGroup] | None = None) -> Found:
        """Return the candidates that all folds have scored.

        Raises
        ------
        TopModelError
            When no score is a number.
        """
        found = [
            (group, candidate)
            for group in (self.groups if groups is None else groups)
            for candidate in group.candidates
            if candidate.fold_scores
        ]
        if not found and self.failures:
            raise self.failures[0]
        if not any(np.isfinite(candidate.mean) for _, candidate in found):
            least = min(len(test) for _, test in self.data.folds)
            raise TopModelError(
                f"scoring {score_name(self.scoring, self.data.task)!r} gives no number on test parts of "
                f"{counted(least, 'row')} or more; ask for fewer folds, or a scoring that has a meaning for so few"
            )
        return found

    def predictions_of(self, group: CandidateGroup, candidate: Candidate) -> list[Prediction]:
        """Return what a candidate said of each fold's test rows; it is computed again where it was not kept."""
        number = group.candidates.index(candidate)
        found = group.predictions.get(number)
        if found is None:
            events = predictions(self.data, group, self.folds, self.settings, {number: candidate.params})
            found = [event for event in events if isinstance(event, Prediction)]
        return by_fold(found)

    def kept(self) -> dict[int, list[Prediction]]:
        """Return what finished candidates said of each fold's test rows, by the candidate's `id`, where it was kept."""
        return {
            id(group.candidates[number]): by_fold(found)
            for group in self.groups
            for number, found in group.predictions.items()
            if group.candidates[number].fold_scores
        }

    def score_committee(self, candidate: Candidate, found: Sequence[Prediction]) -> None:
        """Set the scores and the interval of a candidate that no group has, from what it says of each fold."""
        score = self.uncertainty.score_of(found)
        scores = [score(fold, np.arange(len(each.labels))) for fold, each in enumerate(found)]
        self._set_scores(candidate, scores, found)
        self._set_interval(candidate, found)

    def set_intervals(self, found: Found) -> None:
        """Set the 95 % interval of every candidate that has none yet (`featurebank.topmodels.uncertainty`)."""
        for group, candidate in found:
            if not candidate.interval:
                self._set_interval(candidate, group.predictions.get(group.candidates.index(candidate)))

    def _set_interval(self, candidate: Candidate, found: Sequence[Prediction] | None) -> None:
        interval = self.uncertainty.interval(candidate, found)
        candidate.ci95, candidate.interval = interval.ends, interval.method

    def _gamma(self, group: CandidateGroup) -> float:
        """Return what ``gamma="scale"`` stands for on all rows, as the model sees them."""
        if "gamma" not in group.model.refined:
            return 0.0
        seen = self.data.seen_by(group)
        X = seen.X
        for _, step in group.before():
            X = step.fit(X, seen.y).transform(X)
        return float(1 / (X.shape[1] * max(X.var(dtype=np.float64), 1e-12)))


def _mean_over(folds: Sequence[int], rival: tuple[CandidateGroup, int]) -> float:
    return float(np.mean(np.array(rival[0].candidates[rival[1]].fold_scores)[folds]))


def by_fold(found: Iterable[Prediction]) -> list[Prediction]:
    """Return predictions in the order of their folds."""
    return sorted(found, key=lambda prediction: prediction.fold)


def means(group: CandidateGroup) -> list[float]:
    """Return the mean of each cell over the folds that have scored it."""
    return [float(np.mean(list(scores.values()))) for scores in group.scores.values()]


def rungs(folds: int) -> list[list[int]]:
    """Return the folds that each round of successive halving adds: one, one more, the rest.

    Examples
    --------
    >>> rungs(5), rungs(2), rungs(1)
    ([[0], [1], [2, 3, 4]], [[0], [1]], [[0]])
    """
    return [rung for rung in ([0], list(range(1, min(2, folds))), list(range(2, folds))) if rung]


def better_half(groups: Sequence[CandidateGroup]) -> list[CandidateGroup]:
    """Return the groups whose best cell is in the better half, the best first."""
    ranked = sorted((group for group in groups if group.scores), key=lambda group: -max(means(group)))
    return ranked[: -(-len(ranked) // 2)]


@contextmanager
def recorded_warnings() -> Iterator[list[str]]:
    """Collect what is warned about inside, from every thread, as messages with counts."""
    messages: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", ".*tasks which were still being processed")  # a search that was ended
        warnings.filterwarnings("ignore", ".*within_class_std_dev_")  # a dimension that is constant in a fold
        warnings.filterwarnings("ignore", "Stochastic Optimizer: Maximum iterations")  # meant so, see EPOCHS
        yield messages
    counts = Counter(one_line(each.message) for each in caught if isinstance(each.message, Warning))
    messages += [text if times == 1 else f"{text} ({times} times)" for text, times in counts.items()]
