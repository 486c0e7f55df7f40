"""A picture that is dropped on the page: what the model of the moment says of it, and by which parts of it."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from featurebank.bank.bank import Bank
from featurebank.bank.neighbours import unit_rows
from featurebank.errors import BankError, FeatureBankError, counted
from featurebank.explore.activation_maps import explain
from featurebank.explore.studio.view import View
from featurebank.images.reading import open_image
from featurebank.predictor.features import predictor_features
from featurebank.predictor.predictor import Predictor
from featurebank.predictor.task import Task

KEPT = 16
"""Activation maps that are kept."""


class Drop(NamedTuple):
    """What is said of a picture, and its place among the principal components, shape (r,)."""

    facts: dict[str, Any]
    place: NDArray[np.float32]


class Drops:
    """Predicts pictures, one at a time, and keeps their activation maps."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._maps: OrderedDict[str, bytes] = OrderedDict()
        self._count = 0

    def predict(self, bank: Bank, view: View, target: str, data: bytes) -> Drop:
        """Return what is said of an image file.

        Raises
        ------
        FeatureBankError
            When it is no image, or the bank's backbone is not here.
        """
        assert view.learned is not None
        with self._lock:
            image, _ = open_image(data, pixels=bank.pixels)
            predictor = as_predictor(bank, view, target)
            X = predictor.embed([image])
            row = view.pool.standardised(X)
            proba = view.learned.probabilities(row)[0]
            shares = dict(zip(view.learned.classes.tolist(), map(float, proba), strict=True))
            name = self._explained(predictor, image)
        facts = {"label": str(view.learned.classes[proba.argmax()]), "probabilities": shares, "map": name}
        facts["model"] = f"ridge over {'+'.join(view.pool.names)}, of {counted(len(view.trained), 'label')}"
        return Drop(facts, unit_rows(row @ view.pool.axes)[0])

    def _explained(self, predictor: Predictor, image: Any) -> str | None:
        """Draw the exact activation map, and return the address that it has below the page's; None where none is."""
        try:
            overlay = explain(predictor, image, method="cam").overlay()
        except FeatureBankError:  # its features are no means of a map: covering parts in turn would take too long
            return None
        buffer = io.BytesIO()
        overlay.save(buffer, "PNG")
        self._count += 1
        name = f"{self._count}.png"
        self._maps[name] = buffer.getvalue()
        while len(self._maps) > KEPT:
            self._maps.popitem(last=False)
        return f"api/drop/{name}"

    def map(self, name: str) -> bytes:
        """Return an activation map as PNG.

        Raises
        ------
        BankError
            When it is not kept, or never was.
        """
        if name not in self._maps:
            raise BankError("this activation map is not kept any more; drop the picture again")
        return self._maps[name]


def as_predictor(bank: Bank, view: View, target: str) -> Predictor:
    """Return the model of a view as a predictor: a softmax of a linear function, behind a scaler.

    Raises
    ------
    FeatureBankError
        When the bank's features cannot be made of a new image here.
    """
    learned, pool = view.learned, view.pool
    assert learned is not None
    scaler, model = StandardScaler(), LogisticRegression()
    scaler.mean_, scaler.scale_ = pool.mean.astype(np.float64), pool.scale.astype(np.float64)
    scaler.n_features_in_ = model.n_features_in_ = len(pool.mean)
    model.classes_ = learned.classes
    coef, intercept = learned.weights.T.astype(np.float64), learned.bias.astype(np.float64)
    is_binary = len(coef) == 2
    model.coef_ = coef[1:] - coef[:1] if is_binary else coef
    model.intercept_ = intercept[1:] - intercept[:1] if is_binary else intercept
    features, tensors = predictor_features(bank, pool.names)
    task = Task(features, Pipeline([("scale", scaler), ("model", model)]), target)
    return Predictor(task, tensors=tensors, allow_download=False)
