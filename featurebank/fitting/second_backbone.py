"""When a second backbone is likely to be worth more than more parameters of the first, and how to add it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from featurebank.bank.bank import Bank
from featurebank.bank.repair_hints import is_named, root_to_name, roots
from featurebank.bank.request import StoredRequest
from featurebank.errors import shell_word
from featurebank.topmodels.formatting import is_share

SECOND = ("mobilenet_v2", "resnet50")
"""Networks of two families, of which one is another than the bank's."""
ENOUGH_ROWS = 200
SURE = 0.97
"""A share from which on little is left to gain."""


def about_second_backbone(bank: Bank, report: Mapping[str, Any]) -> str | None:
    """Say that a second backbone is worth more than more parameters, with the commands, where that is likely.

    It is where the candidates see one backbone, what was tried of it cannot be told apart (so that more of the same
    brings little), and there is room above the best score.

    Parameters
    ----------
    bank : Bank
    report : mapping
        Of a fit of one task.
    """
    backbones = {bank.feature_set(name).spec.backbone for each in report["candidates"] for name in each["features"]}
    compared, best = report["comparison"], report["best"]["mean"]
    is_flat = compared is not None and not compared["told_apart"]
    has_room = is_share(report["scoring"]) and best < SURE
    if len(backbones) > 1 or "ensemble" in report or report["n_samples"] < ENOUGH_ROWS or not (is_flat and has_room):
        return None
    other = next(name for name in SECOND if name.split("_")[0][:6] not in next(iter(backbones)))
    where = roots(bank.select())
    (source, root), *more = where.items()
    is_one = not more and is_named(source)
    named = (root_to_name(source, root), bank.named_options(source)) if is_one else ()
    command = StoredRequest(other).command(source if is_one else "SOURCE", bank.path, *named)
    return (
        "What was tried of this backbone cannot be told apart: a second one is likely to bring more than more "
        f"parameters ({command}; then featurebank fit {shell_word(bank.path)} --ensemble)."
    )
