"""LogME and the H-score against closed forms, brute force, and scikit-learn."""

from functools import partial

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal, ortho_group
from sklearn.covariance import LedoitWolf
from sklearn.cross_decomposition import CCA
from sklearn.linear_model import BayesianRidge

from featurebank.errors import TopModelError
from featurebank.explore.advice.measures import h_score, logme

RANDOM = np.random.default_rng(0)
SHAPES = [(60, 4), (30, 30), (20, 45)]


def rows(n, d, k=3, signal=1.0, seed=0):
    random = np.random.default_rng(seed)
    y = np.arange(n) % k
    return random.normal(size=(k, d))[y] * signal + random.normal(size=(n, d)), y


# --- LogME -------------------------------------------------------------------------------------------------


def evidence(X, column, alpha, beta):
    """The evidence by its definition: the density of the target under N(0, 1/beta + X X'/alpha)."""
    covariance = np.eye(len(X)) / beta + X @ X.T / alpha
    return multivariate_normal(np.zeros(len(X)), covariance).logpdf(column)


@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_logme_is_the_largest_evidence_that_brute_force_finds(n, d):
    X, y = rows(n, d)
    best = []
    for name in np.unique(y):
        column = (y == name).astype(float)
        starts = [(a, b) for a in (-4, 0, 4) for b in (0, 3)]
        ask = partial(lambda column, at: -evidence(X, column, *np.exp(np.clip(at, -30, 30))), column)
        found = [minimize(ask, start, method="Nelder-Mead", tol=1e-9) for start in starts]
        best.append(-min(each.fun for each in found))
    assert logme(X, y) == pytest.approx(np.mean(best) / n, abs=1e-4)


def test_logme_of_numbers_is_the_evidence_of_scikit_learns_bayesian_ridge():
    X = RANDOM.normal(size=(200, 10)) * RANDOM.uniform(0.1, 3, 10)
    y = X @ RANDOM.normal(size=10) + RANDOM.normal(size=200)
    flat = {"alpha_1": 0, "alpha_2": 0, "lambda_1": 0, "lambda_2": 0}
    model = BayesianRidge(fit_intercept=False, compute_score=True, max_iter=5000, tol=1e-12, **flat).fit(X, y)
    assert logme(X, y, task="regression") == pytest.approx(model.scores_[-1] / 200, abs=1e-9)


def test_several_targets_are_averaged():
    X, _ = rows(50, 5)
    Y = RANDOM.normal(size=(50, 3))
    each = [logme(X, column, task="regression") for column in Y.T]
    assert logme(X, Y, task="regression") == pytest.approx(np.mean(each))


@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_logme_depends_neither_on_scale_nor_on_rotation_nor_on_the_order_of_rows(n, d):
    X, y = rows(n, d)
    turn = ortho_group.rvs(d, random_state=0)
    order = np.random.default_rng(1).permutation(n)
    for other, labels in ((X * 1000, y), (X / 1000, y), (X @ turn, y), (X[order], y[order]), (X, y + 5)):
        assert logme(other, labels) == pytest.approx(logme(X, y), rel=1e-6)


def test_logme_rises_with_the_signal_and_falls_to_that_of_no_features():
    values = [logme(*rows(200, 6, signal=signal)) for signal in (0, 0.5, 1, 2, 4)]
    assert values == sorted(values)
    noise, y = RANDOM.normal(size=(4000, 2)), np.arange(4000) % 2
    nothing = -0.5 * (np.log(2 * np.pi * 0.5) + 1)  # a target of 0 and 1 as noise of mean square 1/2
    assert logme(noise, y) == pytest.approx(nothing, abs=2e-3)


def test_a_target_that_the_features_give_exactly_is_finite_and_high():
    X, y = rows(40, 5)
    exact = np.column_stack([X, y == 0, y == 1, y == 2])
    assert np.isfinite(logme(exact, y))
    assert logme(exact, y) > logme(X, y) + 1


# --- H-score -----------------------------------------------------------------------------------------------


def test_the_plain_h_score_of_one_column_is_the_correlation_ratio():
    x, y = np.array([1.0, 2.0, 3.0, 7.0, 8.0, 9.0]), np.array([0, 0, 0, 1, 1, 1])
    between, total = 9.0, x.var()  # means 2 and 8 around 5
    assert h_score(x[:, None], y, shrinkage=0) == pytest.approx(between / total)


def test_the_plain_h_score_is_the_sum_of_the_squared_canonical_correlations():
    X, y = rows(120, 5, k=4)
    indicators = (y[:, None] == np.arange(3)).astype(float)  # three of the four: they add up to one
    first, second = CCA(3, scale=False, max_iter=20000, tol=1e-12).fit_transform(X, indicators)
    squares = [np.corrcoef(first[:, i], second[:, i])[0, 1] ** 2 for i in range(3)]
    assert h_score(X, y, shrinkage=0) == pytest.approx(sum(squares), rel=1e-3)


@pytest.mark.parametrize(("n", "d"), SHAPES)
@pytest.mark.parametrize("shrinkage", [None, 0.3])
def test_the_shrunk_h_score_is_the_trace_of_the_papers(n, d, shrinkage):
    X, y = rows(n, d)
    centred = X - X.mean(axis=0)
    share = LedoitWolf().fit(X).shrinkage_ if shrinkage is None else shrinkage
    plain = centred.T @ centred / n
    shrunk = (1 - share) * plain + share * np.trace(plain) / d * np.eye(d)
    means = np.stack([centred[y == name].mean(axis=0) for name in y])
    expected = np.trace(np.linalg.solve(shrunk, (1 - share) * means.T @ means / n))
    assert h_score(X, y, shrinkage=shrinkage) == pytest.approx(expected, rel=1e-8)


def test_classes_apart_have_the_largest_h_score_and_noise_nearly_none():
    X, y = rows(300, 6, k=4, signal=1000)
    assert h_score(X, y, shrinkage=0) == pytest.approx(3, abs=1e-3)
    assert h_score(RANDOM.normal(size=(5000, 4)), np.arange(5000) % 4) < 0.02


def test_the_plain_h_score_overrates_many_columns_and_the_shrunk_one_does_not():
    noise, y = RANDOM.normal(size=(60, 58)), np.arange(60) % 2
    assert h_score(noise, y, shrinkage=0) > 0.9
    assert h_score(noise, y) < 0.3


@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_the_h_score_depends_neither_on_scale_shift_nor_rotation(n, d):
    X, y = rows(n, d)
    turn = ortho_group.rvs(d, random_state=0)
    for other in (X * 100, X + 5, X @ turn):
        assert h_score(other, y) == pytest.approx(h_score(X, y), rel=1e-6)


def test_any_invertible_map_leaves_the_plain_h_score_alone():
    X, y = rows(100, 4)
    assert h_score(X @ RANDOM.normal(size=(4, 4)), y, shrinkage=0) == pytest.approx(h_score(X, y, shrinkage=0))


# --- both --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("measure", [logme, h_score])
def test_columns_without_variance_and_text_labels_are_fine(measure):
    X, y = rows(50, 3)
    names = np.array(["a", "b", "c"])[y]
    assert measure(X, names) == measure(X, y)
    assert np.isfinite(measure(np.zeros((50, 3)), y))
    padded = np.column_stack([X, np.zeros((50, 2))])
    assert logme(padded, y) == pytest.approx(logme(X, y))


@pytest.mark.parametrize("measure", [logme, h_score])
@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        (np.zeros((3, 2)), [0, 1], "expected rows of features and as many of y"),
        (np.zeros(3), [0, 1, 0], "expected rows of features"),
        (np.zeros((0, 2)), [], "expected rows of features"),
        ([[0.0, np.nan], [0.0, 1.0]], [0, 1], "not finite"),
        (np.zeros((2, 2)), ["a", "a"], "y has one class, 'a'; expected at least two classes"),
    ],
)
def test_what_cannot_be_measured_is_an_error(measure, X, y, message):
    with pytest.raises(TopModelError, match=message):
        measure(X, y)


def test_a_shrinkage_is_a_share():
    with pytest.raises(TopModelError, match="expected a number from 0 to 1"):
        h_score(np.eye(4), [0, 1, 0, 1], shrinkage=2)
