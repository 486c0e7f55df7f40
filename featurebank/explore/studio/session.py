"""What one studio knows: the bank's answers, the embeddings, what comes next, and the work in the background."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from featurebank.bank.answers import Answer, Answers
from featurebank.bank.bank import Bank
from featurebank.errors import BankError, FeatureBankError, one_line
from featurebank.explore.studio.pictures import Pictures

LONGEST = 200
"""Characters of a class's name."""


class Session:
    """A studio over a bank.

    Parameters
    ----------
    bank : str or Path
    target : str
        Column of classes.
    by : str, default ""
        Who labels.
    seed : int, default 0
        Decides which contents are the random tenth.
    """

    def __init__(self, bank: str | Path, *, target: str = "label", by: str = "", seed: int = 0) -> None:
        self.place, self.target, self.by, self.seed = bank, target, by, seed
        self.message: str | None = None
        self.extracting: dict[str, Any] | None = None
        self._answers: Answers | None = None
        self._undo: dict[str, list[list[Answer]]] = defaultdict(list)
        self._lock = threading.Lock()

    def start(self) -> None:
        """Open the bank in the background."""
        threading.Thread(target=self._run, name="featurebank-studio", daemon=True).start()

    def close(self) -> None:
        """End the work in the background."""

    def _run(self) -> None:
        try:
            answers = Answers(Bank(self.place), self.target, self.by)
            self._pictures = Pictures(answers)
            self._answers = answers
        except FeatureBankError as error:
            self.message = one_line(error)

    @property
    def answers(self) -> Answers:
        """The bank's answers.

        Raises
        ------
        BankError
            While the bank is not read yet.
        """
        if self._answers is None:
            raise BankError(self.message or "the bank is still being read; ask again in a moment")
        return self._answers

    # --- what the page shows -------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return what the page's frame shows."""
        facts = {"ready": False, "extracting": self.extracting, "target": self.target, "classes": [], "images": 0}
        facts |= {"labelled": 0, "revision": 0, "model_revision": 0, "by": self.by, "message": self.message}
        if self._answers is None:
            return facts
        self._answers.refresh()
        labels = self._answers.labels
        names, counts = np.unique([each for each in labels if each is not None], return_counts=True)
        classes = [{"name": str(name), "count": int(count)} for name, count in zip(names, counts, strict=True)]
        labelled = int(counts.sum())
        return {
            **facts,
            "ready": True,
            "classes": classes,
            "images": len(labels),
            "labelled": labelled,
            "revision": self._answers.changes,
        }

    def item(self, number: int, why: str | None = None) -> dict[str, Any]:
        """Return what the page needs to know of a content."""
        return {
            "digest": self.answers.digests[number].ljust(32, b"\0").hex(),
            "name": self.answers.sample(number).paths[0].encode("utf-8", "replace").decode(),
            "why": why,
            "label": self.answers.labels[number],
            "suggestion": None,
        }

    def next(self, count: int, skip: Sequence[bytes]) -> list[dict[str, Any]]:
        """Return what is to be labelled next."""
        left = np.flatnonzero(self.answers.labels == None)  # noqa: E711  elementwise
        skipped = {self.answers.find(each) for each in skip}
        order = np.random.default_rng(self.seed).permutation(len(self.answers.labels))
        kept = [number for number in order if number not in skipped and self.answers.labels[number] is None]
        return [self.item(number, "random") for number in kept[: min(count, len(left))]]

    def grid(self, label: str | None, count: int) -> list[dict[str, Any]]:
        """Return contents without a label whose suggestion is a class, the surest first."""
        return self.next(count, [])

    def similar(self, digest: bytes, count: int) -> list[dict[str, Any]]:
        """Return the contents without a label that are most similar to one."""
        return self.next(count, [digest])

    def picture(self, digest: bytes, size: int) -> bytes:
        """Return a content's picture as JPEG."""
        _ = self.answers
        return self._pictures.jpeg(digest, size)

    # --- answers -------------------------------------------------------------------------------------------

    def label(self, tab: str, given: Sequence[tuple[bytes, Any, Any]]) -> dict[str, Any]:
        """Write answers, each (digest, label, what the tab saw there)."""
        answers = [Answer(digest, _checked(label), _checked(seen)) for digest, label, seen in given]
        before = {each.digest: self.answers.labels[self.answers.find(each.digest)] for each in answers}
        saved, conflicts = self.answers.write(answers)
        back = [Answer(each.digest, before[each.digest], each.label) for each in answers if each.digest in set(saved)]
        with self._lock:
            self._undo[tab].append(back)
        return {
            "saved": [each.hex() for each in saved],
            "conflicts": [{**each._asdict(), "digest": each.digest.hex()} for each in conflicts],
            "revision": self.answers.changes,
        }

    def undo(self, tab: str) -> dict[str, Any]:
        """Take a tab's last answers back."""
        with self._lock:
            back = self._undo[tab].pop() if self._undo[tab] else []
        saved, conflicts = self.answers.write(back)
        return {
            "answers": [{"digest": each.digest.hex(), "label": each.label} for each in back if each.digest in saved],
            "conflicts": [{**each._asdict(), "digest": each.digest.hex()} for each in conflicts],
            "revision": self.answers.changes,
        }


def _checked(label: Any) -> str | None:
    """Return a label as it was given, if it can be one.

    Raises
    ------
    BankError
        When it is empty, too long, or no text.
    """
    if label is None:
        return None
    if not isinstance(label, str) or not label.strip() or len(label) > LONGEST or not label.isprintable():
        raise BankError(f"a label has to be a line of 1 to {LONGEST} characters; type a name")
    return label.strip()
