"""Two candidates of a search on the same rows, and how far the best of many is to be believed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from featurebank.errors import counted
from featurebank.topmodels.candidates import Candidate, called, ranked
from featurebank.topmodels.folds import sizes_of
from featurebank.topmodels.formatting import score_name, told_apart_text
from featurebank.topmodels.scores import fold_difference, paired_interval
from featurebank.topmodels.solvers.problem import Prediction
from featurebank.topmodels.uncertainty import Uncertainty

Said = Mapping[int, Sequence[Prediction]]
"""What candidates said of the test rows of each fold, by the candidate's `id`; not kept for all of them."""


def compared(
    uncertainty: Uncertainty, best: Candidate, candidates: Sequence[Candidate], said: Said
) -> dict[str, Any] | None:
    """Compare the best candidate with the best of another recipe, on the shared folds; None where there is no other."""
    others = [other for other in ranked(candidates) if other.recipe != best.recipe]
    if not others or len(uncertainty.data.folds) < 2:
        return None
    found = difference(uncertainty, best, others[0], said)
    scoring = score_name(uncertainty.scoring, uncertainty.data.task)
    more = sum(_same_answers(best, other, said) for other in others) - 1 if found.get("same_answers") else 0
    first, second = (called(best), called(others[0])) if more < 1 else _several(best, others[0], more)
    sentence = told_apart_text(first, second, found, scoring)
    return {"other": others[0].to_dict(), **found, "sentence": sentence}


def difference(uncertainty: Uncertainty, first: Candidate, second: Candidate, said: Said) -> dict[str, Any]:
    """Return the difference of two candidates and its interval: from the folds, and from rows where they were kept.

    Where these tell nothing, since both were right on the same rows, it is as wide as their number allows.

    Returns
    -------
    dict
        As of `featurebank.topmodels.scores.paired_interval`; ``same_answers`` where the rows were kept.
    """
    scores, sizes = (first.fold_scores, second.fold_scores), sizes_of(uncertainty.data.folds)
    one, other = said.get(id(first)), said.get(id(second))
    if one is None or other is None:
        return fold_difference(*scores, *sizes, uncertainty.name, trials=uncertainty.trials)
    by_rows, is_same = uncertainty.difference(one, other, first.mean - second.mean), _same_answers(first, second, said)
    if is_same or by_rows.low < by_rows.high:
        return {**paired_interval(*scores, *sizes, by_rows), "same_answers": is_same}
    found = fold_difference(*scores, *sizes, uncertainty.name, trials=uncertainty.trials)
    return {**found, "same_answers": False}  # right on the same rows, and wrong in other ways


def _same_answers(first: Candidate, second: Candidate, said: Said) -> bool:
    """Say whether two candidates are known to have said the same of every row."""
    one, other = said.get(id(first)), said.get(id(second))
    if one is None or other is None:
        return False
    return all(np.array_equal(each.labels, its.labels) for each, its in zip(one, other, strict=True))


def _several(best: Candidate, other: Candidate, more: int) -> tuple[str, str]:
    """Return what candidates are called that say the same, as the two sides of a sentence."""
    return f"{called(best)}, {called(other)}", counted(more, "other")


def selection_bias(candidates: Sequence[Candidate], best: Candidate) -> float | None:
    """Return by how much the best of many candidates may look better than it is, from the scores of the folds alone.

    In each fold, the score of the candidate that is the best there less that of the best over all folds; the mean over
    the folds. It is on the careful side where folds are small, and too little where there are but three.

    Returns
    -------
    float or None
        None where there is but one candidate or one fold.

    Notes
    -----
    Tibshirani and Tibshirani (2009), A bias correction for the minimum error rate in cross-validation; what it
    estimates is measured by nested cross-validation (Varma and Simon 2006).

    Examples
    --------
    >>> first = Candidate(("X",), "svm", {"C": 1}, fold_scores=[0.8, 0.7])
    >>> round(selection_bias([first, Candidate(("X",), "svm", {"C": 9}, fold_scores=[0.6, 0.8])], first), 3)
    0.05
    """
    if len(candidates) < 2 or len(best.fold_scores) < 2:
        return None
    highest = np.nanmax([each.fold_scores for each in candidates], axis=0)
    return float(np.nanmean(highest - best.fold_scores))
