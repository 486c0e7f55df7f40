"""Views as rows: a top model learns from every view of an image, and what it says of them is averaged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, RegressorMixin, TransformerMixin, clone
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, has_fit_parameter, validate_data

from featurebank.errors import TopModelError
from featurebank.topmodels.solvers.problem import Prediction, label, prediction_of


@dataclass(frozen=True)
class Layout:
    """How the views of an image lie side by side in one row.

    Attributes
    ----------
    views : int
        Views of an image.
    widths : tuple of int
        Columns of one view in each feature set. A row holds all views of the first set, then all of the second, ….

    Examples
    --------
    >>> Layout(2, (1, 2)).split(np.array([[1, 2, 3, 4, 5, 6]])).tolist()
    [[[1, 3, 4], [2, 5, 6]]]
    """

    views: int
    widths: tuple[int, ...]

    def split(self, X: NDArray[Any]) -> NDArray[Any]:
        """Return rows (n, views * d) as (n, views, d), the feature sets of a view side by side."""
        ends = np.cumsum([0, *(self.views * width for width in self.widths)])
        parts = [X[:, start:end].reshape(len(X), self.views, -1) for start, end in pairwise(ends)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)

    def reduce(self, X: NDArray[Any], views: str) -> NDArray[Any]:
        """Return the ``"mean"`` over the views or the ``"first"`` one, shape (n, d)."""
        split = self.split(X)
        return split[:, 0] if views == "first" else split.mean(axis=1, dtype=X.dtype)

    def stack(self, X: NDArray[Any]) -> NDArray[Any]:
        """Return a row for each view, shape (n * views, d); those of an image follow each other."""
        split = self.split(X)
        return split.reshape(-1, split.shape[2])

    def rows_of(self, images: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the numbers of the stacked rows that belong to some images."""
        return (images[:, None] * self.views + np.arange(self.views)).ravel()


def per_view(params: Mapping[str, Any], estimator: BaseEstimator, views: int) -> dict[str, Any]:
    """Return an estimator's parameters for rows that are views: a number of neighbours counts images.

    Examples
    --------
    >>> from sklearn.neighbors import KNeighborsClassifier
    >>> per_view({}, KNeighborsClassifier(3), 4), per_view({"alpha": 1.0}, BaseEstimator(), 4)
    ({'n_neighbors': 12}, {'alpha': 1.0})
    """
    known = estimator.get_params()
    if views == 1 or "n_neighbors" not in known:
        return dict(params)
    return {**params, "n_neighbors": views * params.get("n_neighbors", known["n_neighbors"])}


def averaged(found: Prediction, views: int) -> Prediction:
    """Return what a model says of images from what it says of their views.

    Probabilities are averaged, or decision values where there are none, or numbers. The label is what the average
    says, unless all views have one label.

    Parameters
    ----------
    found : Prediction
        Of m * views rows, those of an image one after the other.
    views : int

    Raises
    ------
    TopModelError
        When the model has neither probabilities nor decision values.
    """
    if views == 1:
        return found
    labels = found.labels.reshape(-1, views, *found.labels.shape[1:])
    if found.classes is None:
        return found._replace(labels=labels.mean(axis=1))
    proba, decision = _mean(found.proba, views), None
    if proba is None:
        decision = _mean(found.decision, views)
    said = _said(found.classes, proba, decision, is_several=labels.ndim == 3)
    is_agreed = (labels == labels[:, :1]).all(axis=1)
    return found._replace(labels=np.where(is_agreed, labels[:, 0], said), proba=proba, decision=decision)


def _mean(values: NDArray[Any] | None, views: int) -> NDArray[np.float64] | None:
    if values is None:
        return None
    return values.reshape(-1, views, *values.shape[1:]).mean(axis=1, dtype=np.float64)


def _said(classes: NDArray[Any], proba: Any, decision: Any, is_several: bool) -> NDArray[Any]:
    """Return the labels that average probabilities or decision values stand for."""
    if proba is None and decision is None:
        raise TopModelError("the model gives neither probabilities nor decision values to average over views")
    if is_several:
        return (decision > 0 if proba is None else proba > 0.5).astype(np.int64)
    return label(classes, decision) if proba is None else classes[proba.argmax(axis=1)]


class ReduceViews(TransformerMixin, BaseEstimator):
    """Reduce the views of an image, which lie side by side, to one row.

    Parameters
    ----------
    how : str, default "mean"
        ``"mean"`` or ``"first"``.
    views : int, default 1
    widths : sequence of int, optional
        See `Layout`; by default one feature set.

    Examples
    --------
    >>> ReduceViews(views=2).fit_transform([[1.0, 2.0, 3.0, 4.0]])
    array([[2., 3.]])
    """

    def __init__(self, how: str = "mean", *, views: int = 1, widths: Sequence[int] | None = None):
        self.how = how
        self.views = views
        self.widths = widths

    def fit(self, X: Any, y: Any = None) -> ReduceViews:
        """Check that the columns are those of whole views.

        Parameters
        ----------
        X : array-like of float, shape (n, views * d)
        y : ignored

        Raises
        ------
        TopModelError
            When they are not.
        """
        X = validate_data(self, X, dtype=(np.float64, np.float32))
        self.layout_ = _layout(X.shape[1], self.views, self.widths)
        return self

    def transform(self, X: Any) -> NDArray[Any]:
        """Return one row an image, shape (n, d)."""
        check_is_fitted(self)
        return self.layout_.reduce(validate_data(self, X, dtype=(np.float64, np.float32), reset=False), self.how)


def _layout(columns: int, views: int, widths: Sequence[int] | None) -> Layout:
    found = (columns // views,) if widths is None else tuple(int(width) for width in widths)
    if views * sum(found) != columns:
        raise TopModelError(f"{columns} columns for {views} views of {sum(found)}; expected whole views side by side")
    return Layout(views, found)


class _OverViews(MetaEstimatorMixin, BaseEstimator):
    """A pipeline that is fitted on every view of an image and whose answers are averaged over them."""

    def __init__(self, estimator: Pipeline, *, views: int = 1, widths: Sequence[int] | None = None):
        self.estimator = estimator
        self.views = views
        self.widths = widths

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Fit the pipeline on the views as rows; each counts for one of `views` parts of its image.

        Parameters
        ----------
        X : array-like of float, shape (n, views * d)
        y : array-like, shape (n,)
        sample_weight : array-like of float, shape (n,), optional
        """
        X, y = validate_data(self, X, y, dtype=(np.float64, np.float32))
        layout = _layout(X.shape[1], self.views, self.widths)
        name, last = self.estimator.steps[-1]
        options = {}
        if has_fit_parameter(last, "sample_weight"):
            weight = _check_sample_weight(sample_weight, X) / self.views
            options[f"{name}__sample_weight"] = np.repeat(weight, self.views)
        self.estimator_ = clone(self.estimator).fit(layout.stack(X), np.repeat(y, self.views), **options)
        return self

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the label, or the number, of each image, shape (n,)."""
        return self._averaged(X).labels

    def _averaged(self, X: Any) -> Prediction:
        check_is_fitted(self)
        X = validate_data(self, X, dtype=(np.float64, np.float32), reset=False)
        rows = _layout(X.shape[1], self.views, self.widths).stack(X)
        return averaged(prediction_of(self.estimator_, rows), self.views)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags.sparse = False
        tags.non_deterministic = get_tags(self.estimator).non_deterministic
        return tags


def _has_proba(model: Any) -> bool:
    return hasattr(getattr(model, "estimator_", model.estimator), "predict_proba")


def _decides(model: Any) -> bool:
    return not _has_proba(model) and hasattr(getattr(model, "estimator_", model.estimator), "decision_function")


class ClassifierOverViews(ClassifierMixin, _OverViews):
    """A classifier of views that answers for images: probabilities, or else decision values, are averaged.

    Parameters
    ----------
    estimator : Pipeline
        Its last step is a classifier; it learns from a row for each view, weighted by 1 / views where it takes
        weights, so that regularisation means the same as with one row an image.
    views : int, default 1
    widths : sequence of int, optional
        See `Layout`; by default one feature set.

    Attributes
    ----------
    estimator_ : Pipeline
    classes_ : ndarray, shape (k,)

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> X, y = np.array([[0.0, 1.0], [1.0, 0.0], [4.0, 5.0], [5.0, 4.0]]), ["low", "low", "high", "high"]
    >>> model = ClassifierOverViews(Pipeline([("model", LogisticRegression())]), views=2).fit(X, y)
    >>> model.predict([[1.0, 1.0], [4.0, 4.0]]).tolist()
    ['low', 'high']
    """

    @property
    def classes_(self) -> NDArray[Any]:
        """The classes, sorted."""
        return self.estimator_.classes_

    @available_if(_has_proba)
    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return the mean probabilities over the views, shape (n, k)."""
        proba = self._averaged(X).proba
        assert proba is not None
        return proba

    @available_if(_decides)
    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Return the mean decision values over the views, shape (n,) or (n, k)."""
        decision = self._averaged(X).decision
        assert decision is not None
        return decision


class RegressorOverViews(RegressorMixin, _OverViews):
    """A regressor of views that answers for images with the mean; see `ClassifierOverViews`.

    Examples
    --------
    >>> from sklearn.linear_model import Ridge
    >>> model = RegressorOverViews(Pipeline([("model", Ridge(1e-9))]), views=2).fit([[0.0, 2.0], [4.0, 6.0]], [1, 5])
    >>> model.predict([[2.0, 2.0]]).round(3).tolist()
    [2.2]
    """


def over_views(pipeline: Pipeline, layout: Layout, is_number: bool) -> Pipeline:
    """Return a pipeline of one step that fits another one on the views and averages what it says."""
    kind = RegressorOverViews if is_number else ClassifierOverViews
    return Pipeline([("model", kind(pipeline, views=layout.views, widths=list(layout.widths)))])


def reduce_views(layout: Layout, how: str) -> ReduceViews:
    """Return the transformer that reduces rows of a layout to the ``"mean"`` or the ``"first"`` of their views."""
    return ReduceViews(how, views=layout.views, widths=list(layout.widths))
