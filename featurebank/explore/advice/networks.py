"""Feature sets of one network, in the order of its layers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from featurebank.backbones.registry import layers_of
from featurebank.backbones.request import Request
from featurebank.bank.bank import Bank
from featurebank.bank.features import FeatureSet, as_keys
from featurebank.bank.repair_hints import missing_rows
from featurebank.bank.samples import SampleTable
from featurebank.bank.spec import LOGITS, PENULTIMATE, FeatureSpec, canonical_json, layer_order
from featurebank.errors import BankError


def complete_sets(
    bank: Bank, candidates: Sequence[Sequence[str]], table: SampleTable
) -> tuple[list[list[str]], dict[str, int], list[str]]:
    """Divide single feature sets into those that have a row of every sample, and those that lack some.

    Returns the former, how many samples each of the others has no row for, and what to do about it. It is an error
    when every set lacks rows.
    """
    whole, lacking, notes = [], {}, []
    keys = as_keys(table.rows["digest"])
    for (name,) in candidates:
        each = bank.feature_set(name)
        missing = int((each.find(keys) < 0).sum())
        if missing:
            lacking[name] = missing
            notes.append(missing_rows(bank, each, table))
        else:
            whole.append([name])
    if not whole:
        raise BankError(notes[0])
    return whole, lacking, notes


@dataclass(frozen=True)
class Network:
    """The pooled feature sets of one network that differ in their layer and pooling alone, by depth.

    The request is the one that last made the deepest of them; a module that no command can name has none. Where the
    order is not surely that of the network, it is that of the layers' names.
    """

    sets: tuple[FeatureSet, ...]
    request: Request | None
    is_ordered: bool = True

    @property
    def names(self) -> list[str]:
        """Names of the sets."""
        return [each.name for each in self.sets]

    @property
    def curve(self) -> list[FeatureSet]:
        """The sets of the layers up to the top one."""
        return [*self.lower, self.top]

    @property
    def candidates(self) -> list[tuple[str, ...]]:
        """Each layer up to the top one by depth, then the lower ones together, and all together."""
        names = tuple(each.name for each in self.curve)
        return list(dict.fromkeys([*((name,) for name in names), names[:-1] or names, names]))

    @property
    def top(self) -> FeatureSet:
        """The penultimate layer's set, or the deepest where that is not there."""
        found = [each for each in self.sets if each.spec.layer == PENULTIMATE]
        return found[0] if found else self.sets[-1]

    @property
    def lower(self) -> list[FeatureSet]:
        """The sets of the layers before the top one."""
        return list(self.sets[: self.sets.index(self.top)])

    @property
    def has_curve(self) -> bool:
        """Whether the penultimate layer is there, and one before it."""
        return self.top.spec.layer == PENULTIMATE and bool(self.lower)


def find_networks(bank: Bank, names: Sequence[str]) -> list[Network]:
    """Return the networks that feature sets come from, each with its sets by depth.

    Layers are ordered by their names where these differ in their numbers alone (``blocks.2``, ``blocks.10``), without
    loading the network; otherwise a network that is known by name is built and asked.
    """
    groups: dict[bytes, list[FeatureSet]] = {}
    for name in names:
        each = bank.feature_set(name)
        groups.setdefault(_identity(each.spec), []).append(each)
    return [_network(bank, sets) for sets in groups.values()]


def _identity(spec: FeatureSpec) -> bytes:
    """Return what sets of one network share: all of the spec but the layer and how it is pooled."""
    facts = spec.to_dict()
    return canonical_json({key: facts[key] for key in facts if key not in ("layer", "layout", "prefix", "pool")})


def _network(bank: Bank, sets: Sequence[FeatureSet]) -> Network:
    stems = {re.sub(r"\d+", "#", each.spec.layer) for each in sets} - {PENULTIMATE, LOGITS}
    request = Request.last(bank, sets[0].spec)
    depth = _depths(request) if len(stems) > 1 and request else {}
    ordered = sorted(sets, key=lambda each: (depth.get(each.spec.layer, 0), *layer_order(each.spec.layer), each.name))
    return Network(tuple(ordered), request, is_ordered=len(stems) < 2 or bool(depth))


def _depths(request: Request) -> dict[str, int]:
    """Return the depth of each layer of the network that a request names."""
    layers = layers_of(request.backbone, request.size)
    return {name: layer.depth for name, layer in [*layers.inputs.items(), *layers.items()]}
