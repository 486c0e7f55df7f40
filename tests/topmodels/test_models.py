import numpy as np
import pytest
from made_bank import make_bank
from sklearn.base import clone
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from featurebank import Predictor, fit
from featurebank.errors import TopModelError
from featurebank.topmodels.models import CLASSIFIERS, KNOWN, REGRESSORS, get_top_model, parse_models
from featurebank.topmodels.scaling import FlooredScaler
from featurebank.topmodels.transforms import normalization


def uneven(classes):
    """Rows of classes of unequal size that overlap, in columns whose spread within the classes differs greatly."""
    random, y = np.random.default_rng(0), np.repeat(np.arange(classes), [90, 40, 20][:classes])
    X = (
        random.normal(size=(len(y), 12)) * np.r_[np.full(6, 1.0), np.full(6, 5.0)]
        + np.eye(12)[y]
        + 4 * np.eye(12)[y + 7]
    )
    return X.astype(np.float32), np.array(list("abc"))[y]


ALL = [(task, name) for task in ("classification", "regression") for name in KNOWN[task]]


def facts(models):
    return [(model.name, params) for model in parse_models(models) for params in model.cells()]


def test_every_promised_model_is_there():
    assert {name: type(model.estimator).__name__ for name, model in CLASSIFIERS.items()} == {
        "logreg": "LogisticRegression",
        "svm": "SVC",
        "linear-svm": "SVC",
        "mlp": "MLPClassifier",
        "ridge": "RidgeClassifier",
        "lda": "LinearDiscriminantAnalysis",
        "knn": "KNeighborsClassifier",
        "centroid": "LikeliestCentroid",
    }
    assert {name: type(model.estimator).__name__ for name, model in REGRESSORS.items()} == {
        "ridge": "Ridge",
        "svr": "SVR",
        "mlp": "MLPRegressor",
        "knn": "KNeighborsRegressor",
    }
    assert CLASSIFIERS["linear-svm"].estimator.kernel == "linear"


@pytest.mark.parametrize(("task", "name"), ALL)
def test_a_top_model_standardises_then_estimates_with_the_seed_and_parameters(task, name):
    model = get_top_model(name, task)
    params = {key: values[0] for key, values in model.grid.items()}
    pipeline = model.pipeline(params, 3, normalization("standardize"))
    assert type(pipeline) is Pipeline
    assert [type(step) for step in pipeline] == [FlooredScaler, type(model.estimator)]
    seed = {"random_state": 3} if "random_state" in model.estimator.get_params() else {}
    assert pipeline[-1].get_params() == clone(model.estimator).set_params(**params, **seed).get_params()


@pytest.mark.parametrize(("task", "name"), ALL)
def test_the_default_search_is_small(task, name):
    assert 1 <= len(get_top_model(name, task).cells()) <= 7


def test_weights_go_only_where_they_are_taken():
    takers = [name for name, model in CLASSIFIERS.items() if model.takes("sample_weight")]
    assert takers == ["ridge", "logreg", "linear-svm", "svm", "mlp"]
    weighted = get_top_model("svm").pipeline({}, 0, class_weight="balanced")[-1]
    assert weighted.class_weight == "balanced"
    assert get_top_model("mlp").takes("class_weight")


def test_your_own_estimator_comes_by_import_path_as_an_object_or_with_a_grid():
    path = "sklearn.ensemble.ExtraTreesClassifier"
    assert type(get_top_model(path).estimator) is ExtraTreesClassifier
    assert [model.name for model in parse_models(["svm", ExtraTreesClassifier()])] == ["svm", "ExtraTreesClassifier"]
    (mine,) = parse_models({"trees": (ExtraTreesClassifier(), {"n_estimators": [5, 10]})})
    assert (mine.name, mine.cells()) == ("trees", [{"n_estimators": 5}, {"n_estimators": 10}])
    assert mine.pipeline({"n_estimators": 5}, 4)[-1].random_state == 4


@pytest.mark.parametrize(
    ("models", "task", "message"),
    [
        ("svr", "classification", r"no top model 'svr' for classification \(it is for regression\)"),
        ("sklearn.ensemble.Nothing", "classification", "no estimator at 'sklearn.ensemble.Nothing'"),
        ("sklearn.ensemble.VotingClassifier", "classification", "cannot be made without arguments"),
        ("sklearn.ensemble.ExtraTreesRegressor", "classification", "is no estimator for classification"),
        ({"x": (StandardScaler(), {})}, "classification", "x is StandardScaler; expected a scikit-learn classifier"),
    ],
)
def test_what_is_no_estimator_for_the_task_is_an_error(models, task, message):
    with pytest.raises(TopModelError, match=message):
        parse_models(models, task)


def test_an_unknown_parameter_is_an_error():
    with pytest.raises(TopModelError, match="svm has no parameter 'Cc'; see SVC"):
        get_top_model("svm").pipeline({"Cc": 1}, 0)


@pytest.mark.parametrize(
    ("name", "hint"), [("logrec", "did you mean logreg"), ("forest", "expected one of centroid, ridge")]
)
def test_an_unknown_name_is_an_error_with_a_hint(name, hint):
    with pytest.raises(TopModelError, match=hint):
        parse_models([name])


def test_a_mapping_gives_the_grid_and_cells_are_its_product():
    assert facts({"svm": {"C": [1, 10], "gamma": [0.1, 0.2]}}) == [
        ("svm", {"C": c, "gamma": gamma}) for c in (1, 10) for gamma in (0.1, 0.2)
    ]


def test_values_may_be_single_or_arrays_and_none_means_the_default_grid():
    assert facts({"svm": {"C": 3.0, "kernel": "linear"}}) == [("svm", {"C": 3.0, "kernel": "linear"})]
    assert facts({"svm": {"C": np.array([1.0, 2.0])}}) == [("svm", {"C": 1.0}), ("svm", {"C": 2.0})]
    assert facts({"svm": None}) == facts("svm") == facts(["svm"])


def test_several_names_keep_their_order():
    assert [name for name, _ in facts({"svm": {"C": 1}, "logreg": {"C": 1}})] == ["svm", "logreg"]


def test_nothing_to_try_is_an_error():
    with pytest.raises(TopModelError, match="no top model is asked for"):
        parse_models([])
    with pytest.raises(TopModelError, match="the grid has no value for 'C'"):
        parse_models({"svm": {"C": []}})


# The label of a support vector machine of several classes is what most pairs of them vote for.
UNVOTED = [name for name, model in KNOWN["classification"].items() if type(model.estimator).__name__ != "SVC"]


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", UNVOTED)
@pytest.mark.filterwarnings("ignore:Stochastic Optimizer", "ignore:Maximum number of iteration")
def test_the_label_is_the_most_probable_class(tmp_path, name, classes):
    X, y = uneven(classes)
    bank = make_bank(tmp_path / "a.bank", X, label=y)
    predictor = fit(bank, models=name, folds=3).predictor
    predictor.save(tmp_path / "a.featurebank")
    for each in (predictor, Predictor.load(tmp_path / "a.featurebank")):
        table = each.predict_bank(bank)
        proba = table[[f"proba_{label}" for label in each.classes]]
        assert len(set(table["label"])) == classes
        assert table["probability"].tolist() == proba.max(axis=1).tolist()
