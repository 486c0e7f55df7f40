"""The rows of two domains: which they are, which are labelled, how they are divided, how far they lie apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.pipeline import make_pipeline

from featurebank.bank.bank import Bank
from featurebank.bank.samples import SampleTable, column_of, values_of
from featurebank.errors import ColumnError, TopModelError, counted, near_names
from featurebank.fitting.targets import Target, read_target
from featurebank.fitting.training_data import TrainingData, left_out, load_table
from featurebank.topmodels.folds import Fold, Folds, combinations, default_kind, make_folds, sizes_of
from featurebank.topmodels.formatting import interval_text, score_text
from featurebank.topmodels.refitting import over_folds
from featurebank.topmodels.scaling import FlooredScaler
from featurebank.topmodels.scores import fold_interval, trials_of

UNKNOWN = -1
"""The class of a row whose label is unknown, or that is not to be learned from."""


@dataclass(frozen=True)
class DomainPair:
    """Two values of a column of domains, and the column of classes that is learned in the first for the second."""

    column: str
    source: str
    target_domain: str
    target: str


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
        parts = make_folds(Folds(kind, count, random_state=seed), self.X, strata, self.groups, seed)
        for train, test in parts:
            both = all(len(np.unique(self.is_source[rows])) == 2 for rows in (train, test))
            if not both or len(np.unique(self.y[train][self.is_source[train]])) < 2:
                raise TopModelError(
                    "a fold would lack a domain, or learn one class only; ask for fewer folds, or other groups"
                )
        return parts


def load_domains(
    bank: Bank, names: Sequence[str], pair: DomainPair, groups: str | None
) -> tuple[TrainingData, Domains]:
    """Load some feature sets of two domains; rows of the source have labels, those of the target may lack them."""
    table, is_source, is_labelled, notes = _table(bank, pair)
    found = read_target(table.take(is_labelled), Target([pair.target], either="classification"))
    if found.task != "classification":
        raise ColumnError(f"column {pair.target!r} holds numbers; domains are adapted for classes: name another")
    classes, codes = np.unique(found.y, return_inverse=True)
    every = np.full(len(table), UNKNOWN)
    every[is_labelled] = codes
    known = np.unique(every[is_source])
    if len(known) < 2:
        raise TopModelError(
            f"the labelled rows of {pair.source!r} are of {len(known)} class; expected at least two classes"
        )
    strange = int((~np.isin(every, known) & (every != UNKNOWN)).sum())
    if strange:
        target, source = pair.target_domain, pair.source
        one = f"sample of {target} is of a class that {source} lacks, and so counts as a mistake"
        many = f"samples of {target} are of classes that {source} lacks, and so count as mistakes"
        notes.append(counted(strange, one, many))
    rows = replace(load_table(bank, names, table, groups, None, ["mean"]), y=every, task=found.task, notes=notes)
    return rows, Domains(rows.X, every, classes, is_source, rows.groups)


def _table(bank: Bank, pair: DomainPair) -> tuple[SampleTable, NDArray[np.bool_], NDArray[np.bool_], list[str]]:
    """Return the samples of both domains, which are the source's, which are labelled, and who was left out."""
    if pair.column == pair.target:
        raise ColumnError(f"column {pair.column!r} is both domain and target; name another for one of them")
    if pair.source == pair.target_domain:
        raise ColumnError(f"source and target domain are both {pair.source!r}; expected two values")
    readable, table = bank.select(), bank.select(pair.column)
    values = _as_text(values_of(table, pair.column))
    for name in (pair.source, pair.target_domain):
        if name not in values:
            hint = near_names(name, np.unique(values).tolist())
            raise ColumnError(f"column {pair.column!r} has no value {name!r}; {hint}")
    is_labelled = column_of(table, pair.target).notna().to_numpy()
    is_source, is_target = values == pair.source, values == pair.target_domain
    of = f"of {pair.source}"
    absent = {
        (f"has no {pair.column}", f"have no {pair.column}"): len(readable) - len(table),
        ("is of another domain", "are of other domains"): int((~is_source & ~is_target).sum()),
        (f"{of} has no {pair.target}", f"{of} have no {pair.target}"): int((is_source & ~is_labelled).sum()),
    }
    notes = [left_out(count, *why) for why, count in absent.items() if count]
    kept = np.flatnonzero((is_source & is_labelled) | is_target)
    return table.take(kept), is_source[kept], is_labelled[kept], notes


def _as_text(values: NDArray[Any]) -> NDArray[np.str_]:
    """Return values as a user writes them: whole numbers, which missing ones have made floats, without a point."""
    is_whole = values.dtype.kind == "f" and (values % 1 == 0).all()
    return (values.astype(np.int64) if is_whole else values).astype(str)


def check_sizes(domains: Domains, pair: DomainPair, folds: int, target_labels: int) -> None:
    """Refuse domains with too few rows for the folds."""
    for name, count in zip((pair.source, pair.target_domain), domains.counts, strict=True):
        if count < 2 * folds:
            usable = counted(count, "row")
            raise TopModelError(
                f"domain {name!r} has {usable} that can be used; expected at least {2 * folds}, two a fold"
            )
    if target_labels and not domains.is_scored.any():
        raise TopModelError(
            f"no sample of {pair.target_domain!r} has a {pair.target}; label some, or ask for no target labels"
        )


@dataclass(frozen=True)
class Shift:
    """How well a classifier tells two domains apart: balanced accuracy and ROC AUC, of 0.5 by chance.

    The 95 % intervals are those over the folds (Nadeau and Bengio 2003).
    """

    accuracy: float
    ci95: list[float]
    auc: float
    auc_ci95: list[float]

    @property
    def is_shift(self) -> bool:
        """Whether the interval of the accuracy lies above chance."""
        return self.ci95[0] > 0.5

    @property
    def a_distance(self) -> float:
        """The proxy A-distance 2 (1 - 2 error) of Ben-David et al. (2007), from 0 to 2 for disjoint domains."""
        return max(0.0, 2 * (2 * self.accuracy - 1))

    def sentence(self, first: str, second: str) -> str:
        """Return the finding as a line for the reader."""
        score, ends = score_text(self.accuracy, "accuracy"), interval_text(self.ci95, "accuracy")
        found = f"a classifier tells {first} from {second} with {score} (95 % {ends})"
        if self.is_shift:
            return f"shift: {found}, chance is 50; proxy A-distance {self.a_distance:.2f} of 2"
        return f"no shift: {found}, which chance explains"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that ``featurebank adapt --json`` prints."""
        return {**asdict(self), "a_distance": self.a_distance, "is_shift": self.is_shift}


def domain_shift(
    X: NDArray[Any],
    is_source: NDArray[np.bool_],
    *,
    groups: NDArray[np.int64] | None = None,
    folds: int = 5,
    random_state: int = 0,
) -> Shift:
    """Measure how well a cross-validated classifier tells two domains apart.

    The classifier is a ridge regression of the standardised columns, both domains weighing the same. Its strength is
    not searched, since the best of several strengths would find a shift where there is none: it is max(n, d), the
    mean of the eigenvalues that it is added to.

    Parameters
    ----------
    X : ndarray of float, shape (n, d)
    is_source : ndarray of bool, shape (n,)
    groups : ndarray of int64, shape (n,), optional
        Rows of one group never straddle folds.
    folds : int, default 5
    random_state : int, default 0

    Raises
    ------
    TopModelError
        When a fold would lack one of the domains.

    Notes
    -----
    Ben-David, Blitzer, Crammer and Pereira (2007), Analysis of representations for domain adaptation.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(200, 3))
    >>> is_source = np.arange(200) < 120
    >>> domain_shift(X, is_source).is_shift, domain_shift(X + 3 * is_source[:, None], is_source).is_shift
    (False, True)
    """
    parts = make_folds(folds, X, is_source, groups, random_state)
    if any(len(np.unique(is_source[rows])) < 2 for part in parts for rows in part):
        raise TopModelError("a fold would hold rows of one domain only; ask for fewer folds, or other groups")
    found = np.array(over_folds(partial(_told_apart, X, is_source), parts))
    (low, high, _), (auc_low, auc_high, _) = (
        fold_interval(list(scores), *sizes_of(parts), name, trials=trials_of(len(X), groups))
        for name, scores in zip(("accuracy", "roc_auc"), found.T, strict=True)
    )
    accuracy, auc = found.mean(axis=0).tolist()
    return Shift(accuracy, [low, high], auc, [auc_low, auc_high])


def _told_apart(
    X: NDArray[Any], is_source: NDArray[np.bool_], train: NDArray[np.int64], test: NDArray[np.int64]
) -> tuple[float, float]:
    """Return the balanced accuracy and the area under the ROC curve on the test part of a fold."""
    ridge = RidgeClassifier(alpha=float(max(len(train), X.shape[1])), class_weight="balanced")
    said = make_pipeline(FlooredScaler(), ridge).fit(X[train], is_source[train]).decision_function(X[test])
    return float(balanced_accuracy_score(is_source[test], said > 0)), float(roc_auc_score(is_source[test], said))
