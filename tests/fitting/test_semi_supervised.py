import numpy as np
import pytest
from sklearn.datasets import make_moons
from sklearn.pipeline import Pipeline

from featurebank.errors import TopModelError
from featurebank.fitting.semi_supervised import METHODS, TrainingRows, supervised
from featurebank.topmodels.search import TopModelSearchCV


def search(model, grid=None, **options):
    return TopModelSearchCV({model: grid}, **options)


def split(X, y, size, random):
    """Return the part that learns from `size` labels a class and half of the rows, and the other half."""
    order = random.permutation(len(y))
    half, test = order[: len(y) // 2], order[len(y) // 2 :]
    labelled = np.concatenate([half[y[half] == name][:size] for name in np.unique(y)])
    part = TrainingRows(
        X[labelled].astype(np.float32), y[labelled], None, X[np.setdiff1d(half, labelled)].astype(np.float32)
    )
    return part, X[test].astype(np.float32), y[test]


def test_labels_spread_along_two_moons(random):
    X, y = make_moons(800, noise=0.05, random_state=0)
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    square = (X**2).sum(axis=1, keepdims=True)
    sphere = np.hstack([2 * X, square - 1]) / (square + 1)  # rows of length 1 that keep the plane's neighbourhoods
    part, new, true = split(sphere, np.where(y, "b", "a"), 4, random)
    nearest = search("knn", {"n_neighbors": [1]})
    plain, spread = (each(nearest, part) for each in (supervised, METHODS["spreading"]))
    assert plain.score(new, true) < 0.95
    assert spread.score(new, true) > 0.97


def test_self_training_halves_the_errors_where_classes_are_clusters(random):
    errors = []
    for _ in range(6):
        X, y = random.normal(size=(600, 5)), np.repeat(["a", "b"], 300)
        X[:, 0] += np.where(y == "a", -2.5, 2.5)
        part, new, true = split(X, y, 10, random)
        fitted = [each(search("logreg", {"C": [1.0]}), part) for each in (supervised, METHODS["self-training"])]
        errors.append([1 - each.score(new, true) for each in fitted])
    plain, trained = np.mean(errors, axis=0)
    assert trained < 0.5 * plain < 0.1


def test_whitening_that_all_rows_taught_uncovers_what_varies_little(random):
    y = random.permutation(np.repeat([0, 1], 300))
    hidden = random.normal(size=(600, 30)) * np.geomspace(30, 1, 30)
    hidden[:, -1] = 0.1 * random.normal(size=600) + np.where(y, 1, -1)
    X = hidden @ np.linalg.qr(random.normal(size=(30, 30)))[0]
    part, new, true = split(X, y, 10, random)
    plain, white = (each(search("logreg"), part) for each in (supervised, METHODS["whiten"]))
    assert white.score(new, true) > plain.score(new, true) + 0.1


@pytest.mark.parametrize("method", METHODS)
def test_no_information_stays_at_chance(method, random):
    X, y = random.normal(size=(600, 8)), random.permutation(np.repeat(["a", "b"], 300))
    part, new, true = split(X, y, 20, random)
    assert abs(METHODS[method](search("logreg"), part).score(new, true) - 0.5) < 0.1


@pytest.mark.parametrize("method", METHODS)
def test_what_comes_back_is_a_plain_pipeline_that_a_repeat_equals(method, random):
    X, y = random.normal(size=(120, 8)), np.repeat([3, 1, -1], 40)
    X[:, 0] += y
    part, new, _ = split(X, y, 6, random)
    one, two = (METHODS[method](search("logreg"), part) for _ in range(2))
    assert type(one) is Pipeline
    assert one.classes_.tolist() == [-1, 1, 3]
    np.testing.assert_array_equal(one.predict_proba(new), two.predict_proba(new))


@pytest.mark.filterwarnings("ignore:y contains no unlabeled")
@pytest.mark.parametrize("method", METHODS)
def test_without_other_rows_the_labelled_ones_serve(method, random):
    X, y = random.normal(size=(60, 8)), np.repeat(["a", "b"], 30)
    X[:, 0] += np.where(y == "a", -3, 3)
    part = TrainingRows(X, y, None, np.empty((0, 8)))
    assert METHODS[method](search("svm" if method != "self-training" else "logreg"), part).score(X, y) > 0.95


def test_the_spread_labels_never_change_a_given_one(random):
    X = np.repeat(np.eye(2), 50, axis=0) + 0.01 * random.normal(size=(100, 2))
    y = np.array(["a"] * 49 + ["b"] + ["b"] * 50)
    part = TrainingRows(X, y, None, X[:10])
    fitted = METHODS["spreading"](search("knn", {"n_neighbors": [1]}), part)
    assert fitted.score(X, y) == 1.0


def test_a_class_of_one_row_is_an_error(random):
    part = TrainingRows(random.normal(size=(9, 3)), np.array(["a"] * 8 + ["b"]), None, random.normal(size=(9, 3)))
    with pytest.raises(TopModelError, match=r"one row \(or group\) of 'b' to learn from; expected 2"):
        supervised(search("logreg"), part)
    whole = np.repeat(["a", "b"], 5)
    part = TrainingRows(random.normal(size=(10, 3)), whole, np.array([0, 0, 1, 1, 1, 7, 7, 7, 7, 7]), part.pool)
    with pytest.raises(TopModelError, match="one row"):
        supervised(search("logreg"), part)
