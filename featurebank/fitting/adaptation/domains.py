"""The rows of two domains: which they are, which are labelled, and how they are divided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurebank.bank.bank import Bank
from featurebank.bank.samples import SampleTable, column_of, values_of
from featurebank.errors import ColumnError, TopModelError, near_names
from featurebank.fitting.rows import Rows, Target, load_table, read_target
from featurebank.topmodels.folds import Fold, Folds, combinations, default_kind, make_folds

UNKNOWN = -1
"""The class of a row whose label is unknown, or that is not to be learned from."""


@dataclass(frozen=True)
class Question:
    """Which domains, and what is to be learned.

    Attributes
    ----------
    target : str
        Column of classes.
    column : str
        Column of domains.
    source, target_domain : str
        Its values.
    """

    target: str
    column: str
    source: str
    target_domain: str


@dataclass(frozen=True)
class Domains:
    """The rows of two domains.

    Attributes
    ----------
    X : ndarray of float, shape (n, d)
    y : ndarray of int64, shape (n,)
        Codes of the classes; `UNKNOWN` for rows of the target without a label.
    classes : ndarray, shape (k,)
        What the codes stand for: the classes of both domains, sorted.
    is_source : ndarray of bool, shape (n,)
    groups : ndarray of int64, shape (n,), or None
        Rows of one group never straddle folds.
    """

    X: NDArray[Any]
    y: NDArray[np.int64]
    classes: NDArray[Any]
    is_source: NDArray[np.bool_]
    groups: NDArray[np.int64] | None = None

    @property
    def counts(self) -> tuple[int, int]:
        """The rows of source and target."""
        return int(self.is_source.sum()), int((~self.is_source).sum())

    @property
    def sample_domain(self) -> NDArray[np.int64]:
        """The domain of each row as skada has it."""
        return np.where(self.is_source, 1, -2)

    @property
    def is_scored(self) -> NDArray[np.bool_]:
        """Whether a row is one of the target that has a label."""
        return ~self.is_source & (self.y != UNKNOWN)

    def folds(self, count: int, seed: int) -> list[Fold]:
        """Divide both domains, stratified by domain and by the source's classes; the target's labels take no part.

        Raises
        ------
        TopModelError
            When a part would lack one of the domains, or a training part all classes of the source but one.
        """
        learned = np.where(self.is_source, self.y, UNKNOWN)
        strata = combinations(np.column_stack([self.is_source, learned]), count)
        kind = default_kind("classification", self.groups is not None)
        parts = make_folds(Folds(kind, count, seed=seed), self.X, strata, self.groups, seed)
        for train, test in parts:
            both = all(len(np.unique(self.is_source[rows])) == 2 for rows in (train, test))
            if not both or len(np.unique(self.y[train][self.is_source[train]])) < 2:
                raise TopModelError(
                    "a fold would lack a domain, or learn one class only; ask for fewer folds, or other groups"
                )
        return parts


def load_domains(bank: Bank, names: Sequence[str], question: Question, groups: str | None) -> tuple[Rows, Domains]:
    """Load the rows of two domains; rows of the source have labels, those of the target may lack them.

    Parameters
    ----------
    bank : Bank
    names : sequence of str
        Feature sets.
    question : Question
    groups : str or None
        Column of groups, or ``"@near-duplicates"``.

    Raises
    ------
    FeatureBankError
        When a column or a row is missing, or does not fit its use.
    """
    table, is_source, is_labelled, notes = _table(bank, question)
    y, task, _ = read_target(table.take(is_labelled), Target([question.target]))
    if task != "classification":
        raise ColumnError(f"column {question.target!r} holds numbers; domains are adapted for classes: name another")
    classes, codes = np.unique(y, return_inverse=True)
    every = np.full(len(table), UNKNOWN)
    every[is_labelled] = codes
    known = np.unique(every[is_source])
    if len(known) < 2:
        raise TopModelError(
            f"the labelled rows of {question.source!r} are of {len(known)} class; expected at least two classes"
        )
    strange = int((~np.isin(every, known) & (every != UNKNOWN)).sum())
    if strange:
        notes.append(
            f"{strange} samples of {question.target_domain} are of classes that {question.source} lacks, and so "
            "count as mistakes"
        )
    rows = replace(load_table(bank, names, table, groups, None, ["mean"]), y=every, task=task, notes=notes)
    return rows, Domains(rows.X, every, classes, is_source, rows.groups)


def _table(bank: Bank, question: Question) -> tuple[SampleTable, NDArray[np.bool_], NDArray[np.bool_], list[str]]:
    """Return the samples of both domains, which are the source's, which are labelled, and who was left out."""
    if question.column == question.target:
        raise ColumnError(f"column {question.column!r} is both domain and target; name another for one of them")
    if question.source == question.target_domain:
        raise ColumnError(f"source and target domain are both {question.source!r}; expected two values")
    readable, table = bank.select(), bank.select(question.column)
    values = _as_text(values_of(table, question.column))
    for name in (question.source, question.target_domain):
        if name not in values:
            hint = near_names(name, np.unique(values).tolist())
            raise ColumnError(f"column {question.column!r} has no value {name!r}; {hint}")
    is_labelled = column_of(table, question.target).notna().to_numpy()
    is_source, is_target = values == question.source, values == question.target_domain
    left_out = {
        f"have no {question.column}": len(readable) - len(table),
        "are of other domains": int((~is_source & ~is_target).sum()),
        f"of {question.source} have no {question.target}": int((is_source & ~is_labelled).sum()),
    }
    notes = [f"{count} samples {why} and are left out" for why, count in left_out.items() if count]
    kept = np.flatnonzero((is_source & is_labelled) | is_target)
    return table.take(kept), is_source[kept], is_labelled[kept], notes


def _as_text(values: NDArray[Any]) -> NDArray[np.str_]:
    """Return values as a user writes them: whole numbers, which missing ones have made floats, without a point."""
    is_whole = values.dtype.kind == "f" and (values % 1 == 0).all()
    return (values.astype(np.int64) if is_whole else values).astype(str)


def check_sizes(domains: Domains, question: Question, folds: int, target_labels: int) -> None:
    """Refuse domains with too few rows for the folds.

    Raises
    ------
    TopModelError
    """
    for name, count in zip((question.source, question.target_domain), domains.counts, strict=True):
        if count < 2 * folds:
            raise TopModelError(
                f"domain {name!r} has {count} rows that can be used; expected at least {2 * folds}, two a fold"
            )
    if target_labels and not domains.is_scored.any():
        raise TopModelError(
            f"no sample of {question.target_domain!r} has a {question.target}; label some, or ask for no target labels"
        )
