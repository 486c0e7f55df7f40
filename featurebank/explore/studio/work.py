"""The work in the background: extract, read, refit after answers, and now and then what takes longer."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurebank.bank.answers import Answers
from featurebank.bank.defaults import candidate_features
from featurebank.bank.features import as_keys
from featurebank.errors import FeatureBankError, one_line
from featurebank.explore.advice.networks import complete_sets
from featurebank.explore.advice.probe import PROBE, best_by_features, search_rows
from featurebank.explore.embedding import chosen_sets
from featurebank.explore.projection import plane
from featurebank.explore.studio import evidence
from featurebank.explore.studio.choosing import coverage_order
from featurebank.explore.studio.place import Place
from featurebank.explore.studio.pool import Pool, read_pool
from featurebank.explore.studio.view import Draw, View, is_given, make_view
from featurebank.fitting.training_data import Target, load_rows
from featurebank.topmodels.folds import Folds, default_kind

PAUSE = 1.0
"""Seconds after which labels of other writers are looked for."""
LAID_OUT = 3000
"""Rows up to which the map is t-SNE; beyond, the first principal components of a draw."""
MAPPED = 20_000
RANKED_FROM = 40
"""Labels at which features are ranked first; then each time they have doubled."""
GROWN = 1.5
"""How many times as many images a bank that is filled has before its embeddings are read again."""
BETTER = 0.01
"""Accuracy by which other features have to be better to be taken."""


class Work:
    """Two threads: one that follows the answers, and one for what takes longer.

    Attributes
    ----------
    answers : Answers or None
        Once the bank is read.
    place : Place
        The bank's, which may still be filled.
    coverage : ndarray of int64
        Contents that cover all.
    evidence : dict
        ``paid, curve, verdict``.
    plane : tuple of (contents, coordinates) or None
        The map.
    revision : int
        Of the model.
    """

    def __init__(self, place: Place, target: str, by: str, features: str | Sequence[str] | None, seed: int) -> None:
        self.place, self._target, self._by, self._seed = place, target, by, seed
        self._asked = features
        self._names: tuple[str, ...] | None = None
        self.answers: Answers | None = None
        self._draw: tuple[NDArray[np.bytes_], Draw] | None = None
        self._view: tuple[NDArray[np.bytes_], View] | None = None
        self.coverage = np.empty(0, np.int64)
        self.evidence = evidence.unknown()
        self.plane: tuple[NDArray[np.int64], NDArray[np.float64]] | None = None
        self.revision = 0
        self._message: str | None = None
        self._wake, self._ended = threading.Event(), threading.Event()
        self._fitted, self._held = -1, 0
        self._ranked = RANKED_FROM // 2

    @property
    def message(self) -> str | None:
        """What went wrong; None where nothing did."""
        return self._message or self.place.message

    @property
    def draw_now(self) -> Draw:
        """The random order of the contents that there are."""
        digests = self._opened.digests
        if self._draw is None or self._draw[0] is not digests:
            self._draw = digests, Draw.of(digests, self._seed)
        return self._draw[1]

    @property
    def now(self) -> View | None:
        """The newest model and what it says of the contents that there are; None until these are read."""
        return self._view[1] if self._view is not None and self._view[0] is self._opened.digests else None

    @property
    def _opened(self) -> Answers:
        assert self.answers is not None
        return self.answers

    def start(self) -> None:
        """Begin."""
        threading.Thread(target=self._guarded, args=(self._follow,), name="featurebank-refit", daemon=True).start()

    def wake(self) -> None:
        """Refit soon: there is a new answer."""
        self._wake.set()

    def close(self) -> None:
        """End after what is under way."""
        self._ended.set()
        self._wake.set()

    def _guarded(self, run: Callable[[], None]) -> None:
        """Run, and keep what went wrong for the page."""
        try:
            run()
        except FeatureBankError as error:
            self._message = one_line(error)
        except Exception as error:  # a thread of its own has nobody else to tell
            traceback.print_exc()
            self._message = f"the studio's work in the background ended: {one_line(error)}; start it again"

    # --- the quick thread ----------------------------------------------------------------------------------

    def _follow(self) -> None:
        """Read the bank, and refit whenever labels have changed."""
        self.answers = self.open()
        threading.Thread(target=self._guarded, args=(self._look,), name="featurebank-look", daemon=True).start()
        while not self._ended.is_set():
            self.step()
            self._wake.wait(PAUSE)
            self._wake.clear()

    def open(self) -> Answers:
        """Open the bank."""
        return Answers(self.place.open(), self._target, self._by)

    def step(self) -> None:
        """Take in what is new, and refit where something is."""
        answers = self._opened
        answers.refresh()
        answers.compact()
        view = self.now
        if view is None and self.place.extracting and len(answers.digests) < GROWN * self._held:
            return
        if view is None or self._names not in (None, view.pool.names):
            pool = self._read_pool(answers)
            if pool is None:
                return
            self._held = len(pool.places)
            self.coverage = pool.contents[_coverage(pool, self.draw_now, answers.labels, self._seed)]
        elif self._fitted == answers.changes:
            return
        else:
            pool = view.pool
        with answers.lock:
            digests, labels, self._fitted = answers.digests, answers.labels.copy(), answers.changes
        if len(pool.places) == len(labels):
            self._view = digests, make_view(pool, self.draw_now, labels)
            self.revision += 1

    def _read_pool(self, answers: Answers) -> Pool | None:
        """Read the embeddings of the contents that there are; None while there are none."""
        if not answers.bank.feature_sets or not len(answers.digests):
            return None
        names = self._names or tuple(chosen_sets(answers.bank, self._asked))
        pool = read_pool(answers.bank, names, answers.digests, self._seed)
        return pool if len(pool.X) else None

    # --- the slow thread -----------------------------------------------------------------------------------

    def _look(self) -> None:
        """Do what takes longer whenever enough has changed."""
        seen: View | None = None
        while not self._ended.wait(PAUSE):
            view = self.now
            if view is None or view is seen:
                continue
            if seen is None or view.pool is not seen.pool:
                self.plane = _laid_out(view.pool, self._seed)
            is_more = seen is None or abs(view.n_labelled - seen.n_labelled) > 0.05 * view.n_labelled
            if is_more:
                self.look(view)
                seen = view

    def look(self, view: View) -> None:
        """Weigh the evidence, and choose features anew each time the labels have doubled."""
        answers = self._opened
        order = view.trained[np.argsort(answers.stamps[view.trained], kind="stable")]
        found = evidence.paid(view, self._seed)
        self.evidence = {**self.evidence, "paid": found, "curve": evidence.curve(view, order, found)}
        self.evidence = {**self.evidence, "verdict": evidence.verdict(view, self._seed)}
        if self._asked is None and len(view.trained) >= 2 * self._ranked:
            self._ranked = len(view.trained)
            better = _better_features(answers, view, self._seed)
            if better is not None:
                self._names = better
                self.wake()


def _coverage(pool: Pool, draw: Draw, labels: NDArray[Any], seed: int) -> NDArray[np.int64]:
    is_known, is_test = is_given(labels)[pool.contents], draw.is_test[pool.contents]
    return coverage_order(pool.Z, np.flatnonzero(is_known), np.flatnonzero(~is_known & ~is_test), seed)


def _laid_out(pool: Pool, seed: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return contents and their coordinates on the map."""
    rows = np.sort(np.random.default_rng(seed).permutation(len(pool.Z))[:MAPPED])
    method = "tsne" if 3 <= len(rows) <= LAID_OUT else "pca"
    return pool.contents[rows], plane(pool.Z[rows], method, seed, 1)


def _better_features(answers: Answers, view: View, seed: int) -> tuple[str, ...] | None:
    """Return the feature set that a ridge does best on, without the test part; None where it is the present one."""
    bank, target = answers.bank, answers.column
    candidates = candidate_features(bank, None)
    if len(candidates) < 2:
        return None
    candidates, _, _ = complete_sets(bank, candidates, bank.select(target))
    rows = load_rows(bank, [name for each in candidates for name in each], Target([target]), None, None)
    places = np.array([answers.find(bytes(each)) for each in as_keys(rows.table.rows["digest"])])
    rows = rows.take(np.flatnonzero((places >= 0) & ~view.draw.is_test[places]))
    folds = Folds(default_kind(rows.task, rows.groups is not None), evidence.FOLDS, 1, seed)
    found = best_by_features(search_rows(rows, candidates, [PROBE], folds, n_jobs=1).candidates_, PROBE)
    best = max(found, key=lambda names: found[names].mean)
    is_better = view.pool.names not in found or found[best].mean > found[view.pool.names].mean + BETTER
    return tuple(best) if is_better and tuple(best) != view.pool.names else None
