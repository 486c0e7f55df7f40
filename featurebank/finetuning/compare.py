"""The honest comparison: frozen features against the fine-tuned network, on the same folds."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from featurebank.bank.features import as_keys
from featurebank.bank.samples import SampleTable
from featurebank.finetuning.experiment import Experiment, Rows
from featurebank.finetuning.head import fit_head
from featurebank.finetuning.network import Activations
from featurebank.finetuning.optimization import judge
from featurebank.finetuning.training import has_diverged
from featurebank.finetuning.tuning import train_network
from featurebank.images.reading import Progress
from featurebank.images.views import count_views
from featurebank.predictor.predictor import Predictor
from featurebank.topmodels.folds import Fold, folds_of, make_folds, sizes_of
from featurebank.topmodels.formatting import gain_text, paid_text, percent
from featurebank.topmodels.refitting import fit_pipeline, over_folds
from featurebank.topmodels.scaling import with_floor
from featurebank.topmodels.scores import Trials, fold_difference, trials_of


@dataclass(frozen=True)
class Frozen:
    """The frozen side: embeddings, and how a top model of them is fitted."""

    X: NDArray[np.float32]
    name: str
    model: Pipeline | None
    experiment: Experiment
    widths: tuple[int, ...] = ()

    def score(self, train: Rows, test: Rows) -> float:
        """Return the accuracy on the test rows of what is learned from the training rows."""
        data, recipe = self.experiment.data, self.experiment.recipe
        part = data.take(train)
        if self.model is not None:
            fitted = fit_pipeline(with_floor(self.model, self.widths), self.X[train], part.y, part.weight)
        else:
            options = {
                "sample_weight": part.weight,
                "class_weight": self.experiment.class_weight,
                "random_state": recipe.random_state,
            }
            fitted = fit_head(self.X[train], part.y, groups=part.ties, **options)
        right = fitted.predict(self.X[test]) == data.y[test]
        return float(np.average(right, weights=data.take(test).weight))


def frozen_of(
    predictor: Predictor | None, experiment: Experiment, activations: Activations, table: SampleTable
) -> Frozen:
    """Return what the fine-tuned network is compared with: a predictor's features, which the bank has, and its model.

    Without a predictor these are the network's own penultimate embeddings and a logistic regression that is
    cross-validated in each fold. The table has the samples that are learned from.

    Raises
    ------
    BankError
        When the bank lacks rows of the predictor's features.
    """
    if predictor is None:
        rows, recipe = np.arange(len(table)), experiment.recipe
        X = experiment.network().embeddings(activations, rows, count_views(recipe.views), recipe.batch_size)
        return Frozen(X, f"{experiment.backbone.name}/penultimate + logreg", None, experiment)
    keys = as_keys(table.rows["digest"])
    parts = predictor.read(experiment.bank, keys)
    names = "+".join(each.spec.name for each in predictor.features)
    widths = tuple(part.shape[1] for part in parts)
    return Frozen(
        np.concatenate(parts, axis=1),
        f"{names} + {type(predictor.model[-1]).__name__}",
        predictor.model,
        experiment,
        widths,
    )


def shared_folds(predictor: Predictor | None, experiment: Experiment, table: SampleTable, count: int) -> list[Fold]:
    """Return the folds of the search that made a predictor where it had as many over these rows, else new ones."""
    data, random_state = experiment.data, experiment.recipe.random_state
    if predictor is not None and predictor.report.get("folds") == count:
        known = {(source, path): fold for source, path, fold in predictor.report.get("samples", [])}
        keys = zip(table.rows["source"], table.paths, strict=True)
        numbers = np.array([known.get(key, -1) for key in keys])
        if set(numbers.tolist()) == set(range(count)):
            return folds_of(numbers)
    return make_folds(count, np.zeros((len(data.y), 1)), data.y, data.ties, random_state)


def compare(
    experiment: Experiment,
    activations: Activations,
    frozen: Frozen,
    folds: Sequence[Fold],
    *,
    top_model: Pipeline | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Cross-validate the whole fine-tuning against the frozen features, on the same folds.

    In each fold the head, the validation rows, the learning rate and the epoch come from its training rows alone.

    Returns
    -------
    dict
        ``frozen`` and ``tuned`` (``mean, fold_scores``), ``is_anew`` (whether the frozen side is no predictor's model,
        but a logistic regression that is chosen in each fold), ``diverged`` (folds whose training did), the difference
        with its interval (`featurebank.topmodels.scores.fold_difference`), ``seconds``, ``interrupted``, a
        ``sentence``.
    """
    started = time.perf_counter()
    pairs: list[tuple[float, float, bool]] = []
    is_interrupted = False

    def both(train: Rows, test: Rows) -> tuple[float, float, bool]:
        return _scores(experiment, activations, frozen, np.sort(train), np.sort(test), top_model)

    try:
        over_folds(both, folds, progress, pairs)
    except KeyboardInterrupt:
        is_interrupted = True
    data, seconds = experiment.data, time.perf_counter() - started
    trials = trials_of(len(data.y), data.ties)
    facts = {"is_anew": frozen.model is None, "seconds": seconds, "interrupted": is_interrupted}
    return {**_summary(frozen.name, pairs, folds, trials), **facts}


def _scores(
    experiment: Experiment,
    activations: Activations,
    frozen: Frozen,
    train: Rows,
    test: Rows,
    top_model: Pipeline | None,
) -> tuple[float, float, bool]:
    """Return the accuracy on one fold's test rows, frozen and fine-tuned, and whether its training diverged."""
    trained = train_network(experiment, activations, rows=train, top_model=top_model)
    if trained.state.interrupted:
        raise KeyboardInterrupt
    part, recipe = experiment.data.take(test), experiment.recipe
    logits = trained.network.logits(activations, test, count_views(recipe.views), recipe.batch_size)
    diverged = has_diverged(trained.state.history, len(experiment.data.classes))
    return frozen.score(train, test), judge(logits, experiment.data.codes[test], part.weight)[1], diverged


def _summary(
    name: str, pairs: Sequence[tuple[float, float, bool]], folds: Sequence[Fold], trials: Trials
) -> dict[str, Any]:
    """Return both sides and their difference, as JSON can hold them."""
    before, after = ([pair[side] for pair in pairs] for side in (0, 1))
    found: dict[str, Any] = {
        "folds": len(pairs),
        "frozen": {"name": name, "mean": _mean(before), "fold_scores": before},
        "tuned": {"mean": _mean(after), "fold_scores": after},
        "diverged": sum(pair[2] for pair in pairs),
    }
    if len(pairs) < 2:
        return {**found, "sentence": "Fewer than two folds were finished, which compare nothing."}
    found |= fold_difference(after, before, *sizes_of(folds), "accuracy", trials=trials)
    return {**found, "sentence": sentence(found)}


def _mean(scores: Sequence[float]) -> float | None:
    return float(np.mean(scores)) if scores else None


def sentence(found: Mapping[str, Any]) -> str:
    """Say what a comparison came to, and plainly so when fine-tuning did not pay.

    Examples
    --------
    >>> sides = {"frozen": {"mean": 0.86}, "tuned": {"mean": 0.89}}
    >>> print(sentence({**sides, "folds": 5, "difference": 0.03, "ci95": [0.01, 0.05], "told_apart": True}))
    Frozen 86.0 %, fine-tuned 89.0 %, difference +3.0 points (95 % +1.0..+5.0) on 5 folds: fine-tuning paid.
    """
    frozen, tuned = (percent(found[side]["mean"]) for side in ("frozen", "tuned"))
    gain, verdict = gain_text(found, "accuracy"), paid_text("fine-tuning", found)
    told = f"Frozen {frozen} %, fine-tuned {tuned} %, difference {gain} on {found['folds']} folds"
    if found.get("diverged"):
        return f"{told}: training diverged in {found['diverged']} of them, try a smaller learning rate (--lr)."
    return f"{told}: {verdict}."
