"""The training data of a fit: samples, embeddings, targets, weights, groups, and what was noticed about them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featurebank.bank.bank import Bank
from featurebank.bank.features import DigestIndex, as_keys
from featurebank.bank.neighbours import THRESHOLD, near_duplicate_groups, near_duplicate_pairs
from featurebank.bank.request import StoredRequest
from featurebank.bank.samples import SampleTable, column_of, values_of, weights_of
from featurebank.bank.spec import LOGITS, layer_order, parse_name
from featurebank.errors import BankError, counted
from featurebank.fitting.targets import Target, read_target
from featurebank.storage.memory import releasing
from featurebank.topmodels.folds import tie
from featurebank.topmodels.scaling import dead
from featurebank.topmodels.streaming.trainer import check_streamed

NEAR_DUPLICATES = ("@near-duplicates", "near-duplicates")
NEAR_DUPLICATE_ROWS = 20_000
ALL_ALIKE = 0.25
"""Share of all pairs of images that look like duplicates above which a feature set is no judge of them."""
DEAD = 0.2
"""Share of nearly constant channels from which they are told of."""


@dataclass(frozen=True)
class TrainingData:
    """The training data of a fit, a row a sample.

    Attributes
    ----------
    table : SampleTable
    X : ndarray of float32, shape (n, d)
        Embeddings of all feature sets side by side; a `BankMatrix` in its place where they do not fit into memory.
    blocks : dict of str to slice
        Columns of each feature set.
    y : ndarray, shape (n,) or (n, labels)
    task : str
    labels : list of str or None
        Names of the columns of y where a sample has several labels.
    weight : ndarray of float64, shape (n,), or None
    groups : ndarray of int64, shape (n,), or None
    notes : list of str
    n_views : dict of str to int
        Views of an image that lie side by side in each feature set's columns, by default one.
    """

    table: SampleTable
    X: NDArray[np.float32]
    blocks: dict[str, slice]
    y: NDArray[Any]
    task: str
    labels: list[str] | None
    weight: NDArray[np.float64] | None
    groups: NDArray[np.int64] | None
    notes: list[str]
    n_views: dict[str, int] = field(default_factory=dict)

    @cached_property
    def paths(self) -> list[str]:
        """The relative path of each row, as text."""
        return self.table.paths

    def take(self, chosen: NDArray[Any]) -> TrainingData:
        """Return some of the rows; these where a boolean mask holds everywhere."""
        if chosen.dtype == bool and chosen.all():
            return self
        weight, groups = ((None if each is None else each[chosen]) for each in (self.weight, self.groups))
        table = self.table.take(chosen)
        return replace(self, table=table, X=self.X[chosen], y=self.y[chosen], weight=weight, groups=groups)

    def features(self, names: Sequence[str]) -> NDArray[np.float32]:
        """Return the columns of some feature sets side by side, shape (n, d)."""
        return np.concatenate([np.asarray(self.X[:, self.blocks[name]]) for name in names], axis=1)

    def widths(self, names: Sequence[str]) -> tuple[int, ...]:
        """Return how many columns each of some feature sets has in `features`."""
        return tuple(len(range(self.X.shape[1])[self.blocks[name]]) for name in names)

    @property
    def alike_in(self) -> str:
        """The feature set that near-duplicates are looked for in: the penultimate one, else the deepest before logits.

        Lower layers see textures, in which images of one material are all alike.
        """
        layers = {name: parse_name(name).layer for name in self.blocks}
        return max(self.blocks, key=lambda name: (layers[name] != LOGITS, *layer_order(layers[name])))

    @property
    def alike(self) -> NDArray[np.float32]:
        """The embeddings that near-duplicates are looked for in, see `alike_in`, shape (n, d)."""
        name = self.alike_in
        X, views = np.asarray(self.X[:, self.blocks[name]]), self.n_views.get(name, 1)
        return X.reshape(len(X), views, -1).mean(axis=1) if views > 1 else X


@releasing
def load_rows(
    bank: Bank,
    names: Sequence[str],
    target: Target,
    groups: str | None,
    sample_weight: str | None,
    views: Sequence[str] = ("mean",),
    memory: float = np.inf,
) -> TrainingData:
    """Load what a fit needs from a bank.

    Parameters
    ----------
    bank : Bank
    names : sequence of str
        Feature sets.
    target : Target
    groups : str or None
        Column of groups, or ``"@near-duplicates"``.
    sample_weight : str or None
        Column of weights.
    views : sequence of str, default ("mean",)
        What is wanted of an image's views; all of them are loaded where one choice alone would not do.
    memory : float, default infinity
        Bytes that X may take; a larger one is a `BankMatrix`, which is read in batches.

    Raises
    ------
    FeatureBankError
        When a column or a row is missing, or does not fit its use.
    """
    table = bank.select(*target.columns, *([sample_weight] if sample_weight else []))
    found = read_target(table, target)
    rows = load_table(bank, names, table, groups, sample_weight, views, memory)
    notes = found.notes + _left_out(bank, target.columns) + rows.notes + torn_contents(table, target.columns)
    return replace(rows, y=found.y, task=found.task, labels=found.labels, notes=notes)


def load_table(
    bank: Bank,
    names: Sequence[str],
    table: SampleTable,
    groups: str | None,
    sample_weight: str | None,
    views: Sequence[str],
    memory: float = np.inf,
) -> TrainingData:
    """Load the rows of a table, with nothing to learn yet; see `load_rows`."""
    weight = weights_of(table, sample_weight) if sample_weight else None
    notes = _left_out(bank, [sample_weight] if sample_weight else [])
    size = bytes_of(bank, names, table, views)
    if size > memory:
        notes.append(_about_batches(size, memory))
        return _in_batches(bank, names, table, groups, weight, views, notes)
    X, blocks, n_views = _embeddings(bank, names, table, views)
    notes += dead_channels(bank, X, blocks, n_views)
    rows = TrainingData(table, X, blocks, np.empty(0), "", None, weight, None, notes, n_views)
    return replace(rows, groups=groups_of(rows, groups))


def dead_channels(
    bank: Bank, X: NDArray[np.float32], blocks: Mapping[str, slice], n_views: Mapping[str, int]
) -> list[str]:
    """Say which feature sets have many channels that are nearly constant, why, and what is done about them."""
    notes = []
    for name, block in blocks.items():
        channels = X[:, block].reshape(len(X) * n_views[name], -1)
        count, width = dead(channels) if len(channels) else 0, channels.shape[1]
        if count >= DEAD * width:
            notes.append(
                f"{count:,} of {width:,} channels of {name} ({100 * count / width:.0f} %) are nearly constant on these "
                f"images, {_why_dead(bank, name)}: standardising keeps them small"
            )
    return notes


def _why_dead(bank: Bank, name: str) -> str:
    """Say why channels of a feature set are nearly constant, as far as that is known."""
    asked = StoredRequest.last(bank, bank.feature_set(name).spec)
    if asked is not None and asked.weights.startswith("random:"):
        return "which random weights make likely on any images"
    return "as often on grey, dark or much alike ones"


def bytes_of(bank: Bank, names: Sequence[str], table: SampleTable, views: Sequence[str]) -> int:
    """Return how many bytes the embeddings of a table take in memory."""
    sets = [bank.feature_set(name) for name in names]
    is_reduced = len(set(views)) == 1 and views[0] != "all"
    return 4 * len(table) * sum(each.width * (1 if is_reduced else each.shape[0]) for each in sets if each.shape)


def _about_batches(size: int, memory: float) -> str:
    return (
        f"{_gigabytes(size)} of embeddings do not fit into {_gigabytes(memory)} of memory: they are read in batches, "
        "by models that learn from batches"
    )


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.3g} GB"


def _in_batches(
    bank: Bank,
    names: Sequence[str],
    table: SampleTable,
    groups: str | None,
    weight: NDArray[np.float64] | None,
    views: Sequence[str],
    notes: list[str],
) -> TrainingData:
    """Return rows whose X is not read; see `load_table`.

    Raises
    ------
    TopModelError
        When all of X is needed at once.
    """
    check_streamed({"a choice of views": len(set(views)) > 1 or views[0] == "all"})
    if groups in NEAR_DUPLICATES and len(table) > NEAR_DUPLICATE_ROWS:
        check_streamed({groups: True})
    blocks = bank.blocks(names)
    X: Any = bank.matrix(names, table, views=views[0])  # it stands in for an array
    rows = TrainingData(table, X, blocks, np.empty(0), "", None, weight, None, notes)
    return replace(rows, groups=groups_of(rows, groups))


def _embeddings(
    bank: Bank, names: Sequence[str], table: SampleTable, views: Sequence[str]
) -> tuple[NDArray[np.float32], dict[str, slice], dict[str, int]]:
    """Return embeddings of feature sets side by side, the columns of each, and how many views lie in these."""
    if not len(table):
        raise BankError(
            "no image of the bank could be read; expected some: `featurebank info BANK --failures` says why"
        )
    how = views[0] if len(set(views)) == 1 else "all"
    parts = bank.feature_parts(names, table, views=how)  # (n, d) or (n, views, d)
    n_views = {name: part.shape[1] if part.ndim == 3 else 1 for name, part in zip(names, parts, strict=True)}
    flat = [part.reshape(len(part), -1) for part in parts]
    ends = np.cumsum([0, *(part.shape[1] for part in flat)]).tolist()
    blocks = {name: slice(start, end) for name, (start, end) in zip(names, pairwise(ends), strict=True)}
    return flat[0] if len(flat) == 1 else np.concatenate(flat, axis=1), blocks, n_views


def groups_of(rows: TrainingData, column: str | None) -> NDArray[np.int64] | None:
    """Return groups that hold identical content together, and what the user named; None when nothing ties rows.

    Parameters
    ----------
    rows : TrainingData
    column : str or None
        Column of groups, or ``"@near-duplicates"``.

    Raises
    ------
    ColumnError
        When there is no such column, or it has missing values.
    """
    keys = as_keys(rows.table.rows["digest"])
    if column in NEAR_DUPLICATES:
        return tie(near_duplicate_groups(rows.alike), keys)
    if column is not None:
        return tie(values_of(rows.table, column), keys)
    return tie(keys) if len(DigestIndex(keys)) < len(keys) else None


def straddling(rows: TrainingData, part: NDArray[np.int64], groups: str | None) -> list[str]:
    """Say how many rows have a near-duplicate in another part, whose score is then too good.

    Parameters
    ----------
    rows : TrainingData
    part : ndarray of int64, shape (n,)
        Fold that tests each row, or another number for the rows of a given training or held-out part.
    groups : str or None
        What the user asked to keep together.
    """
    if groups in NEAR_DUPLICATES:
        return []
    if len(rows.y) > NEAR_DUPLICATE_ROWS:
        return [f"not checked for near-duplicates (over {NEAR_DUPLICATE_ROWS} rows); --groups @near-duplicates does"]
    pairs = near_duplicate_pairs(rows.alike)
    torn = pairs[part[pairs[:, 0]] != part[pairs[:, 1]]]
    if not len(torn):
        return []
    count = len(np.unique(torn))
    share = 100 * count / len(rows.y)
    if len(pairs) > ALL_ALIKE * len(rows.y) ** 2 / 2:
        return []  # these features see textures, in which unlike images are alike
    remedy = "" if groups else "; --groups @near-duplicates keeps them together"
    flattered = f"so that an accuracy is flattered by {share:.3g} points at most"
    flattered = flattered if rows.task == "classification" else "which flatters the score"
    return [
        f"{count:,} samples have a near-duplicate (cosine distance below {THRESHOLD:g}) in another fold by "
        f"{rows.alike_in} (`featurebank duplicates BANK --features {rows.alike_in}` lists them): {share:.3g} % of all, "
        f"{flattered}{remedy}"
    ]


def _left_out(bank: Bank, columns: Sequence[str]) -> list[str]:
    """Say how many readable samples miss a value."""
    readable = bank.select()
    missing = {name: int(column_of(readable, name).isna().sum()) for name in columns}
    return [left_out(count, f"has no {name}", f"have no {name}") for name, count in missing.items() if count]


def left_out(count: int, has: str, have: str) -> str:
    """Say that so many samples are left out, and why.

    Examples
    --------
    >>> left_out(1, "has no label", "have no label"), left_out(2, "has no label", "have no label")
    ('1 sample has no label and is left out', '2 samples have no label and are left out')
    """
    return f"{counted(count, f'sample {has} and is', f'samples {have} and are')} left out"


def torn_contents(table: SampleTable, columns: Sequence[str]) -> list[str]:
    """Say how many images of identical content there are, and which carry different values."""
    notes = []
    keys = as_keys(table.rows["digest"])
    index = DigestIndex(keys)
    contents = index.find(keys)
    frame = pd.DataFrame({number: column_of(table, name) for number, name in enumerate(columns)})
    frame.insert(0, "content", contents)
    torn = np.flatnonzero(np.bincount(frame.drop_duplicates()["content"]) > 1)
    if len(torn):
        example = os.fsdecode(table.rows["path"].iloc[np.isin(contents, torn).argmax()])
        what = counted(len(torn), "content comes", "contents come")
        notes.append(
            f"{what} with different values of {'+'.join(columns)}, e.g. that of {example!r}: "
            "correct them with `featurebank label`"
        )
    repeats = len(table) - len(index)
    if repeats:
        notes.append(
            f"{counted(repeats, 'sample repeats', 'samples repeat')} the content of another; folds keep them together"
        )
    return notes
