"""advise(): what a bank's data ask for, with the evidence, the commands to run next, and what they cost."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from html import escape
from typing import Any

import pandas as pd

from featurebank.bank.bank import Bank, BankLike
from featurebank.bank.defaults import default_target
from featurebank.errors import counted, renamed
from featurebank.explore.advice.commands import Planner, Recommendation
from featurebank.explore.advice.evidence import Measurements, Question, measure
from featurebank.explore.advice.probe import Interval
from featurebank.explore.advice.rules import LARGE, LARGE_CLASS, OVERFITS, SENTENCES, TUNING, Action, Verdict, decide
from featurebank.images.progress import shown
from featurebank.images.reading import Progress
from featurebank.topmodels.formatting import gain_text, percent, score_text


@dataclass(frozen=True, repr=False)
class Advice:
    """What a bank's data ask for.

    Attributes
    ----------
    verdict : Verdict
        The cell of the size × similarity table, and what to do.
    lines : list of (str, str)
        The evidence: what was looked at, and what it says.
    steps : list of Recommendation
        The recommended one first, then the alternative, where the courses know one, then the frozen features that a
        fine-tuning is to be compared with.
    report : dict
        What ``featurebank advise --json`` prints.

    See Also
    --------
    advise : What makes it.

    Examples
    --------
    >>> print(advise("photos.bank").verdict.size)
    small
    """

    verdict: Verdict
    lines: list[tuple[str, str]]
    steps: list[Recommendation]
    report: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.verdict.cell}: {SENTENCES[self.verdict.action]}"

    def __repr__(self) -> str:
        return f"<Advice: {self}>"

    def to_dict(self) -> dict[str, Any]:
        """Return the report."""
        return self.report

    def to_frame(self) -> pd.DataFrame:
        """Return the layer curve: ``features, mean, low, high`` of the best probe, a row a candidate."""
        curve = [("+".join(each["features"]), each["mean"], *each["ci95"]) for each in self.report["layers"]]
        return pd.DataFrame(curve, columns=["features", "mean", "low", "high"])

    def _repr_html_(self) -> str:
        evidence = pd.DataFrame(self.lines, columns=["about", "says"]).to_html(index=False, escape=True)
        commands = "\n".join(command for each in self.steps for command in each.commands)
        return f"<p>{escape(str(self))}</p>{evidence}<pre>{escape(commands)}</pre>"


@renamed(seed="random_state", jobs="n_jobs")
def advise(
    bank: BankLike,
    *,
    target: str | None = None,
    groups: str | None = None,
    sample_weight: str | None = None,
    scoring: str | None = None,
    folds: int = 5,
    repeats: int = 1,
    random_state: int = 0,
    n_jobs: int = -1,
    progress: Progress | None = None,
) -> Advice:
    """Say which transfer fits a bank's data: a top model, on which layers, or fine-tuning, of how much.

    A ridge probe of every cached layer and a quick learning curve, on the same folds, place the data in the table of
    size and similarity that the courses teach;
    `featurebank.explore.advice.rules` holds the rules and their thresholds.

    Parameters
    ----------
    bank : path-like or Bank
        With the penultimate layer and one or more before it; with fewer the advice is to extract more.
    target, groups, sample_weight, folds, repeats, random_state, n_jobs
        See `featurebank.fit`; more repeats tell closer layers apart.
    scoring : str, optional
        Any scikit-learn scorer whose best is 1; by default the accuracy, the balanced accuracy where a class has three
        times the images of another, R² for numbers.
    progress : callable, optional
        Called with (per cent done, 200).

    Returns
    -------
    Advice

    Raises
    ------
    FeatureBankError
        A child of it says what was found, what was expected and what to do.

    See Also
    --------
    rank_features : Which of the cached features.
    fit : A frequent answer.
    finetune : Another.

    Examples
    --------
    >>> advice = advise("photos.bank")
    >>> advice.verdict.size, advice.verdict.action
    ('small', 'penultimate')
    >>> advice.steps[0].commands[0][:30]
    'featurebank fit photos.bank --'
    """
    started = time.perf_counter()
    bank = Bank.of(bank)
    asked = (groups, sample_weight, scoring, folds, repeats, random_state, n_jobs)
    question = Question(target or default_target(bank), *asked)
    found = measure(bank, question, shown(progress, "advise"))
    verdict = decide(found.evidence)
    planner = Planner(bank, question, found)
    steps = [planner.recommend(action) for action in wanted_actions(verdict)]
    lines = evidence_lines(found, verdict)
    report = _report(bank, question, found, verdict, lines, steps)
    return Advice(verdict, lines, steps, {**report, "seconds": time.perf_counter() - started})


def wanted_actions(verdict: Verdict) -> list[Action]:
    """Return what to make steps of: a fine-tuning is never without the frozen features beside it.

    Examples
    --------
    >>> wanted_actions(Verdict("large", "similar", "top-blocks", "", "all"))
    ['top-blocks', 'all', 'penultimate']
    """
    frozen: Action = "lower" if verdict.similarity == "different" else "penultimate"
    wanted = [verdict.action, verdict.alternative, frozen if verdict.action in TUNING else None]
    return list(dict.fromkeys(each for each in wanted if each is not None))


def _report(
    bank: Bank,
    question: Question,
    found: Measurements,
    verdict: Verdict,
    lines: list[tuple[str, str]],
    steps: list[Recommendation],
) -> dict[str, Any]:
    return {
        "bank": str(bank.path),
        "target": question.target,
        "task": found.rows.task,
        "scoring": found.scoring,
        "folds": question.folds,
        "repeats": question.repeats,
        "seed": question.random_state,
        "backbone": found.network.top.spec.backbone,
        "layers": layer_curve(found),
        "chance": found.chance,
        "evidence": asdict(found.evidence),
        "plateau": found.plateau.name,
        "copies": found.copies,
        "alike": found.alike,
        "learning_curve": found.learning.to_dict(),
        "verdict": asdict(verdict),
        "lines": [{"about": about, "says": says} for about, says in lines],
        "steps": [step.to_dict() for step in steps],
        "warnings": found.notes,
    }


def layer_curve(found: Measurements) -> list[dict[str, Any]]:
    """Return the best probe of each layer by depth, and of several together: ``features, mean, ci95, params``."""
    return [
        {"features": list(names), "mean": each.mean, "ci95": list(each.ci95), "params": each.params}
        for names, each in found.best.items()
    ]


# --- lines -------------------------------------------------------------------------------------------------


def evidence_lines(found: Measurements, verdict: Verdict) -> list[tuple[str, str]]:
    """Say what was measured, a line for each thing that was looked at."""
    return [
        ("size", _about_size(found, verdict)),
        ("copies", _about_copies(found)),
        ("above chance", _about_chance(found)),
        ("similarity", _about_similarity(found, verdict)),
        ("more labels", _about_labels(found)),
        ("gap", _about_gap(found)),
    ]


def _about_size(found: Measurements, verdict: Verdict) -> str:
    facts = found.evidence
    count = f"{facts.n_samples:,} images"
    if facts.n_classes:
        spread = "" if facts.smallest_class == facts.largest_class else f" to {facts.largest_class:,}"
        count += f", {facts.n_classes} classes of {facts.smallest_class:,}{spread}"
        count += ", weighted alike" if found.class_weight else ""
    return f"{verdict.size}: {count}; large is {LARGE:,} or more, {LARGE_CLASS} or more a class"


def _about_copies(found: Measurements) -> str:
    copies = counted(found.copies, "image repeats", "images repeat")
    if found.alike is None:
        return f"{copies} another's content; too many images to look for near-duplicates"
    return f"{copies} another's content, {counted(found.alike, 'looks', 'look')} like another"


def _about_chance(found: Measurements) -> str:
    facts = found.evidence
    verb = "cannot be told from" if facts.is_noise else "is above"
    said = f"the probe {verb} a guess ({_score(found, found.chance)}): {_difference(found, facts.above_chance)}"
    more = "" if facts.shuffled is None else f"; {percent(facts.shuffled)} % of shuffled labels are predicted as well"
    return said + more


def _about_similarity(found: Measurements, verdict: Verdict) -> str:
    lead = found.evidence.lead
    if lead is None:
        return f"{verdict.similarity}: takes the penultimate layer and one or more before it, of one network"
    where = "the score rises up to the last layer"
    if found.plateau is not found.network.top:
        where = f"from {found.plateau.spec.layer_name} on the score rises no further"
    sure = "" if verdict.is_sure or verdict.similarity == "unknown" else "probably "
    return (
        f"{sure}{verdict.similarity}: {where}; the penultimate layer leads the lower half by {_difference(found, lead)}"
    )


def _about_labels(found: Measurements) -> str:
    """Say what the learning curve promises; whether labels are noise is settled elsewhere, with more power."""
    learning = found.learning if found.evidence.is_noise else replace(found.learning, chance=None)
    return learning.verdict


def _about_gap(found: Measurements) -> str:
    facts = found.evidence
    verb = "it overfits" if facts.gap > OVERFITS else "it does not overfit much"
    training = _score(found, facts.score + facts.gap)
    return f"the probe scores {training} on the images it learns from, {_score(found, facts.score)} on others: {verb}"


def _score(found: Measurements, value: float) -> str:
    return score_text(value, found.scoring)


def _difference(found: Measurements, value: Interval) -> str:
    return gain_text({"difference": value.value, "ci95": (value.low, value.high)}, found.scoring)
