import numpy as np
import pandas as pd
import pytest
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from featurebank.errors import TopModelError
from featurebank.topmodels.transforms import (
    NORMALIZATIONS,
    SelectDimensions,
    SelectRelevant,
    SignedSquareRoot,
    normalization,
)

X = np.arange(12, dtype=np.float32).reshape(3, 4)


@parametrize_with_checks([SelectDimensions(), SelectDimensions([0]), SignedSquareRoot(), SelectRelevant(0.5)])
def test_the_transforms_follow_scikit_learns_rules(estimator, check):
    check(estimator)


def test_columns_are_kept_in_the_order_given():
    kept = SelectDimensions([3, 0]).fit(X).transform(X)
    np.testing.assert_array_equal(kept, X[:, [3, 0]])
    assert kept.dtype == np.float32
    np.testing.assert_array_equal(SelectDimensions(range(1, 3)).fit_transform(X), X[:, 1:3])


def test_by_default_all_columns_are_kept():
    np.testing.assert_array_equal(SelectDimensions().fit_transform(X), X)


@pytest.mark.parametrize("dimensions", [[4], [-1, 0]])
def test_a_column_outside_x_is_an_error(dimensions):
    with pytest.raises(ValueError, match=r"of 4; expected 0\.\.3"):
        SelectDimensions(dimensions).fit(X)


def test_names_follow_the_columns():
    frame = pd.DataFrame(X, columns=["a", "b", "c", "d"])
    selected = make_pipeline(SelectDimensions([2, 1])).set_output(transform="pandas").fit_transform(frame)
    assert selected.columns.tolist() == ["c", "b"]
    assert SelectDimensions([2]).fit(X).get_feature_names_out().tolist() == ["x2"]


# --- normalisations ----------------------------------------------------------------------------------------

ROWS = np.random.default_rng(0).normal(1, 2, (30, 6))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("none", ROWS),
        ("standardize", (ROWS - ROWS.mean(0)) / ROWS.std(0)),
        ("l2", ROWS / np.linalg.norm(ROWS, axis=1, keepdims=True)),
        ("center-l2", (ROWS - ROWS.mean(0)) / np.linalg.norm(ROWS - ROWS.mean(0), axis=1, keepdims=True)),
    ],
)
def test_a_normalisation_does_what_its_name_says(name, expected):
    pipeline = Pipeline([*normalization(name), ("end", "passthrough")])
    np.testing.assert_allclose(pipeline.fit_transform(ROWS), expected, rtol=1e-12)


def test_signed_square_roots_are_standardised():
    found = Pipeline(normalization("signed-sqrt")).fit_transform(ROWS)
    roots = np.sign(ROWS) * np.abs(ROWS) ** 0.5
    np.testing.assert_allclose(found, (roots - roots.mean(0)) / roots.std(0), rtol=1e-12)


def test_whitened_rows_have_deviation_1_in_every_direction_but_those_without_variance():
    copied = np.column_stack([ROWS, ROWS[:, 0], np.full(30, 3.0)])
    found = Pipeline(normalization("whiten")).fit_transform(copied)
    assert found.shape == (30, 6)
    np.testing.assert_allclose(np.cov(found.T), np.eye(6), atol=1e-12)


def test_an_unknown_normalisation_is_an_error_with_a_hint():
    with pytest.raises(TopModelError, match="no normalisation 'standardise'; did you mean standardize"):
        normalization("standardise")
    assert all(normalization(name, 0.5) for name in NORMALIZATIONS)


# --- selection ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["classes", "numbers", "labels"])
def test_the_dimensions_that_carry_the_target_are_selected(target):
    random = np.random.default_rng(1)
    Z = random.normal(size=(300, 40)) * random.uniform(0.1, 10, 40)
    signal = Z[:, [3, 17, 29]] / Z[:, [3, 17, 29]].std(axis=0)
    y = {"classes": signal.argmax(axis=1), "numbers": signal.sum(axis=1), "labels": (signal > 0).astype(int)}[target]
    selected = SelectRelevant(3 / 40).fit(Z, y)
    assert selected.dimensions_.tolist() == [3, 17, 29]
    np.testing.assert_array_equal(selected.transform(Z), Z[:, [3, 17, 29]])
    assert selected.get_feature_names_out().tolist() == ["x3", "x17", "x29"]


def test_the_group_lasso_meets_its_optimality_conditions():
    random = np.random.default_rng(2)
    Z, y = random.normal(size=(200, 12)), random.integers(3, size=200)
    Z[:, 0] += y
    selector = SelectRelevant(0.5, alpha=0.2, steps=2000).fit(Z, y)
    Z = (Z - Z.mean(0)) / Z.std(0)
    Y = np.eye(3)[y] - np.eye(3)[y].mean(0)
    from featurebank.topmodels.transforms import _group_lasso

    weights, gradient = _group_lasso(Z, Y, 0.2, 2000)
    strength = 0.2 * np.linalg.norm(Z.T @ Y / 200, axis=1).max()
    length = np.linalg.norm(weights, axis=1)
    on = length > 0
    assert 0 < on.sum() < 12
    np.testing.assert_allclose(gradient[on], -strength * weights[on] / length[on, None], atol=1e-6)
    assert (np.linalg.norm(gradient[~on], axis=1) <= strength + 1e-9).all()
    np.testing.assert_allclose(selector.relevance_, length, atol=1e-12)


@pytest.mark.parametrize("share", [0, 1.5, -0.1])
def test_a_share_outside_its_range_is_an_error(share):
    with pytest.raises(TopModelError, match="expected a number above 0, at most 1"):
        SelectRelevant(share).fit(ROWS, ROWS[:, 0] > 1)
