"""What a search tries: which models, checked before any work, and which columns of X, by the names of their blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge, RidgeClassifier
from sklearn.utils.multiclass import check_classification_targets

from featurebank.errors import TopModelError, one_line
from featurebank.images.columns import check_labels
from featurebank.topmodels.evaluation import SearchData
from featurebank.topmodels.folds import Fold
from featurebank.topmodels.models import TopModel, parse_models
from featurebank.topmodels.multiview import Layout
from featurebank.topmodels.streaming.exact import Exact
from featurebank.topmodels.streaming.minibatch import Minibatch

DEFAULT_IN_BATCHES = {"classification": ("ridge", "lda", "sgd-logreg"), "regression": ("ridge", "mlp")}
"""Models that are tried where rows are read in batches and none is named."""
KNOWN_IN_BATCHES = {"classification": "ridge, lda, sgd-logreg, sgd-svm, mlp", "regression": "ridge, mlp"}

# --- models ------------------------------------------------------------------------------------------------


def models_to_try(models: Any, default: Any, task: str, weights: Sequence[str], random_state: int) -> list[TopModel]:
    """Return the models to try; one that was named and cannot be fitted so is an error before any work.

    Parameters
    ----------
    models : any of what `featurebank.topmodels.models.parse_models` takes, or None for those of `default` that fit
    default : "all" or sequence of str
    task : str
    weights : sequence of str
        Which of ``"sample_weight"`` and ``"class_weight"`` are given.
    random_state : int

    Raises
    ------
    TopModelError
        When a model cannot use the weights, has no such parameter, or the parameter no such value.
    """
    if models is None:
        able = [model for model in parse_models(default, task) if all(_takes(model, task, name) for name in weights)]
        if not able:
            raise TopModelError("several labels take no sample weights here; leave the weights out")
        return able
    named = parse_models(models, task)
    for model in named:
        refused = [name.replace("_", " ") for name in weights if not _takes(model, task, name)]
        if refused:
            raise TopModelError(f"{model.name} takes no {refused[0]}s; leave the weights out, or the model")
        _check_cells(model, random_state)
    return named


def _takes(model: TopModel, task: str, argument: str) -> bool:
    """Whether a model can use weights; of several labels each has its own estimator, which gets none for rows."""
    if task == "multilabel":
        return argument == "class_weight" and argument in model.estimator.get_params()
    return model.takes(argument)


def _check_cells(model: TopModel, random_state: int) -> None:
    """Refuse parameters that the estimator does not have, or values it does not take."""
    for params in model.cells():
        estimator = model.pipeline(params, random_state)[-1]
        if not hasattr(estimator, "_parameter_constraints"):  # not every library declares them
            continue
        try:
            estimator._validate_params()
        except ValueError as error:
            raise TopModelError(f"{model.name} {params} cannot be fitted: {one_line(error)}") from error


def in_batches(model: TopModel, task: str, random_state: int, n_jobs: int) -> TopModel:
    """Return a top model that is trained on a matrix which is read in batches.

    Raises
    ------
    TopModelError
        When it needs all rows at once.
    """
    if isinstance(model.estimator, (Ridge, RidgeClassifier, LinearDiscriminantAnalysis)):
        return replace(model, trainer=Exact(model.estimator, random_state, n_jobs), refined=())
    if hasattr(model.estimator, "partial_fit"):
        return replace(model, trainer=Minibatch(model.estimator, random_state, n_jobs), refined=())
    raise TopModelError(
        f"{model.name} needs all rows in memory, which these do not fit into; expected {KNOWN_IN_BATCHES[task]}, or an "
        "estimator with partial_fit; or give the fit more memory"
    )


def cells_for(model: TopModel, folds: Sequence[Fold]) -> list[dict[str, Any]]:
    """Return the cells of a model's grid; of its default grid those that the smallest training part allows."""
    smallest = min(len(train) for train, _ in folds)
    return [cell for cell in model.cells() if not model.is_default_grid or cell.get("n_neighbors", 0) <= smallest]


def checked_target(y: NDArray[Any], task: str) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Return the target and its classes, None for numbers.

    Raises
    ------
    TopModelError
        When it is not what the task learns.
    """
    if task == "regression":
        return y, None
    if task == "multilabel":
        if y.ndim != 2 or not np.isin(y, (0, 1)).all():
            raise TopModelError(f"y of shape {y.shape} for several labels; expected columns of 0 and 1")
        return y.astype(np.int64), np.arange(y.shape[1])
    try:
        check_classification_targets(y)
    except ValueError as error:
        raise TopModelError(f"{one_line(error)} Expected a column of classes") from error
    classes = np.unique(y)
    if len(classes) < 2:
        raise TopModelError(f"y has one class, {classes.tolist()[0]!r}; expected at least two classes")
    return y, classes


def checked_groups(groups: Any, count: int) -> NDArray[Any] | None:
    """Return the group of each row, refused where one is missing or they cannot be put in order.

    Raises
    ------
    TopModelError

    Examples
    --------
    >>> checked_groups(["a", None], 2)
    Traceback (most recent call last):
    featurebank.errors.TopModelError: 1 of 2 rows has no group (None or NaN); expected one a row: leave those rows out
    """
    if groups is None:
        return None
    check_labels(groups, TopModelError, "group")
    groups = np.asarray(groups)
    if groups.shape != (count,):
        raise TopModelError(f"groups of shape {groups.shape} for {count} rows; expected one a row")
    if groups.dtype == object and len({type(each) for each in groups}) > 1:
        raise TopModelError("groups of several types, as text and numbers; expected one: make all of them text")
    return groups


def check_weights(
    weight: NDArray[np.float64], y: NDArray[Any], classes: NDArray[Any] | None, folds: Sequence[Fold]
) -> None:
    """Refuse weights below 0, or that float32 cannot hold, or that leave a class or a test part without any.

    Raises
    ------
    TopModelError
    """
    if (weight < 0).any():
        raise TopModelError(f"a sample weight of {weight.min():g}; expected numbers from 0 up")
    some = weight[weight > 0]
    if len(some) and not 1e-30 < some.min() <= some.max() < 1e30:
        raise TopModelError(
            f"sample weights from {some.min():.3g} to {some.max():.3g}; expected numbers from about 1e-30 to 1e30: "
            "divide them by their mean"
        )
    absent = [] if classes is None or y.ndim > 1 else np.setdiff1d(classes, y[weight > 0]).tolist()
    if absent:
        raise TopModelError(
            f"every row of the class {absent[0]!r} has the sample weight 0; expected some above 0: leave out its rows, "
            "or give them weight"
        )
    if not all(weight[test].any() for _, test in folds):
        raise TopModelError(
            "a fold tests rows of the sample weight 0 only; expected some above 0 in each: leave out such rows, or ask "
            "for fewer folds"
        )


# --- columns -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Blocks:
    """The named blocks of a wide X, and the views of an image that lie side by side in each.

    Parameters
    ----------
    columns : mapping of str to slice
    views : int or mapping of str to int
    width : int
        Columns of X.

    Raises
    ------
    TopModelError
        When a block ends outside X.
    """

    columns: Mapping[str, slice]
    views: int | Mapping[str, int]
    width: int

    def __post_init__(self) -> None:
        wide = [name for name, block in self.columns.items() if (block.stop or 0) > self.width]
        if wide:
            raise TopModelError(
                f"block {wide[0]!r} ends after the last of {self.width} columns; expected blocks inside X"
            )

    def wanted(self, features: str | Sequence[Sequence[str]] | None) -> list[tuple[str, ...]]:
        """Return the blocks that are asked for, each alone where nothing is said, or ``"all"``.

        Raises
        ------
        TopModelError
            When a block is unknown, or none is asked for.
        """
        wanted: list[tuple[str, ...]] = [(name,) for name in self.columns]
        if features is not None and not isinstance(features, str):
            wanted = [tuple(names) for names in features]
        unknown = {name for names in wanted for name in names} - set(self.columns)
        if unknown or not wanted:
            have = ", ".join(self.columns)
            raise TopModelError(f"features name {sorted(unknown) or 'nothing'}; expected some of the blocks {have}")
        return wanted

    def tell(self, data: SearchData, names: tuple[str, ...]) -> None:
        """Tell the data which columns some blocks are, None for all of them, and how sets and views lie in these."""
        every = np.arange(self.width)
        taken: NDArray[np.int64] = np.concatenate([every[self.columns[name]] for name in names])
        data.columns[names] = None if np.array_equal(taken, every) else taken
        layout = self._layout(names)
        data.widths[names] = layout.widths if len(names) > 1 else ()
        if layout.views > 1:
            data.layouts[names] = layout

    def _layout(self, names: tuple[str, ...]) -> Layout:
        counts = [self.views.get(name, 1) if isinstance(self.views, Mapping) else int(self.views) for name in names]
        widths = [len(range(self.width)[self.columns[name]]) for name in names]
        for name, count, width in zip(names, counts, widths, strict=True):
            if count < 1 or width % count:
                raise TopModelError(f"{count} views in the {width} columns of {name!r}; expected whole views")
        if len(set(counts)) > 1:
            raise TopModelError(
                f"{' + '.join(names)} have {', '.join(map(str, counts))} views; expected as many in sets that are "
                "concatenated: name sets of the same views"
            )
        return Layout(counts[0], tuple(width // counts[0] for width in widths))
