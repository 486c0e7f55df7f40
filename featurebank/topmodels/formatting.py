"""Scores as text, for the commands, the report and the sentences of results; it loads nothing heavy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

_SHARES: tuple[str, ...] = (
    "accuracy",
    "average_precision",
    "balanced_accuracy",
    "detection",
    "f1",
    "false_alarms",
    "fbeta",
    "jaccard",
    "macro_f1",
    "precision",
    "recall",
    "roc_auc",
    "top_k",
)
SAME_ANSWERS = "give the same answers on every row"
COMMITTEE = "committee"
"""The name of a committee among the models of a report."""
_RANGES = {
    "matthews_corrcoef": (-1.0, 1.0),
    "cohen_kappa": (-1.0, 1.0),
    "adjusted_": (-1.0, 1.0),
    "completeness": (0.0, 1.0),
    "fowlkes_mallows": (0.0, 1.0),
    "homogeneity": (0.0, 1.0),
    "normalized_mutual_info": (0.0, 1.0),
    "rand_score": (0.0, 1.0),
    "v_measure": (0.0, 1.0),
    "mutual_info": (0.0, math.inf),
    "r2": (-math.inf, 1.0),
    "d2_": (-math.inf, 1.0),
    "explained_variance": (-math.inf, 1.0),
    "neg_": (-math.inf, 0.0),
    "positive_likelihood_ratio": (0.0, math.inf),
}
"""The least and the greatest value of scores that are no shares, by what their names begin with."""


def score_name(scoring: Any, task: str) -> Any:
    """Return a scorer's name, the default's where none is given: accuracy, or R² for numbers.

    Examples
    --------
    >>> score_name(None, "regression"), score_name(None, "classification"), score_name("f1", "multilabel")
    ('r2', 'accuracy', 'f1')
    """
    if scoring is None:
        return "r2" if task == "regression" else "accuracy"
    return scoring


def is_share(scoring: Any) -> bool:
    """Say whether a scorer gives a share, from 0 to 1, the higher the better; of a function it is not known.

    Examples
    --------
    >>> is_share("balanced_accuracy"), is_share("macro_f1"), is_share("neg_log_loss"), is_share("matthews_corrcoef")
    (True, True, False, False)
    """
    return scoring is None or _name_of(scoring).startswith(_SHARES)


def _name_of(scoring: Any) -> str:
    """Return a scorer's name; that of its metric where it is made by `sklearn.metrics.make_scorer`."""
    if not hasattr(scoring, "_score_func"):
        return str(scoring)
    name = scoring._score_func.__name__
    return name if scoring._sign > 0 else f"neg_{name}"


def range_of(scoring: Any) -> tuple[float, float]:
    """Return the least and the greatest value of a score; they are infinite where they are not known.

    Examples
    --------
    >>> range_of("f1"), range_of("matthews_corrcoef"), range_of("neg_log_loss")
    ((0.0, 1.0), (-1.0, 1.0), (-inf, 0.0))
    """
    name = _name_of(scoring)
    ranges = (ends for start, ends in _RANGES.items() if name.startswith(start))
    return (0.0, 1.0) if is_share(scoring) else next(ranges, (-math.inf, math.inf))


def bounded(scoring: Any, interval: Sequence[float]) -> list[float]:
    """Return an interval as it is shown, within what the score can be: 0 to 1 for a share, at most 1 for r2 …

    Examples
    --------
    >>> bounded("accuracy", [-0.1, 1.02]), bounded("r2", [-0.1, 1.02]), bounded("neg_log_loss", [-0.3, 0.1])
    ([0.0, 1.0], [-0.1, 1.0], [-0.3, 0.0])
    """
    low, high = range_of(scoring)
    return [min(max(end, low), high) for end in interval]


def percent(share: float) -> str:
    """Return a share in percent with one decimal, without the sign, as tables have it.

    Examples
    --------
    >>> percent(0.8666)
    '86.7'
    """
    return f"{100 * share:.1f}"


def score_text(value: float, scoring: Any, *, unit: str = " %") -> str:
    """Return a score as it is shown: a share in percent, any other number with three decimals.

    Parameters
    ----------
    value : float
    scoring : str, callable or None
        Name of the scorer.
    unit : str, default " %"
        What follows a share; empty where the head of a column says it.

    Examples
    --------
    >>> score_text(0.8666, "accuracy"), score_text(0.8666, "accuracy", unit=""), score_text(-0.25, "neg_log_loss")
    ('86.7 %', '86.7', '-0.250')
    """
    return f"{percent(value)}{unit}" if is_share(scoring) else f"{value:.3f}"


def is_known(interval: Sequence[float | None]) -> bool:
    """Say whether an interval has ends: those that are not known are NaN, and None in JSON.

    Examples
    --------
    >>> is_known([0.5, 0.7]), is_known([float("nan"), float("nan")]), is_known([None, None])
    (True, False, False)
    """
    return all(end is not None and math.isfinite(end) for end in interval)


def interval_text(interval: Sequence[float], scoring: Any, *, between: str = "..", unit: str = "") -> str:
    """Return the interval of a score as it is shown, no share below 0 or above 1.

    Examples
    --------
    >>> interval_text([0.8571, 1.02], "accuracy"), interval_text([0.1, 0.2], "r2", between=" to ")
    ('85.7..100.0', '0.100 to 0.200')
    >>> interval_text([float("nan"), float("nan")], "r2")
    'not known'
    """
    if not is_known(interval):
        return "not known"
    return between.join(score_text(end, scoring, unit=unit) for end in bounded(scoring, interval))


def signed_text(value: float, scoring: Any) -> str:
    """Return a difference of two scores with its sign, that of shares in points (hundredths).

    Examples
    --------
    >>> signed_text(0.0123, "accuracy"), signed_text(-0.0123, "r2"), signed_text(-0.0001, "accuracy")
    ('+1.2', '-0.012', '+0.0')
    """
    return f"{100 * value:+z.1f}" if is_share(scoring) else f"{value:+z.3f}"


def gain_text(found: Mapping[str, Any], scoring: Any) -> str:
    """Return the difference between two candidates and its interval.

    Parameters
    ----------
    found : mapping
        ``difference`` and ``ci95``, as `featurebank.topmodels.scores.paired_interval` gives them.
    scoring : str, callable or None

    Examples
    --------
    >>> gain_text({"difference": 0.01, "ci95": [-0.01, 0.03]}, "accuracy")
    '+1.0 points (95 % -1.0..+3.0)'
    >>> gain_text({"difference": 0.0, "ci95": [float("nan"), float("nan")]}, "accuracy")
    '+0.0 points (95 % not known)'
    """
    unit = " points" if is_share(scoring) else ""
    return f"{signed_text(found['difference'], scoring)}{unit} (95 % {gain_ends(found['ci95'], scoring)})"


def gain_ends(interval: Sequence[float], scoring: Any) -> str:
    """Return the interval of a difference of two scores as it is shown, within what two scores can differ by.

    Examples
    --------
    >>> gain_ends([-0.01, 0.03], "accuracy"), gain_ends([-1.35, 1.59], "accuracy"), gain_ends([-1.35, 1.59], "r2")
    ('-1.0..+3.0', '-100.0..+100.0', '-1.350..+1.590')
    """
    if not is_known(interval):
        return "not known"
    least, greatest = range_of(scoring)
    most = greatest - least
    return "..".join(signed_text(min(max(end, -most), most), scoring) for end in interval)


def luck_text(report: Mapping[str, Any]) -> str:
    """Say how much of the best score may be luck, empty where that is nothing or not known.

    Parameters
    ----------
    report : mapping
        Of a fit: its ``selection`` has ``candidates`` and ``bias``.

    Examples
    --------
    >>> luck_text({"scoring": "accuracy", "selection": {"candidates": 40, "bias": 0.021}})
    'Chosen among 40: up to about 2.1 points of its score may be luck; --nested measures it.'
    """
    found = report.get("selection") or {}
    scoring, bias = report.get("scoring"), found.get("bias")
    text = signed_text(bias or 0.0, scoring).removeprefix("+")
    if bias is None or not float(text):
        return ""
    measured = "the nested score is free of it" if "nested" in report else "--nested measures it"
    points = " points" if is_share(scoring) else ""
    return f"Chosen among {found['candidates']}: up to about {text}{points} of its score may be luck; {measured}."


def told_apart_text(first: str, second: str, found: Mapping[str, Any], scoring: Any) -> str:
    """Say whether two candidates can be told apart on the folds they share, and by how much.

    Parameters
    ----------
    first, second : str
        What they are called.
    found : mapping
        From `featurebank.topmodels.scores.paired_interval`.
    scoring : str, callable or None

    Examples
    --------
    >>> told_apart_text("svm", "mlp", {"difference": 0.01, "ci95": [-0.01, 0.03], "told_apart": False}, "accuracy")
    'svm and mlp cannot be told apart: +1.0 points (95 % -1.0..+3.0)'
    >>> told_apart_text("svm", "mlp", {"difference": 0.0, "ci95": [0.0, 0.0], "same_answers": True}, "accuracy")
    'svm and mlp give the same answers on every row'
    """
    if not any([found["difference"], *found["ci95"]]):
        return (
            f"{first} and {second} {SAME_ANSWERS if found.get('same_answers') else 'have the same score in every fold'}"
        )
    verb = "can be told apart" if found["told_apart"] else "cannot be told apart"
    return f"{first} and {second} {verb}: {gain_text(found, scoring)}"


def cost_text(cost: Mapping[str, Any]) -> str:
    """Say what new images cost a predictor of several backbones.

    Parameters
    ----------
    cost : mapping
        ``backbones`` and ``seconds_an_image``, None with ``why`` where that could not be measured.

    Examples
    --------
    >>> cost_text({"backbones": ["lite0", "lite1"], "seconds_an_image": 0.0412, "images": 64})
    'Cost: each new image is embedded by lite0 and lite1, 0.041 s an image (measured on 64).'
    """
    text = f"Cost: each new image is embedded by {' and '.join(cost['backbones'])}"
    if cost["seconds_an_image"] is None:
        return f"{text}; not measured: {cost['why']}"
    return f"{text}, {cost['seconds_an_image']:.2g} s an image (measured on {cost['images']})."


def paid_text(what: str, found: Mapping[str, Any]) -> str:
    """Say whether something paid: surely, perhaps, or not.

    Parameters
    ----------
    what : str
        What was tried.
    found : mapping
        ``difference`` (what it brought) and ``ci95``.

    Examples
    --------
    >>> paid_text("sharing", {"difference": 0.01, "ci95": [-0.01, 0.03]})
    'sharing did not measurably pay, the difference may be chance'
    """
    if found["ci95"][0] > 0:
        return f"{what} paid"
    may_be_chance = f"{what} did not measurably pay, the difference may be chance"
    return may_be_chance if found["difference"] > 0 else f"{what} did not pay"
