"""Class weights: from the text of a command, or a mapping, to what scikit-learn takes."""

from __future__ import annotations

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

    classes = {str(name): name for name in np.unique(np.asarray(y)).tolist()}
    weights = {str(name): float(weight) for name, weight in class_weight.items()}
    unknown = sorted(set(weights) - set(classes))
    if unknown:
        raise TopModelError(f"a weight for the class {unknown[0]!r}; {near_names(unknown[0], classes)}")
    return {name: weights.get(text, 1.0) for text, name in classes.items()}
