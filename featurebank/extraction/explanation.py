"""What an extraction would reuse and what it would compute, and why, without computing anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from featurebank.backbones.request import Request
from featurebank.bank.bank import Bank
from featurebank.bank.spec import FeatureSpec
from featurebank.extraction.ledger import Ledger
from featurebank.images.sources import Source


def explain(source: Source, bank: Bank, request: Request) -> dict[str, Any]:
    """Say what `extract` would find in a bank; nothing is read, embedded or written.

    Parameters
    ----------
    source : Source
        From `featurebank.scan`.
    bank : Bank
    request : Request
        The backbone and layers; the network is loaded only for a request that the bank has not seen.

    Returns
    -------
    dict
        ``samples``, ``unchanged`` (file as the bank knows it), ``changed``, ``new``; and for each feature set its
        ``name``, ``fingerprint``, ``hits`` and ``misses`` among the unchanged samples, and, where the bank has no such
        set, the ``nearest`` one and the fields of the spec in which it ``differs`` ([there, asked for]).
    """
    specs = request.specs(bank)
    ledger = Ledger(source, bank, specs, verify=False)
    known = int((ledger.before >= 0).sum())
    same = ledger.unchanged()
    others = [each.spec for each in bank.feature_sets]
    return {
        "samples": len(source.paths),
        "unchanged": len(same),
        "changed": known - len(same),
        "new": len(source.paths) - known,
        "feature_sets": [_explain_set(ledger, spec, same, others) for spec in specs],
    }


def _explain_set(ledger: Ledger, spec: FeatureSpec, same: list[bytes], others: list[FeatureSpec]) -> dict[str, Any]:
    misses = sum(spec in ledger.lacking(digest) for digest in same)
    facts = {"name": spec.name, "fingerprint": spec.fingerprint, "hits": len(same) - misses, "misses": misses}
    if spec in others or not others:
        return facts
    near = nearest(spec, others)
    return {**facts, "nearest": f"{near.name}@{near.fingerprint[:8]}", "differs": differences(near, spec)}


def nearest(spec: FeatureSpec, others: Sequence[FeatureSpec]) -> FeatureSpec:
    """Return the spec that differs in the fewest fields, the backbone counting most."""
    return min(others, key=lambda other: (other.backbone != spec.backbone, len(differences(other, spec))))


def differences(there: FeatureSpec, asked: FeatureSpec) -> dict[str, list[Any]]:
    """Return the fields in which two specs differ, each as [there, asked for].

    Examples
    --------
    >>> spec = FeatureSpec("net", "", "00", "fc", "vector", 0, "none", {}, 1, "none", "fp32", "float16")
    >>> from dataclasses import replace
    >>> differences(spec, replace(spec, store="float32"))
    {'store': ['float16', 'float32']}
    """
    first, second = there.to_dict(), asked.to_dict()
    return {name: [first[name], second[name]] for name in first if first[name] != second[name]}
