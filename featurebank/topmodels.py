"""Top models: name -> plain scikit-learn pipeline and its search space."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import ParameterGrid
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from featurebank.errors import TopModelError

Grid = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class TopModel:
    """A top model: how its estimator is built, and what is searched when nothing is said.

    Attributes
    ----------
    name : str
        Name on the command line and in results.
    build : callable
        Seed to estimator.
    grid : mapping
        Default values of the estimator's own parameters, at most four cells.
    """

    name: str
    build: Callable[[int], Any]
    grid: Grid

    def pipeline(self, params: Mapping[str, Any], seed: int) -> Pipeline:
        """Return an unfitted pipeline: standardise, then the estimator with these parameters.

        Raises
        ------
        TopModelError
            When the estimator has no such parameter.
        """
        estimator = self.build(seed)
        unknown = set(params) - set(estimator.get_params())
        if unknown:
            raise TopModelError(f"{self.name} has no parameter {sorted(unknown)[0]!r}; see {type(estimator).__name__}")
        return Pipeline([("scale", StandardScaler()), ("model", estimator.set_params(**params))])


def _logreg(seed: int) -> LogisticRegression:
    return LogisticRegression(max_iter=1000, random_state=seed)


def _svm(seed: int) -> SVC:
    return SVC(random_state=seed)


def _mlp(seed: int) -> MLPClassifier:
    return MLPClassifier((64,), early_stopping=True, max_iter=200, random_state=seed)


TOP_MODELS = {
    model.name: model
    for model in (
        TopModel("logreg", _logreg, {"C": [1e-4, 1e-3, 1e-2, 1e-1]}),
        TopModel("svm", _svm, {"C": [1.0, 3.0, 10.0, 30.0]}),
        TopModel("mlp", _mlp, {"alpha": [1e-2, 1.0]}),
    )
}


def get_top_model(name: str) -> TopModel:
    """Return a top model by name.

    Raises
    ------
    TopModelError
        When the name is unknown.

    Examples
    --------
    >>> get_top_model("svm").pipeline({"C": 10.0}, seed=0)[-1]
    SVC(C=10.0, random_state=0)
    """
    if name not in TOP_MODELS:
        near = difflib.get_close_matches(name, TOP_MODELS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(TOP_MODELS)}"
        raise TopModelError(f"no top model {name!r}; {hint}")
    return TOP_MODELS[name]


def cells(models: Any) -> list[tuple[TopModel, dict[str, Any]]]:
    """Return every (top model, parameters) to try.

    Parameters
    ----------
    models : str, sequence of str, or mapping of str to grid
        Names, or names with a grid (lists of values, or one value) in the estimator's own parameter names; None
        for the default grid.

    Raises
    ------
    TopModelError
        When a name is unknown, or there is none.

    Examples
    --------
    >>> [(model.name, params) for model, params in cells({"svm": {"C": [1, 10]}})]
    [('svm', {'C': 1}), ('svm', {'C': 10})]
    """
    names = [models] if isinstance(models, str) else list(models)
    if not names:
        raise TopModelError(f"no top model is asked for; expected some of {', '.join(TOP_MODELS)}")
    grids = models if isinstance(models, Mapping) else {}
    found = [get_top_model(name) for name in names]
    return [(model, params) for model in found for params in ParameterGrid(_lists(grids.get(model.name) or model.grid))]


def _lists(grid: Mapping[str, Any]) -> dict[str, list[Any]]:
    lists = {
        name: list(values) if isinstance(values, (list, tuple)) or hasattr(values, "tolist") else [values]
        for name, values in grid.items()
    }
    empty = [name for name, values in lists.items() if not values]
    if empty:
        raise TopModelError(f"the grid has no value for {empty[0]!r}; expected at least one")
    return lists
