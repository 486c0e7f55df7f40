import numpy as np
import pandas as pd
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from featurebank.transforms import SelectDimensions

X = np.arange(12, dtype=np.float32).reshape(3, 4)


@parametrize_with_checks([SelectDimensions(), SelectDimensions([0])])
def test_select_dimensions_follows_scikit_learns_rules(estimator, check):
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
