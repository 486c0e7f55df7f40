"""Class weights: from the text of a command, or a mapping, to what scikit-learn takes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from featurebank.errors import TopModelError, near_names

ClassWeight = Mapping[Any, float] | str | None
"""``"balanced"``, a weight for each class, or None."""


def parse_class_weight(text: str | None) -> ClassWeight:
    """Return what ``balanced`` or ``CLASS=WEIGHT,CLASS=WEIGHT`` means; the classes are still text.

    Raises
    ------
    TopModelError
        When it is neither.

    Examples
    --------
    >>> parse_class_weight("cat=2,dog=1")
    {'cat': 2.0, 'dog': 1.0}
    """
    if text is None or text == "balanced":
        return text
    try:
        return {name: float(weight) for name, _, weight in (part.rpartition("=") for part in text.split(","))}
    except ValueError as error:
        raise TopModelError("expected balanced, or CLASS=WEIGHT,CLASS=WEIGHT") from error


def resolve_class_weight(class_weight: ClassWeight, y: Iterable[Any]) -> ClassWeight:
    """Return class weights under the classes themselves, which a command names as text; 1 where none is given.

    Parameters
    ----------
    class_weight : "balanced", mapping of class to float, or None
    y : array-like
        The classes, each once or more often.

    Raises
    ------
    TopModelError
        When a class is named that is not there.

    Examples
    --------
    >>> resolve_class_weight({"3": 2.0}, [1, 3]), resolve_class_weight("balanced", [1, 3])
    ({1: 1.0, 3: 2.0}, 'balanced')
    """
    if not isinstance(class_weight, Mapping):
        return class_weight
    import numpy as np  # here: a command parses its options without it

    classes = np.unique(np.asarray(y)).tolist()
    known = {_text(name): _text(name) for name in classes} | {str(name): _text(name) for name in classes}
    unknown = sorted(str(name) for name in class_weight if _text(name) not in known)
    if unknown:
        raise TopModelError(
            f"a weight for the class {unknown[0]!r}; {near_names(unknown[0], [str(name) for name in classes])}"
        )
    weights = {known[_text(name)]: float(weight) for name, weight in class_weight.items()}
    return {name: weights.get(_text(name), 1.0) for name in classes}


def _text(name: Any) -> str:
    """Return the text of a class: 1 for 1.0 too, as whole numbers become where some are missing."""
    return str(int(name)) if isinstance(name, float) and name.is_integer() else str(name)


def under_looked_up_names(class_weight: ClassWeight) -> ClassWeight:
    """Return class weights under what scikit-learn looks for: the class 007 under 7, even where it is text.

    Raises
    ------
    TopModelError
        When a weight is not above 0, or two classes that weigh differently are one number, as 7 and 007.

    Examples
    --------
    >>> under_looked_up_names({"007": 2.0, "cat": 1.0})
    {7: 2.0, 'cat': 1.0}
    """
    if not isinstance(class_weight, Mapping):
        return class_weight
    wrong = next((name for name, weight in class_weight.items() if not 0 < weight < math.inf), None)
    if wrong is not None:
        raise TopModelError(
            f"a weight of {class_weight[wrong]:g} for the class {wrong!r}; expected numbers above 0: to learn without "
            "a class, leave out its rows"
        )
    found: dict[int | str, float] = {}
    for name, weight in class_weight.items():
        if found.setdefault(_looked_up(name), weight) != weight:
            raise TopModelError(
                f"the class {name!r} and another of the same number weigh differently, which scikit-learn cannot tell "
                "apart; rename one"
            )
    return found


def _looked_up(name: Any) -> int | str:
    try:
        return int(name)
    except (TypeError, ValueError):
        return str(name)
