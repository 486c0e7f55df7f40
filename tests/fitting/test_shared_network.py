import numpy as np
import pytest
from scipy.optimize import approx_fprime
from sklearn.datasets import load_digits, load_iris
from sklearn.metrics import log_loss
from sklearn.utils.estimator_checks import parametrize_with_checks

from featurebank.errors import TopModelError
from featurebank.fitting.shared_network import Goal, NetworkClassifier, NetworkRegressor, loss_and_gradient, train


@parametrize_with_checks([NetworkClassifier(), NetworkRegressor()])
def test_the_networks_follow_scikit_learns_rules(estimator, check):
    check(estimator)


def make_goals(random, n=30):
    """Two classes, three classes and a number, each known of other rows, with weights."""
    goals = []
    for k in (2, 3, 1):
        rows = np.sort(random.choice(n, n // 2, replace=False))
        target = random.normal(size=(len(rows), 1)) if k == 1 else np.eye(k)[random.integers(0, k, len(rows))]
        goals.append(Goal(rows, target, random.uniform(0.1, 3, len(rows)), k == 1))
    return goals


def length(goals, columns, hidden):
    return (columns + 1) * hidden + sum((hidden + 1) * goal.target.shape[1] for goal in goals)


@pytest.mark.parametrize("alpha", [0.0, 2.5])
def test_the_gradient_is_that_of_finite_differences(alpha):
    random = np.random.default_rng(0)
    X, goals = random.normal(size=(30, 4)), make_goals(random)
    flat = random.normal(size=length(goals, 4, 5))
    _, gradient = loss_and_gradient(flat, X, goals, 5, alpha)
    expected = approx_fprime(flat, lambda point: loss_and_gradient(point, X, goals, 5, alpha)[0], 1e-7)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)


def test_the_loss_is_that_of_the_labels_and_the_penalty():
    random = np.random.default_rng(1)
    X, goals = random.normal(size=(30, 4)), make_goals(random)
    flat = random.normal(size=length(goals, 4, 5))
    units = np.maximum(X @ flat[:20].reshape(4, 5) + flat[20:25], 0)
    start, loss, squares = 25, 0.0, (flat[:20] ** 2).sum()
    for goal in goals:
        k = goal.target.shape[1]
        weights, intercepts = flat[start : start + 5 * k].reshape(5, k), flat[start + 5 * k : start + 6 * k]
        output = units[goal.rows] @ weights + intercepts
        start, squares = start + 6 * k, squares + (weights**2).sum()
        if goal.is_number:
            loss += 0.5 * (goal.weight[:, None] * (output - goal.target) ** 2).sum()
            continue
        proba = np.exp(output) / np.exp(output).sum(axis=1, keepdims=True)
        loss += log_loss(goal.target.argmax(1), proba, sample_weight=goal.weight, normalize=False, labels=np.arange(k))
    found, _ = loss_and_gradient(flat, X, goals, 5, 3.0)
    assert found == pytest.approx((loss + 1.5 * squares) / 30)


def test_float32_rows_give_the_same_loss_to_rounding():
    random = np.random.default_rng(2)
    X, goals = random.normal(size=(30, 4)), make_goals(random)
    flat = random.normal(size=length(goals, 4, 5))
    wide, narrow = (loss_and_gradient(flat, X.astype(kind), goals, 5, 1.0) for kind in (np.float64, np.float32))
    assert narrow[0] == pytest.approx(wide[0], rel=1e-5)
    assert narrow[1].dtype == np.float64
    np.testing.assert_allclose(narrow[1], wide[1], rtol=1e-3, atol=1e-5)


def test_a_row_without_a_label_of_a_task_does_nothing_for_it():
    """A network of one task is the same whether unlabelled rows are there or not."""
    random = np.random.default_rng(3)
    X, y = random.normal(size=(40, 4)), random.integers(0, 2, 40)
    rows = np.arange(0, 40, 2)
    options = {"hidden": 6, "alpha": 1.0, "iterations": 15, "seed": 0}
    within = train(X, [Goal(rows, np.eye(2)[y[rows]], np.ones(20), False)], **options)
    alone = train(X[rows], [Goal(np.arange(20), np.eye(2)[y[rows]], np.ones(20), False)], **options)
    for (first, *_), (second, *_) in ((within, alone), (within[1], alone[1])):
        np.testing.assert_allclose(first[0], second[0], atol=2e-3)


def test_a_network_of_wide_rows_is_trained_in_their_span():
    random = np.random.default_rng(4)
    X, y = random.normal(size=(30, 400)), np.arange(30) % 2
    goal = Goal(np.arange(30), np.eye(2)[y], np.ones(30), False)
    first, (output,) = train(X, [goal], hidden=5, alpha=5.0, iterations=300, seed=0)
    flat = np.concatenate([part.ravel() for layer in (first, output) for part in layer])
    loss, gradient = loss_and_gradient(flat, X, [goal], 5, 5.0)
    assert first[0].shape == (400, 5)
    assert np.abs(gradient).max() < 1e-3  # the best in the span is the best of all
    assert loss < np.log(2)


def test_digits_and_numbers_are_learned_and_every_run_is_the_same():
    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32)
    first, second = (NetworkClassifier(0.1).fit(X[::2], y[::2]) for _ in range(2))
    assert first.score(X[1::2], y[1::2]) > 0.92
    np.testing.assert_array_equal(first.coefs_[0], second.coefs_[0])
    assert first.coefs_[0].dtype == np.float32
    np.testing.assert_allclose(first.predict_proba(X).sum(axis=1), 1, rtol=1e-5)
    other = NetworkClassifier(0.1, random_state=1).fit(X[::2], y[::2])
    assert not np.array_equal(other.coefs_[0], first.coefs_[0])
    number = NetworkRegressor(0.1).fit(X[::2], 1e4 * y[::2] + 7)
    assert number.score(X[1::2], 1e4 * y[1::2] + 7) > 0.8


def test_a_weight_of_two_is_a_row_that_is_there_twice():
    X, y = load_iris(return_X_y=True)
    weight = np.where(np.arange(150) % 3, 1, 2)
    weighted = NetworkClassifier(iterations=300).fit(X, y, sample_weight=weight)
    repeated = NetworkClassifier(iterations=300).fit(X.repeat(weight, axis=0), y.repeat(weight))
    np.testing.assert_allclose(weighted.predict_proba(X), repeated.predict_proba(X), atol=0.01)


def test_what_cannot_be_learned_is_an_error():
    X = np.ones((6, 2))
    with pytest.raises(TopModelError, match="the rows are of one class, 'a'; expected at least two"):
        NetworkClassifier().fit(X, ["a"] * 6)
    with pytest.raises(TopModelError, match=r"a network of 0 units, 50 iterations and alpha 10\.0; expected"):
        NetworkClassifier(hidden=0).fit(X, list("ababab"))
    assert NetworkRegressor().fit(X, np.full(6, 3.0)).predict(X) == pytest.approx(np.full(6, 3.0))  # a constant
