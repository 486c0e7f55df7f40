import numpy as np
import pytest
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from featurebank.errors import TopModelError
from featurebank.topmodels import TOP_MODELS, cells, get_top_model


def facts(models):
    return [(model.name, params) for model, params in cells(models)]


def test_the_cards_three_models_are_there():
    assert {name: type(model.build(0)).__name__ for name, model in TOP_MODELS.items()} == {
        "logreg": "LogisticRegression",
        "svm": "SVC",
        "mlp": "MLPClassifier",
    }


@pytest.mark.parametrize("name", TOP_MODELS)
def test_a_top_model_standardises_then_estimates_with_the_seed_and_parameters(name):
    model = get_top_model(name)
    params = {key: values[0] for key, values in model.grid.items()}
    pipeline = model.pipeline(params, seed=3)
    assert type(pipeline) is Pipeline
    assert [type(step) for step in pipeline] == [StandardScaler, type(model.build(0))]
    assert pipeline[-1].get_params() == clone(model.build(3)).set_params(**params).get_params()
    assert pipeline[-1].random_state == 3


@pytest.mark.parametrize("name", TOP_MODELS)
def test_the_default_search_is_small(name):
    assert 1 <= len(cells(name)) <= 4


def test_an_unknown_parameter_is_an_error():
    with pytest.raises(TopModelError, match="svm has no parameter 'Cc'; see SVC"):
        get_top_model("svm").pipeline({"Cc": 1}, 0)


@pytest.mark.parametrize(("name", "hint"), [("logrec", "did you mean logreg"), ("forest", "one of logreg, svm, mlp")])
def test_an_unknown_name_is_an_error_with_a_hint(name, hint):
    with pytest.raises(TopModelError, match=hint):
        cells([name])


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
        cells([])
    with pytest.raises(TopModelError, match="the grid has no value for 'C'"):
        cells({"svm": {"C": []}})
