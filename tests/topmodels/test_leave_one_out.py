"""Ridge with exact left-out values, against fits without the row."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge, RidgeCV

from featurebank.topmodels.leave_one_out import leave_one_out


@pytest.mark.parametrize("shape", [(12, 5), (8, 20)])
def test_values_are_those_of_a_ridge_without_the_row(shape):
    random = np.random.default_rng(0)
    X, Y = random.normal(size=shape), random.normal(size=(shape[0], 3))
    found = leave_one_out(X, Y, (0.1,))
    whole = Ridge(found.penalty).fit(X, Y)
    np.testing.assert_allclose(found.weights, whole.coef_.T, atol=1e-8)
    np.testing.assert_allclose(found.bias, whole.intercept_, atol=1e-8)
    for row in range(shape[0]):
        others = np.delete(np.arange(shape[0]), row)
        expected = Ridge(found.penalty).fit(X[others], Y[others]).predict(X[[row]])[0]
        np.testing.assert_allclose(found.values[row], expected, atol=1e-8)


def test_the_penalty_is_the_one_that_scikit_learn_chooses():
    random = np.random.default_rng(1)
    X = random.normal(size=(40, 6))
    Y = X[:, :1] + random.normal(size=(40, 1))
    tried = [leave_one_out(X, Y, (share,)) for share in (0.01, 0.1, 1.0)]
    expected = RidgeCV([each.penalty for each in tried]).fit(X, Y).alpha_
    assert leave_one_out(X, Y, (0.01, 0.1, 1.0)).penalty == pytest.approx(expected)


def test_rows_that_are_all_the_same_give_the_mean():
    found = leave_one_out(np.ones((4, 3)), np.array([[1.0], [1.0], [-1.0], [-1.0]]))
    assert found.weights.tolist() == [[0.0]] * 3
    assert found.bias.tolist() == [0.0]
    np.testing.assert_allclose(found.values.ravel(), [-1 / 3, -1 / 3, 1 / 3, 1 / 3])
