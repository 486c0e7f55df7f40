import sys

import numpy as np
import pytest
import sklearn
from domain_maker import two_domains
from sklearn import config_context
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from featurebank.errors import NotInstalledError, TopModelError
from featurebank.fitting.adaptation.adapters import (
    ADAPTATIONS,
    PAIRS,
    Adaptation,
    AdaptedModel,
    candidates,
    choose_adaptations,
    import_skada,
)
from featurebank.topmodels.models import parse_models
from featurebank.topmodels.transforms import normalization

CLASSES = np.array(["cat", "dog"])
SHIFTS = {
    "none": lambda X: X,
    "translation": lambda X: X + np.array([4.0, -3.0, 2.0, 0.0]),
    "scales": lambda X: X * np.array([0.1, 3.0, 1.0, 0.5]) + np.array([4.0, 0.0, 0.0, 0.0]),
}


def fitted(name, X, y, is_source, model=None, before="standardize"):
    params = {"n_components": 4} if name == "subspace" else {}
    model = model or LogisticRegression()
    adapted = AdaptedModel(Adaptation(name, params), normalization(before), model, CLASSES)
    return adapted.fit(X, np.where(is_source, y, -1), np.where(is_source, 1, -2))


@pytest.mark.parametrize(
    ("name", "shift", "recovers"),
    [
        ("none", "translation", False),
        ("coral", "translation", True),
        ("subspace", "translation", True),
        ("ot", "translation", True),
        ("none", "scales", False),
        ("coral", "scales", True),
        ("ot", "scales", True),
    ],
)
def test_an_adaptation_recovers_what_it_undoes(name, shift, recovers):
    X, y, is_source = two_domains(300, 300, move=SHIFTS[shift])
    fresh, truth, _ = two_domains(2, 400, seed=1, move=SHIFTS[shift])
    said = fitted(name, X, y, is_source).pipeline_.predict(fresh[2:])
    accuracy = (said == CLASSES[truth[2:]]).mean()
    assert (accuracy > 0.98) == recovers
    assert recovers or accuracy < 0.6


@pytest.mark.parametrize("name", ADAPTATIONS[1:])
def test_the_plain_pipeline_says_what_skadas_pipeline_says(name):
    skada = import_skada()
    X, y, is_source = two_domains(80, 60, move=SHIFTS["scales"])
    fresh = two_domains(2, 50, seed=1, move=SHIFTS["scales"])[0][2:]
    adapter = {
        "coral": skada.CORALAdapter(),
        "subspace": skada.SubspaceAlignmentAdapter(4, random_state=0),
        "reweight": skada.KMMReweightAdapter(),
        "ot": skada.OTMappingAdapter(max_iter=10_000_000),
    }[name]
    with config_context(enable_metadata_routing=True):
        model = LogisticRegression(tol=1e-12)
        model = model.set_fit_request(sample_weight=True) if name == "reweight" else model
        theirs = skada.make_da_pipeline(StandardScaler(), adapter, model)
        theirs.fit(X, np.where(is_source, y, -1), sample_domain=np.where(is_source, 1, -2))
        expected = theirs.predict_proba(fresh)
    ours = fitted(name, X, y, is_source, LogisticRegression(tol=1e-12))
    np.testing.assert_allclose(ours.pipeline_.predict_proba(fresh), expected, atol=1e-6)
    np.testing.assert_array_equal(ours.predict(fresh), expected.argmax(axis=1))


def test_without_adaptation_it_is_the_plain_fit_of_the_source():
    X, y, is_source = two_domains(80, 60, move=SHIFTS["scales"])
    plain = sklearn.pipeline.make_pipeline(StandardScaler(), LogisticRegression()).fit(X[is_source], y[is_source])
    ours = fitted("none", X, y, is_source)
    np.testing.assert_allclose(ours.pipeline_.predict_proba(X), plain.predict_proba(X), atol=1e-12)


def test_reweighting_learns_for_where_the_target_is():
    # the classes change at -2 and at 1, so that a line fitted to all of the source is wrong where the target is
    random = np.random.default_rng(0)
    Xs, Xt = random.uniform(-5, 5, (400, 1)), random.normal(1, 0.6, (200, 1))
    X, is_source = np.concatenate([Xs, Xt]), np.arange(600) < 400
    y = ((X[:, 0] > 1) | (X[:, 0] < -2)).astype(int)
    scores = {
        name: fitted(name, X, y, is_source).pipeline_.score(Xt, CLASSES[y[400:]]) for name in ("none", "reweight")
    }
    assert scores["none"] < 0.6
    assert scores["reweight"] > 0.9
    weight = fitted("reweight", X, y, is_source).weight_
    assert abs(np.average(Xs[:, 0], weights=weight[:400]) - 1) < 0.2  # the weighted source lies where the target does


@pytest.mark.parametrize("name", ["none", "subspace", "reweight"])
def test_labelled_rows_of_the_target_are_learned_from(name):
    # in the target the classes lie apart on an axis that says nothing in the source
    X, y, is_source = two_domains(200, 200)
    X[~is_source] = X[~is_source][:, [1, 0, 2, 3]]
    few = ~is_source & (np.arange(400) % 10 < 2)
    model = fitted(name, X, y, is_source)
    assert (model.predict(X[~is_source]) == y[~is_source]).mean() < 0.75
    model.fit(X, np.where(is_source | few, y, -1), np.where(is_source, 1, -2))
    assert (model.predict(X[~is_source & ~few]) == y[~is_source & ~few]).mean() > 0.8


@pytest.mark.parametrize("before", ["none", "l2", "center-l2", "signed-sqrt"])
def test_every_normalisation_goes_before(before):
    X, y, is_source = two_domains(60, 60)
    ours = fitted("coral", X, y, is_source, before=before)
    assert [name for name, _ in ours.pipeline_.steps] == [
        *(name for name, _ in normalization(before)),
        "align",
        "center",
        "model",
    ]
    assert ours.pipeline_.predict(X).shape == (120,)


def test_importing_skada_leaves_the_configuration_alone():
    before = sklearn.get_config()["enable_metadata_routing"]
    import_skada()
    assert sklearn.get_config()["enable_metadata_routing"] is before is False


def test_without_skada_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "skada", None)
    with pytest.raises(NotInstalledError, match=r"pip install 'featurebank\[adapt\]'") as caught:
        choose_adaptations("coral", parse_models("logreg"), 100, 100)
    assert "\n" not in str(caught.value)
    assert choose_adaptations("none", parse_models("logreg"), 100, 100) == (["none"], [])


def test_what_was_named_and_cannot_be_had_is_an_error():
    assert choose_adaptations(None, parse_models("logreg"), 100, 100) == (list(ADAPTATIONS), [])
    with pytest.raises(TopModelError, match="no adaptation 'corral'; did you mean coral"):
        choose_adaptations(["corral"], parse_models("logreg"), 100, 100)
    with pytest.raises(TopModelError, match="reweight cannot be had: knn takes no sample weights; choose another"):
        choose_adaptations(["reweight"], parse_models(["logreg", "knn"]), 100, 100)
    names, notes = choose_adaptations(None, parse_models("knn"), 100, 100)
    assert names == ["none", "coral", "subspace", "ot"]
    assert notes == ["reweight is left out: knn takes no sample weights; choose another model or adaptation"]


def test_methods_that_need_all_pairs_have_a_limit():
    side = int(PAIRS**0.5) + 1
    with pytest.raises(TopModelError, match=r"ot cannot be had: it needs a matrix of 2\d,\d{3},\d{3} pairs"):
        choose_adaptations("ot", parse_models("logreg"), side, side)
    names, notes = choose_adaptations(None, parse_models("logreg"), side, 100)
    assert names == ["none", "coral", "subspace", "ot"]
    assert len(notes) == 1


def test_subspaces_are_no_larger_than_the_data():
    assert [each.params.get("n_components") for each in candidates(["subspace"], 500, 400, 64)] == [None, 8, 32, 64]
    assert [each.params.get("n_components") for each in candidates(["subspace"], 500, 4, 64)] == [None, 4]
    assert [each.name for each in candidates(["ot", "none", "coral"], 9, 9, 9)] == ["none", "coral", "ot"]
