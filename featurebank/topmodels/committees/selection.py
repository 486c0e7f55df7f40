"""Committees: which models' answers to average, chosen greedily from out-of-fold answers, and what that scores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Judge = Callable[[NDArray[np.float64]], float]
"""Says how good answers are, the higher the better: those of n rows, shape (n,) or (n, k)."""

Choose = Callable[[Sequence[NDArray[np.float64]], NDArray[np.bool_]], NDArray[np.float64]]

ROUNDS = 40
"""At most so many members are drawn; the weights are multiples of one over their number."""
LEAST_GAIN = 1e-3
"""A committee must be better than the last by this part of its score to take its place."""
PATIENCE = 5
"""Selection ends after so many rounds without one; drawing the best again makes room for small shares of others."""


class Part(NamedTuple):
    """The rows that a committee is chosen on and those it answers for, which have none in common, and all answers.

    Masks over n rows, and what each model says of all n.
    """

    learned: NDArray[np.bool_]
    told: NDArray[np.bool_]
    answers: Sequence[NDArray[np.float64]]


def select(answers: Sequence[NDArray[np.float64]], judge: Judge, *, members: int | None = None) -> NDArray[np.float64]:
    """Return the weights of models whose weighted mean answers best, chosen greedily with replacement.

    Caruana, Niculescu-Mizil, Crew and Ksikes (2004), Ensemble selection from libraries of models. The best model comes
    first; then, round by round, that with whose answers the mean is best, which may be in it already. It ends early
    where that no longer brings anything, and the best of all rounds is returned.

    Parameters
    ----------
    answers : sequence of ndarray of float64, each of shape (n,) or (n, k)
        What each model says of the same rows.
    judge : callable
        From answers to a number, the higher the better.
    members : int, optional
        At most so many different models.

    Returns
    -------
    ndarray of float64, shape (models,)
        They add up to 1; most are 0.

    Examples
    --------
    >>> truth = np.array([0.0, 1.0, 2.0])
    >>> low, high, bad = truth - 0.5, truth + 0.5, truth + 9
    >>> select([low, high, bad], lambda said: -((said - truth) ** 2).mean()).tolist()
    [0.5, 0.5, 0.0]
    """
    counts = chosen = np.zeros(len(answers), np.int64)
    total, reached, when = np.zeros_like(answers[0]), -np.inf, 0
    for drawn in range(1, ROUNDS + 1):
        allowed = _allowed(counts, members)
        scores = np.nan_to_num([judge((total + answers[number]) / drawn) for number in allowed], nan=-np.inf)
        best = int(np.argmax(scores))
        total = total + answers[allowed[best]]
        counts = counts + (np.arange(len(answers)) == allowed[best])
        if drawn == 1 or scores[best] - reached > LEAST_GAIN * abs(reached):
            chosen, reached, when = counts, scores[best], drawn
        elif drawn - when >= PATIENCE:
            break
    return chosen / chosen.sum()


def _allowed(counts: NDArray[np.int64], members: int | None) -> NDArray[np.intp]:
    """Return the models that may be drawn: all, or those that were where there are enough of them."""
    is_full = members is not None and np.count_nonzero(counts) >= members
    return np.flatnonzero(counts) if is_full else np.arange(len(counts))


def mean_answer(answers: Sequence[NDArray[np.float64]], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the weighted mean of what models say, shape (n,) or (n, k).

    Examples
    --------
    >>> mean_answer([np.array([0.0, 1.0]), np.array([1.0, 1.0])], np.array([0.25, 0.75])).tolist()
    [0.75, 1.0]
    """
    total = np.zeros_like(answers[0], np.float64)
    for weight, each in zip(weights, answers, strict=True):
        if weight:
            total += weight * each
    return total


def unseen_answers(parts: Iterable[Part], choose: Choose) -> NDArray[np.float64]:
    """Return what committees say of rows that had no part in choosing them, shape (n,) or (n, k).

    Parameters
    ----------
    parts : iterable of Part
    choose : callable
        From what each model says of all rows, and a mask of rows, to the weights that are best on these rows.

    Examples
    --------
    >>> truth, first = np.array([0.0, 1.0, 0.0, 1.0]), np.array([True, True, False, False])
    >>> def choose(answers, rows):
    ...     return select([each[rows] for each in answers], lambda said: -((said - truth[rows]) ** 2).mean())
    >>> unseen_answers([Part(~first, first, [truth, 1 - truth]), Part(first, ~first, [truth, 1 - truth])], choose)
    array([0., 1., 0., 1.])
    """
    found: NDArray[np.float64] | None = None
    for part in parts:
        weights = choose(part.answers, part.learned)
        if found is None:
            found = np.full(part.answers[0].shape, np.nan)
        found[part.told] = mean_answer([each[part.told] for each in part.answers], weights)
    assert found is not None  # there is at least one part
    return found
