"""A task of a predictor file, which answers from the file's arrays; its models are made when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featurebank.predictor.light import Light
from featurebank.predictor.task import Task

MANY = 64
"""Rows from which the models themselves are made, which takes a second or two and is faster from then on."""

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.pipeline import Pipeline

    from featurebank.topmodels.calibration import Calibrator, LabelsCalibrator
    from featurebank.topmodels.novelty import Unlike


class StoredTask(Task):
    """What `Task` is, of models that are known by their arrays.

    Parameters
    ----------
    light : Light
        What the models say of rows.
    make : mapping of str to callable
        Make the ``"model"``, the ``"calibrator"``, ``"unlike"`` and ``"out_of_fold"``.
    facts : keyword arguments
        The other attributes of `Task`.
    """

    def __init__(self, light: Light, make: Mapping[str, Callable[[], Any]], **facts: Any):
        vars(self).update(facts)
        self._light, self._make = light, make

    @cached_property
    def model(self) -> Pipeline:
        """The fitted pipeline."""
        return self._make["model"]()

    @cached_property
    def calibrator(self) -> Calibrator | LabelsCalibrator | None:  # type: ignore[override]
        """What turns scores into probabilities."""
        return self._make["calibrator"]()

    @cached_property
    def unlike(self) -> Unlike | None:  # type: ignore[override]
        """What says how unlike the training images an image is."""
        return self._make["unlike"]()

    @cached_property
    def out_of_fold(self) -> pd.DataFrame | None:  # type: ignore[override]
        """What the fit said of each sample when it had not seen it."""
        return self._make["out_of_fold"]()

    @property
    def classes(self) -> NDArray[Any]:
        """The classes, sorted, shape (k,); none for numbers."""
        return self._light.classes

    def predict(self, X: NDArray[np.float32]) -> NDArray[Any]:
        """Return the labels or numbers of embeddings, shape (n,)."""
        return super().predict(X) if self._is_made(X) else self._light.predict(X)

    def probabilities(self, X: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return class probabilities of embeddings, shape (n, k)."""
        if self._light.chances is None or self._is_made(X):
            return super().probabilities(X)
        return self._light.chances(X)

    def share(self, X: NDArray[np.float32]) -> NDArray[np.float64] | None:
        """Return the share of the training images that are less unusual than each image, None where not known."""
        if self._light.share is None or self._is_made(X):
            return super().share(X)
        return self._light.share(X)

    def _is_made(self, X: NDArray[np.float32]) -> bool:
        return len(X) > MANY or "model" in vars(self)

    @property
    def knows_unlike(self) -> bool:
        """Whether it can say how unlike the training images an image is."""
        return self._light.share is not None
