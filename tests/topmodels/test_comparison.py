from itertools import product

import numpy as np
import pytest
from sklearn.metrics import get_scorer

from featurebank.topmodels.candidates import Candidate
from featurebank.topmodels.comparison import compared, selection_bias
from featurebank.topmodels.evaluation import SearchData
from featurebank.topmodels.formatting import luck_text
from featurebank.topmodels.scores import difference_interval, score_interval
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


def told(*wrong_rows, clusters=None):
    """Return the comparison of the first of some models, each of which is wrong on some rows."""
    data = SearchData(np.zeros((40, 1)), Y, {}, FOLDS)
    models, said = [], {}
    for name, wrong in zip(("svm", "mlp", "knn"), wrong_rows, strict=False):
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


def test_models_that_are_right_on_the_same_rows_and_wrong_in_other_ways_differ_by_as_much_as_the_rows_allow():
    data, scores = SearchData(np.zeros((40, 1)), Y, {}, FOLDS), [0.9] * 4
    first, second = (Candidate(("X",), name, {}, fold_scores=scores) for name in ("svm", "mlp"))
    other = [
        each._replace(labels=np.where(Y[FOLDS[each.fold][1]] == each.labels, each.labels, 7)) for each in answers([0])
    ]
    said = {id(first): answers([0]), id(second): other}
    found = compared(Uncertainty(data, None, get_scorer("accuracy"), None), first, [first, second], said)
    assert found["ci95"] == pytest.approx([-1.96 / 42, 1.96 / 42], abs=1e-4)
    assert "cannot be told apart" in found["sentence"]


def test_all_that_give_the_same_answers_are_counted():
    found = told([0, 9], [0, 9], [0, 9])["sentence"]
    assert found == "svm on X, mlp on X and 1 other give the same answers on every row"
    assert told([0, 9], [0, 9], [1, 9])["sentence"] == "svm on X and mlp on X give the same answers on every row"


def test_a_search_compares_its_leaders_by_their_rows():
    random = np.random.default_rng(0)
    X, y = random.normal(size=(60, 4)), np.tile([0, 1], 30)
    X[:, 0] += 9 * y
    found = TopModelSearchCV({"ridge": {}, "lda": {}}).fit(X, y).comparison_
    assert found["sentence"] == "ridge on X and lda on X give the same answers on every row"


def searched(seed, rows=200, blocks=20, width=8):
    """Return candidates of ridge classifiers on random labels, each with its scores, and their right rows."""
    random, found = np.random.default_rng(seed), []
    X, signs = random.normal(size=(rows, blocks, width)), 2.0 * (random.permutation(rows) % 2) - 1
    folds = np.array_split(random.permutation(rows), 5)
    for block, alpha in product(range(blocks), (1, 30, 1000)):
        right = np.empty(rows)
        for test in folds:
            Z, z = np.delete(X[:, block], test, axis=0), np.delete(signs, test)
            weights = np.linalg.solve(Z.T @ Z + alpha * np.eye(width), Z.T @ z)
            right[test] = np.sign(X[test, block] @ weights) == signs[test]
        scores = [right[test].mean() for test in folds]
        found.append((Candidate((f"b{block}",), "ridge", {"alpha": alpha}, fold_scores=scores), right))
    return found


def test_what_luck_adds_to_the_best_of_many_on_random_labels():
    means, biases, held = [], [], []
    for seed in range(20):
        found = searched(seed)
        best, right = max(found, key=lambda each: each[0].mean)
        means.append(best.mean)
        biases.append(selection_bias([each for each, _ in found], best))
        low, high, _ = score_interval(best.mean, (right - best.mean) / 200, "accuracy", rows=200, folds=5)
        held.append([low <= 0.5 <= high, low - biases[-1] <= 0.5 <= high - biases[-1]])
    print(np.mean(means), np.mean(biases), np.mean(held, axis=0))
    assert np.mean(means) > 0.55  # chance is 0.5
    assert abs(np.mean(means) - np.mean(biases) - 0.5) < 0.03
    assert np.mean(held, axis=0)[1] >= 0.95 > np.mean(held, axis=0)[0]


def test_the_bias_of_selection_by_hand():
    scores = {"svm": [0.9, 0.7, 0.8], "mlp": [0.6, 0.9, 0.8], "lda": [0.8, 0.6, 0.85]}
    candidates = [Candidate(("X",), name, {}, fold_scores=each) for name, each in scores.items()]
    assert selection_bias(candidates, candidates[0]) == pytest.approx((0 + 0.2 + 0.05) / 3)
    assert selection_bias(candidates[:1], candidates[0]) is None
    assert luck_text({"scoring": "r2", "selection": {"candidates": 3, "bias": 0.0833}}) == (
        "Chosen among 3: up to about 0.083 of its score may be luck; --nested measures it."
    )
    assert not luck_text({"scoring": "accuracy", "selection": {"candidates": 3, "bias": 0.0001}})
