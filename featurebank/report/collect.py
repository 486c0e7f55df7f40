"""A report's subject -> the facts that its page shows, by the names that the template has for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featurebank.bank.samples import column_of
from featurebank.errors import FeatureBankError, PredictorError, one_line
from featurebank.explore import plot_abstention, plot_layer_curve, plot_learning_curve
from featurebank.images.reading import Progress
from featurebank.report import charts, data, provenance, results
from featurebank.report.outcomes import Outcomes
from featurebank.report.points import encode_points, encode_sheets
from featurebank.report.subject import Subject
from featurebank.report.thumbnails import Pictures, make_pictures


def collect(
    subject: Subject,
    maps: Mapping[str, NDArray[Any]],
    suspects: Mapping[str, Any],
    why: Mapping[str, Any],
    *,
    map_note: str = "",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Return the facts of a report.

    Parameters
    ----------
    subject : Subject
    maps : mapping of str to ndarray of float, shape (n, 2)
        Places of the samples by the name of the map.
    suspects : mapping
        From `featurebank.report.suspects`.
    why : mapping
        From `featurebank.report.reasons`.
    map_note : str, optional
        A sentence about the maps.
    progress : callable, optional
        Called with (pictures done, pictures in all).

    Raises
    ------
    PredictorError
        When the report inside the predictor is not one of a fit.
    """
    table = subject.table
    paths = table.paths
    found = _checked_results(subject)
    first = [each["row"] for each in found["mistakes"]] + list(suspects["rows"])
    pictures = make_pictures(table, _order(first, subject.outcomes, len(table)), progress=progress)
    return {
        "title": subject.bank.path.name,
        "target": subject.target,
        "task": "" if subject.predictor is None else subject.predictor.task,
        "predicts": None if subject.predictor is None else subject.predictor.target,
        "features": " + ".join(subject.features),
        "map_note": f"{map_note} {_pictures_note(pictures)}".strip(),
        "paths": paths,
        "pictures": int((pictures.tile >= 0).sum()),
        "data": data.describe(subject.bank, subject.target, subject.folds),
        **found,
        **suspects,
        **why,
        "versions": provenance.versions(),
        "points": encode_points(table.rows["source"], paths, maps, _columns(subject), pictures, _cells(subject)),
        "sheets": encode_sheets(pictures.sheets),
    }


def _order(first: Sequence[int], outcomes: Outcomes | None, count: int) -> list[int]:
    """Return all rows in the order in which they get pictures: those that sections show, mistakes, the rest mixed."""
    wrong = [] if outcomes is None or not outcomes.classes else outcomes.row[outcomes.wrong].tolist()
    rest = np.random.default_rng(0).permutation(count).tolist()
    return list(dict.fromkeys([*first, *wrong, *rest]))


def _pictures_note(pictures: Pictures) -> str:
    shown, count = int((pictures.tile >= 0).sum()), len(pictures.tile)
    if shown == count:
        return ""
    lost = f"; {pictures.unread} files are gone, changed or were never files" if pictures.unread else ""
    return f"{shown} of {count} images have a picture here{lost}."


# --- the samples ---------------------------------------------------------------------------------------------


def _columns(subject: Subject) -> dict[str, pd.Series]:
    """Return what points can be coloured by: the target, what the model said of it, the bank's columns, the folds."""
    own = subject.table.columns
    names = sorted(own, key=lambda name: name != subject.target)
    columns = {name: own[name] for name in names[:1]}
    found = subject.outcomes
    if found is not None and found.classes:
        columns["predicted, out of fold"] = subject.spread([found.classes[code] for code in found.predicted])
        columns["outcome"] = subject.spread(np.where(found.wrong, "wrong", "right"))
        if found.confidence is not None:
            columns["confidence"] = subject.spread(found.confidence).astype("Float64")
    elif found is not None:
        columns["predicted, out of fold"] = subject.spread(found.predicted).astype("Float64")
    columns |= {name: own[name] for name in names[1:]}
    if found is not None:
        columns["fold"] = subject.spread(found.fold.astype(str))
    source = column_of(subject.table, "source")
    return columns | ({"source": source} if source.nunique() > 1 or not columns else {})


def _cells(subject: Subject) -> dict[str, NDArray[np.int64]]:
    """Return the row and column of the confusion matrix that each sample is in, -1 for none."""
    found = subject.outcomes
    if found is None or not found.classes:
        return {}
    cells = {name: np.full(len(subject.table), -1) for name in ("true", "predicted")}
    cells["true"][found.row], cells["predicted"][found.row] = found.true, found.predicted
    return cells


# --- the results ---------------------------------------------------------------------------------------------


def _checked_results(subject: Subject) -> dict[str, Any]:
    """Return what a fit found; a predictor file is not trusted to hold a report of the right shape."""
    try:
        return {
            **_scores(subject.fit),
            "relabelled": subject.relabelled,
            **_judged(subject.outcomes),
            "charts": _charts(subject.fit, subject.outcomes),
            "settings": provenance.settings(subject.fit),
            "commands": provenance.commands(subject),
        }
    except FeatureBankError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise PredictorError(
            f"the report in {str(subject.file)!r} is not one of `featurebank fit`: {one_line(error)[:120]}; fit again"
        ) from error


def _scores(fit: Mapping[str, Any]) -> dict[str, Any]:
    ranked = results.candidates(fit)
    calibration, curve = fit.get("calibration"), fit.get("learning_curve")
    return {
        "plan": results.plan_text(fit),
        "headline": f"Best: {ranked[0]['score']} {fit['scoring']}, {ranked[0]['interval']}." if ranked else "",
        "candidates": ranked,
        "comparison": str((fit.get("comparison") or {}).get("sentence", "")),
        "nested": results.nested_text(fit),
        "held_out": results.held_out(fit),
        "warnings": [str(each) for each in fit.get("warnings", [])],
        "per_label": results.per_label(fit),
        "calibration": results.calibration_text(calibration) if calibration else "",
        "learning_verdict": str(curve["verdict"]) if curve else "",
    }


def _judged(found: Outcomes | None) -> dict[str, Any]:
    is_classes = found is not None and bool(found.classes)
    return {
        "confusion": results.confusion(found) if found is not None and is_classes else None,
        "mistakes": results.mistakes(found) if found is not None else [],
        "per_class": results.per_class(found) if found is not None and is_classes else [],
    }


def _charts(fit: Mapping[str, Any], found: Outcomes | None) -> dict[str, Any]:
    """Return the charts that there is something for; None for the others."""
    bins = results.reliability(found) if found is not None and found.classes else None
    is_numbers = found is not None and not found.classes
    draw: dict[str, Any] = {
        "layers": partial(plot_layer_curve, fit) if results.has_layers(fit) else None,
        "reliability": charts.reliability(bins) if bins else None,
        "abstention": partial(plot_abstention, fit) if fit.get("abstention") else None,
        "learning": partial(plot_learning_curve, fit) if (fit.get("learning_curve") or {}).get("points") else None,
        "against": charts.against(found.true, found.predicted) if found is not None and is_numbers else None,
    }
    return {name: each and charts.to_svg(each, name) for name, each in draw.items()}
