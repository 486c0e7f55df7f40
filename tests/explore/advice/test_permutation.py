from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from featurebank.explore.advice import probe
from featurebank.explore.advice.probe import SHUFFLES, permutation_test
from featurebank.fitting.training_data import TrainingData
from featurebank.topmodels.folds import Folds, make_folds


def make_rows(n, k, signal, seed=0, task="classification", groups=None):
    random = np.random.default_rng(seed)
    y = random.integers(0, k, n)
    X = random.normal(size=(n, 12)).astype(np.float32)
    X[:, 0] += signal * y
    numbers = y + 0.5 * random.normal(size=n)
    blocks = {"a": slice(0, 6), "b": slice(6, 12)}
    return TrainingData(None, X, blocks, y if task == "classification" else numbers, task, None, None, groups, [])


FEATURES = [("a",), ("b",), ("a", "b")]


@pytest.mark.parametrize(("k", "task"), [(2, "classification"), (12, "classification"), (3, "regression")])
def test_what_the_features_carry_beats_every_shuffle(k, task):
    assert permutation_test(make_rows(150, k, 2.0, task=task), FEATURES) == 1 / (SHUFFLES + 1)


def test_noise_is_beaten_as_often_as_chance_has_it(monkeypatch):
    monkeypatch.setattr(probe, "SHUFFLES", 19)
    found = [permutation_test(make_rows(40, 2, 0.0, seed), FEATURES, folds=3, random_state=seed) for seed in range(60)]
    assert 0.4 < np.mean(found) < 0.65
    assert np.mean(np.array(found) <= 0.1) < 0.25  # 0.1 at exactness


def test_a_frequent_class_is_no_signal_and_hides_none():
    rows = make_rows(300, 2, 0.0)
    rare = np.random.default_rng(5).random(300) < 0.06
    hidden = replace(rows, X=rows.X + 2.0 * rare[:, None], y=rare.astype(int))
    assert permutation_test(hidden, FEATURES) < 0.01
    assert permutation_test(replace(rows, y=rare.astype(int)), FEATURES) > 0.02


def test_rows_that_belong_together_are_not_shuffled_one_by_one():
    assert permutation_test(make_rows(40, 2, 1.0, groups=np.arange(40) // 2), FEATURES) is None


def test_the_scores_are_those_of_plain_ridges():
    rows = make_rows(40, 2, 1.0)
    targets = probe._shuffled(probe._columns(rows), 0)[:, :2]
    folds = make_folds(Folds("plain", 3), rows.X, rows.y, None, 0, "regression")
    found = probe._scores(rows, ("a",), targets, folds, 1)
    train, test = folds[1]
    scaler = StandardScaler().fit(rows.X[train, :6])
    model = Ridge(alpha=100.0).fit(scaler.transform(rows.X[train, :6]), targets[train, :, 0])
    wrong = ((targets[test, :, 0] - model.predict(scaler.transform(rows.X[test, :6]))) ** 2).sum(axis=0)
    whole = ((targets[test, :, 0] - targets[train, :, 0].mean(axis=0)) ** 2).sum(axis=0)
    assert found[2, 1] == pytest.approx(1 - wrong / whole, abs=1e-5)
