"""How sure a search is of its scores: the interval of each candidate, and of the difference between two of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurebank.topmodels.candidates import Candidate
from featurebank.topmodels.evaluation import SearchData, score_answers, score_rows
from featurebank.topmodels.folds import sizes_of
from featurebank.topmodels.formatting import score_name
from featurebank.topmodels.influence import Part, block_influence, mean_influence
from featurebank.topmodels.scores import (
    Interval,
    Trials,
    averages_classes,
    difference_interval,
    effective_rows,
    fold_interval,
    is_ratio,
    ratio_interval,
    score_interval,
    trials_of,
    wilson_interval,
)
from featurebank.topmodels.solvers.problem import Prediction

Found = Sequence[Prediction]
"""What a candidate said of each fold's test rows."""


@dataclass(frozen=True)
class Uncertainty:
    """Finds intervals from what candidates said of the test rows of every fold.

    Attributes
    ----------
    data : SearchData
    scoring : str, callable or None
    scorer : callable
        What `scoring` names.
    clusters : ndarray, shape (n,), or None
        Groups of rows that belong together.
    """

    data: SearchData
    scoring: Any
    scorer: Any
    clusters: NDArray[Any] | None

    @property
    def is_accuracy(self) -> bool:
        """Whether the score is the share of right rows, which tells each row's influence."""
        return self.data.task == "classification" and self.scoring in (None, "accuracy")

    def interval(self, candidate: Candidate, found: Found | None) -> Interval:
        """Return the 95 % interval of a candidate's mean over the folds; of its folds alone where no row is known."""
        if found is None:
            sizes = sizes_of(self.data.folds)
            return fold_interval(candidate.fold_scores, *sizes, self.name, trials=self.trials)
        if self.is_accuracy and len(self.data.folds) == 1 and self.data.weight is None and self.clusters is None:
            count = len(self.data.folds[0][1])
            return Interval(*wilson_interval(candidate.mean * count, count), "wilson")
        parts, folds = self._parts(found), len(self.data.folds)
        if is_ratio(self.name):
            return ratio_interval(self._score_together(found), _together(parts), candidate.mean, folds=folds)
        influence = self._influence(found)
        units = len(np.unique(_together(parts).units))
        return score_interval(candidate.mean, influence, self.name, rows=self._rows, folds=folds, units=units)

    def difference(self, first: Found, second: Found, value: float) -> Interval:
        """Return the 95 % interval of the difference `value` of two candidates, from the rows that both answered."""
        influence = self._influence(first) - self._influence(second)
        return difference_interval(value, influence, folds=len(self.data.folds))

    @property
    def trials(self) -> Trials:
        """How many rows of equal weight, and groups of rows that belong together, a score stands on."""
        tested = np.concatenate([test for _, test in self.data.folds])
        return trials_of(self._rows, None if self.clusters is None else self.clusters[tested])

    def _influence(self, found: Found) -> NDArray[np.float64]:
        if self.is_accuracy:
            right = [self.data.y[self.data.folds[each.fold][1]] == each.labels for each in found]
            return mean_influence(self._parts(found), right)
        return block_influence(self.score_of(found), self._parts(found))

    def score_of(self, found: Found) -> Callable[[int, NDArray[np.intp]], float]:
        """Return the function that scores some rows of a prediction; NaN where they cannot be scored."""

        def score(part: int, rows: NDArray[np.intp]) -> float:
            try:
                return score_rows(self.scorer, self.data, found[part], rows)
            except ValueError:  # rows of one class
                return float("nan")

        return score

    def _score_together(self, found: Found) -> Callable[[NDArray[np.intp]], float]:
        """Return the function that scores some of the test rows of all folds, of numbers, as if of one."""
        tested = np.concatenate([self.data.folds[each.fold][1] for each in found])
        labels = np.concatenate([each.labels for each in found])
        y, weight = self.data.y[tested], None if self.data.weight is None else self.data.weight[tested]

        def score(rows: NDArray[np.intp]) -> float:
            said = Prediction(0, 0, None, labels[rows])
            return score_answers(self.scorer, said, None, y[rows], None if weight is None else weight[rows])

        return score

    def _parts(self, found: Found) -> list[Part]:
        weight = np.ones(len(self.data.y)) if self.data.weight is None else self.data.weight
        tests = [self.data.folds[each.fold][1] for each in found]
        rows = np.concatenate(tests)
        names = rows if self.clusters is None else self.clusters[rows]
        units = np.split(np.unique(names, return_inverse=True)[1], np.cumsum([len(test) for test in tests])[:-1])
        return [Part(own, weight[test]) for own, test in zip(units, tests, strict=True)]

    @property
    def name(self) -> Any:
        """The scorer's name; that of the default where none was given."""
        return score_name(self.scoring, self.data.task)

    @cached_property
    def _rows(self) -> float:
        """Rows of equal weight that the score is worth."""
        tested = np.unique(np.concatenate([test for _, test in self.data.folds]))
        weight = np.ones(len(tested)) if self.data.weight is None else self.data.weight[tested]
        counts = None
        if self.data.task == "classification" and averages_classes(self.scoring):
            counts = np.bincount(np.searchsorted(self.data.classes, self.data.y[tested]), weight).astype(np.float64)
        return effective_rows(weight, counts)


def _together(parts: Sequence[Part]) -> Part:
    return Part(*(np.concatenate(each) for each in zip(*parts, strict=True)))
