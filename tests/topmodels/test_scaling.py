"""Standardising with a floor under the deviations."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import cross_val_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from featurebank.topmodels.scaling import FLOOR, FlooredScaler, dead, floored, make_scaler, plain, with_floor
from featurebank.topmodels.search import TopModelSearchCV


def rows(alive=20, faint=30, constant=10, n=90, seed=0, dtype=np.float32):
    """Two classes in a few columns of deviation about 1, and columns that hold next to nothing."""
    random = np.random.default_rng(seed)
    y = np.arange(n) % 2
    X = np.concatenate(
        [
            random.normal(size=(n, alive)) + 1.0 * y[:, None] * (np.arange(alive) < 4),
            random.normal(size=(n, faint)) * 1e-6,
            np.full((n, constant), 0.5),
        ],
        axis=1,
    )
    return X.astype(dtype), y


@parametrize_with_checks([FlooredScaler()])
def test_scikit_learns_checks(estimator, check):
    check(estimator)


def test_without_faint_columns_it_is_scikit_learns_scaler():
    X, _ = rows(faint=0, constant=0)
    assert np.array_equal(FlooredScaler().fit_transform(X), StandardScaler().fit_transform(X))


def test_faint_columns_stay_faint():
    X, _ = rows()
    scaler = FlooredScaler().fit(X)
    deviation = X.std(axis=0, dtype=np.float64)
    floor = FLOOR * np.median(deviation[:20])
    np.testing.assert_allclose(scaler.scale_[:20], deviation[:20])
    np.testing.assert_allclose(scaler.scale_[20:], floor)
    assert np.abs(scaler.transform(X + 0.01)[:, 20:]).max() < 0.01 / floor + 1e-3
    np.testing.assert_allclose(scaler.var_, deviation**2, atol=1e-12)
    assert dead(X) == 40


def test_what_float16_cannot_tell_apart_is_no_deviation():
    random = np.random.default_rng(0)
    X = np.column_stack([random.normal(0, 0.01, (200, 5)), 100 + random.normal(0, 0.03, 200)])
    stored = X.astype(np.float16).astype(np.float32)  # numbers near 100 lie 1/16 apart
    assert FlooredScaler().fit(stored).scale_[5] == pytest.approx(100 / 2048, rel=1e-3)
    far = 10_000 + random.normal(size=(200, 3))  # as no float16 ever was
    assert np.array_equal(FlooredScaler().fit(far).scale_, StandardScaler().fit(far).scale_)


def test_a_set_that_does_not_vary_is_left_alone():
    assert floored(np.zeros(3), np.ones(3)).tolist() == [1.0, 1.0, 1.0]
    assert np.isfinite(FlooredScaler().fit_transform(np.ones((5, 2)))).all()


def test_rows_may_come_in_parts():
    X, _ = rows(dtype=np.float64)
    parts = FlooredScaler()
    for start in range(0, len(X), 30):
        parts.partial_fit(X[start : start + 30])
    whole = FlooredScaler().fit(X)
    np.testing.assert_allclose(parts.scale_, whole.scale_, rtol=1e-9)
    made = make_scaler(whole.mean_, whole.scale_, len(X))
    np.testing.assert_allclose(made.transform(X), whole.transform(X))
    np.testing.assert_allclose(whole.inverse_transform(whole.transform(X)), X)


@pytest.mark.parametrize("model", [RidgeClassifier(), SVC()], ids=["ridge", "svm"])
def test_the_search_scores_what_the_pipeline_with_a_floor_does(model):
    X, y = rows()
    name, params = {"RidgeClassifier": ("ridge", {"alpha": [1.0]}), "SVC": ("svm", {"C": [1.0]})}[type(model).__name__]
    search = TopModelSearchCV({name: params}, cv=3).fit(X, y)
    alive = cross_val_score(make_pipeline(StandardScaler(), model), X[:, :20], y, cv=search.folds_)
    floor = cross_val_score(make_pipeline(FlooredScaler(), model), X, y, cv=search.folds_)
    assert search.candidates_[0].fold_scores == floor.tolist()
    assert search.best_score_ >= alive.mean() - 0.02
    assert clone(search.best_estimator_).fit(X, y)[0].scale_.min() > 0.1


def test_a_file_holds_scikit_learns_own_scaler_of_the_same_numbers():
    X, y = rows()
    model = OneVsRestClassifier(make_pipeline(FlooredScaler(), SVC())).fit(X, y % 2)
    twin = plain(model)
    assert type(twin.estimators_[0][0]) is StandardScaler
    assert type(model.estimators_[0][0]) is FlooredScaler
    assert np.array_equal(twin.decision_function(X + 0.01), model.decision_function(X + 0.01))
    assert twin.estimators_[0][0].mean_ is model.estimators_[0][0].mean_


def test_what_a_file_holds_gets_its_floor_back_when_it_is_fitted_again():
    X, y = rows()
    fitted = make_pipeline(FlooredScaler(), RidgeClassifier()).fit(X, y)
    again = with_floor(plain(fitted)).fit(X, y)
    assert np.array_equal(again[0].scale_, fitted[0].scale_)


@pytest.mark.parametrize("model", ["ridge", "lda", "logreg", "svm", "knn"])
@pytest.mark.parametrize("options", [{}, {"normalize": "whiten"}, {"select": 0.5}], ids=["plain", "whiten", "select"])
def test_a_set_of_small_numbers_beside_one_of_large_ones_keeps_its_scale(model, options):
    random, y = np.random.default_rng(0), np.arange(60) % 2
    X = random.normal(size=(60, 12))
    X[:, 6:] += y[:, None]
    wide = np.concatenate([X[:, :6], X[:, 6:] / 2**10], axis=1)
    names = {"a": slice(0, 6), "b": slice(6, 12)}

    def scores(rows):
        search = TopModelSearchCV([model], blocks=names, features=[["a", "b"]], refine=0, n_jobs=1, **options)
        search.fit(rows, y)
        return [each.mean for each in search.candidates_], search.best_estimator_.predict(rows)

    (small, said), (even, expected) = scores(wide), scores(X)
    assert small == pytest.approx(even)
    assert max(even) > 0.8
    assert (said == expected).all()


def test_a_refitted_model_of_several_sets_has_a_floor_in_each():
    X = np.concatenate([np.eye(4), np.eye(4) / 1000], axis=1)
    fitted = plain(make_pipeline(FlooredScaler((4, 4)), RidgeClassifier()).fit(X, [0, 0, 1, 1]))
    assert "widths" not in vars(fitted[0])
    again = with_floor(fitted, (4, 4)).fit(X, [0, 0, 1, 1])
    assert again[0].scale_.tolist() == fitted[0].scale_.tolist()
    assert with_floor(fitted, (3, 3))[0].widths == ()
