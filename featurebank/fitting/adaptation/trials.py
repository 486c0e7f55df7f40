"""Trials: one adaptation on one fold, scored with and without target labels; and what all of them came to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import ks_2samp
from sklearn import config_context
from sklearn.pipeline import Pipeline

from featurebank.bank.samples import SampleTable
from featurebank.errors import TopModelError, near_names
from featurebank.fitting.adaptation.adapters import Adaptation, AdaptedModel, import_skada
from featurebank.fitting.adaptation.domains import UNKNOWN, DomainPair, Domains
from featurebank.topmodels.calibration import Calibrator
from featurebank.topmodels.candidates import best_of_each
from featurebank.topmodels.folds import Fold, fold_numbers, sizes_of
from featurebank.topmodels.held_out import classification_scores
from featurebank.topmodels.out_of_fold import score_values
from featurebank.topmodels.refitting import in_place
from featurebank.topmodels.scores import paired_interval
from featurebank.topmodels.transforms import Step

SCORERS = ("outputs", "circular", "entropy", "density")


@dataclass(frozen=True)
class TrialSettings:
    """What an adaptation is tried with: unfitted steps before an unfitted top model, one of `SCORERS`, and the labelled
    rows of each class of the target that join the training rows.
    """

    before: Sequence[Step]
    model: Any
    scorer: str
    target_labels: int
    random_state: int

    def fit(self, adaptation: Adaptation, domains: Domains, rows: NDArray[Any], learned: NDArray[Any]) -> AdaptedModel:
        """Fit an adaptation to some rows, of which some give their labels; both are row numbers."""
        y = np.full(len(domains.y), UNKNOWN)
        y[learned] = domains.y[learned]
        model = AdaptedModel(adaptation, self.before, self.model, domains.classes, self.random_state)
        return model.fit(domains.X[rows], y[rows], domains.sample_domain[rows])

    def learned(self, domains: Domains, train: NDArray[Any]) -> NDArray[Any]:
        """Return the training rows whose labels are used: those of the source, and a few of the target."""
        order = np.random.default_rng(self.random_state).permutation(len(domains.y))
        drawn = order[np.isin(order, train) & ~domains.is_source[order]]
        few = [drawn[domains.y[drawn] == code][: self.target_labels] for code in range(len(domains.classes))]
        return np.concatenate([train[domains.is_source[train]], *few])


@dataclass(frozen=True)
class Trial:
    """What an adaptation did on a fold.

    Attributes
    ----------
    predicted : ndarray of int64, shape (m,)
        Codes of the classes said of the fold's test rows.
    scores : ndarray of float64, shape (s,) or (s, k)
        Decision values, or logarithms of probabilities, of the source's test rows.
    unsupervised : float
        How good the adaptation looks without labels of the target; the higher the better.
    effective : float or None
        Where source rows are weighted: how many equal ones weigh as much, (sum w)² / sum w² (Kish 1965).
    """

    predicted: NDArray[np.int64]
    scores: NDArray[np.float64]
    unsupervised: float
    effective: float | None


def run_trial(adaptation: Adaptation, settings: TrialSettings, domains: Domains, fold: Fold) -> Trial:
    """Fit an adaptation to a fold's training part and see what it says of the test part.

    Test rows of the target are unknown to the adaptation. Those of the source are known to it without their labels,
    since optimal transport says nothing of rows that it has not moved. The scorer ``"outputs"`` looks at the test rows
    of both: transported rows lie among the target's training rows by construction.
    """
    train, test = fold
    rows = np.union1d(train, np.flatnonzero(domains.is_source))
    learned = settings.learned(domains, train)
    fitted = settings.fit(adaptation, domains, rows, learned)
    tested = test[domains.is_source[test]]
    moved = fitted.moved_[np.searchsorted(rows, tested)]
    from_source = domains.is_source[test]
    predicted = np.empty(len(test), np.int64)
    predicted[from_source] = np.searchsorted(domains.classes, fitted.model_.predict(moved))
    predicted[~from_source] = fitted.predict(domains.X[test[~from_source]])
    scores = outputs(fitted.model_, moved)
    if settings.scorer == "outputs":
        accuracy = float((predicted[from_source] == domains.y[tested]).mean())
        elsewhere = outputs(fitted.pipeline_, domains.X[test[~from_source]])
        unsupervised = accuracy - outputs_distance(scores, elsewhere)
    else:
        unsupervised = _score_of_skada(settings.scorer, fitted, domains, rows)
    return Trial(predicted, scores, unsupervised, _effective(fitted, np.isin(rows, train) & domains.is_source[rows]))


def _effective(fitted: AdaptedModel, weighted: NDArray[np.bool_]) -> float | None:
    if fitted.weight_ is None:
        return None
    weight = fitted.weight_[weighted]
    return float(weight.sum() ** 2 / (weight**2).sum())


def outputs(model: Any, Z: NDArray[Any]) -> NDArray[np.float64]:
    """Return what a fitted classifier computes before it decides: decision values, or logarithms of probabilities."""
    proba = model.predict_proba(Z) if hasattr(model, "predict_proba") else None
    decision = model.decision_function(Z) if hasattr(model, "decision_function") else None
    found = score_values(decision, proba)
    if found is None:
        last = model[-1] if isinstance(model, Pipeline) else model
        raise TopModelError(
            f"{type(last).__name__} gives neither probabilities nor decision values; choose another model"
        )
    return found


def outputs_distance(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Return how differently a classifier's outputs are distributed over two sets of rows, from 0 to 1.

    The largest difference of the cumulative distributions (Kolmogorov-Smirnov), averaged over the columns. A model
    that fits both domains, where the classes are about as frequent, has like outputs in both; that a shift of the
    outputs betrays failure better than one of the inputs was found by Rabanser, Günnemann and Lipton (2019), Failing
    loudly.

    Examples
    --------
    >>> outputs_distance(np.array([0.0, 1.0]), np.array([0.5, 2.0]))
    0.5
    """
    columns = zip(first.reshape(len(first), -1).T, second.reshape(len(second), -1).T, strict=True)
    return float(np.mean([ks_2samp(one, two, method="asymp").statistic for one, two in columns]))


def check_scorer(name: str, model: Any) -> None:
    """Refuse an unknown scorer, or one that needs probabilities which the model does not have."""
    if name not in SCORERS:
        raise TopModelError(f"no unsupervised scorer {name!r}; {near_names(name, SCORERS)}")
    if name in ("entropy", "density") and not hasattr(model, "predict_proba"):
        raise TopModelError(
            f"scorer {name!r} needs probabilities, which {type(model).__name__} has not; choose outputs or circular"
        )


def _score_of_skada(name: str, fitted: AdaptedModel, domains: Domains, rows: NDArray[Any]) -> float:
    """Return the score of skada's circular validation, prediction entropy or soft neighbourhood density."""
    metrics = import_skada().metrics
    makers = {
        "circular": metrics.CircularValidation,
        "entropy": metrics.PredictionEntropyScorer,
        "density": metrics.SoftNeighborhoodDensity,
    }
    y = np.where(domains.is_source, domains.y, UNKNOWN)[rows]
    with config_context(enable_metadata_routing=True):
        return float(makers[name]()(fitted, domains.X[rows], y, sample_domain=domains.sample_domain[rows]))


@dataclass(frozen=True)
class Comparison:
    """The trials of all adaptations on all folds.

    `trials` holds for each of `adaptations`, the unadapted model first, a trial a fold; `params` its top model's
    parameters. Those of `names` may be chosen.
    """

    domains: Domains
    folds: list[Fold]
    adaptations: list[Adaptation]
    params: list[dict[str, Any]]
    trials: list[list[Trial]]
    names: Sequence[str]
    random_state: int

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
        return classification_scores(
            classes[self.domains.y[rows]], classes[said[rows]], None, classes, random_state=self.random_state
        )

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
        """Return what turns a model's decision values into probabilities, learned on held-out rows of the source."""
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
        return Calibrator("temperature").fit(np.concatenate(scores), self.domains.classes[codes])

    def frame(self, table: SampleTable, pair: DomainPair) -> pd.DataFrame:
        """Return the out-of-fold predictions: ``source, path, domain, fold, true, predicted, predicted_ADAPTATION``."""
        classes, numbers = self.domains.classes.astype(object), range(len(self.adaptations))
        best = best_of_each(numbers, lambda number: self.adaptations[number].name, self.mean)
        true = classes[self.domains.y]
        true[self.domains.y == UNKNOWN] = None
        return table.names().assign(
            domain=np.where(self.domains.is_source, pair.source, pair.target_domain),
            fold=fold_numbers(self.folds, len(true)),
            true=true,
            predicted=classes[self.said(self.best)],
            **{f"predicted_{name}": classes[self.said(number)] for name, number in best.items()},
        )
