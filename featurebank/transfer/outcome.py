"""What the trials of all adaptations came to: figures, the choice, and what was said of each row."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featurebank.calibration import Calibrator
from featurebank.errors import TopModelError
from featurebank.folds import Fold, fold_numbers
from featurebank.samples import SampleTable
from featurebank.scores import classification_scores
from featurebank.transfer.adapters import Adaptation
from featurebank.transfer.domains import UNKNOWN, Domains, Question
from featurebank.transfer.trials import Trial


@dataclass(frozen=True)
class Outcome:
    """The trials of all adaptations on all folds.

    Attributes
    ----------
    domains : Domains
    folds : list of (train, test)
    adaptations : list of Adaptation
        The unadapted model first.
    trials : list of lists of Trial
        By adaptation, then fold.
    names : sequence of str
        The adaptations that may be chosen.
    seed : int
        Of the bootstrap.
    """

    domains: Domains
    folds: list[Fold]
    adaptations: list[Adaptation]
    trials: list[list[Trial]]
    names: Sequence[str]
    seed: int

    @cached_property
    def unsupervised(self) -> NDArray[np.float64]:
        """The unsupervised scores, shape (adaptations, folds); minus infinity for those that may not be chosen."""
        scores = np.array([[trial.unsupervised for trial in row] for row in self.trials])
        barred = [each.name not in self.names for each in self.adaptations]
        scores[barred] = -np.inf
        return scores

    @property
    def best(self) -> int:
        """The number of the adaptation with the best mean unsupervised score, the first of equals."""
        return int(np.argmax(self.unsupervised.mean(axis=1)))

    def said(self, by_fold: Sequence[int]) -> NDArray[np.int64]:
        """Return the class said of each row when it was in a test part, by an adaptation for each fold."""
        codes = np.empty(len(self.domains.y), np.int64)
        for fold, number in enumerate(by_fold):
            codes[self.folds[fold][1]] = self.trials[number][fold].predicted
        return codes

    def said_by(self, number: int) -> NDArray[np.int64]:
        """Return the class that one adaptation said of each row."""
        return self.said([number] * len(self.folds))

    @cached_property
    def choices(self) -> list[int]:
        """The adaptation that the scorer chooses in each fold."""
        return [int(number) for number in np.argmax(self.unsupervised, axis=0)]

    def figures(self, said: NDArray[np.int64], rows: NDArray[np.bool_]) -> dict[str, Any] | None:
        """Return accuracy, macro F1 and the like on some rows; None where there is none."""
        if not rows.any():
            return None
        classes = self.domains.classes
        return classification_scores(classes[self.domains.y[rows]], classes[said[rows]], None, classes, seed=self.seed)

    def adaptation(self, number: int) -> dict[str, Any]:
        """Return what the report says of one adaptation."""
        said, trials, each = self.said_by(number), self.trials[number], self.adaptations[number]
        weighs = trials[0].effective is not None
        return {
            "adapt": each.name,
            "params": each.params,
            "unsupervised": float(np.mean([trial.unsupervised for trial in trials])),
            "source": self.figures(said, self.domains.is_source),
            "target": self.figures(said, self.domains.is_scored),
            "difference": None if number == 0 else self.difference(said),
            "effective_samples": float(np.mean([trial.effective for trial in trials])) if weighs else None,
        }

    def difference(self, said: NDArray[np.int64]) -> dict[str, Any] | None:
        """Return how much more accurate on the target something is than the unadapted model, with its 95 % interval.

        The interval is that of the mean of the rows' differences, each -1, 0 or 1.
        """
        rows = self.domains.is_scored
        if rows.sum() < 2:
            return None
        y = self.domains.y[rows]
        gains = (said[rows] == y).astype(float) - (self.said_by(0)[rows] == y)
        mean, reach = float(gains.mean()), float(1.96 * gains.std(ddof=1) / np.sqrt(len(gains)))
        return {"accuracy": mean, "ci95": [mean - reach, mean + reach], "told_apart": abs(mean) > reach}

    def chosen(self) -> dict[str, Any]:
        """Return what the report says of the choice; the figures are those of choosing anew in each fold."""
        best, said = self.adaptations[self.best], self.said(self.choices)
        return {
            "adapt": best.name,
            "params": best.params,
            "by_fold": [self.adaptations[number].name for number in self.choices],
            "source": self.figures(said, self.domains.is_source),
            "target": self.figures(said, self.domains.is_scored),
            "difference": self.difference(said),
        }

    def calibrator(self, model: Any) -> Calibrator | None:
        """Return what turns a model's decision values into probabilities, learned on held-out rows of the source.

        Raises
        ------
        TopModelError
            When no fold learned all classes of the model.
        """
        if hasattr(model, "predict_proba"):
            return None
        width = 1 if len(model.classes_) == 2 else len(model.classes_)
        scores, labels = [], []
        for (_, test), trial in zip(self.folds, self.trials[self.best], strict=True):
            values = trial.scores.reshape(len(trial.scores), -1)
            if values.shape[1] == width:
                scores.append(values)
                labels.append(self.domains.y[test[self.domains.is_source[test]]])
        codes = np.concatenate([*labels, np.empty(0, np.int64)])
        if not np.array_equal(self.domains.classes[np.unique(codes)], model.classes_):
            raise TopModelError(
                f"no fold both learns and tests every class, so {type(model).__name__} gets no probabilities: "
                "choose logreg or mlp"
            )
        return Calibrator("sigmoid").fit(np.concatenate(scores), self.domains.classes[codes])

    def frame(self, table: SampleTable, question: Question) -> pd.DataFrame:
        """Return the out-of-fold predictions: ``source, path, domain, fold, true, predicted, predicted_ADAPTATION``.

        ``predicted`` is by the adaptation that was chosen in the fold.
        """
        classes = self.domains.classes.astype(object)
        true = np.where(self.domains.y == UNKNOWN, None, classes[self.domains.y])
        best: dict[str, int] = {}
        for number, each in enumerate(self.adaptations):
            held = best.get(each.name)
            if held is None or self.mean(number) > self.mean(held):
                best[each.name] = number
        return pd.DataFrame(
            {
                "source": table.rows["source"].to_numpy(),
                "path": [os.fsdecode(path) for path in table.rows["path"]],
                "domain": np.where(self.domains.is_source, question.source, question.target_domain),
                "fold": fold_numbers(self.folds, len(true)),
                "true": true,
                "predicted": classes[self.said(self.choices)],
                **{f"predicted_{name}": classes[self.said_by(number)] for name, number in best.items()},
            }
        )

    def mean(self, number: int) -> float:
        """Return the mean unsupervised score of an adaptation."""
        return float(np.mean([trial.unsupervised for trial in self.trials[number]]))
