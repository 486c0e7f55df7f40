import numpy as np
import pytest
import skops.io
from scipy.special import expit, log_softmax, softmax
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, log_loss

from featurebank.errors import TopModelError
from featurebank.topmodels.calibration import CALIBRATIONS, KEEP_LABELS, Calibrator, some_of
from featurebank.topmodels.calibration_error import expected_calibration_error
from featurebank.topmodels.cross_calibration import choose_method, cross_calibrated
from featurebank.topmodels.thresholds import CANDIDATES, abstention_curve, best_threshold, cross_thresholds

NAMES = np.array(["cat", "dog", "elk"])
TRUSTED = "featurebank.topmodels.calibration.Calibrator"


def draw(proba, random):
    """Classes 0..k-1 drawn with these probabilities, shape (n,)."""
    return (proba.cumsum(axis=1)[:, :-1] < random.random((len(proba), 1))).sum(axis=1)


def two_classes(n=600):
    """Log odds (n,) and classes drawn by them, as names."""
    random = np.random.default_rng(0)
    scores = random.normal(0.3, 1.5, n)
    p = expit(scores)[:, None]
    return scores, NAMES[draw(np.hstack([1 - p, p]), random)]


def three_classes(n=600):
    """Log-probabilities (n, 3) and classes drawn by them, as names."""
    random = np.random.default_rng(0)
    scores = log_softmax(random.normal(0, 1.5, (n, 3)), axis=1)
    return scores, NAMES[draw(np.exp(scores), random)]


every_method = pytest.mark.parametrize("method", CALIBRATIONS)
every_data = pytest.mark.parametrize("data", [two_classes, three_classes])


# Calibrator


@every_data
def test_sigmoid_is_logistic_regression_on_the_scores(data):
    scores, y = data()
    columns = scores.reshape(len(y), -1)
    expected = LogisticRegression(max_iter=1000).fit(columns, y)
    found = Calibrator().fit(scores, y)
    np.testing.assert_array_equal(found.coef_, expected.coef_)
    np.testing.assert_allclose(found.predict_proba(scores), expected.predict_proba(columns), rtol=1e-12)


@every_data
def test_sigmoid_says_the_same_of_scores_in_any_unit(data):
    scores, y = data()
    small = scores / scores.std(axis=0).max()
    expected = Calibrator().fit(small, y).predict_proba(small)
    np.testing.assert_allclose(Calibrator().fit(small / 1e4, y).predict_proba(small / 1e4), expected, atol=1e-3)
    assert np.mean(expected.max(axis=1) > 0.9) > 0.1


def test_a_sigmoid_of_two_classes_never_turns_a_model_round():
    scores, y = np.array([1.0, 2.0, 3.0, -1.0]), np.array(["cat", "cat", "cat", "dog"])
    found = Calibrator().fit(scores, y, sample_weight=[1, 1, 1, 2])  # the higher the score, the less likely the dog
    np.testing.assert_allclose(found.predict_proba([-5.0, 5.0]), [[0.6, 0.4]] * 2, rtol=1e-12)


def test_isotonic_of_two_classes_is_isotonic_regression():
    scores, y = two_classes()
    expected = IsotonicRegression(out_of_bounds="clip").fit(scores, y == "dog")
    new = np.linspace(-9, 9, 500)
    found = Calibrator("isotonic").fit(scores, y).predict_proba(new)
    np.testing.assert_allclose(found[:, 1], expected.predict(new), rtol=1e-12)
    np.testing.assert_allclose(found[:, 0], 1 - expected.predict(new), rtol=1e-12)


def test_isotonic_of_more_classes_is_one_regression_a_class_normalised():
    scores, y = three_classes()
    raw = np.column_stack([IsotonicRegression().fit_transform(scores[:, j], y == NAMES[j]) for j in range(3)])
    found = Calibrator("isotonic").fit(scores, y).predict_proba(scores)
    np.testing.assert_allclose(found, raw / raw.sum(axis=1, keepdims=True), rtol=1e-12)


def test_a_row_to_which_isotonic_gives_no_chance_is_uniform():
    calibrator = Calibrator("isotonic").fit(np.eye(3), NAMES)
    np.testing.assert_array_equal(
        calibrator.predict_proba(np.vstack([np.zeros(3), np.eye(3)[1]])), [[1 / 3] * 3, [0, 1, 0]]
    )


@pytest.mark.parametrize(
    ("data", "odds"), [(two_classes, lambda s: np.column_stack([-s, s]) / 2), (three_classes, np.copy)]
)
def test_temperature_finds_the_factor_of_overconfident_logits(data, odds):
    scores, y = data(20_000)
    calibrator = Calibrator("temperature").fit(3 * scores, y)
    assert calibrator.temperature_ == pytest.approx(3, rel=0.05)
    assert isinstance(calibrator.temperature_, float)
    expected = softmax(odds(3 * scores) / calibrator.temperature_, axis=1)
    np.testing.assert_allclose(calibrator.predict_proba(3 * scores), expected, rtol=1e-9)


def test_temperature_is_where_the_slope_of_the_log_loss_is_zero():
    scores, y = three_classes()
    best = Calibrator("temperature").fit(scores, y).temperature_
    losses = [log_loss(y, softmax(scores / t, axis=1)) for t in (best / 1.001, best, best * 1.001)]
    assert losses[1] < min(losses[0], losses[2])
    assert losses[0] == pytest.approx(losses[2], abs=1e-7)


@every_method
def test_calibration_lowers_the_error_of_overconfident_scores(method):
    scores, y = three_classes(6000)
    scores, fitted, fresh = log_softmax(3 * scores, axis=1), slice(0, 3000), slice(3000, None)
    calibrator = Calibrator(method).fit(scores[fitted], y[fitted])
    before = expected_calibration_error(y[fresh], np.exp(scores[fresh]), NAMES)
    after = expected_calibration_error(y[fresh], calibrator.predict_proba(scores[fresh]), NAMES)
    assert before > 0.15
    assert after < 0.03


@every_method
@every_data
def test_probabilities_are_of_the_sorted_classes_and_sum_to_one(method, data):
    scores, y = data()
    calibrator = Calibrator(method).fit(scores, y)
    proba = calibrator.predict_proba(scores)
    assert calibrator.classes_.tolist() == sorted(set(y))
    assert (proba.shape, proba.dtype) == ((len(y), len(set(y))), np.float64)
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-12)
    assert proba.min() >= 0
    assert accuracy_score(y, calibrator.classes_[proba.argmax(axis=1)]) > 0.6


@every_method
def test_two_columns_count_as_their_difference(method):
    scores, y = two_classes()
    expected = Calibrator(method).fit(scores, y).predict_proba(scores)
    logs = log_softmax(np.column_stack([np.zeros_like(scores), scores]), axis=1)
    for same in (scores[:, None], logs):
        np.testing.assert_allclose(Calibrator(method).fit(same, y).predict_proba(same), expected, atol=1e-7)


@every_method
@every_data
def test_weights_equal_repeated_rows(method, data):
    scores, y = data()
    times = np.random.default_rng(1).integers(1, 4, len(y))
    weighted = Calibrator(method).fit(scores, y, sample_weight=times).predict_proba(scores)
    repeated = Calibrator(method).fit(scores.repeat(times, axis=0), y.repeat(times)).predict_proba(scores)
    np.testing.assert_allclose(weighted, repeated, atol=1e-6)
    assert np.abs(weighted - Calibrator(method).fit(scores, y).predict_proba(scores)).max() > 1e-3


@every_method
def test_an_impossible_class_is_no_obstacle(method):
    proba = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.5, 0], [0, 0.5, 0.5]])
    with np.errstate(divide="ignore"):
        logs = np.log(proba)
    found = Calibrator(method).fit(logs, NAMES[[0, 1, 2, 0, 1]]).predict_proba(logs)
    assert np.isfinite(found).all()
    assert found[:3].argmax(axis=1).tolist() == [0, 1, 2]


@every_method
def test_a_fit_repeats_and_a_clone_forgets(method):
    scores, y = three_classes()
    calibrator = Calibrator(method).fit(scores, y)
    assert calibrator.get_params() == {"method": method}
    again = clone(calibrator)
    with pytest.raises(NotFittedError):
        again.predict_proba(scores)
    np.testing.assert_array_equal(again.fit(scores, y).predict_proba(scores), calibrator.predict_proba(scores))


@every_method
@every_data
def test_a_fitted_calibrator_survives_skops_and_holds_no_odd_type(method, data):
    scores, y = data()
    calibrator = Calibrator(method).fit(scores, y)
    saved = skops.io.dumps(calibrator)
    assert skops.io.get_untrusted_types(data=saved) == [TRUSTED]
    loaded = skops.io.loads(saved, trusted=[TRUSTED])
    np.testing.assert_array_equal(loaded.predict_proba(scores), calibrator.predict_proba(scores))
    np.testing.assert_array_equal(loaded.classes_, calibrator.classes_)


@pytest.mark.parametrize(
    ("method", "scores", "y", "message"),
    [
        ("isotonik", [0.0, 1.0], [0, 1], "no calibration 'isotonik'; did you mean isotonic?"),
        ("x", [0.0, 1.0], [0, 1], "no calibration 'x'; expected one of sigmoid, isotonic, temperature"),
        ("sigmoid", [0.0, 1.0], [1, 1], "1 class in the rows to calibrate on; expected at least 2"),
        ("sigmoid", [0.0, 1.0, 2.0], [0, 1, 2], "1 scores a row for 3 classes; expected 3"),
        ("temperature", np.zeros((4, 6)), [0, 1, 2, 3], "6 scores a row for 4 classes; expected 4"),
        ("isotonic", [0.0, np.nan], [0, 1], "a score that is no number"),
        ("temperature", [0.0, np.inf], [0, 1], "a score that is no number"),
    ],
)
def test_what_cannot_be_fitted_is_refused_in_one_line(method, scores, y, message):
    with pytest.raises(TopModelError) as error:
        Calibrator(method).fit(scores, y)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


# cross_calibrated


@every_method
@every_data
def test_each_fold_is_calibrated_on_the_others(method, data):
    scores, y = data()
    fold = np.arange(len(y)) % 3
    weight = np.random.default_rng(2).random(len(y))
    found = cross_calibrated(scores, y, fold, method, weight)
    for number in range(3):
        own, others = fold == number, fold != number
        calibrator = Calibrator(method).fit(scores[others], y[others], weight[others])
        np.testing.assert_array_equal(found[own], calibrator.predict_proba(scores[own]))


@every_method
@pytest.mark.parametrize("k", [2, 3])
def test_random_labels_are_calibrated_to_no_better_than_chance(method, k):
    random = np.random.default_rng(3)
    scores, y = random.normal(0, 3, (3000, k)), random.integers(0, k, 3000)
    proba = cross_calibrated(scores, y, np.arange(3000) % 5, method)
    assert log_loss(y, proba) > np.log(k) - 0.002
    assert accuracy_score(y, proba.argmax(axis=1)) == pytest.approx(1 / k, abs=0.03)


@every_method
def test_a_class_that_the_other_folds_lack_has_no_chance(method):
    scores, y = three_classes(90)
    fold = np.where(y == "elk", 0, np.arange(90) % 2)
    proba = cross_calibrated(scores, y, fold, method)
    np.testing.assert_array_equal(proba[fold == 0, 2], 0)
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-12)
    two = Calibrator(method).fit(scores[fold == 1, :2], y[fold == 1])
    np.testing.assert_array_equal(proba[fold == 0, :2], two.predict_proba(scores[fold == 0, :2]))


@pytest.mark.parametrize(("fold", "shown"), [([0, 1, -1, 1], "[-1, 0, 1]"), ([2, 2, 2, 2], "[2]")])
def test_untested_rows_and_a_single_fold_are_refused(fold, shown):
    scores, y = [-1.0, 1.0, -2.0, 2.0], np.array([False, True, False, True])
    with pytest.raises(TopModelError) as error:
        cross_calibrated(scores, y, fold)
    assert f"the rows are of folds {shown}; expected at least 2, none below 0" in str(error.value)
    with pytest.raises(TopModelError):
        cross_thresholds(y, scores, fold, accuracy_score)


# expected_calibration_error


def test_the_calibration_error_of_four_rows_by_hand():
    # bin (0.5, 0.6]: 0.55 right, 0.6 wrong: gap |1 - 1.15| = 0.15; bin (0.8, 0.9]: 0.9 wrong: 0.9; bin (0.9, 1]: 0
    proba = [[0.55, 0.45], [0.4, 0.6], [0.1, 0.9], [1.0, 0.0]]
    y = ["cat", "cat", "cat", "cat"]
    assert expected_calibration_error(y, proba, NAMES[:2], bins=10) == pytest.approx((0.15 + 0.9) / 4)
    # two bins: the one above 0.5 holds all: |2 - 3.05| / 4
    assert expected_calibration_error(y, proba, NAMES[:2], bins=2) == pytest.approx(1.05 / 4)
    # weights 1 2 3 4: |1 x 0.45 - 2 x 0.6| = 0.75 and 3 x 0.9 = 2.7, of 10
    found = expected_calibration_error(y, proba, NAMES[:2], bins=10, sample_weight=[1, 2, 3, 4])
    assert found == pytest.approx((0.75 + 2.7) / 10)


def test_a_confidence_on_an_edge_belongs_to_the_bin_below():
    # 0.75 joins 0.6, not 0.8: |0.4 - 0.75| + 0.2 and not 0.4 + |0.2 - 0.75|
    found = expected_calibration_error([0, 1, 0], [[0.6, 0.4], [0.75, 0.25], [0.8, 0.2]], [0, 1], bins=4)
    assert found == pytest.approx((0.35 + 0.2) / 3)


def test_calibrated_probabilities_have_only_the_error_of_chance():
    random = np.random.default_rng(4)
    p = random.uniform(0.5, 1, 20_000)
    proba = np.column_stack([p, 1 - p])
    number = np.ceil(p * 15)
    deviations = [np.sqrt((p * (1 - p))[number == each].sum()) for each in np.unique(number)]
    expected = np.sqrt(2 / np.pi) * sum(deviations) / len(p)  # mean of |normal| in each bin
    found = np.mean([expected_calibration_error(draw(proba, random), proba, [0, 1]) for _ in range(50)])
    assert found == pytest.approx(expected, rel=0.1)


def test_weights_of_the_calibration_error_equal_repeated_rows():
    scores, y = three_classes()
    proba, times = softmax(2 * scores, axis=1), np.random.default_rng(5).integers(0, 4, len(y))
    weighted = expected_calibration_error(y, proba, NAMES, sample_weight=times)
    repeated = expected_calibration_error(y.repeat(times), proba.repeat(times, axis=0), NAMES)
    assert weighted == pytest.approx(repeated, rel=1e-12)


# abstention_curve

SHARES = [share / 20 for share in range(20, 0, -1)]


def test_abstention_by_hand():
    # 20 rows, confidence 0.99 down to 0.80, the five least sure wrong
    confidence = np.arange(99, 79, -1) / 100
    right = np.arange(20) < 15
    shuffled = np.random.default_rng(6).permutation(20)
    proba = np.column_stack([confidence, 1 - confidence])[shuffled]
    curve = abstention_curve(np.zeros(20), np.where(right, 0, 1)[shuffled], proba)
    weighted = abstention_curve(np.zeros(20), np.where(right, 0, 1)[shuffled], proba, np.full(20, 0.1))
    np.testing.assert_allclose(weighted, curve, rtol=1e-9)
    assert curve.columns.tolist() == ["coverage", "threshold", "accuracy"]
    assert curve.coverage.tolist() == SHARES
    assert curve.threshold.tolist() == confidence[::-1].tolist()
    assert curve.accuracy.tolist() == pytest.approx([min(1, 15 / n) for n in range(20, 0, -1)])


def test_rows_of_one_confidence_are_answered_together():
    curve = abstention_curve([0, 0, 0, 0], [0, 0, 1, 1], [[0.9, 0.1], [0.7, 0.3], [0.3, 0.7], [0.4, 0.6]])
    assert curve.coverage.tolist() == [1.0] * 5 + [0.75] * 10 + [0.25] * 5
    assert curve.threshold.tolist() == [0.6] * 5 + [0.7] * 10 + [0.9] * 5
    assert curve.accuracy.tolist() == pytest.approx([1 / 2] * 5 + [2 / 3] * 10 + [1.0] * 5)


def test_weights_of_abstention_equal_repeated_rows():
    scores, y = three_classes()
    proba, times = softmax(scores, axis=1).round(2), np.random.default_rng(7).integers(0, 4, len(y))
    guess = NAMES[proba.argmax(axis=1)]
    weighted = abstention_curve(y, guess, proba, times / 10)
    repeated = abstention_curve(y.repeat(times), guess.repeat(times), proba.repeat(times, axis=0))
    np.testing.assert_allclose(weighted, repeated, rtol=1e-9)
    assert weighted.accuracy.iloc[-1] > weighted.accuracy.iloc[0] + 0.1


# best_threshold, cross_thresholds


@pytest.mark.parametrize(
    ("y", "score", "expected"),
    [
        ([0, 0, 1, 1], [0.1, 0.2, 0.6, 0.8], 0.4),  # the only perfect cut
        ([0, 1, 0, 1], [0, 2, 4, 6], 1.0),  # 3 of 4 right at 1 and at 5: the first
        ([0, 1, 1, 0, 0, 1], [0, 1, 2, 3, 4, 5], 0.5),  # 4 of 6 right at 0.5 and at 4.5
        ([1, 1], [3, 7], 2.5),  # below all scores
        ([0, 0], [3, 7], 7.5),  # above all scores
        ([0, 1], [5, 5], 4.5),  # no cut helps
    ],
)
def test_thresholds_by_hand(y, score, expected):
    assert best_threshold(np.array(y, bool), score, accuracy_score) == pytest.approx(expected)


def test_the_middle_of_the_longest_plateau_is_taken():
    def plateaus(y, predicted):  # equally good, but for rounding, with 7, 5, 4, 3 or 2 of 8 rows called positive
        return {7: 0.3, 5: 0.1 + 0.2, 4: 0.3, 3: 0.3, 2: 0.3}.get(predicted.sum(), 0.0)

    # thresholds 0.5, then 2.5 to 5.5: the lower middle of those four
    assert best_threshold(np.zeros(8, bool), np.arange(8), plateaus) == 3.5


def test_weights_of_a_threshold_equal_repeated_rows():
    scores, y = two_classes(150)
    y, times = y == "dog", np.random.default_rng(8).integers(1, 4, len(y))
    weighted = best_threshold(y, scores, f1_score, times)
    assert weighted == best_threshold(y.repeat(times), scores.repeat(times), f1_score)
    assert weighted != best_threshold(y, scores, f1_score)


def test_many_scores_are_tried_evenly():
    tried = []

    def count(y, predicted):
        tried.append(int(predicted.sum()))
        return 0.0

    best_threshold(np.zeros(5000, bool), np.random.default_rng(9).random(5000), count)
    assert len(tried) == CANDIDATES + 2
    assert (tried[0], tried[-1]) == (5000, 0)
    assert set(-np.diff(tried)) == {24, 25}


def test_a_metric_that_is_never_a_number_is_refused():
    with pytest.raises(TopModelError, match="the metric is no number at any threshold"):
        best_threshold([True, False], [0.0, 1.0], lambda y, predicted: float("nan"))


def test_a_metric_that_is_sometimes_a_number_counts_there():
    assert best_threshold([False, True], [0.0, 1.0], lambda y, p: 1.0 if p.sum() == 1 else float("nan")) == 0.5


def test_each_fold_is_cut_where_the_others_do_best():
    scores, y = two_classes()
    y, fold, weight = y == "dog", np.arange(600) % 3, np.random.default_rng(10).random(600)
    found = cross_thresholds(y, scores, fold, f1_score, weight)
    assert found.dtype == np.bool_
    for number in range(3):
        own, others = fold == number, fold != number
        threshold = best_threshold(y[others], scores[others], f1_score, weight[others])
        np.testing.assert_array_equal(found[own], scores[own] >= threshold)


def balanced_accuracy(y, said):
    """scikit-learn's for two classes, without its checks, which take longer than all else here."""
    return (said[y].mean() + 1 - said[~y].mean()) / 2


def test_a_threshold_helps_a_shifted_score_and_nothing_helps_a_random_one():
    scores, y = two_classes(3000)
    y, fold = y == "dog", np.arange(3000) % 5
    found = cross_thresholds(y, scores + 2, fold, balanced_accuracy)
    best, shifted = (balanced_accuracy_score(y, scores + shift >= 0) for shift in (0, 2))
    assert balanced_accuracy_score(y, found) == pytest.approx(best, abs=0.01)
    assert shifted < best - 0.1
    chance = cross_thresholds(y, np.random.default_rng(11).random(3000), fold, balanced_accuracy)
    assert balanced_accuracy_score(y, chance) == pytest.approx(0.5, abs=0.03)


def test_of_many_rows_a_share_of_each_class_is_learned_from(monkeypatch):
    random = np.random.default_rng(0)
    y = np.r_[np.zeros(6000, int), np.ones(3000, int), 2]
    scores = random.normal(np.eye(3)[y], 1.0)
    monkeypatch.setattr("featurebank.topmodels.calibration.ENOUGH", 900)
    found = some_of(y)
    assert np.unique(y[found], return_counts=True)[1].tolist() == [600, 300, 1]
    assert some_of(y[:900]) == slice(None)
    few = Calibrator().fit(scores, y).predict_proba(scores)
    assert np.abs(cross_calibrated(scores, y, np.arange(len(y)) % 3)[:, 0].mean() - 2 / 3) < 0.02
    monkeypatch.undo()
    assert np.array_equal(few, Calibrator().fit(scores[found], y[found]).predict_proba(scores))
    assert np.abs(few - Calibrator().fit(scores, y).predict_proba(scores)).max() < 0.1


# what the rows allow


def test_few_rows_get_one_temperature_and_many_one_a_class():
    random = np.random.default_rng(0)
    scores = log_softmax(random.normal(0, 1.5, (6000, 3)), axis=1)
    y = NAMES[draw(np.exp(scores), random)]
    true = np.array([1.0, 3.0, 6.0])  # how oversure the scores are, by the class that is said
    told = scores * true[scores.argmax(axis=1)][:, None]
    fold = np.arange(6000) % 5
    assert choose_method(told, y, fold) == "class-temperature"
    assert choose_method(told[:30], y[:30], fold[:30]) == "temperature"
    found = Calibrator("class-temperature").fit(told, y).temperatures_
    np.testing.assert_allclose(found, true, rtol=0.15)


@pytest.mark.parametrize("method", KEEP_LABELS)
@every_data
def test_a_temperature_keeps_the_most_probable_class(method, data):
    scores, y = data()
    proba = Calibrator(method).fit(scores, y).predict_proba(scores)
    highest = scores.argmax(axis=1) if scores.ndim == 2 else (scores > 0).astype(int)
    np.testing.assert_array_equal(proba.argmax(axis=1), highest)


def test_scores_without_a_mistake_are_not_sure_of_everything():
    y = NAMES[np.arange(30) % 3]
    proba = Calibrator("temperature").fit(10 * np.eye(3)[np.arange(30) % 3], y).predict_proba(10 * np.eye(3))
    # one row in 32 counts as of any class: the truth gets 1 - 2 / 3 / 32
    np.testing.assert_allclose(np.diag(proba), 1 - 2 / 3 / 32, atol=1e-4)


def test_a_class_that_no_row_has_learned_is_no_obstacle_for_a_temperature():
    scores, y = three_classes(90)
    seen = y != "elk"
    calibrator = Calibrator("temperature").fit(scores[seen], y[seen], classes=NAMES)
    assert calibrator.predict_proba(scores).shape == (90, 3)
    with pytest.raises(TopModelError, match="sigmoid calibration has no row of the class 'elk'"):
        Calibrator("sigmoid").fit(scores[seen], y[seen], classes=NAMES)


def test_abstention_judges_the_label_that_is_said():
    curve = abstention_curve(["a", "b"], ["a", "b"], [[0.9, 0.1], [0.8, 0.2]], classes=["a", "b"])
    assert curve.iloc[0].tolist() == [1.0, 0.2, 1.0]
    error = expected_calibration_error(["a", "b"], [[0.9, 0.1], [0.8, 0.2]], ["a", "b"], predicted=["a", "b"])
    assert error == pytest.approx((0.1 + 0.8) / 2)
