import numpy as np
import pytest
from sklearn.covariance import EmpiricalCovariance
from sklearn.preprocessing import normalize

from featurebank.errors import TopModelError
from featurebank.topmodels.novelty import FLAG, Mahalanobis, Unlike, out_of_fold


def blob(random, count, width=12, away=0, strength=6.0):
    """Rows around an axis of their own, so that they stay apart when they are scaled to length 1."""
    centre = np.zeros(width)
    centre[away] = strength
    return (centre + random.normal(size=(count, width))).astype(np.float32)


def test_with_all_but_one_direction_the_distance_is_the_ordinary_one(random):
    X, new = blob(random, 400, width=6), random.normal(size=(9, 6))
    exact = EmpiricalCovariance().fit(normalize(X).astype(np.float64))
    exact_covariance = exact.covariance_ * 400 / 399
    difference = normalize(new) - exact.location_
    expected = np.sqrt(np.einsum("ij,jk,ik->i", difference, np.linalg.inv(exact_covariance), difference))
    np.testing.assert_allclose(Mahalanobis(components=5).fit(X).distances(new), expected, rtol=2e-3)


def test_directions_without_a_variance_of_their_own_share_the_mean_of_theirs(random):
    X, new = blob(random, 200, width=8), random.normal(size=(5, 8))
    unit = normalize(X).astype(np.float64)
    values, vectors = np.linalg.eigh(np.cov(unit.T))
    values[:-2] = values[:-2].mean()
    difference = (normalize(new) - unit.mean(axis=0)) @ vectors
    expected = np.sqrt((difference**2 / values).sum(axis=1))
    np.testing.assert_allclose(Mahalanobis(components=2).fit(X).distances(new), expected, rtol=2e-3)


def test_the_distance_is_the_one_from_the_nearest_class(random):
    X = np.concatenate([blob(random, 60, away=0), blob(random, 60, away=1)])
    y = np.repeat(["a", "b"], 60)
    between = (X[:60].mean(axis=0) + X[60:].mean(axis=0))[None]
    shared, apart = Mahalanobis().fit(X), Mahalanobis().fit(X, y)
    assert shared.distances(between) < shared.distances(X).max()
    assert apart.distances(between) > apart.distances(X).max()


def test_classes_of_few_rows_share_a_mean_and_one_class_is_none(random):
    X = blob(random, 60)
    names = ["a"] * 50 + [f"rare {number}" for number in range(10)]
    assert Mahalanobis().fit(X, names).means_.shape == (2, 12)
    assert (Mahalanobis().fit(X, ["a"] * 60).distances(X) == Mahalanobis().fit(X).distances(X)).all()


@pytest.mark.parametrize("width", [1, 2, 300])
def test_any_width_gives_finite_distances(random, width):
    X = random.normal(size=(40, width)).astype(np.float32)
    assert np.isfinite(Mahalanobis().fit(X).distances(np.concatenate([X, np.zeros((1, width))]))).all()


def test_rows_that_are_all_the_same_are_not_unusual_and_others_are():
    X = np.ones((30, 5), np.float32)
    unlike = Unlike().fit(X)
    new = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]], np.float32)
    assert unlike.share(new)[1] == 1.0 > unlike.share(new)[0]


def test_new_rows_of_the_same_kind_are_flagged_as_often_as_promised(random):
    X = blob(random, 4000, width=20, strength=3)
    share = Unlike().fit(X[:2000]).share(X[2000:])
    assert abs(share.mean() - 0.5) < 0.05
    assert 0.003 < (share > FLAG).mean() < 0.02


def test_planted_outliers_are_flagged_and_a_repeat_gives_the_same(random):
    X = blob(random, 300, width=40)
    unlike = Unlike().fit(X)
    assert (unlike.share(blob(random, 50, width=40, away=7)) == 1.0).all()
    assert (Unlike().fit(X).usual_ == unlike.usual_).all()


def test_out_of_fold_distances_are_larger_than_those_of_rows_that_were_learned(random):
    X = random.normal(size=(60, 200)).astype(np.float32)
    assert out_of_fold(Mahalanobis(), X).mean() > 1.05 * Mahalanobis().fit(X).distances(X).mean()


def test_too_few_rows_are_an_error():
    with pytest.raises(TopModelError, match="19 different images to learn what is usual from; expected at least 20"):
        Unlike().fit(np.ones((19, 3)))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("usual_", np.empty(0), "do not fit together"),
        ("usual_", "text", "other things than finite numbers"),
        ("usual_", np.array([np.nan]), "other things than finite numbers"),
        ("model_", None, "holds no model"),
    ],
)
def test_contents_that_cannot_be_are_refused(random, name, value, message):
    unlike = Unlike().fit(blob(random, 30))
    unlike.check(12)
    setattr(unlike, name, value)
    with pytest.raises(TopModelError, match=message):
        unlike.check()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("means_", np.ones((1, 5))),
        ("components_", np.ones((3, 5))),
        ("variances_", np.ones(2)),
        ("noise_", 0.0),
        ("noise_", np.ones(2)),
        ("noise_", None),
    ],
)
def test_a_model_that_cannot_be_is_refused(random, name, value):
    unlike = Unlike().fit(blob(random, 30))
    setattr(unlike.model_, name, value)
    with pytest.raises(TopModelError):
        unlike.check(12)


def test_another_width_than_the_models_is_refused(random):
    with pytest.raises(TopModelError, match="takes 12 columns; expected 13"):
        Unlike().fit(blob(random, 30)).check(13)
