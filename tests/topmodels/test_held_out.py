import math

import numpy as np
import pytest
from sklearn import metrics

from featurebank.topmodels.held_out import classification_scores
from featurebank.topmodels.scores import wilson_interval

CLASSES = np.array(["a", "b", "c"])


@pytest.fixture
def predictions():
    """150 rows of three classes, most predicted right: y, predicted, probabilities, weights."""
    random = np.random.default_rng(0)
    y = random.integers(0, 3, 150)
    probabilities = random.dirichlet([1, 1, 1], 150) + 0.4 * np.eye(3)[y]
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return CLASSES[y], CLASSES[probabilities.argmax(axis=1)], probabilities, random.random(150)


@pytest.mark.parametrize("weighted", [False, True])
def test_scores_equal_those_of_scikit_learn(predictions, weighted):
    y, predicted, probabilities, weight = predictions
    weight = weight if weighted else None
    found = classification_scores(y, predicted, probabilities, CLASSES, weight)
    expected = {
        "accuracy": metrics.accuracy_score(y, predicted, sample_weight=weight),
        "balanced_accuracy": metrics.balanced_accuracy_score(y, predicted, sample_weight=weight),
        "macro_f1": metrics.f1_score(y, predicted, average="macro", sample_weight=weight),
        "log_loss": metrics.log_loss(y, probabilities, sample_weight=weight),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    np.testing.assert_allclose(found["confusion"], metrics.confusion_matrix(y, predicted, sample_weight=weight))
    assert (found["n_samples"], found["classes"]) == (150, ["a", "b", "c"])


@pytest.mark.parametrize("weighted", [False, True])
def test_intervals_cover_the_point(predictions, weighted):
    y, predicted, probabilities, weight = predictions
    found = classification_scores(y, predicted, probabilities, CLASSES, weight if weighted else None)
    for name, (low, high) in found["intervals"].items():
        assert low < found[name] < high
        assert high - low < 0.5
    assert found["ci95"] == found["intervals"]["accuracy"]


def test_without_weights_the_accuracy_has_wilsons_interval(predictions):
    y, predicted, probabilities, _ = predictions
    right = int((y == predicted).sum())
    assert classification_scores(y, predicted, probabilities, CLASSES)["ci95"] == list(wilson_interval(right, 150))
    weighted = classification_scores(y, predicted, probabilities, CLASSES, np.ones(150))
    assert weighted["ci95"] == pytest.approx(wilson_interval(right, 150), abs=0.02)


def test_intervals_repeat_with_their_seed(predictions):
    y, predicted, probabilities, _ = predictions
    first, again, other = (
        classification_scores(y, predicted, probabilities, CLASSES, random_state=seed) for seed in (0, 0, 1)
    )
    assert first == again
    assert first["intervals"]["log_loss"] != other["intervals"]["log_loss"]


def test_a_class_that_does_not_occur_does_not_count_in_the_means():
    y, predicted = np.array(["a", "a", "b", "b"]), np.array(["a", "c", "b", "b"])
    found = classification_scores(y, predicted, np.full((4, 3), 1 / 3), CLASSES)
    assert found["balanced_accuracy"] == pytest.approx(0.75)
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(y, predicted, labels=["a", "b"], average="macro"))
    assert found["confusion"] == [[1, 0, 1], [0, 2, 0], [0, 0, 0]]


def test_a_class_given_no_chance_costs_much_but_not_infinitely():
    found = classification_scores(np.array(["a"] * 4), np.array(["b"] * 4), np.tile([0.0, 1.0, 0.0], (4, 1)), CLASSES)
    assert found["accuracy"] == 0
    assert found["log_loss"] == pytest.approx(-math.log(np.finfo(float).eps))


def test_without_probabilities_there_is_no_log_loss(predictions):
    y, predicted, probabilities, *_ = predictions
    found, bare = (classification_scores(y, predicted, each, CLASSES) for each in (probabilities, None))
    del found["log_loss"], found["intervals"]["log_loss"]
    assert bare == found


def test_a_perfect_score_with_weights_is_not_sure():
    y = np.array(["a", "b"] * 10)
    found = classification_scores(y, y, None, CLASSES[:2], np.full(20, 3.0))
    assert found["ci95"] == pytest.approx([0.8316, 1.0], abs=1e-4)
    rare = np.array(["a"] * 18 + ["b"] * 2)
    found = classification_scores(rare, rare, None, CLASSES[:2])
    assert found["intervals"]["balanced_accuracy"][0] < 0.65 < found["intervals"]["accuracy"][0]


def test_groups_widen_the_intervals(predictions):
    y, predicted, probabilities, _ = predictions
    alike = [np.repeat(each[:15], 10, axis=0) for each in (y, predicted, probabilities)]
    single, grouped = (
        classification_scores(*alike, CLASSES, groups=groups) for groups in (None, np.repeat(np.arange(15), 10))
    )
    for name in ("accuracy", "macro_f1", "log_loss"):
        assert np.ptp(grouped["intervals"][name]) > 2 * np.ptp(single["intervals"][name])
