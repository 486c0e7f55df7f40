"""Why a model says what it says: where in a few images the answer comes from."""

from __future__ import annotations

from typing import Any

from featurebank.report.subject import Subject


def reasons(subject: Subject) -> dict[str, Any]:
    """Return ``why``, a list of pictures, and ``why_note``."""
    if subject.predictor is None:
        return {"why": [], "why_note": "Activation maps show where a predictor looks. This makes one:"}
    return {"why": [], "why_note": "Not made."}
