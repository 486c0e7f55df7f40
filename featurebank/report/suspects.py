"""Labels that look wrong, images that show the same picture, and such images on two sides of a split."""

from __future__ import annotations

from typing import Any

import pandas as pd

from featurebank.bank.samples import rows_of
from featurebank.errors import ColumnError, ImageError, NotInstalledError, one_line
from featurebank.explore import duplicates, label_issues
from featurebank.images.reading import Progress
from featurebank.report.data import sides
from featurebank.report.outcomes import Outcomes
from featurebank.report.subject import Subject

MOST_ISSUES = 48
MOST_GROUPS = 24
MOST_IN_GROUP = 12
CHECKED = 20_000
"""Samples up to which near-duplicates are looked for."""


def suspects(subject: Subject, progress: Progress | None = None) -> dict[str, Any]:
    """Return the facts of the page's section on suspects.

    Returns
    -------
    dict
        ``issues, groups`` and ``leaks``, None for what could not be looked for, which ``issues_note`` and
        ``groups_note`` explain (``issues_remedy`` and ``groups_remedy`` name the command that helps, if one does); and
        ``rows``, the samples that they show.
    """
    issues, copies = _issues(subject), _groups(subject, progress)
    rows = [each["row"] for each in issues["issues"] or []]
    rows += [each["row"] for group in copies["groups"] or [] for each in group]
    return {**issues, **copies, "rows": rows}


def _issues(subject: Subject) -> dict[str, Any]:
    found = subject.outcomes
    if subject.predictor is not None and subject.predictor.task != "classification":
        return _no_issues("Labels are judged by the probabilities of classes, which this predictor does not give.", "")
    if subject.predictor is None or found is None or found.proba is None:
        note = "Labels are judged by the out-of-fold probabilities that lie beside a predictor of classes:"
        return _no_issues(note, "fit")
    try:
        frame = label_issues(subject.bank, target=subject.predictor.target, oof=_frame(found, subject))
    except NotInstalledError as error:
        return _no_issues(f"Not looked for: {one_line(error)}. Then this does:", "report")
    except ColumnError as error:
        return _no_issues(f"Not looked for: {one_line(error)}:", "fit")
    where = rows_of(subject.table, frame).tolist()
    listed = [
        {"row": where[number], "given": str(each.given), "suggested": str(each.suggested)}
        for number, each in enumerate(frame.head(MOST_ISSUES).itertuples())
    ]
    return {"issues": listed, "issues_n": len(frame), "issues_note": "", "issues_remedy": ""}


def _no_issues(note: str, remedy: str) -> dict[str, Any]:
    return {"issues": None, "issues_n": 0, "issues_note": note, "issues_remedy": remedy}


def _frame(found: Outcomes, subject: Subject) -> pd.DataFrame:
    """Return the out-of-fold probabilities as `featurebank.fit` gives them."""
    proba = pd.DataFrame(found.proba, columns=[f"proba_{name}" for name in found.classes])
    return pd.concat([subject.table.take(found.row).names(), proba], axis=1)


def _groups(subject: Subject, progress: Progress | None) -> dict[str, Any]:
    if len(subject.table) > CHECKED:
        return _no_groups(f"Not looked for among more than {CHECKED:,} images. This lists them:", "duplicates")
    try:
        frame = duplicates(subject.bank, progress=progress)
    except ImageError as error:
        return _no_groups(f"Not looked for, since not every image could be read: {one_line(error)}.", "")
    frame = frame.assign(row=rows_of(subject.table, frame))
    groups = [group for _, group in sorted(frame.groupby("group"), key=lambda item: -len(item[1]))]
    apart = sides(subject.table, subject.folds)
    return {
        "groups": [_listed(group) for group in groups[:MOST_GROUPS]],
        "groups_n": len(groups),
        "groups_note": "",
        "groups_remedy": "",
        "leaks": [text for name, side in apart.items() if (text := leak(name, side, groups))],
        "split_names": ", ".join(apart) or "any split, as there is none",
    }


def _no_groups(note: str, remedy: str) -> dict[str, Any]:
    lacking = {"groups": None, "groups_n": 0, "leaks": None, "split_names": ""}
    return {**lacking, "groups_note": note, "groups_remedy": remedy}


def _listed(group: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {"row": int(each.row), "text": each.kind if each.kind == "exact" else f"{each.kind}, {each.similarity:.3f}"}
        for each in group.head(MOST_IN_GROUP).itertuples()
    ]


def leak(name: str, side: pd.Series, groups: list[pd.DataFrame]) -> str:
    """Say how many images have a near-duplicate on another side of a split; empty for none.

    Examples
    --------
    >>> leak("split", pd.Series(["train", "test", "test"]), [pd.DataFrame({"row": [0, 1]})])
    '2 images in 1 group of near-duplicates lie on two sides of split'
    """
    torn = [group for group in groups if side.iloc[group["row"]].nunique() > 1]
    if not torn:
        return ""
    groups_word = "group" if len(torn) == 1 else "groups"
    return f"{sum(map(len, torn))} images in {len(torn)} {groups_word} of near-duplicates lie on two sides of {name}"
