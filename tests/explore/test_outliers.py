import numpy as np
import pytest
from made_bank import make_bank
from sklearn.metrics import roc_auc_score

from featurebank.errors import BankError, ColumnError, TopModelError
from featurebank.explore.outlier_detection import METHODS, nearest_distances, outliers


def with_strays(random, usual=120, strays=4, width=16):
    """Usual rows around the first axis, then strays around others."""
    X = random.normal(size=(usual + strays, width))
    X[:usual, 0] += 8
    X[usual:, 1 : 1 + strays] += 8 * np.eye(strays)
    return X


@pytest.mark.parametrize("method", METHODS)
def test_planted_outliers_come_first(tmp_path, random, method):
    found = outliers(make_bank(tmp_path / "a.bank", with_strays(random)), method=method)
    assert list(found) == ["source", "path", "distance", "unlike"]
    assert set(found["path"][:4]) == {f"{row:03}.png" for row in range(120, 124)}
    assert found["distance"].is_monotonic_decreasing
    assert found["unlike"].iloc[0] == 1.0
    assert found["unlike"].iloc[-1] == 0.0
    assert found.equals(outliers(make_bank(tmp_path / "b.bank", with_strays(np.random.default_rng(0))), method=method))


@pytest.mark.parametrize("method", METHODS)
def test_without_outliers_the_scores_tell_nothing(tmp_path, random, method):
    found = outliers(make_bank(tmp_path / "a.bank", random.normal(3, 1, size=(300, 16))), method=method)
    marked = found["path"].isin([f"{row:03}.png" for row in range(30)])
    assert abs(roc_auc_score(marked, found["distance"]) - 0.5) < 0.15


def test_classes_make_what_lies_between_them_unusual(tmp_path, random):
    width, names = 16, np.repeat(["a", "b"], 60)
    X = 0.5 * random.normal(size=(121, width))
    X[:60, 0] += 8
    X[60:120, 1] += 8
    X[120, :2] += 6
    labels = np.append(names, None)
    bank = make_bank(tmp_path / "a.bank", X, label=labels)
    found, plain = (outliers(bank, target=target)["distance"].to_numpy() for target in ("label", None))
    assert outliers(bank, target="label")["path"][0] == "120.png"
    assert found[0] / found[1] > 1.5 * plain[0] / plain[1]


def test_nearest_distances_are_those_of_the_tenth_other_row(random):
    X = random.normal(size=(40, 5)).astype(np.float32)
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    every = np.sort(np.linalg.norm(unit[:, None] - unit, axis=2), axis=1)
    np.testing.assert_allclose(nearest_distances(X), every[:, 10], rtol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_copies_do_not_make_an_image_usual(tmp_path, random, method):
    X = with_strays(random, strays=1)
    contents = np.concatenate([np.arange(121), np.full(30, 120)])
    found = outliers(make_bank(tmp_path / "a.bank", X[contents], contents), method=method)
    assert set(found["path"][:31]) == {f"{row:03}.png" for row in range(120, 151)}
    assert found["distance"][:31].nunique() == 1
    assert len(found) == 151


def test_the_features_are_penultimate_unless_others_are_named(tmp_path, random):
    X, other = with_strays(random), random.normal(size=(124, 6))
    bank = make_bank(tmp_path / "a.bank", {"another": other, "penultimate": X})
    alone = make_bank(tmp_path / "b.bank", X)
    assert outliers(bank)["path"].tolist() == outliers(alone)["path"].tolist()
    assert outliers(bank, features="another")["path"].tolist() != outliers(alone)["path"].tolist()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"method": "forest"}, TopModelError, "no outlier score 'forest'; expected one of mahalanobis, knn"),
        ({"method": "knn", "target": "label"}, TopModelError, "knn knows no classes; leave the target out"),
        ({"target": "age"}, ColumnError, "column 'age' has 30 values in 30 rows; expected classes"),
        ({"target": "few"}, TopModelError, "5 different images to learn what is usual from; expected at least 20"),
        ({"target": "species"}, ColumnError, "the bank has no column 'species'"),
    ],
)
def test_what_does_not_fit_is_an_error(tmp_path, random, options, error, message):
    few = np.where(np.arange(30) < 5, "a", None)
    columns = {"label": ["a", "b"] * 15, "age": random.normal(size=30), "few": few}
    with pytest.raises(error, match=message):
        outliers(make_bank(tmp_path / "a.bank", random.normal(size=(30, 4)), **columns), **options)


def test_too_few_images_are_an_error(tmp_path, random):
    bank = make_bank(tmp_path / "a.bank", random.normal(size=(40, 4)), np.arange(40) % 19)
    with pytest.raises(BankError, match="19 different images; expected at least 20 to say what is usual"):
        outliers(bank)


@pytest.mark.parametrize("method", METHODS)
def test_equal_and_constant_embeddings_are_no_failure(tmp_path, method):
    X = np.ones((25, 4))
    found = outliers(make_bank(tmp_path / "a.bank", X), method=method)
    assert found["distance"].max() < 0.01
