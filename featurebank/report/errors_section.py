"""What the page says of errors: confusion, mistakes, label issues, near-duplicates, leaks, where the model looks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import precision_recall_fscore_support

from featurebank.bank.images import images_of
from featurebank.bank.samples import rows_of
from featurebank.errors import (
    ColumnError,
    FeatureBankError,
    ImageError,
    NotInstalledError,
    PredictorError,
    counted,
    one_line,
)
from featurebank.explore import duplicates, explain, label_issues
from featurebank.explore.image_map import data_uri
from featurebank.images.columns import join_frames, text_frame
from featurebank.images.reading import Progress
from featurebank.predictor.task import ANOMALY
from featurebank.report.data_section import sides
from featurebank.report.inputs import Inputs, OofPredictions
from featurebank.topmodels.scores import score_interval, wilson_interval

MOST_CLASSES = 24
"""Classes up to which the whole confusion matrix is shown; beyond, the pairs that are confused most."""
MOST_PAIRS = 30
MOST_MISTAKES = 48
MOST_ISSUES = 48
MOST_GROUPS = 24
MOST_IN_GROUP = 12
CHECKED = 20_000
"""Samples up to which near-duplicates are looked for."""
MAP_SIDE = 208
"""Pixels of the longer side of a picture."""
EXPLAINED = 4
"""Mistakes, and right answers, that are explained by exact maps; one of each where parts have to be covered in turn."""
_TOLD = {
    "cam": "Class activation maps, exact for this predictor: red parts speak for the answer, blue ones against it.",
    "auto": "Each place is compared with patches of normal images: red ones are unlike any, the redder the more.",
    "occlusion": "Parts of the image were covered in turn: the answer leans on the red ones, blue ones are against it.",
}
_OUT_OF_FOLD = " The answers are those out of fold; the predictor that is asked why has since seen the images."


def errors(inputs: Inputs) -> dict[str, Any]:
    """Return the facts of the page's sections on confusion, mistakes and classes."""
    found = inputs.oof
    is_classes = found is not None and bool(found.classes)
    return {
        "confusion": confusion(found) if found is not None and is_classes else None,
        "mistakes": mistakes(found) if found is not None else [],
        "flagged": flagged(inputs),
        "per_class": per_class(found, inputs.groups) if found is not None and is_classes else [],
    }


def confusion(found: OofPredictions) -> dict[str, Any]:
    """Return the confusion matrix, its rows true and its columns predicted, and the pairs that are confused most.

    ``whole`` says whether the matrix is to be shown: beyond some classes only the pairs are.
    """
    k = len(found.classes)
    counts = np.bincount(found.true * k + found.predicted, minlength=k * k).reshape(k, k)
    off = counts * ~np.eye(k, dtype=bool)
    order = np.argsort(-off, axis=None, kind="stable")[:MOST_PAIRS]
    pairs = [(int(at // k), int(at % k), int(off.flat[at])) for at in order if off.flat[at]]
    return {
        "classes": found.classes,
        "counts": counts.tolist(),
        "shares": (counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)).tolist(),
        "pairs": pairs,
        "mistakes": int(off.sum()),
        "whole": k <= MOST_CLASSES,
    }


def per_class(found: OofPredictions, groups: NDArray[np.int64] | None = None) -> list[dict[str, Any]]:
    """Return precision, recall with its interval, and F1 of each class; rows of a group count as much as they tell."""
    codes = np.arange(len(found.classes))
    precision, recall, f1, count = precision_recall_fscore_support(
        found.true, found.predicted, labels=codes, zero_division=0
    )
    rows = zip(found.classes, precision, recall, f1, count, strict=True)
    return [
        {
            "name": name,
            "precision": float(p),
            "recall": float(r),
            "f1": float(f),
            "n": int(n),
            "ci95": _recall_interval(found, code, groups) if n else None,
        }
        for code, (name, p, r, f, n) in enumerate(rows)
    ]


def _recall_interval(found: OofPredictions, code: int, groups: NDArray[np.int64] | None) -> tuple[float, float]:
    """Return the interval of the recall of a class that has rows: Wilson's, or that of the groups its rows are of."""
    own = found.true == code
    is_right = found.predicted[own] == code
    if groups is None:
        return wilson_interval(int(is_right.sum()), len(is_right))
    units = np.unique(groups[found.row[own]], return_inverse=True)[1]
    influence = np.bincount(units, is_right - is_right.mean()) / len(is_right)
    return score_interval(float(is_right.mean()), influence, "accuracy", rows=len(is_right)).ends


def mistakes(found: OofPredictions) -> list[dict[str, Any]]:
    """Return the most confident mistakes, or the largest errors of numbers: ``row, true, said, surety``."""
    if not found.classes:
        return _largest_errors(found)
    sure = found.confidence
    ranked = np.zeros(len(found.row)) if sure is None else np.nan_to_num(sure, nan=-1.0)
    wrong = np.flatnonzero(found.wrong)
    worst = wrong[np.argsort(-ranked[wrong], kind="stable")][:MOST_MISTAKES]
    return [
        {
            "row": int(found.row[i]),
            "true": found.classes[found.true[i]],
            "said": found.classes[found.predicted[i]],
            "surety": "" if sure is None or np.isnan(sure[i]) else f"{100 * sure[i]:.0f} % sure",
        }
        for i in worst
    ]


def flagged(inputs: Inputs) -> list[dict[str, Any]]:
    """Return what a predictor of anomalies calls one, the strangest first: ``row, true, p_value``; else nothing."""
    if inputs.predictor is None or inputs.predictor.task != "anomaly" or inputs.predictor.oof is None:
        return []
    said = inputs.predictor.oof
    said = said[said["predicted"] == ANOMALY].sort_values("score", kind="stable")
    said = said.assign(row=rows_of(inputs.table, said))
    return [
        {"row": int(each.row), "true": str(each.true), "p_value": float(each.anomaly)}
        for each in said[said["row"] >= 0].head(MOST_MISTAKES).itertuples()
    ]


def _largest_errors(found: OofPredictions) -> list[dict[str, Any]]:
    error = np.abs(found.true - found.predicted)
    return [
        {
            "row": int(found.row[i]),
            "true": f"{found.true[i]:g}",
            "said": f"{found.predicted[i]:.4g}",
            "surety": f"off by {error[i]:.3g}",
        }
        for i in np.argsort(-error, kind="stable")[:MOST_MISTAKES]
    ]


# --- label issues and near-duplicates -----------------------------------------------------------------------


def checks(inputs: Inputs, progress: Progress | None = None) -> dict[str, Any]:
    """Return the facts of the page's section on labels and near-duplicates, and ``rows``, the samples that they show.

    ``issues, groups`` and ``leaks`` are None where they could not be looked for, which the notes explain, with the name
    of the command that helps (``issues_command, groups_command``).
    """
    issues, copies = _issues(inputs), _groups(inputs, progress)
    rows = [each["row"] for each in issues["issues"] or []]
    rows += [each["row"] for group in copies["groups"] or [] for each in group]
    return {**issues, **copies, "rows": rows}


def _issues(inputs: Inputs) -> dict[str, Any]:
    found = inputs.oof
    if inputs.predictor is not None and inputs.predictor.task != "classification":
        return _no_issues("Labels are judged by the probabilities of classes, which this predictor does not give.", "")
    if inputs.predictor is None or found is None or found.proba is None:
        note = "Labels are judged by the out-of-fold probabilities that lie beside a predictor of classes:"
        return _no_issues(note, "fit")
    try:
        frame = label_issues(inputs.bank, target=inputs.predictor.target, oof=_frame(found, inputs))
    except NotInstalledError as error:
        return _no_issues(f"Not looked for: {one_line(error)}. Then this does:", "report")
    except ColumnError as error:
        return _no_issues(f"Not looked for: {one_line(error)}:", "fit")
    where = rows_of(inputs.table, frame).tolist()
    listed = [
        {"row": where[number], "given": str(each.given), "suggested": str(each.suggested)}
        for number, each in enumerate(frame.head(MOST_ISSUES).itertuples())
    ]
    return {"issues": listed, "issues_n": len(frame), "issues_note": "", "issues_command": ""}


def _no_issues(note: str, command: str) -> dict[str, Any]:
    return {"issues": None, "issues_n": 0, "issues_note": note, "issues_command": command}


def _frame(found: OofPredictions, inputs: Inputs) -> pd.DataFrame:
    """Return the out-of-fold probabilities as `featurebank.fit` gives them."""
    assert found.proba is not None
    proba = text_frame({f"proba_{name}": column for name, column in zip(found.classes, found.proba.T, strict=True)})
    return join_frames(inputs.table.take(found.row).names(), proba)


def _groups(inputs: Inputs, progress: Progress | None) -> dict[str, Any]:
    if len(inputs.table) > CHECKED:
        return _no_groups(f"Not looked for among more than {CHECKED:,} images. This lists them:", "duplicates")
    try:
        frame = duplicates(inputs.bank, progress=progress)
    except ImageError as error:
        return _no_groups(f"Not looked for, since not every image could be read: {one_line(error)}.", "")
    frame = frame.assign(row=rows_of(inputs.table, frame))
    groups = [group for _, group in sorted(frame.groupby("group"), key=lambda item: -len(item[1]))]
    apart = sides(inputs.table, inputs.folds)
    return {
        "groups": [_listed(group) for group in groups[:MOST_GROUPS]],
        "groups_n": len(groups),
        "groups_note": "",
        "groups_command": "",
        "leaks": [text for name, side in apart.items() if (text := leak(name, side, groups))],
        "split_names": ", ".join(apart) or "any split, as there is none",
    }


def _no_groups(note: str, command: str) -> dict[str, Any]:
    lacking = {"groups": None, "groups_n": 0, "leaks": None, "split_names": ""}
    return {**lacking, "groups_note": note, "groups_command": command}


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
    images, held_in = sum(map(len, torn)), counted(len(torn), "group")
    return f"{images:,} images in {held_in} of near-duplicates lie on two sides of {name}"


# --- explanations -------------------------------------------------------------------------------------------


def explanations(inputs: Inputs, progress: Progress | None = None) -> dict[str, Any]:
    """Return the facts of the page's section on where the model looks: ``why``, pictures with a text, and a note."""
    if inputs.predictor is None:
        return {"why": [], "why_note": "Activation maps show where a predictor looks. This makes one:"}
    note = ""
    is_anomaly = inputs.predictor.task == "anomaly"
    for method, each in (("auto", EXPLAINED),) if is_anomaly else (("cam", EXPLAINED), ("occlusion", 1)):
        try:
            return _explained(inputs, method, each, progress)
        except FeatureBankError as error:
            note = f"Not made: {one_line(error)}."
            if not isinstance(error, PredictorError):  # else the maps are not exact: parts are covered in turn
                break
    return {"why": [], "why_note": note}


def _explained(inputs: Inputs, method: str, each: int, progress: Progress | None) -> dict[str, Any]:
    rows, said = examples(inputs, each), {} if method == "auto" else _said(inputs)
    wanted = inputs.table.take(rows)
    images = images_of(wanted, lambda image: image, pixels=inputs.bank.pixels)
    found = []
    for done, (row, image) in enumerate(zip(rows, images, strict=True), 1):
        if not isinstance(image, ImageError):
            found.append(_picture(inputs, row, image, said.get(row), method))
        if progress is not None:
            progress(done, len(rows))
    if not found:
        return {"why": [], "why_note": "Not made: the images are gone or have changed."}
    return {"why": found, "why_note": _TOLD[method] + (_OUT_OF_FOLD if said else "")}


def examples(inputs: Inputs, each: int) -> list[int]:
    """Return the rows that are explained: the most confident mistakes and right answers, else some of the samples."""
    found = inputs.oof
    if inputs.predictor is not None and inputs.predictor.task == "anomaly":
        return _strangest(inputs, 2 * each)
    if found is None or found.confidence is None:
        return np.linspace(0, len(inputs.table) - 1, min(2 * each, len(inputs.table))).astype(int).tolist()
    order = np.argsort(-np.nan_to_num(found.confidence, nan=-1.0), kind="stable")
    wrong, right = (found.row[order[found.wrong[order] == is_wrong]][:each] for is_wrong in (True, False))
    return [*wrong.tolist(), *right.tolist()]


def _strangest(inputs: Inputs, count: int) -> list[int]:
    """Return the rows that are least like the normal ones."""
    assert inputs.predictor is not None
    frame = inputs.predictor.oof
    if frame is None:
        return []
    rows = rows_of(inputs.table, frame.sort_values("score", kind="stable"))
    return rows[rows >= 0][:count].tolist()


def _said(inputs: Inputs) -> dict[int, str]:
    """Return the class that each sample was taken for out of fold, by its row."""
    found = inputs.oof
    if found is None or not found.classes:
        return {}
    return {int(row): found.classes[code] for row, code in zip(found.row, found.predicted, strict=True)}


def _picture(inputs: Inputs, row: int, image: Image.Image, label: str | None, method: str) -> dict[str, Any]:
    assert inputs.predictor is not None
    found = explain(inputs.predictor, image, label, method=method)
    drawn = found.overlay(MAP_SIDE)
    said = f"{found.score:.3g}" if found.label is None else str(found.label)
    column = inputs.table.columns.get(inputs.predictor.target)
    true = "" if column is None else f"{column[row]} → "
    return {
        "row": row,
        "image": data_uri(drawn),
        "width": drawn.width,
        "height": drawn.height,
        "text": true + said,
    }
