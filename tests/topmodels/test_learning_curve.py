import json

import numpy as np
import pytest
from sklearn import config_context
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import make_classification, make_regression
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.model_selection import cross_val_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from featurebank.errors import TopModelError
from featurebank.topmodels.folds import Folds, make_folds
from featurebank.topmodels.learning_curve import LearningCurve, PowerLaw, fit_power_law, learning_curve

TRUTH = PowerLaw(0.92, 1.5, 0.5)


class Spy(ClassifierMixin, BaseEstimator):
    """Tells which rows and weights each fit was given; the first column of X is the row number."""

    fits: list = []  # noqa: RUF012

    def fit(self, X, y, sample_weight=None):
        self.classes_ = np.unique(y)
        self.rows_ = X[:, 0].astype(int)
        self.fits.append((self.rows_, sample_weight))
        return self

    def predict(self, X):
        return np.repeat(self.classes_[:1], len(X))


@pytest.fixture
def fits(monkeypatch):
    monkeypatch.setattr(Spy, "fits", [])
    return Spy.fits


def noisy_truth(pipeline, X, y):
    """Score the true curve at the rows of the fit, and a little noise."""
    rows = pipeline[-1].rows_
    return TRUTH(len(rows)) + np.random.default_rng([int(X[0, 0]), *rows]).normal(0, 0.003)


def numbered(n, classes=2):
    """Return rows that hold their number, their classes in turn, and three folds."""
    X, y = np.arange(n, dtype=float)[:, None], np.arange(n) % classes
    return X, y, make_folds(3, X, y, None, random_state=0)


def rows_of(curve, fits, at):
    """Return the rows of the fits of one point, in order of fold and seed."""
    counts = np.cumsum([0, *(len(point["scores"]) for point in curve.points)])
    return [rows for rows, _ in fits[counts[at] : counts[at + 1]]]


@pytest.fixture(scope="module")
def problem():
    X, y = make_classification(150, 8, n_informative=5, n_classes=3, random_state=0)
    return X, y, make_folds(3, X, y, None, random_state=0)


# --- the power law -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("truth", [TRUTH, PowerLaw(0.7, 3.0, 1.2), PowerLaw(1.0, 0.8, 0.2), PowerLaw(-0.1, 9.0, 0.8)])
def test_the_fit_recovers_a_known_power_law(truth):
    n = np.array([50.0, 100, 200, 400, 700, 1000])
    scores = truth.a - truth.b * n**-truth.c + np.random.default_rng(0).normal(0, 1e-4, (20, 6))
    law = fit_power_law(n, scores, bound=1.0)
    assert np.mean(law.a) == pytest.approx(truth.a, abs=0.01)
    assert np.mean(law(2000)) == pytest.approx(truth(2000), abs=1e-3)


def test_the_fit_is_the_best_one_within_its_bounds():
    n = np.array([10.0, 20, 50, 100])
    rising = fit_power_law(n, np.array([[0.5, 0.7, 0.9, 1.0]]), bound=1.0)
    assert rising.a[0] <= 1
    assert rising.b[0] > 0
    falling = fit_power_law(n, np.array([[0.9, 0.8, 0.8, 0.7], [1.1, 1.1, 1.1, 1.1]]), bound=1.0)
    assert falling.b.tolist() == [0, 0]
    assert falling.a == pytest.approx([np.average([0.9, 0.8, 0.8, 0.7], weights=n**2), 1])


def test_the_curve_of_scores_that_follow_a_power_law(fits):
    X, y, folds = numbered(600)
    curve = learning_curve(Spy(), X, y, folds, scoring=noisy_truth, n_jobs=1)
    assert curve.fit.a == pytest.approx(TRUTH.a, abs=0.01)
    mean, low, high = curve.predict(1200)
    assert low <= TRUTH(1200) <= high
    assert low <= mean <= high
    low, high = curve.doubling["ci95"]
    assert curve.doubling["n"] == 1200
    assert low <= TRUTH(1200) - TRUTH(600) <= high


# --- the verdict -------------------------------------------------------------------------------------------


def test_a_rising_curve_says_label_more():
    X, y = make_classification(300, 80, n_informative=60, n_redundant=0, n_classes=3, class_sep=2, random_state=1)
    curve = learning_curve(RidgeClassifier(100), X, y, make_folds(5, X, y, None, random_state=0))
    assert curve.verdict.startswith("Label more: twice the labels (600) promise +")
    assert curve.verdict.count(" points (95 % +") == 1


@pytest.mark.parametrize("seed", range(4))
def test_random_labels_say_stop_or_chance(seed):
    random = np.random.default_rng(seed)
    X, y = random.normal(size=(510, 5)), random.permutation(510) % 3
    curve = learning_curve(RidgeClassifier(), X, y, make_folds(5, X, y, None, random_state=0), shots=(5,), seeds=3)
    assert curve.chance["score"] == pytest.approx(1 / 3)
    assert curve.verdict.startswith("Stop") or "does not rise above chance (0.333)" in curve.verdict
    assert not curve.verdict.startswith("Label more")


def test_a_level_above_chance_says_stop():
    random = np.random.default_rng(0)
    y = random.integers(0, 2, 500)
    X = (y ^ (random.random(500) < 0.1))[:, None] + random.normal(0, 0.01, (500, 1))
    curve = learning_curve(KNeighborsClassifier(5), X, y, make_folds(5, X, y, None, random_state=0), seeds=3)
    assert curve.verdict.startswith("Stop: t")
    assert "chance" not in curve.verdict
    assert curve.chance["ci95"][0] > 0.2


@pytest.mark.parametrize(
    ("low", "gain", "high", "word"),
    [
        (0.006, 0.02, 0.03, "Label more"),
        (0.001, 0.006, 0.009, "Stop"),
        (0.001, 0.004, 0.03, "Stop"),
        (0.004, 0.02, 0.03, "Not clear"),
    ],
)
@pytest.mark.parametrize("in_points", [True, False])
def test_the_interval_decides(low, gain, high, word, in_points):
    b = 200 * np.repeat([low, gain, high], [10, 80, 10])  # at c = 1 the gain from 100 rows to 200 is b / 200
    fit = PowerLaw(1 + 2 * gain, 200 * gain, 1.0)  # the score is 1 now
    scoring = "accuracy" if in_points else "neg_mean_squared_error"
    curve = LearningCurve([], 100, fit, PowerLaw(1.0, b, 1.0), in_points=in_points, scoring=scoring)
    assert curve.doubling["ci95"] == pytest.approx([low, high])
    assert curve.verdict.startswith(f"{word}: twice the labels (200) promise +")
    assert (" points (" in curve.verdict) == in_points


@pytest.mark.parametrize("mean", [0.85, 0.9, 0.96, 0.99])
def test_a_promise_counts_from_the_measured_score_and_ends_at_the_best_possible(mean):
    law, point = PowerLaw(1.0, 10.0, 1.0), {"n_train": 80, "mean": mean}  # 0.9 now, 0.95 with twice the rows
    again = PowerLaw(1.0, np.repeat([4.0, 10.0, 16.0], [10, 80, 10]), 1.0)
    found = LearningCurve([point], 100, law, again).doubling
    assert found["gain"] == pytest.approx(min(0.95 - max(mean, 0.9), 1 - mean))
    assert found["ci95"][1] == pytest.approx(min(0.08 - max(mean - 0.9, 0), 1 - mean))
    assert mean + found["ci95"][1] <= 1 + 1e-12


def test_folds_that_are_all_right_promise_nothing():
    random = np.random.default_rng(0)
    y = np.arange(60) % 2
    X = random.normal(size=(60, 4)) + 6 * y[:, None]
    curve = learning_curve(KNeighborsClassifier(1), X, y, make_folds(5, X, y, None, random_state=0))
    assert curve.measured == 1
    assert curve.doubling["ci95"][1] <= 0
    assert curve.verdict.startswith("Stop: every fold has the best possible score already")


def test_a_flat_curve_and_too_few_sizes_say_so(problem):
    flat = PowerLaw(0.5, 0.0, 1.0)
    curve = LearningCurve([], 100, flat, PowerLaw(np.full(3, 0.5), np.zeros(3), np.ones(3)))
    assert curve.verdict == "Stop: the curve is flat, more rows have not raised the score."
    curve = learning_curve(RidgeClassifier(), *problem, shots=(1, 2), shares=(0.5, 1.0), seeds=1)
    assert (curve.fit, curve.doubling, len(curve.points)) == (None, None, 4)
    assert curve.verdict.startswith("Not clear: a curve takes 3 numbers of rows")
    with pytest.raises(TopModelError, match="no curve was fitted"):
        curve.predict(1000)


# --- the draws ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grouped", [False, True])
def test_shots_are_so_many_rows_a_class_of_the_training_part(fits, grouped):
    X, y, folds = numbered(90, classes=3)
    groups = np.arange(90) // 2 if grouped else None
    curve = learning_curve(Spy(), X, y, folds, groups=groups, shots=(1, 5), shares=(1.0,), seeds=2, n_jobs=1)
    for at, k in enumerate((1, 5)):
        drawn = rows_of(curve, fits, at)
        assert (curve.points[at]["per_class"], curve.points[at]["n_train"], len(drawn)) == (k, 3 * k, 6)
        for number, rows in enumerate(drawn):
            assert np.bincount(y[rows]).tolist() == [k, k, k]
            assert np.isin(rows, folds[number // 2][0]).all()
    assert len({tuple(rows) for rows in rows_of(curve, fits, 1)}) == 6
    assert all(np.isin(few, more).all() for few, more in zip(*(rows_of(curve, fits, at) for at in (0, 1)), strict=True))


def test_shares_keep_the_classes_in_proportion_and_are_nested(fits):
    X = np.arange(300.0)[:, None]
    y = np.repeat([0, 1, 2], [30, 90, 180])
    folds = make_folds(3, X, y, None, random_state=0)
    curve = learning_curve(Spy(), X, y, folds, shots=(), shares=(0.1, 0.5, 1.0), seeds=3, n_jobs=1)
    tenth, half, whole = (rows_of(curve, fits, at) for at in range(3))
    assert {tuple(np.bincount(y[rows])) for rows in tenth} == {(2, 6, 12)}
    assert {tuple(np.bincount(y[rows])) for rows in half} == {(10, 30, 60)}
    assert all(np.isin(few, more).all() for few, more in zip(tenth, half, strict=True))
    assert [rows.tolist() for rows in whole] == [train.tolist() for train, _ in folds]
    assert not any(point["is_fitted"] for point in curve.points if point["share"] is None)


def test_groups_are_never_split(fits):
    X, y = np.arange(200.0)[:, None], np.arange(200) % 2
    groups = np.random.default_rng(0).integers(0, 30, 200)
    folds = make_folds(4, X, y, groups, random_state=0)
    curve = learning_curve(Spy(), X, y, folds, groups=groups, shots=(), seeds=2, n_jobs=1)
    for at, share in enumerate((0.1, 0.2, 0.4, 0.7, 1.0)):
        drawn = rows_of(curve, fits, at)
        for number, rows in enumerate(drawn):
            train = folds[number * 4 // len(drawn)][0]
            assert np.array_equal(rows, train[np.isin(groups[train], groups[rows])])
            assert len(rows) >= round(share * len(train))


def test_impossible_shots_are_noted():
    X, y = np.random.default_rng(0).normal(size=(60, 3)), np.repeat([0, 1], [12, 48])
    curve = learning_curve(RidgeClassifier(), X, y, make_folds(3, X, y, None, random_state=0), seeds=1)
    assert [point["per_class"] for point in curve.points if point["per_class"]] == [1, 2, 5]
    assert curve.notes == ["10, 20 rows a class left out: a class has 8 in some training part"]
    assert [point["is_fitted"] for point in curve.points if point["per_class"]] == [False] * 3  # not balanced


# --- the fits ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scoring", [None, "balanced_accuracy", "neg_log_loss"])
def test_the_whole_training_part_scores_as_cross_validation_does(problem, scoring):
    X, y, folds = problem
    pipeline = make_pipeline(StandardScaler(), LogisticRegression())
    curve = learning_curve(pipeline, X, y, folds, scoring=scoring, shots=(2,), shares=(0.3, 1.0), seeds=1)
    assert curve.points[-1]["scores"] == cross_val_score(pipeline, X, y, cv=folds, scoring=scoring).tolist()
    assert curve.points[-1]["mean"] == pytest.approx(np.mean(curve.points[-1]["scores"]))


@pytest.mark.parametrize("routing", [False, True])
def test_sample_weights_reach_the_fit_and_the_score(fits, routing):
    X, y, folds = numbered(60)
    weight = np.arange(60.0) + 1
    with config_context(enable_metadata_routing=routing):
        curve = learning_curve(
            make_pipeline("passthrough", Spy()), X, y, folds, sample_weight=weight, shots=(3,), seeds=1, n_jobs=1
        )
    assert len(fits) == 18
    assert all(np.array_equal(given, weight[rows]) for rows, given in fits)
    expected = [np.average(y[test] == 0, weights=weight[test]) for _, test in folds]
    assert curve.points[-1]["scores"] == pytest.approx(expected)


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_repeats_are_identical_whatever_the_threads(problem):
    X, y, folds = problem
    pipeline = make_pipeline(StandardScaler(), MLPClassifier((4,), max_iter=5, random_state=0))
    first, again, threads, other = (
        learning_curve(pipeline, X, y, folds, shots=(5,), seeds=2, n_jobs=jobs, random_state=seed).to_dict()
        for jobs, seed in ((1, 0), (1, 0), (2, 0), (1, 1))
    )
    assert first == again == threads
    assert first["points"] != other["points"]


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_what_cannot_be_fitted_is_left_out_and_counted(problem):
    curve = learning_curve(KNeighborsClassifier(4), *problem, shots=(1, 2, 5), seeds=2)
    assert [point["per_class"] for point in curve.points[:2]] == [2, None]
    assert len(curve.notes) == 1
    assert curve.notes[0].startswith("6 of 6 fits on 1 row a class failed: Expected n_neighbors <= n_samples_fit")
    stopping = MLPClassifier((4,), early_stopping=True, max_iter=5, random_state=0)
    assert "fits on 1 row a class failed" in learning_curve(stopping, *problem, shots=(1,), seeds=1).notes[0]


def test_a_size_of_which_some_fits_fail_keeps_the_others(problem):
    def score(pipeline, X, y):
        rows = len(pipeline[-1]._fit_X)
        return np.nan if rows < 20 and X[0, 0] > 0 else pipeline.score(X, y)

    curve = learning_curve(KNeighborsClassifier(1), *problem, scoring=score, shots=(5,), seeds=2)
    assert any(0 < len(point["scores"]) < 6 for point in curve.points)
    assert any("the score is nan" in note for note in curve.notes)
    assert np.isfinite(curve.doubling["gain"])


def test_nothing_fitted_is_an_error(problem):
    with pytest.raises(TopModelError, match=r"no part of the rows could be fitted and scored \(6 of 6 fits"):
        learning_curve(KNeighborsClassifier(20), *problem, shots=(1,), shares=(0.1,), seeds=2)
    with pytest.raises(TopModelError, match="every number of shots is left out"):
        learning_curve(RidgeClassifier(), *problem, shots=(500,), shares=())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shots": (0,)}, "shots"),
        ({"shares": (1.5,)}, "shares"),
        ({"shots": (), "shares": ()}, "no shots and no shares"),
        ({"seeds": 0}, "0 seeds"),
        ({"n_jobs": 0}, "0 jobs"),
        ({"scoring": "acuracy"}, "did you mean accuracy"),
        ({"groups": [1]}, "150 rows of X and 1 of groups"),
        ({"folds": []}, "no folds"),
    ],
)
def test_wrong_options_are_one_line(problem, options, message):
    X, y, folds = problem
    with pytest.raises(TopModelError, match=message) as caught:
        learning_curve(RidgeClassifier(), X, y, **{"folds": folds} | options)
    assert "\n" not in str(caught.value)


def test_numbers_have_shares_only():
    X, y = make_regression(120, 5, noise=20, random_state=0)
    folds = make_folds(3, X, y, None, random_state=0, task="regression")
    curve = learning_curve(Ridge(), X, y, folds, seeds=2)
    assert [point["share"] for point in curve.points] == [0.1, 0.2, 0.4, 0.7, 1.0]
    assert curve.points[-1]["scores"] == cross_val_score(Ridge(), X, y, cv=folds).tolist()
    far = learning_curve(Ridge(), X, y, folds, seeds=2, scoring="neg_mean_absolute_error")
    assert "points" not in far.verdict


@pytest.mark.filterwarnings("ignore:Label not 1 is present")
def test_several_labels_have_shares_only(problem):
    X, y, folds = problem
    labels = np.column_stack([y == 0, y > 1]).astype(int)
    curve = learning_curve(OneVsRestClassifier(RidgeClassifier()), X, labels, folds, seeds=2)
    assert [point["share"] for point in curve.points] == [0.1, 0.2, 0.4, 0.7, 1.0]


# --- the record --------------------------------------------------------------------------------------------


def test_the_record_is_json_and_a_table(problem):
    progress = []
    curve = learning_curve(RidgeClassifier(), *problem, seeds=2, progress=lambda *each: progress.append(each))
    assert json.loads(json.dumps(curve.to_dict(), allow_nan=False)) == curve.to_dict()
    assert set(curve.to_dict()) == {"points", "n_labels", "fit", "doubling", "chance", "verdict", "notes"}
    sizes = curve.to_frame()["n_train"]
    assert sizes.is_monotonic_increasing
    assert len(sizes) == 10
    assert all(point["ci95"][0] <= point["mean"] <= point["ci95"][1] for point in curve.points)
    assert progress == [(done, 57) for done in range(1, 58)]


def test_repeated_folds_do_not_feign_certainty(fits):
    X, y, _ = numbered(120)
    widths = []
    for repeats in (1, 10):
        folds = list(Folds("stratified", 4, repeats=repeats).split(X, y))
        curve = learning_curve(Spy(), X, y, folds, scoring=noisy_truth, shots=(), seeds=2, n_jobs=1)
        widths.append(np.subtract(*curve.predict(120)[:0:-1]))
    assert widths[1] > widths[0] / np.sqrt(10) * 1.5


def test_one_fold_is_noted(problem):
    X, y, folds = problem
    curve = learning_curve(RidgeClassifier(), X, y, folds[:1], seeds=2)
    assert curve.notes[-1].startswith("one fold:")
    assert curve.fit is not None
