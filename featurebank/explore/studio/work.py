"""The work in the background: extract, read, refit after answers, and now and then what takes longer."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featurebank.bank.answers import Answers
from featurebank.errors import FeatureBankError, one_line
from featurebank.explore.studio.chance import Draw
from featurebank.explore.studio.place import Place

if TYPE_CHECKING:
    from featurebank.explore.studio.pool import Pool
    from featurebank.explore.studio.view import View

COVERAGE, UNCERTAIN = "coverage", "uncertain"
COVERED = 50
"""Labels after which images come for what the model is least certain of."""
FIRST_PICTURE = 3.0
"""Seconds for which embeddings wait for the first picture to be made, which would have to share its core with them."""
PAUSE = 1.0
"""Seconds after which labels of other writers are looked for."""
RANKED_FROM = 40
"""Labels at which features are ranked first; then each time they have doubled."""
GROWN = 1.5
"""How many times as many images a bank that is filled has before its embeddings are read again."""
UNKNOWN = {
    "paid": {"text": "Whether choosing pays is not known yet."},
    "curve": [],
    "verdict": "Label more: there are too few labels to say what more would bring.",
    "may_pay": True,
}


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
        ``paid, curve, verdict, may_pay``; see `featurebank.explore.studio.looking.weighed`.
    revision : int
        Of the model.
    is_reading : bool
        Whether the bank's embeddings are being read for the first time.
    """

    def __init__(self, place: Place, target: str, by: str, features: str | Sequence[str] | None, seed: int) -> None:
        self.place, self._target, self._by, self._seed = place, target, by, seed
        self._asked = features
        self._names: tuple[str, ...] | None = None
        self.answers: Answers | None = None
        self._draw: tuple[NDArray[np.bytes_], Draw] | None = None
        self._view: View | None = None
        self.coverage = np.empty(0, np.int64)
        self.evidence: dict[str, Any] = UNKNOWN
        self._plane: tuple[Pool, tuple[NDArray[np.int64], NDArray[np.float64]]] | None = None
        self.revision, self.is_reading = 0, False
        self._message: str | None = None
        self._wake, self._ended, self._shown = threading.Event(), threading.Event(), threading.Event()
        self._fitted, self._held = -1, 0
        self._ranked = RANKED_FROM // 2
        self._seen: View | None = None

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
        view = self._view
        return view if view is not None and view.digests is self._opened.digests else None

    def plane(self, view: View) -> tuple[NDArray[np.int64], NDArray[np.float64]] | None:
        """Return the contents on the map and their coordinates; None until it is made."""
        return self._plane[1] if self._plane is not None and self._plane[0] is view.pool else None

    def ways(self) -> list[tuple[NDArray[np.int64], str]]:
        """Return contents that a model asks for, each with why, the first first: none where random ones teach more."""
        view = self.now
        if view is None or not self.evidence["may_pay"]:
            return []
        found = [(view.doubtful, UNCERTAIN)]
        return [(self.coverage, COVERAGE), *found] if len(view.trained) < COVERED else found

    @property
    def _opened(self) -> Answers:
        assert self.answers is not None
        return self.answers

    def start(self) -> None:
        """Begin."""
        threading.Thread(target=self._follow, name="featurebank-refit", daemon=True).start()

    def wake(self) -> None:
        """Refit soon: there is a new answer."""
        self._wake.set()

    def shown(self) -> None:
        """Begin to read the embeddings: the first picture is made."""
        self._shown.set()

    def close(self) -> None:
        """End after what is under way."""
        for event in (self._ended, self._wake, self._shown):
            event.set()
        self.place.close()

    def _guarded(self, run: Callable[[], Any]) -> None:
        """Run, and keep what went wrong for the page."""
        try:
            run()
            self._message = None
        except FeatureBankError as error:
            self._message = one_line(error)
        except Exception as error:  # a thread of its own has nobody else to tell
            traceback.print_exc()
            self._message = f"the work in the background failed: {one_line(error)}"

    # --- the quick thread ----------------------------------------------------------------------------------

    def _follow(self) -> None:
        """Read the bank, and refit whenever labels have changed."""
        self._guarded(self.open)
        if self.answers is None:
            return
        threading.Thread(target=self._look, name="featurebank-look", daemon=True).start()
        self.is_reading = True
        self._shown.wait(FIRST_PICTURE)
        while not self._ended.is_set():
            self._guarded(self.step)
            self.is_reading = False
            self._wake.wait(PAUSE)
            self._wake.clear()

    def open(self) -> None:
        """Open the bank."""
        self.answers = Answers(self.place.open(), self._target, self._by)

    def step(self) -> None:
        """Take in what is new, and refit where something is."""
        from featurebank.explore.studio import looking
        from featurebank.explore.studio.view import make_view

        answers = self._opened
        answers.refresh()
        answers.compact()
        with answers.lock:
            view, digests = self.now, answers.digests
        if view is None and self.place.extracting and len(digests) < GROWN * self._held:
            return
        if view is None or self._names not in (None, view.pool.names):
            pool = looking.embeddings(answers.bank, digests, self._names, self._asked, self._seed)
        elif self._fitted == answers.changes:
            return
        else:
            pool = view.pool
        with answers.lock:
            if pool is None or answers.digests is not digests:  # other images came meanwhile: the next step reads them
                return
            draw, labels, self._fitted = self.draw_now, answers.labels.copy(), answers.changes
        if view is None or pool is not view.pool:
            self._held = len(digests)
            self.coverage = looking.coverage(pool, draw, labels, self._seed)
        self._view = make_view(digests, pool, draw, labels)
        self.revision += 1

    # --- the slow thread -----------------------------------------------------------------------------------

    def _look(self) -> None:
        """Do what takes longer whenever enough has changed."""
        while not self._ended.wait(PAUSE):
            view, seen = self.now, self._seen
            if view is None:
                continue
            is_new = seen is None or view.pool is not seen.pool
            changed = 0 if seen is None else abs(view.n_labelled - seen.n_labelled)
            if is_new or changed > (0 if view.is_complete else view.n_labelled / 20):
                self._seen = view
                self._guarded(partial(self.look, view, is_new=is_new))

    def look(self, view: View, *, is_new: bool = True) -> None:
        """Lay out a new map, weigh the evidence, and choose features anew each time the labels have doubled."""
        from featurebank.explore.studio import looking

        if is_new:
            self._plane = view.pool, looking.laid_out(view.pool, self._seed)
        with self._opened.lock:
            if self._opened.digests is not view.digests:
                return
            stamps = self._opened.stamps
        self.evidence = looking.weighed(view, stamps, self._seed)
        if self._asked is None and len(view.trained) >= 2 * self._ranked:
            self._ranked = len(view.trained)
            better = looking.better_features(self._opened, view, self._seed)
            if better is not None:
                self._names = better
                self.wake()
