"""Top models: name -> plain scikit-learn pipeline, its search space, and the solver that cross-validates it fast."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, TypeAlias

from sklearn.base import BaseEstimator, is_classifier
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier, SGDClassifier
from sklearn.model_selection import ParameterGrid
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline
from sklearn.svm import SVC, SVR
from sklearn.utils.validation import has_fit_parameter

from featurebank.errors import TopModelError, near_names
from featurebank.topmodels.centroid import LikeliestCentroid
from featurebank.topmodels.solvers import knn, lda, logistic, plain, ridge, svm
from featurebank.topmodels.solvers.problem import Events, configured
from featurebank.topmodels.transforms import Step

Grid = Mapping[str, Sequence[Any]]
Solver = Callable[..., Events]


@dataclass(frozen=True)
class TopModel:
    """A top model: its estimator, what is searched when nothing is said, and how it is cross-validated.

    Attributes
    ----------
    name : str
        Name on the command line and in results.
    estimator : BaseEstimator
        Unfitted; the parameters that no grid changes.
    grid : mapping
        Values of the estimator's own parameters.
    solver : callable
        `featurebank.topmodels.solvers`: predictions of every cell and fold.
    refined : tuple of str
        Parameters on a logarithmic scale, which a refinement may divide more finely.
    simplicity : int
        Order of the models for the one-standard-error rule, the simplest first.
    is_cheap : bool
        Whether it is so fast that a search with little time starts with it.
    is_oversure : bool
        Whether its own probabilities, in many dimensions, are nearly always 0 or 1, so that they are calibrated.
    is_default_grid : bool
        Whether the grid is the model's own, not the caller's.
    trainer : object or None
        In the solver's place where a model learns from more than the rows of its own search: its
        ``predictions(data, group, folds, settings, cells)`` are those of `topmodels.evaluation.predictions`, and
        ``fit(data, group, candidate)`` gives the fitted pipeline.
    """

    name: str
    estimator: BaseEstimator
    grid: Grid
    solver: Solver = plain.solve
    refined: tuple[str, ...] = ()
    simplicity: int = 9
    is_cheap: bool = False
    is_oversure: bool = False
    is_default_grid: bool = True
    trainer: Any = None

    def cells(self) -> list[dict[str, Any]]:
        """Return the parameters of every cell of the grid."""
        return list(ParameterGrid({name: list(values) for name, values in self.grid.items()}))

    def pipeline(
        self, params: Mapping[str, Any], random_state: int, before: Sequence[Step] = (), class_weight: Any = None
    ) -> Pipeline:
        """Return an unfitted pipeline: the steps before the model, then the estimator with these parameters.

        Raises
        ------
        TopModelError
            When the estimator has no such parameter, or the parameter no such value.
        """
        unknown = set(params) - set(self.estimator.get_params())
        if unknown:
            kind = type(self.estimator).__name__
            raise TopModelError(f"{self.name} has no parameter {sorted(unknown)[0]!r}; see {kind}")
        estimator = configured(self.estimator, params, random_state=random_state, class_weight=class_weight)
        return Pipeline([*before, ("model", estimator)])

    def takes(self, argument: str) -> bool:
        """Whether the estimator can use ``"sample_weight"`` or ``"class_weight"`` (as weights of rows, if need be)."""
        takes_weights = has_fit_parameter(self.estimator, "sample_weight")
        return takes_weights or (argument == "class_weight" and argument in self.estimator.get_params())


Models: TypeAlias = str | BaseEstimator | Sequence[str | BaseEstimator | TopModel] | Mapping[str, Any]
"""Top models as they are asked for, see `parse_models`."""
ALPHAS = [10.0**power for power in range(7)]
NEIGHBOURS = [1, 3, 5, 9, 15, 25]
# Neighbours are searched by brute force: right for wide rows, and a predictor file holds no tree.
EPOCHS = 50
"""Epochs of the mlp. A fixed, small number regularises well; early stopping wastes a tenth of a small set."""


CLASSIFIERS = {
    model.name: model
    for model in (
        TopModel("centroid", LikeliestCentroid(), {}, simplicity=0, is_cheap=True, is_oversure=True),
        TopModel("ridge", RidgeClassifier(), {"alpha": ALPHAS}, ridge.solve, simplicity=1, is_cheap=True),
        TopModel(
            "lda",
            LinearDiscriminantAnalysis(solver="lsqr"),
            {"shrinkage": [0.01, 0.03, 0.1, 0.3, 0.6, 0.9]},
            lda.solve,
            simplicity=2,
            is_cheap=True,
        ),
        TopModel(
            "logreg",
            LogisticRegression(max_iter=1000),
            {"C": [1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0]},
            logistic.solve,
            ("C",),
            3,
        ),
        TopModel(
            "linear-svm", SVC(kernel="linear"), {"C": [1e-5, 1e-4, 1e-3, 1e-2, 1e-1]}, svm.solve, ("C",), simplicity=4
        ),
        TopModel("knn", KNeighborsClassifier(algorithm="brute"), {"n_neighbors": NEIGHBOURS}, knn.solve, simplicity=5),
        TopModel("svm", SVC(), {"C": [1.0, 3.0, 10.0, 30.0]}, svm.solve, ("C", "gamma"), simplicity=6),
        TopModel("mlp", MLPClassifier((64,), max_iter=EPOCHS), {"alpha": [1e-2, 1.0, 10.0]}, simplicity=7),
    )
}
STOCHASTIC = {"alpha": [1e-5, 1e-4, 1e-3]}
FOR_MANY_ROWS = {
    model.name: model
    for model in (
        TopModel("sgd-logreg", SGDClassifier(loss="log_loss", average=True), STOCHASTIC, simplicity=3),
        TopModel("sgd-svm", SGDClassifier(average=True), STOCHASTIC, simplicity=4),
    )
}
"""Linear models by averaged stochastic gradients, which learn from batches of rows; tried where they are named."""
REGRESSORS = {
    model.name: model
    for model in (
        TopModel("ridge", Ridge(), {"alpha": ALPHAS}, ridge.solve, simplicity=1, is_cheap=True),
        TopModel("knn", KNeighborsRegressor(algorithm="brute"), {"n_neighbors": NEIGHBOURS}, knn.solve, simplicity=5),
        TopModel("svr", SVR(), {"C": [0.1, 0.3, 1.0, 3.0, 10.0]}, svm.solve, ("C", "gamma"), simplicity=6),
        TopModel(
            "mlp", MLPRegressor(hidden_layer_sizes=(64,), max_iter=EPOCHS), {"alpha": [1e-2, 1.0, 10.0]}, simplicity=7
        ),
    )
}
TASKS = {"classification": CLASSIFIERS, "multilabel": CLASSIFIERS, "regression": REGRESSORS}
"""Models of each task that are tried with "all"."""
KNOWN = {task: models if task == "regression" else models | FOR_MANY_ROWS for task, models in TASKS.items()}
"""Models of each task that can be named."""
OURS = tuple(each.estimator for models in (CLASSIFIERS, FOR_MANY_ROWS, REGRESSORS) for each in models.values())
DEFAULT_MODELS = {
    "classification": ("logreg", "svm", "mlp"),
    "multilabel": ("logreg", "svm", "mlp"),
    "regression": ("ridge", "svr", "mlp"),
}
OVERSURE = frozenset(each.name for each in KNOWN["classification"].values() if each.is_oversure)
"""Models whose own probabilities, in many dimensions, are nearly always 0 or 1."""


def get_top_model(name: str, task: str = "classification") -> TopModel:
    """Return a top model by name, or by the import path of an estimator of your own.

    Parameters
    ----------
    name : str
        ``"svm"``, or for instance ``"sklearn.ensemble.ExtraTreesClassifier"``.
    task : str, default "classification"
        ``"classification"``, ``"multilabel"`` or ``"regression"``.

    Raises
    ------
    TopModelError
        When the name is unknown, or the estimator is for another task.

    Examples
    --------
    >>> get_top_model("svm").pipeline({"C": 10.0}, random_state=0)[-1]
    SVC(C=10.0, random_state=0)
    """
    if name in KNOWN[task]:
        return KNOWN[task][name]
    if "." not in name:
        hint = near_names(name, KNOWN[task])
        others = [other for other, models in TASKS.items() if name in models]
        raise TopModelError(
            f"no top model {name!r} for {task}{f' (it is for {others[0]})' if others else ''}; {hint} "
            "(your own: the import path of an estimator)"
        )
    return own_model(name, _imported(name), task)


def is_ours(model: TopModel) -> bool:
    """Say whether the estimator is one of those here, whatever its grid, and not the caller's own."""
    return any(model.estimator is each for each in OURS)


def _imported(path: str) -> BaseEstimator:
    """Return an estimator by its import path, ``package.module.Class``."""
    module, _, name = path.replace(":", ".").rpartition(".")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise TopModelError(f"no estimator at {path!r} ({error}); expected package.module.Class") from error
    try:
        return found() if isinstance(found, type) else found
    except TypeError as error:
        raise TopModelError(f"{path} cannot be made without arguments: give it as an object in Python") from error


def own_model(name: str, estimator: Any, task: str, grid: Grid | None = None) -> TopModel:
    """Return a top model made of any scikit-learn estimator.

    Raises
    ------
    TopModelError
        When it is no estimator, or one for another task.
    """
    if not isinstance(estimator, BaseEstimator) or not hasattr(estimator, "predict"):
        raise TopModelError(f"{name} is {type(estimator).__name__}; expected a scikit-learn classifier or regressor")
    if is_classifier(estimator) == (task == "regression"):
        raise TopModelError(f"{name} is no estimator for {task}; choose one that is")
    return TopModel(name, estimator, grid or {}, is_default_grid=not grid)


def parse_models(models: Models, task: str = "classification") -> list[TopModel]:
    """Return the top models that are meant, each with the grid to try.

    Parameters
    ----------
    models : str, sequence, or mapping of str to grid
        ``"all"``; or names, import paths, estimators or top models; or names with a grid (lists of values, or one
        value) in the estimator's own parameter names, None for the default grid, or an (estimator, grid) pair under a
        name of your choice.
    task : str, default "classification"

    Raises
    ------
    TopModelError
        When a name is unknown, or there is none.

    Examples
    --------
    >>> [(model.name, model.cells()) for model in parse_models({"svm": {"C": [1, 10]}})]
    [('svm', [{'C': 1}, {'C': 10}])]
    """
    if isinstance(models, str) and models == "all":
        return list(TASKS[task].values())
    wanted = [models] if isinstance(models, (str, BaseEstimator)) else models
    if not len(wanted):
        raise TopModelError(f"no top model is asked for; expected some of {', '.join(TASKS[task])}")
    if isinstance(wanted, Mapping):
        return [_with_grid(name, value, task) for name, value in wanted.items()]
    return [_one(each, task) for each in wanted]


def _one(model: str | BaseEstimator | TopModel, task: str) -> TopModel:
    if isinstance(model, TopModel):
        return model
    return get_top_model(model, task) if isinstance(model, str) else own_model(type(model).__name__, model, task)


def _with_grid(name: str, value: Any, task: str) -> TopModel:
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], BaseEstimator):
        return own_model(name, value[0], task, _lists(value[1]))
    model = get_top_model(name, task)
    if not value:
        return model
    return replace(model, grid=_lists(value), is_default_grid=False)


def _lists(grid: Mapping[str, Any]) -> dict[str, list[Any]]:
    lists = {
        name: list(values) if isinstance(values, (list, tuple)) or hasattr(values, "tolist") else [values]
        for name, values in grid.items()
    }
    empty = [name for name, values in lists.items() if not values]
    if empty:
        raise TopModelError(f"the grid has no value for {empty[0]!r}; expected at least one")
    return lists
