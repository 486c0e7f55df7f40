"""What the trials of all adaptations came to: figures, the choice, and what was said of each row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featurebank.bank.samples import SampleTable
from featurebank.errors import TopModelError
from featurebank.fitting.adaptation.adapters import Adaptation
from featurebank.fitting.adaptation.domains import UNKNOWN, Domains, Question
from featurebank.fitting.adaptation.trials import Trial
from featurebank.topmodels.calibration import Calibrator
from featurebank.topmodels.candidates import best_of_each
from featurebank.topmodels.folds import Fold, fold_numbers, sizes_of
from featurebank.topmodels.refitting import in_place
from featurebank.topmodels.scores import classification_scores, paired_interval


@dataclass(frozen=True)
class Outcome:
    """The trials of all adaptations on all folds.

    Attributes
    ----------
    domains : Domains
    folds : list of (train, test)
    adaptations : list of Adaptation
        The unadapted model first.
    params : list of dict
        The top model's parameters, by adaptation.
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
    params: list[dict[str, Any]]
    trials: list[list[Trial]]
    names: Sequence[str]
    seed: int

    def unsupervised(self, number: int) -> list[float]:
        """Return the unsupervised scores of an adaptation, one a fold."""
        return [trial.unsupervised for trial in self.trials[number]]

    def mean(self, number: int) -> float:
        """Return the mean unsupervised score of an adaptation."""
        return float(np.mean(self.unsupervised(number)))

    @cached_property
    def leader(self) -> int:
        """The number of the adaptation with the best mean unsupervised score, the first of equals."""
        eligible = [number for number, each in enumerate(self.adaptations) if each.name in self.names]
        return max(eligible, key=self.mean)

    @property
    def best(self) -> int:
        """The number of the adaptation that is chosen: the leader, or none where it cannot be told from that."""
        return 0 if "none" in self.names and not self.lead["told_apart"] else self.leader

    @cached_property
    def lead(self) -> dict[str, Any]:
        """How far the leader's unsupervised scores lie above those of the unadapted model."""
        return paired_interval(self.unsupervised(self.leader), self.unsupervised(0), *sizes_of(self.folds))

    def said(self, number: int) -> NDArray[np.int64]:
        """Return the class that an adaptation said of each row when it was in a test part."""
        return in_place([trial.predicted for trial in self.trials[number]], self.folds, len(self.domains.y), UNKNOWN)

    def figures(self, said: NDArray[np.int64], rows: NDArray[np.bool_]) -> dict[str, Any] | None:
        """Return accuracy, macro F1 and the like on some rows; None where there is none."""
        if not rows.any():
            return None
        classes = self.domains.classes
        return classification_scores(classes[self.domains.y[rows]], classes[said[rows]], None, classes, seed=self.seed)

    def adaptation(self, number: int) -> dict[str, Any]:
        """Return what the report says of one adaptation."""
        said, trials, each = self.said(number), self.trials[number], self.adaptations[number]
        weighs = trials[0].effective is not None
        return {
            "adapt": each.name,
            "params": each.params,
            "model_params": self.params[number],
            "unsupervised": self.mean(number),
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
        gains = (said[rows] == y).astype(float) - (self.said(0)[rows] == y)
        mean, reach = float(gains.mean()), float(1.96 * gains.std(ddof=1) / np.sqrt(len(gains)))
        return {"accuracy": mean, "ci95": [mean - reach, mean + reach], "told_apart": abs(mean) > reach}

    def report(self) -> dict[str, Any]:
        """Return the part of the report that is about the adaptations."""
        every = [self.adaptation(number) for number in range(len(self.adaptations))]
        chosen = {**every[self.best], "leader": self.adaptations[self.leader].name, "lead": self.lead}
        return {"adaptations": every, "chosen": chosen}

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

    def best_of_each(self) -> dict[str, int]:
        """Return the number of the best parameters of each adaptation, by its name."""
        return best_of_each(range(len(self.adaptations)), lambda number: self.adaptations[number].name, self.mean)

    def frame(self, table: SampleTable, question: Question) -> pd.DataFrame:
        """Return the out-of-fold predictions: ``source, path, domain, fold, true, predicted, predicted_ADAPTATION``."""
        classes = self.domains.classes.astype(object)
        true = classes[self.domains.y]
        true[self.domains.y == UNKNOWN] = None
        return table.names().assign(
            domain=np.where(self.domains.is_source, question.source, question.target_domain),
            fold=fold_numbers(self.folds, len(true)),
            true=true,
            predicted=classes[self.said(self.best)],
            **{f"predicted_{name}": classes[self.said(number)] for name, number in self.best_of_each().items()},
        )
