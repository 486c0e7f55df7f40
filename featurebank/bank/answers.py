"""Answers to one column of a bank, one by one: each is written before it counts, and none covers another's.

An answer says what it believes to be there; where the bank holds something else, by another writer, it is a conflict
and nothing is written. Images of identical content are one question.
"""

from __future__ import annotations

import datetime
import os
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featurebank.bank import sample_segments, samples, segment
from featurebank.bank.bank import Bank
from featurebank.bank.features import as_keys
from featurebank.bank.samples import SampleTable
from featurebank.bank.upkeep import compact_small
from featurebank.errors import BankError, ColumnError
from featurebank.images.columns import KINDS, MAX_INT, is_missing, is_unicode, kind_of

FEW = 4096
"""Rows up to which what another writer added is laid over what is known; beyond, the whole table is read again."""
MANY = 64
"""Files of few rows that are merged into one."""
_WORDS = {"true": True, "false": False}


class Answer(NamedTuple):
    """A label for a content, or None to take it away, and what its giver believes to be there."""

    digest: bytes
    label: str | None
    seen: str | None


class Conflict(NamedTuple):
    """What is there in place of what was believed: the label, who gave it and when, where that is known."""

    digest: bytes
    label: str | None
    by: str | None
    when: str | None


class Written(NamedTuple):
    """What became of answers: digests of those that the bank holds now, conflicts, and answers that take them back."""

    saved: list[bytes]
    conflicts: list[Conflict]
    back: list[Answer]


class Answers:
    """A column of a bank as it is now, and answers to it.

    Parameters
    ----------
    bank : Bank
    column : str
        Of text, whole numbers or true and false; it need not be there yet.
    by : str, default ""
        Who answers; kept beside each answer, with the time, in the columns ``COLUMN_by`` and ``COLUMN_at``.

    Attributes
    ----------
    digests : ndarray of S32, shape (n,)
        The readable contents, each once, sorted; another object when they have changed.
    labels : ndarray of object, shape (n,)
        The label of each as text, None where it has none.
    changes : int
        How often labels have changed since this was opened.
    lock : RLock
        Held while any of the above changes.
    contents : int
        How often the contents themselves have changed.

    Raises
    ------
    ColumnError
        When the column cannot be one, or holds decimal numbers.

    Examples
    --------
    >>> import tempfile
    >>> from featurebank.bank.bank import Bank
    >>> len(Answers(Bank.create(tempfile.mkdtemp() + "/photos.bank"), "label").digests)
    0
    """

    def __init__(self, bank: Bank, column: str, by: str = "") -> None:
        if not column.strip() or not is_unicode(column):
            raise ColumnError(f"{column!r} is no name of a column; expected text: name a column of classes (--target)")
        self.bank, self.column, self.by = bank, column, by
        self.changes = self.contents = 0
        self.lock = threading.RLock()
        self.digests = np.empty(0, "S32")
        self._read()

    # --- reading -------------------------------------------------------------------------------------------

    def find(self, digest: bytes) -> int:
        """Return the number of a content, -1 where it is none of the bank's."""
        key = np.array([digest], "S32")  # which holds no zeros at its end, as all of them
        place = int(np.searchsorted(self.digests, key)[0])
        return place if place < len(self.digests) and self.digests[place] == key[0] else -1

    def name(self, number: int) -> str:
        """Return the path of a content's first sample, as text that JSON can hold."""
        return os.fsdecode(self._paths[self._rows(number)[0]]).encode("utf-8", "backslashreplace").decode()

    def samples_of(self, numbers: NDArray[np.int64]) -> SampleTable:
        """Return the first sample of each of some contents, as it was when the table was read."""
        return self._table.take(self._sorted_rows[self._starts[numbers]])

    @property
    def stamps(self) -> NDArray[np.uint64]:
        """When the first sample of each content was written, in order, shape (n,)."""
        return self._stamps[self._sorted_rows[self._starts[:-1]]]

    def refresh(self) -> bool:
        """Take in what others wrote meanwhile; say whether anything changed."""
        with self.lock:
            before = self.changes, self.contents
            segments = self.bank.sample_segments()
            new = [each for each in segments if each.path.name not in self._known]
            tables = [sample_segments.decode_table(each) for each in new]
            is_much = sum(map(len, tables)) + len(self._fresh) > FEW
            if is_much or not all(map(self._lay_over, tables)):
                self._read()
            self._known |= {each.path.name for each in new}
            return (self.changes, self.contents) != before

    def _read(self) -> None:
        """Read the whole table."""
        segments = self.bank.sample_segments()
        self._known = {each.path.name for each in segments}
        self._table = self.bank.table_of(segments)
        if self.column in self._table.columns and kind_of(self._table.columns[self.column]) == "float":
            raise ColumnError(
                f"column {self.column!r} holds fractions; expected classes: text, whole numbers, or true and false; "
                "name another column (--target)"
            )
        self._fresh: dict[int, SampleTable] = {}
        self._places: dict[tuple[str, bytes], int] = {}
        self._paths = self._table.rows["path"].to_numpy()
        self._stamps = self._table.rows["stamp"].to_numpy(copy=True)
        self._keys = _contents(self._table)
        rows = np.flatnonzero((self._table.rows["status"] == samples.OK).to_numpy())
        digests, content = np.unique(self._keys[rows], return_inverse=True)
        is_new = not np.array_equal(self.digests, digests)
        self.digests = digests if is_new else self.digests  # the same object as long as it holds the same
        order = np.argsort(content, kind="stable")
        self._sorted_rows = rows[order]
        self._starts = np.searchsorted(content[order], np.arange(len(self.digests) + 1))
        self._content_of = np.full(len(self._table), -1)
        self._content_of[rows] = content
        self.labels = np.full(len(self.digests), None, object)
        texts = _texts(self._table, self.column)
        for row in reversed(rows[np.array([texts[row] is not None for row in rows], bool)]):
            self.labels[self._content_of[row]] = texts[row]
        self.changes += 1
        self.contents += is_new

    def _lay_over(self, table: SampleTable) -> bool:
        """Take in rows of samples that are known already; False where one is not, or is another image now."""
        if not self._places:
            keys = zip(self._table.rows["source"], self._paths, strict=True)
            self._places = {key: row for row, key in enumerate(keys)}
        keys = zip(table.rows["source"], table.rows["path"].to_numpy(), strict=True)
        rows = np.fromiter((self._places.get(key, -1) for key in keys), np.int64, len(table))
        if (rows < 0).any() or (_contents(table) != self._keys[rows]).any():
            return False
        for number in np.flatnonzero(table.rows["stamp"].to_numpy() > self._stamps[rows]):
            self._place(int(rows[number]), table.take([number]))
        return True

    def _place(self, row: int, fresh: SampleTable) -> None:
        """Let a newer row of a sample count."""
        self._fresh[row] = fresh
        self._stamps[row] = fresh.rows["stamp"].iloc[0]
        content = int(self._content_of[row])
        if content >= 0:
            label = _texts(fresh, self.column)[0]
            self.changes += self.labels[content] != label
            self.labels[content] = label

    def _rows(self, number: int) -> NDArray[np.int64]:
        return self._sorted_rows[self._starts[number] : self._starts[number + 1]]

    def _now(self, number: int) -> SampleTable:
        """Return the samples of a content as they are now."""
        rows = self._rows(number)
        return samples.stack([self._fresh[row] if row in self._fresh else self._table.take([row]) for row in rows])

    # --- writing -------------------------------------------------------------------------------------------

    def write(self, answers: Sequence[Answer]) -> Written:
        """Write answers to the bank; those that meet another label than they believed to be there are left out.

        Returns
        -------
        Written
            ``saved, conflicts, back``; an answer that the bank held already is saved, and has nothing to take back.

        Raises
        ------
        BankError
            When a content is not in the bank, or answered twice; nothing is written then.
        ColumnError
            When a label does not fit the column's kind; nothing is written then.
        StorageError
            When the file system refuses.
        """
        with self.lock, self.bank.locked():
            self.refresh()
            numbers = [self.find(each.digest) for each in answers]
            if min(numbers, default=0) < 0 or len(set(numbers)) < len(numbers):
                raise BankError("an answer to an image that the bank does not have, or two to one; load the page again")
            done, changed = Written([], [], []), []
            for number, (digest, given, seen) in zip(numbers, answers, strict=True):
                label, there = self._held(given), self.labels[number]
                if there not in (seen, label):
                    done.conflicts.append(self._conflict(number))
                    continue
                done.saved.append(digest)
                if there != label:
                    changed.append((number, label))
                    done.back.append(Answer(digest, there, label))
            if changed:
                self._write(changed)
            return done

    def _write(self, changed: Sequence[tuple[int, str | None]]) -> None:
        """Write answers as one file, and let them count."""
        rows = np.concatenate([self._rows(number) for number, _ in changed])
        table = samples.stack([self._answered(number, label) for number, label in changed])
        (name,) = self.bank.add_samples(table, newest=int(self._stamps.max()))
        self._known.add(name)
        stored = sample_segments.decode_table(segment.open_segment(self.bank.path / "samples" / name, "samples"))
        for position, row in enumerate(rows):
            self._place(int(row), stored.take([position]))

    def _answered(self, number: int, label: str | None) -> SampleTable:
        """Return the samples of a content with an answer in its column, and who gave it and when."""
        now = self._now(number)
        cells: dict[str, Any] = {self.column: label}
        if self.by or f"{self.column}_by" in now.columns:
            when = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            who = (None, None) if label is None else (self.by or None, when)
            cells |= dict(zip((f"{self.column}_by", f"{self.column}_at"), who, strict=True))
        columns = {name: now.columns[name] for name in now.columns}
        for name, cell in cells.items():
            kind = self._kind(name)
            columns[name] = pd.Series([_value(name, cell, kind)] * len(now), dtype=KINDS[kind][1])
        return SampleTable(now.rows, pd.DataFrame(columns, index=range(len(now))))

    def _kind(self, name: str) -> str:
        """Return the kind of a column, that of text where there is none yet."""
        return kind_of(self._table.columns[name]) if name in self._table.columns else "str"

    def _held(self, label: str | None) -> str | None:
        """Return a label as the column gives it back: of true and false there are several spellings."""
        value = _value(self.column, label, self._kind(self.column))
        return None if value is None else str(value)

    def _conflict(self, number: int) -> Conflict:
        now = self._now(number)
        by, when = (_texts(now, f"{self.column}_{what}")[0] for what in ("by", "at"))
        return Conflict(bytes(self.digests[number]).ljust(32, b"\0"), self.labels[number], by, when)

    def compact(self) -> bool:
        """Merge the files that answers left, once there are many; say whether it was done."""
        with self.lock:
            few = [each for each in self.bank.sample_segments() if each.shape("stamp")[0] <= FEW]
            return len(few) >= MANY and compact_small(self.bank, FEW) > 0


def _contents(table: SampleTable) -> NDArray[np.bytes_]:
    """Return the digest of each sample, empty where it cannot be read, shape (n,)."""
    return np.where(table.rows["status"].to_numpy() == samples.OK, as_keys(table.rows["digest"]), b"")


def _texts(table: SampleTable, name: str) -> list[str | None]:
    """Return a column as text, None where a value, or the column, is missing."""
    if name not in table.columns:
        return [None] * len(table)
    return [None if is_missing(value) else str(value) for value in table.columns[name]]


def _value(name: str, text: str | None, kind: str) -> Any:
    """Return a label as a column of a kind holds it."""
    if text is None or kind == "str":
        return text
    if kind == "bool" and text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if kind == "int" and text.lstrip("-").isdecimal() and str(int(text)) == text and abs(int(text)) <= MAX_INT:
        return int(text)
    expected = "whole numbers" if kind == "int" else "true and false"
    raise ColumnError(f"{text!r} does not fit column {name!r}, which holds {expected}; use another column (--target)")


def is_given(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which labels are there, of an array of labels or None, shape (n,)."""
    return np.asarray(pd.notna(labels), bool)
