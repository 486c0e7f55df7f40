"""What the page asks of a studio: contents with what is thought of them, answers, and what the labels show."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featurebank.bank.answers import Answer, Answers, Conflict, is_given
from featurebank.errors import BankError, FeatureBankError, one_line
from featurebank.explore.studio.chance import mixed
from featurebank.explore.studio.naming import class_name, seen_class
from featurebank.explore.studio.pictures import Pictures
from featurebank.explore.studio.place import NotYetError
from featurebank.explore.studio.work import Work
from featurebank.images.columns import text_frame

if TYPE_CHECKING:
    from featurebank.explore.studio.drops import Drops
    from featurebank.explore.studio.finishing import Finishing
    from featurebank.explore.studio.view import View

ANY = "any"
"""Why a content comes that no model asks for."""

Facts = dict[str, Any]


class Session:
    """A studio over a bank.

    Parameters
    ----------
    work : Work
        Reads the bank and learns in the background.
    target : str
        Column of classes.
    """

    def __init__(self, work: Work, target: str = "label") -> None:
        self.work, self.target = work, target
        self._order: list[str] = []
        self._undo: dict[str, list[list[Answer]]] = defaultdict(list)
        self._lock = threading.Lock()
        self._shown: Pictures | None = None

    @property
    def answers(self) -> Answers:
        """The bank's answers.

        Raises
        ------
        NotYetError
            Until the bank is read.
        """
        if self.work.answers is None:
            raise NotYetError(self.work.message or "the bank is still being read; ask again in a moment")
        return self.work.answers

    @cached_property
    def drops(self) -> Drops:
        """Predicts pictures."""
        from featurebank.explore.studio.drops import Drops

        return Drops()

    @cached_property
    def finishing(self) -> Finishing:
        """Makes the predictor."""
        from featurebank.explore.studio.finishing import Finishing

        return Finishing()

    # --- what the page shows -------------------------------------------------------------------------------

    def state(self) -> Facts:
        """Return what the page's frame shows."""
        work = self.work
        facts: Facts = {"extracting": work.place.extracting, "message": work.message, "model_revision": work.revision}
        if work.answers is None:
            return facts
        try:
            work.answers.refresh()
        except FeatureBankError as error:  # say a damaged file of another writer: what was read stays
            facts["message"] = one_line(error)
        classes = self._classes()
        facts |= {"ready": True, "classes": classes, "images": len(work.answers.labels)}
        labelled = sum(each["count"] for each in classes)
        return {**facts, "labelled": labelled, "revision": work.answers.changes, "reading": work.is_reading}

    def _classes(self) -> list[Facts]:
        """Return the classes in the order in which they were first seen, so that each keeps its key."""
        labels = self.answers.labels
        names, counts = np.unique(labels[is_given(labels)].astype(str), return_counts=True)
        found = dict(zip(names.tolist(), counts.tolist(), strict=True))
        with self._lock:
            self._order = list(dict.fromkeys([*self._order, *found]))
            while self._order and self._order[-1] not in found:
                self._order.pop()
            return [{"name": name, "count": found.get(name, 0)} for name in self._order]

    def picture(self, digest: bytes, size: int) -> bytes:
        """Return a content's picture as JPEG."""
        if self._shown is None:
            self._shown = Pictures(self.answers)
        made = self._shown.jpeg(digest, size)
        self.work.shown()
        return made

    def next(self, count: int, skip: Sequence[bytes]) -> list[Facts]:
        """Return what is to be labelled next; `skip` is what the page has or passed over."""
        with self.answers.lock:
            view, draw = self.work.now, self.work.draw_now
            is_open = ~is_given(self.answers.labels)
            skipped = np.array([each for each in map(self.answers.find, skip) if each >= 0], np.int64)
            skipped = np.unique(skipped[is_open[skipped]])
            labelled = len(is_open) - int(is_open.sum()) + len(skipped)
            tested = int((~is_open[draw.asked]).sum()) + int(draw.is_test[skipped].sum())
            is_open[skipped] = False
            asked = draw.asked[is_open[draw.asked]][:count].tolist()
            is_open[draw.asked] = False
            chosen = self._chosen(is_open, count)
            return self._items(view, mixed(chosen, asked, count, labelled, tested))

    def _chosen(self, is_open: NDArray[np.bool_], count: int) -> list[tuple[int, str | None]]:
        """Return contents that cover the others, then those that are least certain, then any."""
        ways = [*self.work.ways(), (self.work.draw_now.order, ANY)]
        found: dict[int, str | None] = {}
        for contents, why in ways:
            for content in contents[is_open[contents]][:count].tolist():
                found.setdefault(content, why)
        return list(found.items())[:count]

    def grid(self, label: str | None, count: int) -> list[Facts]:
        """Return contents without a label whose suggestion is a class, the surest first."""
        with self.answers.lock:
            view = self.work.now
            if view is None or view.learned is None:
                return self._items(view, self._chosen(self._open(), count))
            is_wanted = self._open()[view.pool.contents]
            if label is not None:
                is_wanted &= view.learned.classes[view.said] == label
            rows = np.flatnonzero(is_wanted)
            rows = rows[np.argsort(-view.sure[rows], kind="stable")[:count]]
            return self._items(view, [(content, None) for content in view.pool.contents[rows].tolist()])

    def tests_left(self) -> int:
        """Return how many contents of the test part have no label: `grid` never has them, `next` does."""
        with self.answers.lock:
            return int((~is_given(self.answers.labels))[self.work.draw_now.asked].sum())

    def similar(self, digest: bytes, count: int) -> list[Facts]:
        """Return the contents without a label that are most similar to one."""
        with self.answers.lock:
            view, number = self.work.now, self.answers.find(digest)
            if view is None or number < 0 or view.pool.places[number] < 0:
                raise BankError("the image has no embedding yet; wait until the bank is read")
            return self._near(view, view.pool.Z[view.pool.places[number]], self._open(), count)

    def _near(self, view: View, place: NDArray[np.float32], is_wanted: NDArray[np.bool_], count: int) -> list[Facts]:
        rows = np.flatnonzero(is_wanted[view.pool.contents])
        near = rows[np.argsort(-(view.pool.Z[rows] @ place), kind="stable")[:count]]
        return self._items(view, [(content, None) for content in view.pool.contents[near].tolist()])

    def _open(self) -> NDArray[np.bool_]:
        """Return which contents have no label and are not of the test part, which no model may choose."""
        return ~is_given(self.answers.labels) & ~self.work.draw_now.is_test

    def _items(self, view: View | None, chosen: Sequence[tuple[int, str | None]]) -> list[Facts]:
        return [self._item(view, content, why) for content, why in chosen]

    def _item(self, view: View | None, content: int, why: str | None) -> Facts:
        """Return what the page shows of a content; of the test part no suggestion, which would lead the eye."""
        row = -1 if view is None or view.learned is None else int(view.pool.places[content])
        suggestion = None
        if view is not None and view.learned is not None and row >= 0 and not self.work.draw_now.is_test[content]:
            suggestion = {"label": str(view.learned.classes[view.said[row]]), "probability": float(view.sure[row])}
        return {
            "digest": hex_of(self.answers.digests[content]),
            "name": self.answers.name(content),
            "why": why,
            "label": self.answers.labels[content],
            "suggestion": suggestion,
        }

    # --- answers -------------------------------------------------------------------------------------------

    def label(self, tab: str, given: Sequence[tuple[bytes, Any, Any]]) -> Facts:
        """Write answers, each (digest, label, what the tab saw there)."""
        answers = [Answer(digest, class_name(label, self._order), seen_class(seen)) for digest, label, seen in given]
        with self.answers.lock:
            saved, conflicts, back = self.answers.write(answers)
            told = self._after(conflicts)
        if back:  # an answer that was sent twice is taken back once
            with self._lock:
                self._undo[tab].append(back)
        self._classes()
        self.work.wake()
        return {"saved": [each.hex() for each in saved], **told}

    def undo(self, tab: str) -> Facts:
        """Take a tab's last answers back; where the bank cannot be written they can be taken back later."""
        with self._lock:
            back = self._undo[tab].pop() if self._undo[tab] else []
        try:
            with self.answers.lock:
                there = [each for each in back if self.answers.find(each.digest) >= 0]
                saved, conflicts, _ = self.answers.write(there)
                done = [{**self._named(each.digest), "label": each.label} for each in there if each.digest in saved]
                told = self._after(conflicts)
        except FeatureBankError:
            with self._lock:
                self._undo[tab].append(back)
            raise
        self.work.wake()
        return {"answers": done, **told}

    def _after(self, conflicts: Sequence[Conflict]) -> Facts:
        told = [{**each._asdict(), **self._named(each.digest)} for each in conflicts]
        return {"conflicts": told, "revision": self.answers.changes}

    def _named(self, digest: bytes) -> Facts:
        """Return a content's digest and name, which a page that was reloaded does not know."""
        return {"digest": digest.hex(), "name": self.answers.name(self.answers.find(digest))}

    # --- what the labels show ------------------------------------------------------------------------------

    def progress(self) -> Facts:
        """Return the scores, whether choosing pays, whether to label more, and the confusion matrix."""
        from featurebank.explore.studio import evidence

        view, found = self.work.now, self.work.evidence
        judged = None if view is None else view.judged
        return {
            "curve": found["curve"],
            "honest": evidence.honest_score(view),
            "cross_validated": evidence.cross_validated(judged),
            "paid": found["paid"],
            "verdict": {"text": found["verdict"]},
            "confusion": evidence.confusion(judged),
            "features": None if view is None else "+".join(view.pool.names),
            "model": "ridge",
            "counts": {each["name"]: each["count"] for each in self._classes()},
        }

    def map(self) -> Facts:
        """Return the map: coordinates, labels, predictions and doubt."""
        with self.answers.lock:
            view = self.work.now
            laid = None if view is None else self.work.plane(view)
            if view is None or laid is None:
                raise NotYetError("the map is being made; ask again in a moment")
            contents, coordinates = laid
            rows = view.pool.places[contents]
            return {
                "x": coordinates[:, 0].round(4).tolist(),
                "y": coordinates[:, 1].round(4).tolist(),
                "digests": [hex_of(each) for each in self.answers.digests[contents]],
                "names": [self.answers.name(each) for each in contents],
                "labels": self.answers.labels[contents].tolist(),
                "predictions": [] if view.learned is None else view.learned.classes[view.said[rows]].tolist(),
                "doubt": [] if view.learned is None else (1 - view.sure[rows].astype(float)).round(4).tolist(),
            }

    def confusion(self, truth: str, predicted: str) -> list[Facts]:
        """Return the labelled contents of one class that were judged as another."""
        view = self.work.now
        if view is None or view.judged is None:
            return []
        judged = view.judged
        return self._with_judgement(view, np.flatnonzero((judged.true == truth) & (judged.predicted == predicted)))

    def issues(self) -> list[Facts]:
        """Return the contents whose label is probably wrong, the most doubtful first."""
        from featurebank.explore.label_errors import label_issues

        with self.answers.lock:
            view = self.work.now
            if view is None or view.learned is None or view.judged is None:
                return []
            judged, table = view.judged, self.answers.samples_of(view.judged.contents)
        proba = {f"proba_{name}": column for name, column in zip(view.learned.classes, judged.proba.T, strict=True)}
        unseen = {f"proba_{name}": np.zeros(len(table)) for name in np.setdiff1d(judged.true, view.learned.classes)}
        names = table.names()
        found = label_issues(
            self.answers.bank,
            target=self.target,
            oof=text_frame({**{name: list(names[name]) for name in names}, **proba, **unseen}),
        )
        numbers = {key: number for number, key in enumerate(zip(names["source"], names["path"], strict=True))}
        order = [numbers.get(key, -1) for key in zip(found["source"], found["path"], strict=True)]
        return self._with_judgement(view, np.array([each for each in order if each >= 0], np.int64))

    def _with_judgement(self, view: View, numbers: NDArray[np.int64]) -> list[Facts]:
        """Return some of what was judged as items whose suggestion is what a model said that had not seen them."""
        judged, found = view.judged, []
        assert judged is not None
        with self._still(view):
            for number in numbers.tolist():
                suggestion = {"label": str(judged.predicted[number]), "probability": float(judged.proba[number].max())}
                item = self._item(view, int(judged.contents[number]), None)
                found.append({**item, "suggestion": suggestion})
        return found

    @contextmanager
    def _still(self, view: View) -> Iterator[None]:
        """Hold the contents as a view numbers them.

        Raises
        ------
        NotYetError
            When other images have come since.
        """
        with self.answers.lock:
            if view.digests is not self.answers.digests:
                raise NotYetError("other images have come meanwhile; ask again in a moment")
            yield

    # --- a picture of one's own, and the end ---------------------------------------------------------------

    def predict(self, data: bytes) -> Facts:
        """Return what is thought of an image that the bank need not have."""
        view = self.work.now
        if view is None or view.learned is None:
            raise BankError("no model yet: it takes labels of two classes; label more")
        drop = self.drops.predict(self.answers.bank, view, self.target, data)
        with self._still(view):
            near = self._near(view, drop.place, np.ones(len(self.answers.labels), bool), 12)
        return {**drop.facts, "neighbours": near}

    def finished(self) -> Facts:
        """Return how far the fit is."""
        return self.finishing.state(self.answers.bank)

    def finish(self, path: Any, options: Any) -> Facts:
        """Begin the fit that makes the predictor."""
        return self.finishing.start(self.answers, path, options)

    def close(self) -> None:
        """End the work in the background."""
        self.work.close()


def hex_of(digest: Any) -> str:
    """Return a digest as hexadecimal text; numpy leaves out the zeros at its end."""
    return bytes(digest).ljust(32, b"\0").hex()
