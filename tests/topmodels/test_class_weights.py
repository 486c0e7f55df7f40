import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from featurebank import TopModelSearchCV
from featurebank.errors import TopModelError
from featurebank.topmodels.class_weights import parse_class_weight, resolve_class_weight, under_looked_up_names

NAMES = [([0, 1], "0=3,1=2"), ([0.0, 1.0], "0=3,1=2"), ([0.0, 1.0], "0.0=3,1.0=2"), (["0", "1"], "0=3,1=2")]
NAMES += [(["000", "007"], "000=3,007=2"), ([False, True], "False=3,True=2"), (["a", "b"], "a=3,b=2")]


@pytest.mark.parametrize(("names", "text"), NAMES)
def test_weights_by_name_reach_classes_of_any_kind(names, text):
    classes = np.array(names)
    found = resolve_class_weight(parse_class_weight(text), classes)
    assert found == dict(zip(classes.tolist(), [3.0, 2.0], strict=True))
    assert resolve_class_weight(found, classes) == found
    weights = compute_class_weight(under_looked_up_names(found), classes=classes, y=classes)
    assert weights.tolist() == [3.0, 2.0]


@pytest.mark.parametrize(("names", "given"), [((0, 1), {"0": 9.0, "1": 1.0}), (("007", "x"), {"007": 9.0})])
def test_a_search_weighs_classes_of_any_name_alike(names, given):
    number = np.arange(60) % 2
    X = np.random.default_rng(0).normal(size=(60, 4)) + number[:, None]
    model = {"logreg": {"C": [1.0]}}
    found = TopModelSearchCV(model, cv=2, class_weight=given).fit(X, np.array(names)[number])
    expected = TopModelSearchCV(model, cv=2, class_weight={"a": 9.0}).fit(X, np.array(["a", "b"])[number])
    assert np.array_equal(found.best_estimator_[-1].coef_, expected.best_estimator_[-1].coef_)


def test_two_classes_of_one_number_cannot_weigh_differently():
    assert under_looked_up_names({"7": 2.0, "007": 2.0}) == {7: 2.0}
    with pytest.raises(TopModelError, match="the class '007' and another of the same number weigh differently"):
        under_looked_up_names({"7": 2.0, "007": 1.0})


def test_an_unknown_class_is_named():
    with pytest.raises(TopModelError, match="a weight for the class '2'; expected one of 0, 1"):
        resolve_class_weight({"2": 1.0}, [0, 1])


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf")])
def test_weights_that_are_not_above_0_are_refused(weight):
    with pytest.raises(TopModelError, match="for the class 'a'; expected numbers above 0"):
        under_looked_up_names({"b": 1.0, "a": weight})
