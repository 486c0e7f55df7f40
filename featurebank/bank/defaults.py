"""What is meant when no target column and no feature sets are named."""

from __future__ import annotations

from collections.abc import Sequence

from featurebank.bank.folder import BankFolder
from featurebank.errors import BankError, ColumnError
from featurebank.images.splits import SPLIT, holds_split


def default_target(bank: BankFolder) -> str:
    """Return the column that is meant when none is named: ``label``, or the only one beside a split.

    Raises
    ------
    ColumnError
        When there is neither.
    """
    columns = list(bank.table.columns)
    if holds_split(bank.table.columns):
        columns.remove(SPLIT)
    if "label" in columns:
        return "label"
    if len(columns) != 1:
        have = f"the columns {', '.join(map(repr, columns))}" if columns else "no column to learn"
        raise ColumnError(f"the bank has {have}; name the one to learn (--target), or add it with `featurebank label`")
    return columns[0]


def candidate_features(bank: BankFolder, features: str | Sequence[str] | None) -> list[list[str]]:
    """Return the feature sets of each candidate; by default every pooled set alone.

    Raises
    ------
    BankError
        When the bank has no pooled feature set.
    FeatureSetError
        When a name is not in the bank.
    """
    if features is not None and features != "all":
        named = [features] if isinstance(features, str) else features
        return [[bank.feature_set(name).name for name in each.split("+")] for each in named]
    pooled = [each.name for each in bank.feature_sets if each.spec.pool != "none" or each.spec.layout == "vector"]
    if not pooled:
        raise BankError(f"{str(bank.path)!r} has no pooled feature set; run `featurebank extract` first")
    return [[name] for name in pooled]
