"""What the page says first: the score to expect on new images, in plain words, and why the chosen one is higher."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from featurebank.errors import counted
from featurebank.topmodels.formatting import interval_text, luck_text, score_name, score_text

Fit = Mapping[str, Any]
NEAR_DUPLICATES = ("@near-duplicates", "near-duplicates")


def summary(fit: Fit) -> dict[str, Any]:
    """Return the score to expect (``lead``) and what is said of it (``more``), empty where nothing was scored.

    The nested score leads where there is one, else that of rows that were held out: no choice has flattered either.
    """
    if "one_class" in fit:
        return {"lead": _of_normals(fit["one_class"]), "more": []}
    if not fit.get("candidates"):
        return {"lead": "", "more": []}
    best = f"Best: {_scored(fit['best'], fit['scoring'])}"
    if "nested" in fit:
        return {"lead": _expected(fit), "more": [*_of_nested(fit, best), *_of_guess(fit)]}
    if "held_out" in fit:
        held = fit["held_out"]
        name, score = held_out_score(fit)
        lead = f"On {counted(held['n_samples'], 'image')} held out of everything: {_scored(score, name)}."
        return {"lead": lead, "more": [f"{best}, on the other images, by which it was chosen.", *_of_guess(fit)]}
    return {"lead": f"{best}.", "more": [*_of_choice(fit), *_of_guess(fit)]}


def _scored(found: Mapping[str, Any], scoring: str) -> str:
    ends = interval_text(found["ci95"], scoring, between=" to ", unit=" %")
    return f"{score_text(found['mean'], scoring)} {scoring.replace('_', ' ')} (95 % interval {ends})"


def _expected(fit: Fit) -> str:
    """Return what to expect of new images, by the nested score."""
    groups = fit.get("groups")
    of = f", of a {groups} that is not among these," if groups and groups not in NEAR_DUPLICATES else " like these"
    right = round(100 * fit["nested"]["mean"])
    of_hundred = f": about {right} right answers of 100" if fit["scoring"] == "accuracy" and right < 100 else ""
    return f"On new images{of} expect {_scored(fit['nested'], fit['scoring'])}{of_hundred}."


def _of_nested(fit: Fit, best: str) -> list[str]:
    """Say what the nested score is, and why the score of what was chosen is higher."""
    count = counted(_count(fit), "candidate")
    why = f"It is higher, since the best of {count} was picked by this very score: part of it is luck."
    if fit["best"]["mean"] <= fit["nested"]["mean"] or _count(fit) == 1:
        why = "It is no higher here; still, the nested one is the one to report."
    told = (
        f"This is the nested score: the whole fit, the choice among {count} too, was tried on images it had not seen."
    )
    return [told, f"{best}, of the one that was chosen. {why}"]


def _count(fit: Fit) -> int:
    return int((fit.get("selection") or {}).get("candidates", len(fit["candidates"])))


def _of_choice(fit: Fit) -> list[str]:
    """Say that a score by which something was chosen is a little too good, and what measures that."""
    if _count(fit) == 1:
        return []
    luck = luck_text(fit)
    measured = "" if luck else " `featurebank fit … --nested` measures how much."
    return [
        f"The best was chosen by this score, so that new images fare a little worse.{measured}",
        *filter(None, [luck]),
    ]


def _of_guess(fit: Fit) -> list[str]:
    """Say what a guess scores, and whether the best can be told from it."""
    found = fit.get("guess")
    if not found:
        return []
    score = score_text(found["mean"], score_name(fit["scoring"], fit["task"]))
    return [f"A guess scores {score}" + ("." if found["told_apart"] else ", from which this cannot be told.")]


def held_out_score(fit: Fit) -> tuple[str, dict[str, Any]]:
    """Return the name of the score that is told of the rows that were held out, and its ``mean`` and ``ci95``."""
    found = fit["held_out"]
    name = "r2" if fit["task"] == "regression" else "accuracy"
    return name, {"mean": found[name], "ci95": found["intervals"][name]}


def _of_normals(fit: Mapping[str, Any]) -> str:
    """Return how well a bank's anomalies are told from normal images, of which alone a model has learned."""
    found = fit["scores"]
    if found is None or "roc_auc" not in found:
        return f"Learned from {counted(fit['normals'], 'normal image')}; no anomaly to score on."
    ends = interval_text(found["intervals"]["roc_auc"], "roc_auc", between=" to ", unit=" %")
    anomalies = counted(found["n_anomalies"], "anomaly", "anomalies")
    return f"AUROC {score_text(found['roc_auc'], 'roc_auc')}, {ends}, of {anomalies}."
