"""Predictors that another scikit-learn wrote."""

import json

import pytest
from predictor_files import members_of, with_facts
from predictor_maker import make_predictor, probabilities, rows
from sklearn import __version__ as installed
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline
from sklearn.svm import SVC

from featurebank.errors import PredictorError
from featurebank.predictor import compatibility
from featurebank.predictor.compatibility import suit, try_out
from featurebank.predictor.predictor import Predictor


class Older(BaseEstimator):
    """As an older scikit-learn knows an estimator whose parameter a newer one deprecates."""

    def __init__(self, probability=False, tol=1e-3):
        self.probability = probability
        self.tol = tol


def fitted_svc():
    X, y = rows()
    return Pipeline([("model", SVC(C=3.0))]).fit(X, y)


def test_a_deprecated_parameter_gets_the_default_of_the_version_that_reads():
    found = suit(Older("deprecated", 0.5))
    assert (found.probability, found.tol) == (False, 0.5)


def test_an_svm_of_before_1_9_predicts_as_it_did(tmp_path):
    model = fitted_svc()
    whole = make_predictor(model=model)
    expected = probabilities(whole)
    del model.steps[0][1]._effective_probability
    whole.save(tmp_path / "old.featurebank")
    old = with_facts(tmp_path / "old.featurebank", tmp_path / "p.featurebank", lambda facts: facts.pop("scikit_learn"))
    assert probabilities(Predictor.load(old)) == expected


def test_the_file_says_which_scikit_learn_wrote_it(tmp_path):
    make_predictor().save(tmp_path / "p.featurebank")
    assert json.loads(members_of(tmp_path / "p.featurebank")["predictor.json"])["scikit_learn"] == installed


def test_a_model_that_does_not_work_here_is_one_line_that_names_both_versions(tmp_path, monkeypatch):
    make_predictor(model=fitted_svc()).save(tmp_path / "p.featurebank")
    other = with_facts(
        tmp_path / "p.featurebank", tmp_path / "o.featurebank", lambda facts: facts.update(scikit_learn="9.9.0")
    )
    assert probabilities(Predictor.load(other))  # arrays that fit are used

    def broken(model):
        del model.steps[0][1]._n_support
        try_out(model)

    monkeypatch.setattr("featurebank.predictor.file.try_out", broken)
    with pytest.raises(PredictorError, match=rf"written by scikit-learn 9\.9\.0 and cannot be read under {installed}"):
        Predictor.load(other)


def test_what_this_version_wrote_is_not_tried_out(tmp_path, monkeypatch):
    make_predictor().save(tmp_path / "p.featurebank")
    monkeypatch.setattr("featurebank.predictor.file.try_out", lambda model: pytest.fail("tried out"))
    Predictor.load(tmp_path / "p.featurebank")
    assert installed == compatibility.INSTALLED
