"""The facts of a report, section by section, and the page that shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurebank.errors import FeatureBankError, PredictorError, one_line
from featurebank.explore import page
from featurebank.images.reading import Progress
from featurebank.report import data_section, errors_section, provenance, results_section, summary_section
from featurebank.report.inputs import Inputs, OofPredictions
from featurebank.report.map_section import make_pictures, map_facts

SECTIONS = {
    "summary": "In short",
    "data": "Data",
    "map": "Map",
    "candidates": "Candidates",
    "confusion": "Confusion",
    "mistakes": "Mistakes",
    "classes": "Classes",
    "calibration": "Calibration",
    "learning": "Learning curve",
    "suspects": "Suspects",
    "why": "Why",
    "provenance": "What was run",
}


def collect(
    inputs: Inputs,
    maps: Mapping[str, NDArray[Any]],
    checks: Mapping[str, Any],
    why: Mapping[str, Any],
    *,
    map_note: str = "",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Return the facts of a report, by the names that the template has for them.

    The maps are the coordinates of the samples by the name of the map. A predictor file is not trusted to hold a report
    of the right shape.
    """
    found, predictor = _checked_results(inputs), inputs.predictor
    first = [each["row"] for name in ("mistakes", "flagged") for each in found[name]] + list(checks["rows"])
    order = _order(first, inputs.oof, len(inputs.table))
    pictures = make_pictures(inputs.table, order, pixels=inputs.bank.pixels, progress=progress)
    return {
        "title": inputs.bank.path.name,
        "target": inputs.target,
        "task": "" if predictor is None else predictor.task,
        "predicts": None if predictor is None else predictor.target,
        "paths": inputs.table.paths,
        "data": data_section.describe(inputs.bank, inputs.target, inputs.folds),
        **map_facts(inputs, maps, map_note, pictures),
        **found,
        **checks,
        **why,
        "versions": provenance.versions(),
    }


def _order(first: Sequence[int], oof: OofPredictions | None, count: int) -> list[int]:
    """Return all rows in the order in which they get pictures: those that sections show, mistakes, the rest mixed."""
    wrong = [] if oof is None or not oof.classes else oof.row[oof.wrong].tolist()
    rest = np.random.default_rng(0).permutation(count).tolist()
    return list(dict.fromkeys([*first, *wrong, *rest]))


def _checked_results(inputs: Inputs) -> dict[str, Any]:
    """Return what a fit found; a predictor file is not trusted to hold a report of the right shape."""
    try:
        return {
            "summary": summary_section.summary(inputs.fit),
            **results_section.scores(inputs.fit),
            "relabelled": inputs.relabelled,
            **errors_section.errors(inputs),
            "charts": results_section.drawn(inputs.fit, inputs.oof),
            "settings": provenance.settings(inputs.fit),
            "commands": provenance.commands(inputs),
        }
    except FeatureBankError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise PredictorError(
            f"the report in {str(inputs.file)!r} is not one of `featurebank fit`: {one_line(error)[:120]}; fit again"
        ) from error


def render_report(facts: Mapping[str, Any]) -> str:
    """Return the page of a report's facts; see `featurebank.explore.page.render`."""
    sections = [each for each in SECTIONS.items() if each[0] != "summary" or facts["summary"]["lead"]]
    return page.render("featurebank.report", "report.html", {**facts, "sections": sections})
