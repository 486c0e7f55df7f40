import numpy as np
import pytest
from sklearn.metrics import get_scorer

from featurebank.topmodels.candidates import Candidate
from featurebank.topmodels.comparison import compared
from featurebank.topmodels.evaluation import SearchData
from featurebank.topmodels.scores import difference_interval
from featurebank.topmodels.search import TopModelSearchCV
from featurebank.topmodels.solvers.problem import Prediction
from featurebank.topmodels.uncertainty import Uncertainty

ROWS = np.arange(40)
FOLDS = [(np.delete(ROWS, np.s_[fold::4]), ROWS[fold::4]) for fold in range(4)]
Y = np.repeat([0, 1], 20)


def answers(wrong):
    """Return what a model says of each fold that is wrong on some rows."""
    said = np.where(np.isin(ROWS, wrong), 1 - Y, Y)
    return [Prediction(0, fold, np.arange(2), said[test]) for fold, (_, test) in enumerate(FOLDS)]


def told(first, second, clusters=None):
    """Return the comparison of two models that are wrong on some rows."""
    data = SearchData(np.zeros((40, 1)), Y, {}, FOLDS)
    models, said = [], {}
    for name, wrong in (("svm", first), ("mlp", second)):
        scores = [1 - np.isin(test, wrong).mean() for _, test in FOLDS]
        models.append(Candidate(("X",), name, {}, fold_scores=scores))
        said[id(models[-1])] = answers(wrong)
    return compared(Uncertainty(data, None, get_scorer("accuracy"), clusters), models[0], models, said)


def test_models_that_disagree_on_rows_differ_though_they_score_alike_in_every_fold():
    found = told([0, 1, 2, 3], [4, 5, 6, 7])  # each is wrong once in every fold
    gains = np.repeat([-1.0, 1.0, 0.0], [4, 4, 32])
    low, high, _ = difference_interval(0.0, gains / 40, folds=4)
    assert (found["difference"], found["told_apart"], found["same_answers"]) == (0, False, False)
    assert found["ci95"] == pytest.approx([low, high])
    assert found["sentence"] == f"svm on X and mlp on X cannot be told apart: +0.0 points (95 % {100 * low:.1f}..+17.7)"


def test_rows_that_belong_together_count_together():
    alone, together = told([0, 1, 2, 3], [4, 5, 6, 7]), told([0, 1, 2, 3], [4, 5, 6, 7], clusters=ROWS // 4)
    assert np.ptp(together["ci95"]) > 1.9 * np.ptp(alone["ci95"])


def test_the_same_answers_on_every_row_are_said_so():
    found = told([0, 9], [0, 9])
    assert found["ci95"] == [0, 0]
    assert found["sentence"] == "svm on X and mlp on X give the same answers on every row"


def test_a_search_compares_its_leaders_by_their_rows():
    random = np.random.default_rng(0)
    X, y = random.normal(size=(60, 4)), np.tile([0, 1], 30)
    X[:, 0] += 9 * y
    found = TopModelSearchCV({"ridge": {}, "lda": {}}).fit(X, y).comparison_
    assert found["sentence"] == "ridge on X and lda on X give the same answers on every row"
