"""Why a model says what it says: where in a few images the answer comes from."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from PIL import Image

from featurebank.bank.images import images_of
from featurebank.errors import FeatureBankError, ImageError, PredictorError, one_line
from featurebank.explore import explain
from featurebank.images.reading import Progress
from featurebank.report.subject import Subject
from featurebank.report.thumbnails import webp

SIDE = 208
"""Pixels of the longer side of a picture."""
EACH = 4
"""Mistakes, and right answers, that are explained by exact maps; one of each where parts have to be covered in turn."""


def reasons(subject: Subject, progress: Progress | None = None) -> dict[str, Any]:
    """Return the facts of the page's section on reasons.

    Returns
    -------
    dict
        ``why``, a list of ``row, image`` (a data URI), ``width, height, text``, and ``why_note``.
    """
    if subject.predictor is None:
        return {"why": [], "why_note": "Activation maps show where a predictor looks. This makes one:"}
    try:
        return _explained(subject, "cam", EACH, progress)
    except PredictorError:  # the model is not linear, or its features are not means of a map
        pass
    except FeatureBankError as error:
        return {"why": [], "why_note": f"Not made: {one_line(error)}."}
    try:
        return _explained(subject, "occlusion", 1, progress)
    except FeatureBankError as error:
        return {"why": [], "why_note": f"Not made: {one_line(error)}."}


_TOLD = {
    "cam": "Class activation maps, exact for this predictor: red parts speak for the answer, blue ones against it.",
    "occlusion": "Parts of the image were covered in turn: the answer leans on the red ones, blue ones are against it.",
}
_OUT_OF_FOLD = " The answers are those out of fold; the predictor that is asked why has since seen the images."


def _explained(subject: Subject, method: str, each: int, progress: Progress | None) -> dict[str, Any]:
    rows, said = examples(subject, each), _said(subject)
    wanted = subject.table.take(rows)
    images = images_of(wanted, lambda image: image)
    found = []
    for done, (row, image) in enumerate(zip(rows, images, strict=True), 1):
        if not isinstance(image, ImageError):
            found.append(_picture(subject, row, image, said.get(row), method))
        if progress is not None:
            progress(done, len(rows))
    if not found:
        return {"why": [], "why_note": "Not made: the images are gone or have changed."}
    return {"why": found, "why_note": _TOLD[method] + (_OUT_OF_FOLD if said else "")}


def examples(subject: Subject, each: int) -> list[int]:
    """Return the rows that are explained: the most confident mistakes and right answers, else some of the samples."""
    found = subject.outcomes
    if found is None or found.confidence is None:
        return np.linspace(0, len(subject.table) - 1, min(2 * each, len(subject.table))).astype(int).tolist()
    order = np.argsort(-np.nan_to_num(found.confidence, nan=-1.0), kind="stable")
    wrong, right = (found.row[order[found.wrong[order] == is_wrong]][:each] for is_wrong in (True, False))
    return [*wrong.tolist(), *right.tolist()]


def _said(subject: Subject) -> dict[int, str]:
    """Return the class that each sample was taken for out of fold, by its row."""
    found = subject.outcomes
    if found is None or not found.classes:
        return {}
    return {int(row): found.classes[code] for row, code in zip(found.row, found.predicted, strict=True)}


def _picture(subject: Subject, row: int, image: Image.Image, label: str | None, method: str) -> dict[str, Any]:
    assert subject.predictor is not None
    found = explain(subject.predictor, image, label, method=method)
    drawn = overlay(image, found.map)
    said = f"{found.score:.3g}" if found.label is None else str(found.label)
    column = subject.table.columns.get(subject.predictor.target)
    true = "" if column is None else f"{column[row]} → "
    return {
        "row": row,
        "image": "data:image/webp;base64," + base64.b64encode(webp(drawn)).decode(),
        "width": drawn.width,
        "height": drawn.height,
        "text": true + said,
    }


def overlay(image: Image.Image, values: Any) -> Image.Image:
    """Return a small image with a map over it: red above 0, blue below.

    Parameters
    ----------
    image : PIL.Image.Image
    values : ndarray of float32, shape (height, width)
    """
    small = image.copy()
    small.thumbnail((SIDE, SIDE))
    scaled = np.asarray(Image.fromarray(values).resize(small.size, Image.Resampling.BILINEAR))
    strength = scaled / (float(np.abs(scaled).max()) or 1.0)
    colour = np.where(strength[..., None] > 0, [214, 40, 40], [30, 90, 200])
    share = 0.7 * np.abs(strength)[..., None]
    mixed = (1 - share) * np.asarray(small.convert("L"))[..., None] + share * colour
    return Image.fromarray(mixed.round().astype(np.uint8))
