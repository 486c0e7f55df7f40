"""What is meant when no target column and no feature sets are named."""

from __future__ import annotations

from collections.abc import Sequence

from featurebank.bank.features import FeatureSet
from featurebank.bank.folder import BankFolder
from featurebank.bank.spec import LOGITS, PENULTIMATE, canonical_json, layer_order
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


def middle_blocks(bank: BankFolder) -> list[list[str]]:
    """Return the pooled maps of middle blocks, a list for each network that made some, most layers first.

    A layer that is cached with several pools comes once, with the widest.
    """
    networks: dict[str, dict[str, FeatureSet]] = {}
    for each in bank.feature_sets:
        spec = each.spec
        if spec.pool == "none" or spec.layout == "vector" or spec.layer in (PENULTIMATE, LOGITS) or spec.origin:
            continue
        made_by = canonical_json([spec.backbone, spec.weights, spec.preprocessing, spec.views, spec.precision])
        layers = networks.setdefault(made_by.decode(), {})
        layers[spec.layer] = max(layers.get(spec.layer, each), each, key=lambda one: one.width)
    found = [[each.name for _, each in sorted(own.items(), key=_order)] for own in networks.values()]
    return sorted(found, key=len, reverse=True)


def _order(item: tuple[str, FeatureSet]) -> tuple[int, list[tuple[int, str]]]:
    return layer_order(item[0])
