import re

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA

from featurebank.errors import TopModelError
from featurebank.topmodels.one_class.choosing import compare, fuse, mixed
from featurebank.topmodels.one_class.conformal import Conformal, check_rate, least_rate, least_units
from featurebank.topmodels.one_class.detectors import (
    DETECTORS,
    NeighbourDistance,
    PCAResidual,
    ShrunkMahalanobis,
    make_detector,
    parse_detectors,
)
from featurebank.topmodels.one_class.judging import detection_scores
from featurebank.topmodels.one_class.model import OneClassModel
from featurebank.topmodels.one_class.patches import PatchMemory


def model_of(name="mahalanobis", width=6, rows=100, **options):
    return OneClassModel([(name, make_detector(name, np.arange(width), rows))], **options)


# --- the promise -------------------------------------------------------------------------------------------


def test_a_p_value_is_the_share_of_normals_at_least_as_unusual_the_new_row_counted_too():
    known = Conformal().fit(np.array([3.0, 1.0, 2.0, 2.0]))
    assert known.p_values(np.array([0.5, 1.0, 2.0, 9.0])).tolist() == [0.2, 0.4, 0.8, 1.0]


def test_a_group_counts_once_however_many_rows_it_has():
    scores, groups = np.array([1.0, 1.0, 2.0, 5.0]), np.array(["a", "a", "a", "b"])
    known = Conformal().fit(scores, groups)
    assert known.units_ == 2
    np.testing.assert_allclose(known.p_values(np.array([0.0, 1.0, 2.0, 5.0])), [1 / 3, (1 + 2 / 3) / 3, 2 / 3, 1.0])


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.37])
def test_what_lies_below_the_threshold_has_a_p_value_of_the_rate_at_most(random, rate):
    scores = random.integers(0, 12, 60).astype(float)  # many of them equal
    known = Conformal().fit(scores, random.integers(0, 25, 60))
    tried = np.arange(-1, 13, 0.5)
    np.testing.assert_array_equal(tried < known.threshold(rate), known.p_values(tried) <= rate + 1e-12)


def test_false_alarms_are_as_promised(random):
    rates = [
        (random.normal(size=200) < Conformal().fit(random.normal(size=99)).threshold(0.05)).mean() for _ in range(400)
    ]
    assert abs(np.mean(rates) - 0.05) < 3 * np.std(rates) / 20


@pytest.mark.parametrize("units", [10, 26, 50, 160])
def test_the_rate_that_an_error_names_can_be_promised(units):
    with pytest.raises(TopModelError, match="ask for") as found:
        check_rate(1e-6, units)
    rate = float(re.search(r"ask for ([\d.]+) or more", str(found.value))[1])
    check_rate(rate, units)
    assert rate == pytest.approx(least_rate(units), rel=0.01)


def test_how_many_normals_a_rate_takes():
    assert [least_units(rate) for rate in (0.5, 0.1, 0.05, 0.01, 0.001)] == [1, 9, 19, 99, 999]
    assert least_rate(least_units(0.01)) == 0.01
    with pytest.raises(
        TopModelError, match=r"50 normals can promise false alarms of 0.0196 at least; a rate of 0.01 takes 99"
    ):
        Conformal().fit(np.zeros(50)).threshold(0.01)


# --- detectors ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DETECTORS)
def test_every_detector_finds_what_breaks_the_pattern(random, name):
    X = (random.normal(size=(300, 2)) @ random.normal(size=(2, 8)) + 0.1 * random.normal(size=(300, 8)) + 5).astype(
        "f4"
    )
    strange = X[:20] + random.normal(size=(20, 8)).astype("f4") * 4
    fitted = make_detector(name, np.arange(8), 280).fit(X[20:])
    assert (fitted.score_samples(strange)[:, None] < fitted.score_samples(X[:20])).mean() > 0.8


def test_the_distances_are_those_of_scikit_learn(random):
    X = random.normal(size=(80, 5)) @ random.normal(size=(5, 5))
    np.testing.assert_allclose(-ShrunkMahalanobis().fit(X).score_samples(X), LedoitWolf().fit(X).mahalanobis(X))
    pca = PCA(3, svd_solver="randomized", random_state=0).fit(X)
    residual = ((X - pca.inverse_transform(pca.transform(X))) ** 2).sum(axis=1)
    np.testing.assert_allclose(-PCAResidual(3).fit(X).score_samples(X), residual, atol=1e-9)
    assert NeighbourDistance(1).fit(X).score_samples(X + np.eye(5)[0] * 3).min() >= -3 - 1e-9
    assert len(NeighbourDistance(memory=30).fit(X).neighbours_._fit_X) == 30


def test_an_unknown_detector_is_named():
    with pytest.raises(TopModelError, match="no one-class top model 'svm'; did you mean"):
        parse_detectors(["knn", "svm"])


# --- the model ---------------------------------------------------------------------------------------------


def test_rows_are_scored_by_folds_that_had_not_seen_them(random):
    X = random.normal(size=(60, 6)) + 3
    model = model_of(false_alarms=0.1).fit(X)
    alone = clone(model.detectors[0][1]).fit(X[model.folds_ != 2]).score_samples(X[model.folds_ == 2])
    np.testing.assert_allclose(model.out_of_fold_[model.folds_ == 2], (alone - model.centers_[0]) / model.spreads_[0])
    assert np.bincount(model.folds_).tolist() == [12] * 5


def test_names_and_signs_are_those_of_outlier_detection_in_scikit_learn(random):
    model = model_of(false_alarms=0.05).fit(random.normal(size=(100, 6)) + 3)
    new = np.concatenate([random.normal(size=(50, 6)) + 3, random.normal(size=(5, 6)) - 9])
    said = model.predict(new)
    assert said[-5:].tolist() == [-1] * 5
    np.testing.assert_array_equal(said == -1, model.p_values(new) <= 0.05)
    np.testing.assert_array_equal(model.decision_function(new), model.score_samples(new) - model.offset_)


def test_rows_of_a_group_stay_together_and_the_promise_counts_groups(random):
    groups = np.repeat(np.arange(30), 4)
    X = random.normal(size=(30, 6))[groups] + 0.01 * random.normal(size=(120, 6)) + 3
    model = model_of(false_alarms=0.05).fit(X, groups=groups)
    assert all(len(set(model.folds_[groups == group])) == 1 for group in range(30))
    assert model.conformal_.units_ == 30
    with pytest.raises(TopModelError, match=r"30 normals can promise false alarms of 0\.0323 at least"):
        model_of(false_alarms=0.01).fit(X, groups=groups)
    with pytest.raises(TopModelError, match="8 groups of normals to learn from; expected at least 10"):
        model_of(false_alarms=0.1).fit(X[:32], groups=groups[:32])


# --- what is fused -----------------------------------------------------------------------------------------


def test_artificial_anomalies_keep_the_values_of_each_column(random):
    X = random.normal(size=(200, 50))
    rows = mixed(X, random)
    assert 0.03 < (rows != X).mean() < 0.07
    assert all(np.isin(rows[:, column], X[:, column]).all() for column in range(50))


def test_what_tells_artificial_anomalies_apart_is_fused(random):
    X = random.normal(size=(150, 3)) @ random.normal(size=(3, 40)) + 0.2 * random.normal(size=(150, 40)) + 3
    X = np.concatenate([X, random.normal(size=(150, 10))], axis=1).astype("f4")  # ten columns without a pattern
    columns = {("whole",): np.arange(40), ("noise",): np.arange(40, 50)}
    found = compare(X, columns, ["mahalanobis", "knn"])
    assert [(each.features, each.model) for each in found][:2] == [(("whole",), "mahalanobis"), (("whole",), "knn")]
    assert found[0].mean > 0.8
    assert abs(found[2].mean - 0.5) < 0.1
    assert fuse(found) == found[:1]  # the others are far below it
    assert fuse(found[2:3]) == found[2:3]


# --- scores ------------------------------------------------------------------------------------------------


def test_scores_of_anomalies_by_hand():
    is_anomaly = np.array([0, 0, 0, 0, 1, 1], bool)
    found = detection_scores(is_anomaly, np.array([4.0, 3.0, 2.0, 0.5, 1.0, 0.0]), np.array([0, 0, 0, 1, 0, 1], bool))
    assert (found["n_samples"], found["n_anomalies"]) == (6, 2)
    assert found["roc_auc"] == 7 / 8
    assert (found["detection"], found["false_alarms"]) == (0.5, 0.25)
    assert found["average_precision"] == pytest.approx((1 + 2 / 3) / 2)
    for name, (low, high) in found["intervals"].items():
        assert 0 <= low < found[name] < high <= 1


def test_without_anomalies_there_are_false_alarms_alone():
    found = detection_scores(np.zeros(40, bool), np.zeros(40), np.arange(40) < 1)
    assert found["false_alarms"] == 1 / 40
    assert set(found["intervals"]) == {"false_alarms"}


def test_perfect_detection_of_few_anomalies_has_a_wide_interval():
    found = detection_scores(np.arange(100) < 4, np.arange(100.0), np.arange(100) < 4)
    assert found["roc_auc"] == found["detection"] == 1
    assert found["intervals"]["detection"][0] < 0.6
    assert found["intervals"]["roc_auc"][0] < 0.9


def test_both_curves_of_a_perfect_ranking_have_one_interval():
    is_anomaly = np.arange(32) >= 24
    found = detection_scores(is_anomaly, -np.arange(32.0), is_anomaly)["intervals"]
    assert found["average_precision"] == pytest.approx(found["roc_auc"])  # a rounding once made 2.5 % of the former


# --- where -------------------------------------------------------------------------------------------------


def test_a_planted_patch_is_where_the_map_peaks(random):
    maps = random.normal(size=(60, 5, 6, 7)).astype("f4")
    memory = PatchMemory(64, false_alarms=0.05).fit(lambda rows: maps[rows], 60)
    strange = random.normal(size=(20, 5, 6, 7)).astype("f4")
    places = random.integers(0, 6, 20), random.integers(0, 7, 20)
    strange[np.arange(20), :, *places] += 12
    found = memory.maps(strange)
    peaks = np.array([np.unravel_index(each.argmax(), each.shape) for each in found])
    assert (np.abs(peaks - np.column_stack(places)).max(axis=1) <= 1).all()
    assert (found.reshape(20, -1).max(axis=1) > 1).all()
    assert len(memory.nearest_._fit_X) == 64
    assert memory.promised_ == 0.05


def test_so_few_images_are_marked_anywhere_as_was_promised(random):
    maps = random.normal(size=(400, 3, 4, 4)).astype("f4")
    memory = PatchMemory(128, false_alarms=0.1).fit(lambda rows: maps[rows], 200)
    marked = (memory.maps(maps[200:]).reshape(200, -1).max(axis=1) > 1).mean()
    assert 0.02 < marked < 0.2
