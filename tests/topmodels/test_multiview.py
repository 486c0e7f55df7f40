import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, r2_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import has_fit_parameter

from featurebank.errors import TopModelError
from featurebank.topmodels.models import get_top_model
from featurebank.topmodels.multiview import (
    ClassifierOverViews,
    Layout,
    ReduceViews,
    RegressorOverViews,
    averaged,
    per_view,
)
from featurebank.topmodels.search import TopModelSearchCV
from featurebank.topmodels.solvers.problem import Prediction

VIEWS = 3
CLASSIFIERS = {
    "centroid": {},
    "ridge": {"alpha": 10.0},
    "lda": {"shrinkage": 0.3},
    "logreg": {"C": 0.1},
    "linear-svm": {"C": 0.1},
    "knn": {"n_neighbors": 3},
    "svm": {"C": 3.0},
}
REGRESSORS = {"ridge": {"alpha": 10.0}, "knn": {"n_neighbors": 3}, "svr": {"C": 3.0}}
CASES = [("classification", name, k) for name in CLASSIFIERS for k in (2, 3)]
CASES += [("regression", name, 0) for name in REGRESSORS]


def make_views(k, spread=1.0, n=72, d=6):
    """Images (n, VIEWS, d) of k classes, or of a number where k is 0; the views differ by `spread`."""
    random = np.random.default_rng(k)
    y = np.arange(n) % k if k else random.normal(size=n)
    X = random.normal(size=(n, d)) + 0.8 * np.outer(y, np.arange(d) % 2)
    return (X[:, None] + spread * random.normal(size=(n, VIEWS, d))), y


def search_of(task, name, **options):
    cell = (REGRESSORS if task == "regression" else CLASSIFIERS)[name]
    return TopModelSearchCV({name: cell or None}, task=task, cv=3, refine=0, n_views=VIEWS, n_jobs=1, **options)


def plain_loop(task, name, X, y, train, test):
    """Fit scikit-learn's pipeline to a row for each view; average what it says over the views of a test image."""
    cell = (REGRESSORS if task == "regression" else CLASSIFIERS)[name]
    estimator = clone(get_top_model(name, task).estimator).set_params(**cell)
    if name == "knn":
        estimator.set_params(n_neighbors=VIEWS * cell["n_neighbors"])
    options = {}
    if has_fit_parameter(estimator, "sample_weight"):
        options["model__sample_weight"] = np.full(VIEWS * len(train), 1 / VIEWS)
    pipeline = Pipeline([("scale", StandardScaler()), ("model", estimator)])
    pipeline.fit(X[train].reshape(-1, X.shape[2]), np.repeat(y[train], VIEWS), **options)
    rows = X[test].reshape(-1, X.shape[2])
    if task == "regression":
        return pipeline.predict(rows).reshape(-1, VIEWS).mean(axis=1)
    if hasattr(pipeline, "predict_proba"):
        return pipeline.classes_[pipeline.predict_proba(rows).reshape(len(test), VIEWS, -1).mean(axis=1).argmax(axis=1)]
    decision = pipeline.decision_function(rows).reshape(len(test), VIEWS, -1).mean(axis=1)
    return pipeline.classes_[decision.argmax(axis=1) if decision.shape[1] > 1 else (decision[:, 0] > 0).astype(int)]


# --- exactness ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("task", "name", "k"), CASES)
def test_scores_are_those_of_a_plain_loop_over_views(task, name, k):
    X, y = make_views(k)
    search = search_of(task, name, views="all").fit(X.reshape(len(X), -1), y)
    metric = r2_score if task == "regression" else accuracy_score
    expected = [metric(y[test], plain_loop(task, name, X, y, train, test)) for train, test in search.folds_]
    np.testing.assert_allclose(search.best_candidate_.fold_scores, expected, atol=2e-3 if name == "svr" else 1e-6)
    everyone = np.arange(len(y))
    shipped = search.predict(X.reshape(len(X), -1))
    np.testing.assert_allclose(shipped, plain_loop(task, name, X, y, everyone, everyone), atol=1e-6)


@pytest.mark.parametrize(("task", "name", "k"), CASES)
def test_of_identical_views_all_equals_mean(task, name, k):
    X, y = make_views(k, spread=0)
    search = search_of(task, name, views=["mean", "first", "all"]).fit(X.reshape(len(X), -1), y)
    assert [each.views for each in search.candidates_] == ["mean", "first", "all"]
    mean, first, every = (each.fold_scores for each in search.candidates_)
    assert first == pytest.approx(mean, abs=1e-9)
    assert every == pytest.approx(mean, abs=2e-3 if name == "svr" else 1e-6)  # solved to a tolerance


def test_mean_and_first_are_those_of_the_reduced_rows():
    X, y = make_views(2)
    search = search_of("classification", "logreg", views=["mean", "first"]).fit(X.reshape(len(X), -1), y)
    for found, rows in zip(search.candidates_, (X.mean(axis=1), X[:, 0]), strict=True):
        plain = TopModelSearchCV({"logreg": {"C": 0.1}}, cv=3, refine=0).fit(rows, y)
        assert found.fold_scores == plain.best_candidate_.fold_scores


def test_no_view_of_a_test_image_is_learned_from():
    random = np.random.default_rng(0)
    X, y = np.repeat(random.normal(size=(300, 1, 5)), VIEWS, axis=1), random.integers(0, 2, 300)
    search = TopModelSearchCV({"knn": {"n_neighbors": 1}}, views="all", n_views=VIEWS).fit(X.reshape(300, -1), y)
    assert abs(search.best_score_ - 0.5) < 0.1  # a view of the same image would give its label away


def test_weights_of_images_are_shared_by_their_views():
    X, y = make_views(2)
    weight = np.random.default_rng(1).uniform(0.1, 5, len(y))
    search = search_of("classification", "logreg", views="all").fit(X.reshape(len(X), -1), y, sample_weight=weight)
    for (train, test), score in zip(search.folds_, search.best_candidate_.fold_scores, strict=True):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
        rows, shares = X[train].reshape(-1, X.shape[2]), np.repeat(weight[train] / VIEWS, VIEWS)
        model.fit(rows, np.repeat(y[train], VIEWS), logisticregression__sample_weight=shares)
        proba = model.predict_proba(X[test].reshape(-1, X.shape[2])).reshape(len(test), VIEWS, 2).mean(axis=1)
        assert score == pytest.approx(np.average(proba.argmax(axis=1) == y[test], weights=weight[test]))


@pytest.mark.parametrize("name", ["logreg", "ridge"])
def test_several_labels_are_averaged_label_by_label(name):
    X, first = make_views(2)
    y = np.column_stack([first, X[:, :, 0].mean(axis=1) > 0]).astype(int)
    search = search_of("multilabel", name, views=["mean", "all"]).fit(X.reshape(len(X), -1), y)
    estimator = clone(get_top_model(name).estimator).set_params(**CLASSIFIERS[name])
    for number, label in enumerate(y.T):
        one = ClassifierOverViews(Pipeline([("s", StandardScaler()), ("m", estimator)]), views=VIEWS)
        (train, test), *_ = search.folds_
        said = one.fit(X[train].reshape(len(train), -1), label[train]).predict(X[test].reshape(len(test), -1))
        found = search_of("multilabel", name, views="all").fit(X.reshape(len(X), -1), y).oof_
        np.testing.assert_array_equal(found.predicted[found.fold == 0][:, number], said)
    assert isinstance(
        search_of("multilabel", name, views="all").fit(X.reshape(len(X), -1), y).best_estimator_[-1],
        OneVsRestClassifier,
    )


def test_concatenated_sets_keep_the_views_of_an_image_together():
    X, y = make_views(2, d=5)
    wide = np.concatenate([X[:, :, :2].reshape(len(X), -1), X[:, :, 2:].reshape(len(X), -1)], axis=1)
    blocks = {"a": slice(0, 6), "b": slice(6, 15)}
    joined = search_of("classification", "logreg", views=["all", "mean"], blocks=blocks, features=[["a", "b"]])
    plain = search_of("classification", "logreg", views=["all", "mean"])
    joined.fit(wide, y)
    plain.fit(X.reshape(len(X), -1), y)
    for one, two in zip(joined.candidates_, plain.candidates_, strict=True):
        assert one.fold_scores == two.fold_scores
    assert joined.predict(wide).tolist() == plain.predict(X.reshape(len(X), -1)).tolist()


def test_a_set_of_one_view_beside_one_of_several_is_tried_once():
    X, y = make_views(2)
    wide = np.concatenate([X.reshape(len(X), -1), X[:, 0]], axis=1)
    options = {"blocks": {"a": slice(0, 18), "b": slice(18, 24)}, "n_views": {"a": VIEWS}}
    search = TopModelSearchCV({"ridge": {"alpha": [10.0]}}, views=["mean", "all"], **options).fit(wide, y)
    tried = [(each.features, each.views) for each in search.candidates_]
    assert tried == [(("a",), "mean"), (("a",), "all"), (("b",), "mean")]


EXTRA = [{"normalize": "l2"}, {"normalize": "center-l2"}, {"select": 0.5}, {"class_weight": "balanced"}]


@pytest.mark.parametrize("name", ["logreg", "svm", "ridge"])
@pytest.mark.parametrize("extra", EXTRA, ids=str)
def test_what_is_shipped_has_the_scores_of_the_search(extra, name):
    X, y = make_views(3)
    X, y = X[y + np.arange(72) % 5 > 0], y[y + np.arange(72) % 5 > 0]  # fewer of the first class
    search = search_of("classification", name, views="all", **extra).fit(X.reshape(len(X), -1), y)
    for (train, test), score in zip(search.folds_, search.best_candidate_.fold_scores, strict=True):
        fitted = clone(search.best_estimator_).fit(X[train].reshape(len(train), -1), y[train])
        assert fitted.score(X[test].reshape(len(test), -1), y[test]) == pytest.approx(score)


# --- parts -------------------------------------------------------------------------------------------------


def test_labels_on_which_all_views_agree_stand():
    """Votes of an SVM may be tied, and its label is then not the largest decision value."""
    decision = np.array([[0.1, 0.3, 0.2], [0.1, 0.3, 0.2], [0.0, 0.1, 0.9], [0.5, 0.1, 0.2]])
    found = averaged(Prediction(0, 0, np.arange(3), np.array([0, 0, 2, 0]), decision), 2)
    assert found.labels.tolist() == [0, 2]
    np.testing.assert_allclose(found.decision, [[0.1, 0.3, 0.2], [0.25, 0.1, 0.55]])


def test_one_view_is_left_as_it_is():
    found = Prediction(0, 0, np.arange(2), np.array([1]), np.array([-3.0]))
    assert averaged(found, 1) is found


def test_probabilities_come_before_decision_values():
    proba = np.array([[0.9, 0.1], [0.4, 0.6]])
    found = averaged(Prediction(0, 0, np.array(["a", "b"]), np.array(["a", "b"]), np.array([-9.0, 50.0]), proba), 2)
    assert (found.labels.tolist(), found.decision) == (["a"], None)
    np.testing.assert_allclose(found.proba, [[0.65, 0.35]])


def test_an_estimator_over_views_is_a_scikit_learn_estimator():
    X, y = make_views(2)
    rows = X.reshape(len(X), -1)
    model = ClassifierOverViews(make_pipeline(SVC()), views=VIEWS).fit(rows, y)
    assert clone(model).get_params()["views"] == VIEWS
    assert not hasattr(model, "predict_proba")
    assert model.decision_function(rows).shape == (len(X),)
    assert hasattr(ClassifierOverViews(make_pipeline(LogisticRegression())).fit(rows, y), "predict_proba")
    number = RegressorOverViews(make_pipeline(Ridge()), views=VIEWS).fit(rows, X[:, 0, 0])
    assert number.score(rows, X[:, 0, 0]) > 0
    with pytest.raises(ValueError, match="X has 6 features, but ClassifierOverViews is expecting 18"):
        model.predict(X[:, 0])


def test_columns_that_are_no_whole_views_are_an_error():
    with pytest.raises(TopModelError, match="10 columns for 3 views of 3; expected whole views"):
        ReduceViews(views=3).fit(np.zeros((4, 10)))
    with pytest.raises(TopModelError, match="3 views in the 10 columns of 'X'; expected whole views"):
        TopModelSearchCV("ridge", n_views=3).fit(np.ones((10, 10)), np.arange(10) % 2)
    assert Layout(2, (1,)).rows_of(np.array([0, 2])).tolist() == [0, 1, 4, 5]
    assert per_view({"n_neighbors": 2}, get_top_model("knn").estimator, 3) == {"n_neighbors": 6}


class Mute(ClassifierMixin, BaseEstimator):
    """Knows nothing but labels."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        return self.classes_[np.arange(len(X)) % len(self.classes_)]


def test_what_cannot_be_averaged_or_concatenated_is_an_error():
    X, y = make_views(2)
    rows = X.reshape(len(X), -1)
    with pytest.raises(TopModelError, match="neither probabilities nor decision values to average"):
        TopModelSearchCV([Mute()], views="all", n_views=VIEWS).fit(rows, y)
    with pytest.raises(TopModelError, match="no views 'al'; did you mean all"):
        TopModelSearchCV("ridge", views="al", n_views=VIEWS).fit(rows, y)
    with pytest.raises(TopModelError, match=r"a \+ b have 2, 1 views; expected as many"):
        TopModelSearchCV(
            "ridge", blocks={"a": slice(0, 4), "b": slice(4, 6)}, features=[["a", "b"]], n_views={"a": 2}
        ).fit(rows, y)
    several = np.column_stack([y, 1 - y])
    with pytest.raises(TopModelError, match="dimensions selected for several labels from all views"):
        TopModelSearchCV("ridge", task="multilabel", views="all", select=0.5, n_views=VIEWS).fit(rows, several)


@parametrize_with_checks(
    [
        ReduceViews(),
        ClassifierOverViews(make_pipeline(LogisticRegression())),
        RegressorOverViews(make_pipeline(Ridge())),
    ]
)
def test_the_estimators_follow_scikit_learns_rules(estimator, check):
    check(estimator)
