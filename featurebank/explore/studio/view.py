"""What the model of the moment says of every content: made in the background, then shown whole."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurebank.bank.answers import is_given
from featurebank.explore.studio.chance import Draw, honest_part
from featurebank.explore.studio.choosing import least_certain
from featurebank.explore.studio.learner import Learned, learn
from featurebank.explore.studio.pool import Pool

ROWS_AT_ONCE = 8192


@dataclass(frozen=True)
class Judged:
    """Labelled contents, each judged by a model that had not seen it.

    Attributes
    ----------
    contents : ndarray of int64, shape (n,)
    true : ndarray of str, shape (n,)
    proba : ndarray of float64, shape (n, k)
        In the order of the model's classes.
    predicted : ndarray of str, shape (n,)
    """

    contents: NDArray[np.int64]
    true: NDArray[np.str_]
    proba: NDArray[np.float64]
    predicted: NDArray[np.str_]

    @property
    def is_right(self) -> NDArray[np.bool_]:
        """Whether each was judged as it is labelled."""
        return self.true == self.predicted


@dataclass(frozen=True)
class View:
    """A model and what it says.

    Attributes
    ----------
    digests : ndarray of S32, shape (n,)
        The contents that are numbered here.
    pool : Pool
    draw : Draw
    labels : ndarray of object, shape (n,)
        As they were when it was made.
    learned : Learned or None
        Of the labels outside the test part; None of fewer than two classes.
    said : ndarray of int64, shape (m,)
        The likeliest class of each row of the pool; nothing without a model, as all below.
    sure : ndarray of float32, shape (m,)
        Its probability.
    doubtful : ndarray of int64
        Contents without a label that are least certain.
    """

    digests: NDArray[np.bytes_]
    pool: Pool
    draw: Draw
    labels: NDArray[Any]
    learned: Learned | None
    said: NDArray[np.int64]
    sure: NDArray[np.float32]
    doubtful: NDArray[np.int64]

    @property
    def n_labelled(self) -> int:
        """How many contents have a label and an embedding."""
        return len(self.trained) + len(self.tested)

    @property
    def is_complete(self) -> bool:
        """Whether every content has a label."""
        return bool(is_given(self.labels).all())

    @property
    def n_tests(self) -> int:
        """How many contents the random tenth has, with a label or without."""
        return len(self._asked)

    @cached_property
    def trained(self) -> NDArray[np.int64]:
        """The contents that the model learned from."""
        return np.flatnonzero(self._known & ~self.draw.is_test)

    @cached_property
    def tested(self) -> NDArray[np.int64]:
        """The labelled contents of the random tenth."""
        return np.flatnonzero(self._known & self.draw.is_test)

    @cached_property
    def honest(self) -> NDArray[np.int64]:
        """Those of them that an honest score stands on; see `honest_part`."""
        return honest_part(self._asked, self._known)

    @cached_property
    def _asked(self) -> NDArray[np.int64]:
        return self.draw.asked[self.pool.places[self.draw.asked] >= 0]

    @cached_property
    def _known(self) -> NDArray[np.bool_]:
        return is_given(self.labels) & (self.pool.places >= 0)

    def rows(self, contents: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the standardised embeddings of contents."""
        return self.pool.X[self.pool.places[contents]]

    def classes_of(self, contents: NDArray[np.int64]) -> NDArray[np.str_]:
        """Return the labels of labelled contents."""
        return self.labels[contents].astype(str)

    @cached_property
    def judged(self) -> Judged | None:
        """Every labelled content, judged by a model that had not seen it; None without a model."""
        if self.learned is None:
            return None
        contents = np.concatenate([self.trained, self.tested])
        proba = np.concatenate([self.learned.left_out, self.learned.probabilities(self.rows(self.tested))])
        predicted = self.learned.classes[proba.argmax(axis=1)]
        return Judged(contents, self.classes_of(contents), proba, predicted)


def make_view(digests: NDArray[np.bytes_], pool: Pool, draw: Draw, labels: NDArray[Any]) -> View:
    """Learn from labels and say what is thought of all contents."""
    none, of_none = np.empty(0, np.int64), np.empty(0, np.float32)
    nothing = View(digests, pool, draw, labels, None, none, of_none, none)
    learned = learn(nothing.rows(nothing.trained), nothing.classes_of(nothing.trained))
    if learned is None:
        return nothing
    parts = [pool.X[start : start + ROWS_AT_ONCE] for start in range(0, len(pool.X), ROWS_AT_ONCE)]
    proba = np.concatenate([learned.probabilities(part) for part in parts])
    said = proba.argmax(axis=1)
    left = np.flatnonzero(~is_given(labels)[pool.contents] & ~draw.is_test[pool.contents])
    doubtful = pool.contents[least_certain(proba, pool.Z, left)]
    sure = proba[np.arange(len(said)), said]
    return replace(nothing, learned=learned, said=said, sure=sure, doubtful=doubtful)
