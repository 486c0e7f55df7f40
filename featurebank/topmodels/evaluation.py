"""Cross-validation of one group of candidates: rows of its features, in-fold steps, a solver, scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.metrics import balanced_accuracy_score, get_scorer, get_scorer_names
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from sklearn.utils.metaestimators import available_if

from featurebank.errors import TopModelError, near_names, one_line
from featurebank.topmodels.candidates import Candidate, CandidateGroup
from featurebank.topmodels.folds import Fold
from featurebank.topmodels.formatting import score_name
from featurebank.topmodels.models import TopModel
from featurebank.topmodels.multiview import Layout, averaged, over_views, per_view, reduce_views
from featurebank.topmodels.refitting import fit_pipeline, score_fitted
from featurebank.topmodels.solvers.problem import Cells, Events, Note, Prediction, Problem, SolverOptions
from featurebank.topmodels.transforms import SelectDimensions, SignedSquareRoot, Step

Score = Callable[[Prediction], float]
_ROWWISE = (Normalizer, SignedSquareRoot)


@dataclass(frozen=True)
class SearchData:
    """What every candidate of a search shares.

    Attributes
    ----------
    X : ndarray of float, shape (n, d)
    y : ndarray, shape (n,) or (n, labels)
    columns : dict
        Columns of X that each candidate's features take; None for all of them.
    folds : list of (train, test)
    task : str
        ``"classification"``, ``"multilabel"`` or ``"regression"``.
    weight : ndarray of float64, shape (n,), or None
    class_weight : dict, "balanced" or None
    layouts : dict
        How the views lie in the columns of each candidate's features, where an image has several.
    widths : dict
        Columns of each feature set, of one view, among a candidate's features where these are several.
    """

    X: NDArray[Any]
    y: NDArray[Any]
    columns: dict[tuple[str, ...], NDArray[np.int64] | None]
    folds: list[Fold]
    task: str = "classification"
    weight: NDArray[np.float64] | None = None
    class_weight: Any = None
    layouts: dict[tuple[str, ...], Layout] = field(default_factory=dict)
    widths: dict[tuple[str, ...], tuple[int, ...]] = field(default_factory=dict)

    @cached_property
    def classes(self) -> NDArray[Any]:
        """The distinct classes, sorted, shape (k,)."""
        return np.unique(self.y)

    def views(self, group: CandidateGroup) -> int:
        """Return how many rows a group makes of an image."""
        layout = self.layouts.get(group.features)
        return layout.views if layout is not None and group.views == "all" else 1

    def seen_by(self, group: CandidateGroup) -> SearchData:
        """Return what a group's model sees: the columns of its features; a row for each view where it takes them all.

        Each view then weighs one of `views` parts of its image, for a model that takes weights; to the others a
        common factor of all weights means nothing.
        """
        taken, layout = self.columns[group.features], self.layouts.get(group.features)
        X = self.X if taken is None else self.X[:, taken]
        if layout is None:
            return replace(self, X=X)
        if group.views != "all":
            return replace(self, X=layout.reduce(X, group.views))
        weight = np.ones(len(X)) if self.weight is None else self.weight
        return replace(
            self,
            X=layout.stack(X),
            y=np.repeat(self.y, layout.views, axis=0),
            folds=[(layout.rows_of(train), layout.rows_of(test)) for train, test in self.folds],
            weight=np.repeat(weight / layout.views, layout.views) if group.model.takes("sample_weight") else None,
        )


# --- predictions -------------------------------------------------------------------------------------------


def predictions(
    data: SearchData, group: CandidateGroup, folds: Sequence[int], settings: SolverOptions, cells: Cells | None = None
) -> Events:
    """Yield the prediction of every cell of a group on every one of some folds, and the solver's notes.

    Parameters
    ----------
    data : SearchData
    group : CandidateGroup
    folds : sequence of int
        Numbers of the folds.
    settings : SolverOptions
    cells : mapping of int to dict, optional
        Parameters by the candidate's number; all of the group by default.
    """
    views, model = data.views(group), group.model
    given = group.cells if cells is None else cells
    if model.trainer is not None:
        yield from model.trainer.predictions(data, group, folds, settings, given)
        return
    wanted = {number: per_view(params, model.estimator, views) for number, params in given.items()}
    for numbers, problem in _problems(data.seen_by(group), group, folds):
        of_images = partial(_of_images, numbers, views)
        score = None if settings.score is None else _before(settings.score, of_images)
        for event in _solve(problem, model, wanted, replace(settings, score=score), data.task):
            yield event if isinstance(event, Note) else of_images(event)


def _problems(data: SearchData, group: CandidateGroup, folds: Sequence[int]) -> Iterator[tuple[list[int], Problem]]:
    """Yield one problem for all folds where only the scaler learns, else one a fold, and the folds' numbers."""
    leading, learning, is_scaled = split_steps(group.before())
    X = data.X
    for step in leading:
        X = step.fit_transform(X)
    if not learning:
        yield list(folds), _problem(data, X, folds, is_scaled, group.widths)
        return
    for fold in folds:
        train, Z = data.folds[fold][0], X
        for step in learning:
            Z = step.fit(Z[train], data.y[train]).transform(Z)
        yield [fold], _problem(data, Z, [fold], is_scaled, ())


def split_steps(steps: list[Step]) -> tuple[list[Any], list[Any], bool]:
    """Split steps into those in front that learn nothing, those that learn, and whether a scaler ends them."""
    each = [step for _, step in steps]
    is_scaled = bool(each) and isinstance(each[-1], StandardScaler)
    if is_scaled:
        each.pop()
    lead = next((number for number, step in enumerate(each) if not isinstance(step, _ROWWISE)), len(each))
    return each[:lead], each[lead:], is_scaled


def _problem(
    data: SearchData, X: NDArray[Any], folds: Sequence[int], standardize: bool, widths: tuple[int, ...]
) -> Problem:
    chosen = [data.folds[fold] for fold in folds]
    return Problem(X, data.y, chosen, standardize, data.weight, data.class_weight, widths)


def _of_images(numbers: list[int], views: int, found: Prediction) -> Prediction:
    """Return a prediction under its fold's own number, with one row an image."""
    return averaged(found._replace(fold=numbers[found.fold]), views)


def _before(score: Score, change: Callable[[Prediction], Prediction]) -> Score:
    return lambda prediction: score(change(prediction))


def _solve(problem: Problem, model: TopModel, cells: Cells, settings: SolverOptions, task: str) -> Events:
    """Solve the cells; several labels are one problem of two classes each, as in `OneVsRestClassifier`."""
    if task != "multilabel":
        yield from model.solver(problem, cells, settings, model.estimator)
        return
    parts: dict[tuple[int, int], list[Prediction]] = {}
    for label in range(problem.y.shape[1]):
        one, quiet = replace(problem, y=problem.y[:, label]), replace(settings, score=None)
        for event in model.solver(one, cells, quiet, model.estimator):
            if isinstance(event, Note):
                yield event
            else:
                parts.setdefault((event.cell, event.fold), []).append(event)
    for found in parts.values():
        yield _stacked(found)


def _stacked(found: list[Prediction]) -> Prediction:
    """Return the predictions of several labels as one: labels, decisions and probabilities (m, labels)."""
    first = found[0]

    def columns(kind: str, second: bool = False) -> NDArray[Any] | None:
        values = [getattr(each, kind) for each in found]
        return None if values[0] is None else np.column_stack([each[:, 1] if second else each for each in values])

    return first._replace(
        classes=np.arange(len(found)),
        labels=np.column_stack([each.labels for each in found]),
        decision=columns("decision"),
        proba=columns("proba", second=True),
        seconds=sum(each.seconds for each in found),
    )


# --- scores ------------------------------------------------------------------------------------------------


class _Said(BaseEstimator):
    """An estimator that has said all it will say: a scorer takes it for the fitted pipeline of one fold."""

    def __init__(self, prediction: Prediction):
        self.prediction = prediction
        self.classes_ = prediction.classes

    def fit(self, X: Any, y: Any) -> Any:
        """Do nothing: scorers look for it."""
        return self

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the labels."""
        return self.prediction.labels

    @available_if(lambda self: self.prediction.proba is not None)
    def predict_proba(self, X: Any) -> Any:
        """Return the probabilities."""
        return self.prediction.proba

    @available_if(lambda self: self.prediction.decision is not None)
    def decision_function(self, X: Any) -> Any:
        """Return the decision values."""
        return self.prediction.decision


class _SaidClasses(ClassifierMixin, _Said):
    pass


class _SaidNumbers(RegressorMixin, _Said):
    pass


def scorer_of(scoring: Any, task: str) -> Any:
    """Return a scikit-learn scorer; the default is accuracy, or R² for numbers.

    Raises
    ------
    TopModelError
        When no scorer has this name.
    """
    if callable(scoring):
        return scoring
    scoring = score_name(scoring, task)
    if scoring not in get_scorer_names():
        raise TopModelError(f"no scoring {scoring!r}; {near_names(str(scoring), get_scorer_names())}")
    return get_scorer(scoring)


def asks_decisions(scorer: Any) -> bool:
    """Say whether a scorer may ask for decision values of a model that has probabilities; any other function may.

    Examples
    --------
    >>> asks_decisions(scorer_of("roc_auc", "classification")), asks_decisions(scorer_of(None, "classification"))
    (True, False)
    """
    return "decision_function" in getattr(scorer, "_response_method", ("decision_function",))


def scored(data: SearchData, scoring: Any, model: TopModel, scorer: Any) -> Score:
    """Return the function that scores a model's prediction on its fold's test rows.

    The function raises `TopModelError` where the scorer needs what the model or the labels do not have.
    """

    def score(prediction: Prediction) -> float:
        if prediction.proba is None and getattr(scorer, "_response_method", None) == "predict_proba":
            raise TopModelError(
                f"scoring {scoring!r} does not fit {type(model.estimator).__name__} here: it gives no probabilities; "
                "choose another scoring, or a model that gives some (logreg, lda, knn, mlp)"
            )
        try:
            return score_rows(scorer, data, prediction, np.arange(len(prediction.labels)))
        except (ValueError, TypeError, AttributeError) as error:
            raise TopModelError(
                f"scoring {score_name(scoring, data.task)!r} does not fit {type(model.estimator).__name__} here: "
                f"{_why(scorer, data, error)}; choose another scoring or model"
            ) from error

    return score


def family_of(scorer: Any) -> str | None:
    """Return what a metric of scikit-learn is of: ``"numbers"``, ``"clusters"`` or ``"classes"``; None of any other.

    Examples
    --------
    >>> family_of(scorer_of("r2", "regression")), family_of(scorer_of("rand_score", "classification"))
    ('numbers', 'clusters')
    """
    room = getattr(getattr(scorer, "_score_func", None), "__module__", "")
    if not room.startswith("sklearn.metrics."):
        return None
    return {"_regression": "numbers", "_supervised": "clusters"}.get(room.rpartition(".")[2], "classes")


def _why(scorer: Any, data: SearchData, error: Exception) -> str:
    """Say why rows cannot be scored: what the scorer is of where the target is of another kind, else its own words."""
    if family_of(scorer) == "numbers" and data.y.dtype.kind not in "biuf":
        return "it is of numbers, and the target has classes"
    if data.task == "multilabel":
        return "it does not take several labels a row, as accuracy, f1_macro and roc_auc do"
    return one_line(error)[:160].rstrip(".")


def score_rows(scorer: Any, data: SearchData, prediction: Prediction, chosen: NDArray[np.intp]) -> float:
    """Score a prediction on some of its test rows, repeats allowed."""
    rows = data.folds[prediction.fold][1][chosen]
    prediction = _of_all_classes(_taken(prediction, chosen), data)
    X = None if hasattr(scorer, "_score_func") else data.X[rows]
    return score_answers(scorer, prediction, X, data.y[rows], None if data.weight is None else data.weight[rows])


def score_answers(scorer: Any, prediction: Prediction, X: Any, y: NDArray[Any], weight: Any) -> float:
    """Score what a model said of rows with true values y; X is for a scorer that is a function of your own."""
    said = (_SaidNumbers if prediction.classes is None else _SaidClasses)(prediction)
    return score_fitted(scorer, said, X, y, weight)


def _of_all_classes(prediction: Prediction, data: SearchData) -> Prediction:
    """Return a prediction with a column for each of several classes, also for one that its fold had not learned."""
    known, proba = prediction.classes, prediction.proba
    if known is None or proba is None or data.task != "classification" or len(known) == len(data.classes):
        return prediction
    whole = np.zeros((len(proba), len(data.classes)))
    whole[:, np.searchsorted(data.classes, known)] = proba
    return prediction._replace(classes=data.classes, proba=whole)


def _taken(prediction: Prediction, rows: NDArray[np.intp]) -> Prediction:
    if len(rows) == len(prediction.labels) and (rows == np.arange(len(rows))).all():
        return prediction
    decision, proba = prediction.decision, prediction.proba
    return prediction._replace(
        labels=prediction.labels[rows],
        decision=None if decision is None else decision[rows],
        proba=None if proba is None else proba[rows],
    )


def balanced_accuracy(data: SearchData, found: Sequence[Prediction]) -> float:
    """Return the mean recall over the classes, of all folds together."""
    rows = np.concatenate([data.folds[each.fold][1] for each in found])
    true = np.searchsorted(data.classes, data.y[rows])  # numbers: text of many rows takes much memory, and is slow
    said = np.concatenate([np.searchsorted(data.classes, each.labels) for each in found])
    weight = None if data.weight is None else data.weight[rows]
    return float(balanced_accuracy_score(true, said, sample_weight=weight))


# --- the pipeline that is kept -----------------------------------------------------------------------------


def refitted(data: SearchData, group: CandidateGroup, candidate: Candidate, random_state: int) -> Pipeline:
    """Return the pipeline of a candidate, fitted on all rows; it takes all columns of X."""
    if group.model.trainer is not None:
        return group.model.trainer.fit(data, group, candidate)
    plain = pipeline_of(data, group, candidate, random_state)
    try:
        return fit_pipeline(plain, data.X, data.y, _fit_weight(data, group))
    except ValueError as error:
        raise TopModelError(
            f"{candidate.model}, the best on the folds, cannot be fitted on all rows: {one_line(error)}; choose "
            "another model"
        ) from error


def pipeline_of(data: SearchData, group: CandidateGroup, candidate: Candidate, random_state: int) -> Pipeline:
    """Return the unfitted pipeline of a candidate, which takes all columns of X."""
    taken, layout, views = data.columns[candidate.features], data.layouts.get(candidate.features), data.views(group)
    params = per_view(candidate.params, group.model.estimator, views)
    plain = group.model.pipeline(params, random_state, group.before(), data.class_weight)
    if layout is not None and group.views == "all":
        plain = over_views(plain, layout, data.task == "regression")
    elif layout is not None:
        plain.steps.insert(0, ("views", reduce_views(layout, group.views)))
    if taken is not None:
        plain.steps.insert(0, ("columns", SelectDimensions(taken)))
    if data.task == "multilabel":
        plain.steps[-1] = ("model", OneVsRestClassifier(plain.steps[-1][1]))
    return plain


def _fit_weight(data: SearchData, group: CandidateGroup) -> NDArray[np.float64] | None:
    """Return the weights of all rows; those of classes are among them for a model that takes no other."""
    if data.class_weight is None or "class_weight" in group.model.estimator.get_params():
        return data.weight
    everyone = np.arange(len(data.y))
    whole = Problem(data.X, data.y, [(everyone, everyone)], False, data.weight, data.class_weight)
    return whole.full_weights(0, count_weights=False)
