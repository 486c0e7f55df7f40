"""FineTuner: fine-tuning as a scikit-learn classifier of image paths."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags
from sklearn.utils.validation import _check_sample_weight, check_is_fitted

from featurebank.backbones.request import Request
from featurebank.bank.bank import Bank
from featurebank.errors import FineTuneError, counted
from featurebank.extraction.pixel_range import settle_source
from featurebank.finetuning.activations import digests_of
from featurebank.finetuning.experiment import Experiment, TrainingSet
from featurebank.finetuning.recipe import Recipe, RecipeOptions
from featurebank.finetuning.tuning import Tuned, finish, train_network
from featurebank.images.columns import check_labels
from featurebank.images.frames import as_items
from featurebank.images.pixels import PixelRules
from featurebank.images.scanning import scan
from featurebank.images.sources import Source
from featurebank.predictor.predictor import Predictor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from featurebank.backbones.base import Backbone


@dataclass(eq=False, repr=False)
class FineTuner(ClassifierMixin, BaseEstimator, RecipeOptions):
    """Train the upper blocks of a backbone on labelled images.

    Parameters
    ----------
    cut : str, default "head"
        The module from which on is trained; see `featurebank.Recipe` for it and for every parameter that is not
        explained here.
    backbone : str, Backbone or torch.nn.Module, default "efficientnet_lite0"
        See `featurebank.load_backbone`.
    weights : str, default "DEFAULT"
    size : int, optional
        Input size in pixels.
    range : str or tuple of float, default "auto"
        What is black and white in images of more than 8 bits, see `featurebank.extract`.
    framing : str, optional
        ``"crop"``, ``"squash"`` or ``"pad"``, see `featurebank.extract`.
    bank : path-like, optional
        Where the activations at the cut are kept, so that folds, clones and workers share them; made when it does not
        exist. Without it they last as long as the fit.
    device : str, default "auto"
    workers : int, optional
        Threads that read and decode.

    Attributes
    ----------
    classes_ : ndarray, shape (k,)
    tuned_ : Tuned
        The network, its head and the training's history.
    predictor_ : Predictor
        What predicts; ``predictor_.save(path)`` ships it.

    See Also
    --------
    finetune : From a bank, with a report.
    Recipe : The options, explained.

    Examples
    --------
    >>> pixels = [np.full((40, 40, 3), 100 * (i % 2) + i, "uint8") for i in range(12)]
    >>> tuner = FineTuner("layer4", backbone="resnet18", weights="random:0", size=32, epochs=1, validation=0.25)
    >>> tuner.fit(pixels, ["dark", "bright"] * 6).predict_proba(pixels).shape
    (12, 2)
    """

    cut: str = "head"
    _: KW_ONLY
    backbone: str | Backbone | nn.Module = "efficientnet_lite0"
    weights: str = "DEFAULT"
    size: int | None = None
    range: str | tuple[float, float] = "auto"
    framing: str | None = None
    bank: str | os.PathLike[str] | None = None
    device: str = "auto"
    workers: int | None = None

    def fit(self, X: Iterable[Any], y: Any, *, groups: Any = None, sample_weight: Any = None) -> FineTuner:
        """Fine-tune on images.

        Parameters
        ----------
        X : sequence of n path-like, PIL images or uint8 arrays
        y : array-like, shape (n,)
            Classes.
        groups : array-like, shape (n,), optional
            Rows that lie on one side of the validation split; rows of the same content do in any case.
        sample_weight : array-like, shape (n,), optional

        Returns
        -------
        FineTuner
            Itself.

        Raises
        ------
        FeatureBankError
            A child of it says what was found, what was expected and what to do.
        """
        recipe = Recipe(**{field.name: getattr(self, field.name) for field in fields(Recipe)})
        source = _source_of(as_items(X))
        data = _training_set(source, y, groups, sample_weight)
        pixels = PixelRules.parse(self.range)
        asked = Request(self.backbone, weights=self.weights, size=self.size, pixels=pixels, framing=self.framing)
        with self._open_bank() as bank:
            request, source, _ = settle_source(asked, source, bank)
            experiment = Experiment(bank, request, source, data, recipe, self.device, self.workers)
            experiment.check()
            activations, _ = experiment.activations()
            self.tuned_: Tuned = finish(experiment, train_network(experiment, activations))
        self.classes_ = self.tuned_.classes
        self.predictor_: Predictor = self.tuned_.predictor()
        return self

    def predict(self, X: Iterable[Any]) -> NDArray[Any]:
        """Label images, shape (n,)."""
        check_is_fitted(self)
        return self.predictor_.predict(X)

    def predict_proba(self, X: Iterable[Any]) -> NDArray[np.float64]:
        """Return class probabilities, shape (n, k), in the order of `classes_`."""
        check_is_fitted(self)
        return self.predictor_.probabilities(self.predictor_.embed(list(X)))

    @contextmanager
    def _open_bank(self) -> Iterator[Bank]:
        """Open the bank that was named, or one that is gone afterwards."""
        if self.bank is not None:
            yield Bank.create(self.bank)
            return
        with tempfile.TemporaryDirectory(prefix="featurebank-") as folder:
            yield Bank.create(Path(folder) / "activations.bank")

    def __sklearn_tags__(self) -> Tags:
        tags: Tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        return tags


def _source_of(items: list[Any]) -> Source:
    in_memory = bool(items) and not isinstance(items[0], (str, Path))
    return scan(items, ids=[str(number) for number in range(len(items))] if in_memory else None)


def _training_set(source: Source, y: Any, groups: Any, sample_weight: Any) -> TrainingSet:
    check_labels(y, FineTuneError)
    classes = np.asarray(y)
    if classes.ndim != 1 or len(classes) != len(source.paths):
        raise FineTuneError(
            f"y of shape {classes.shape} for {counted(len(source.paths), 'image')}; expected one class an image"
        )
    if classes.dtype == object:
        classes = classes.astype(str)
    weight = None if sample_weight is None else _check_sample_weight(sample_weight, classes, dtype=np.float64)
    return TrainingSet(classes, digests_of(source), None if groups is None else np.asarray(groups), weight)
