"""One network for all tasks as a top model of each: trained once a fold, scored by every task on its own rows."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from joblib import Parallel, effective_n_jobs
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline
from sklearn.utils.class_weight import compute_sample_weight
from threadpoolctl import threadpool_limits

from featurebank.fitting.shared_network import Goal, NetworkClassifier, NetworkRegressor, train
from featurebank.fitting.task_data import Labels
from featurebank.topmodels.candidates import Candidate, CandidateGroup, best_of_each, mean_of
from featurebank.topmodels.evaluation import SearchData
from featurebank.topmodels.folds import Fold, sizes_of
from featurebank.topmodels.formatting import gain_text, paid_text, score_name, score_text
from featurebank.topmodels.models import TopModel
from featurebank.topmodels.multiview import reduce_views
from featurebank.topmodels.scores import fold_difference
from featurebank.topmodels.search import TopModelSearchCV
from featurebank.topmodels.solvers import plain
from featurebank.topmodels.solvers.problem import Cells, Events, Note, Prediction, SolverOptions
from featurebank.topmodels.threads import delayed
from featurebank.topmodels.transforms import SelectDimensions, Step

ALONE, SHARED = "mlp", "shared-mlp"
GRID = {"alpha": [1.0, 10.0, 100.0]}
Network = NetworkClassifier | NetworkRegressor


def head_of(task: str) -> type[Network]:
    """Return the estimator of one task's part of a network."""
    return NetworkRegressor if task == "regression" else NetworkClassifier


def networks(given: TopModel, labels: Labels, shared: SharedNetwork | None) -> list[TopModel]:
    """Return the network that a task has for itself, and the one that it shares, as top models.

    Parameters
    ----------
    given : TopModel
        ``mlp``, with its own grid or the caller's.
    labels : Labels
    shared : SharedNetwork or None
        None where nothing is to be shared.
    """
    grid = GRID if given.is_default_grid else given.grid
    own = replace(given, estimator=head_of(labels.task)(), grid=grid, solver=plain.solve)
    if shared is None:
        return [own]
    return [own, replace(own, name=SHARED, trainer=Share(shared, labels.name))]


class Said(NamedTuple):
    """What a network of some folds' training rows says of the test rows of one task."""

    classes: NDArray[Any] | None
    labels: NDArray[Any]
    proba: NDArray[Any] | None


class SharedNetwork:
    """Networks of all tasks; each is trained once, for whichever task asks first.

    Parameters
    ----------
    X : ndarray of float32, shape (n, d)
        Rows with a label of at least one task.
    tasks : sequence of Labels
    folds : list of (train, test)
        Shared by all tasks.
    weight : ndarray of float64, shape (n,), or None
    class_weights : mapping of str to class weights
        By task of classes.
    seed : int
    n_jobs : int
    """

    def __init__(
        self,
        X: NDArray[np.float32],
        tasks: Sequence[Labels],
        folds: Sequence[Fold],
        weight: NDArray[np.float64] | None,
        class_weights: Mapping[str, Any],
        seed: int,
        n_jobs: int,
    ):
        self.X, self.tasks, self.folds = X, tasks, folds
        self.weight = np.ones(len(X)) if weight is None else weight
        self.class_weights, self.seed, self.n_jobs = class_weights, seed, n_jobs
        self._said: dict[Any, dict[str, Said]] = {}
        self._fitted: dict[Any, dict[str, Pipeline]] = {}

    def said(
        self, data: SearchData, group: CandidateGroup, folds: Sequence[int], cells: Cells
    ) -> Iterator[tuple[int, int, dict[str, Said], float]]:
        """Yield the cell, the fold, what the network says for each task, and the seconds that it took."""
        wanted = [(cell, fold) for cell in cells for fold in folds]
        keys = {(cell, fold): (_key(group, cells[cell]), fold) for cell, fold in wanted}
        missing = [each for each in wanted if keys[each] not in self._said]
        for cell, fold in wanted:
            if (cell, fold) not in missing:
                yield cell, fold, self._said[keys[cell, fold]], 0.0
        X = self._rows(data, group) if missing else self.X
        jobs = effective_n_jobs(self.n_jobs)
        with threadpool_limits(1 if jobs > 1 else None):
            workers = Parallel(jobs, prefer="threads", return_as="generator_unordered")
            for cell, fold, found, seconds in workers(
                delayed(self._evaluate)(X, group, cell, fold, cells[cell]) for cell, fold in missing
            ):
                self._said[keys[cell, fold]] = found
                yield cell, fold, found, seconds

    def fitted(self, data: SearchData, group: CandidateGroup, candidate: Candidate) -> dict[str, Pipeline]:
        """Return the pipelines of all tasks, of one network that is trained on all rows; they take all columns."""
        key = _key(group, candidate.params)
        if key not in self._fitted:
            steps, heads = self._train(self._rows(data, group), group, candidate.params, np.arange(len(self.X)))
            taken, layout = data.columns[group.features], data.layouts.get(group.features)
            before: list[Step] = [] if taken is None else [("columns", SelectDimensions(taken).fit(self.X))]
            if layout is not None:
                wide = self.X if taken is None else self.X[:, taken]
                before.append(("views", reduce_views(layout, group.views).fit(wide)))
            self._fitted[key] = {name: Pipeline([*before, *steps, ("model", head)]) for name, head in heads.items()}
        return self._fitted[key]

    def _rows(self, data: SearchData, group: CandidateGroup) -> NDArray[Any]:
        """Return all rows as a group of one task's search sees its own."""
        return replace(data, X=self.X).seen_by(group).X

    def _evaluate(
        self, X: NDArray[Any], group: CandidateGroup, cell: int, fold: int, params: Mapping[str, Any]
    ) -> tuple[int, int, dict[str, Said], float]:
        start = time.perf_counter()
        learned, held = self.folds[fold]
        steps, heads = self._train(X, group, params, learned)
        found = {}
        for labels in self.tasks:
            Z = X[labels.where[np.isin(labels.where, held)]]
            for _, step in steps:
                Z = step.transform(Z)
            found[labels.name] = _said(heads[labels.name], Z)
        return cell, fold, found, time.perf_counter() - start

    def _train(
        self, X: NDArray[Any], group: CandidateGroup, params: Mapping[str, Any], rows: NDArray[np.int64]
    ) -> tuple[list[Step], dict[str, Network]]:
        """Train one network on some rows; return the steps before it and the tasks' parts of it."""
        steps, Z = group.before(), X[rows]
        for _, step in steps:
            Z = step.fit_transform(Z)
        heads = {each.name: head_of(each.task)(**params, random_state=self.seed) for each in self.tasks}
        goals = [self._goal(heads[each.name], each.among(rows), rows) for each in self.tasks]
        first, outputs = train(Z, goals, **next(iter(heads.values())).options())
        for head, output in zip(heads.values(), outputs, strict=True):
            head.take(first, output, Z.shape[1])
        return steps, heads

    def _goal(self, head: Network, labels: Labels, rows: NDArray[np.int64]) -> Goal:
        weight, given = self.weight[rows[labels.where]], self.class_weights.get(labels.name)
        if given is not None:
            weight = weight * compute_sample_weight(given, labels.y)
        return head.goal(labels.where, labels.y, weight)


def _key(group: CandidateGroup, params: Mapping[str, Any]) -> Any:
    return group.features, group.views, group.normalize, tuple(sorted(params.items()))


def _said(head: Network, Z: NDArray[Any]) -> Said:
    if isinstance(head, NetworkRegressor):
        return Said(None, head.predict(Z), None)
    return Said(head.classes_, head.predict(Z), head.predict_proba(Z))


@dataclass(frozen=True)
class Share:
    """The shared network as a search of one task asks for it (`featurebank.topmodels.models.TopModel.trainer`)."""

    network: SharedNetwork
    task: str

    def predictions(
        self, data: SearchData, group: CandidateGroup, folds: Sequence[int], settings: SolverOptions, cells: Cells
    ) -> Events:
        """Yield what the network says of the task's test rows."""
        if group.select is not None or data.views(group) > 1:
            reason = "the shared network takes neither selected dimensions nor all views; it is not tried with them"
            yield Note(reason, tuple(cells), skipped=True)
            return
        for cell, fold, found, seconds in self.network.said(data, group, folds, cells):
            said = found[self.task]
            yield Prediction(cell, fold, said.classes, said.labels, None, said.proba, seconds)

    def fit(self, data: SearchData, group: CandidateGroup, candidate: Candidate) -> Pipeline:
        """Return the task's part of the network of all rows."""
        return self.network.fitted(data, group, candidate)[self.task]


def compared(search: TopModelSearchCV, name: str) -> dict[str, Any] | None:
    """Compare the best shared network of a task with the best of its own, on the same folds.

    Returns
    -------
    dict or None
        ``shared`` and ``alone`` (the candidates), `topmodels.scores.fold_difference` and a ``sentence``; None where
        one of them is missing.
    """
    networks = (each for each in search.candidates_ if each.model in (ALONE, SHARED))
    best = best_of_each(networks, lambda each: each.model, mean_of)
    if len(best) < 2 or len(search.folds_) < 2:
        return None
    scoring, scores = score_name(search.scoring, search.task), (best[SHARED].fold_scores, best[ALONE].fold_scores)
    found = fold_difference(*scores, *sizes_of(search.folds_), scoring, trials=search.trials_)
    text = sentence(name, best[SHARED].mean, best[ALONE].mean, found, scoring)
    return {"shared": best[SHARED].to_dict(), "alone": best[ALONE].to_dict(), **found, "sentence": text}


def sentence(name: str, shared: float, alone: float, found: Mapping[str, Any], scoring: Any) -> str:
    """Say what sharing came to for a task, and plainly so when it did not pay.

    Examples
    --------
    >>> sentence("type", 0.91, 0.9, {"difference": 0.01, "ci95": [0.005, 0.015]}, "accuracy")
    'type: shared 91.0 %, alone 90.0 %, +1.0 points (95 % +0.5..+1.5): sharing paid.'
    """
    sides = f"shared {score_text(shared, scoring)}, alone {score_text(alone, scoring)}"
    return f"{name}: {sides}, {gain_text(found, scoring)}: {paid_text('sharing', found)}."
