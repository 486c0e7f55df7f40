import math

import numpy as np
import pytest

from featurebank.topmodels.influence import Part, block_influence, mean_influence
from featurebank.topmodels.scores import (
    Trials,
    corrected_interval,
    difference_interval,
    exact_interval,
    fold_difference,
    fold_interval,
    paired_interval,
    ratio_interval,
    score_interval,
    wilson_interval,
)


def test_the_corrected_interval_of_two_folds_by_hand():
    # variance 0.005 x (1/2 + 1) = 0.0075; Student's t with one degree of freedom is 12.7062
    low, high = corrected_interval([0.8, 0.9], 50, 50)
    assert (low, high) == pytest.approx(
        (0.85 - 12.7062 * math.sqrt(0.0075), 0.85 + 12.7062 * math.sqrt(0.0075)), abs=1e-5
    )


def test_the_corrected_interval_of_five_folds_by_hand():
    # variance 0.001 x (1/5 + 20/80) = 0.00045; t with four degrees of freedom is 2.776445
    low, high = corrected_interval([0.80, 0.82, 0.84, 0.86, 0.88], 80, 20)
    assert (low, high) == pytest.approx((0.84 - 0.0588972, 0.84 + 0.0588972), abs=1e-6)


def test_the_corrected_interval_is_wider_than_the_naive_one():
    low, high = corrected_interval([0.80, 0.82, 0.84, 0.86, 0.88], 80, 20)
    naive = 2 * 2.776445 * math.sqrt(0.001 / 5)
    assert high - low == pytest.approx(naive * 1.5)


def test_one_fold_says_nothing_about_spread():
    assert np.isnan(corrected_interval([0.7], 75, 25)).all()


@pytest.mark.parametrize(
    ("correct", "count", "low", "high"),
    [(541, 656, 0.793, 0.852), (580, 656, 0.857, 0.907), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0)],
)
def test_wilson_intervals_are_the_published_ones(correct, count, low, high):
    assert wilson_interval(correct, count) == pytest.approx((low, high), abs=1e-3)


@pytest.mark.parametrize(
    ("share", "trials", "low", "high"),
    [(1.0, 20, 0.8316, 1.0), (0.0, 10, 0.0, 0.3085), (0.5, 10, 0.1871, 0.8129)],
)
def test_exact_intervals_are_the_published_ones(share, trials, low, high):
    assert exact_interval(share, trials) == pytest.approx((low, high), abs=1e-4)


def test_the_influence_on_a_mean_by_hand():
    # two folds of means 0.75 and 0.5: 0.625 in all; row 0 adds (1 - 0.625) / 4 / 2
    parts = [Part(np.arange(4), np.ones(4)), Part(np.array([4, 5]), np.ones(2))]
    found = mean_influence(parts, [np.array([1, 1, 1, 0]), np.array([1, 0])])
    expected = [0.375 / 8] * 3 + [-0.625 / 8, 0.375 / 4, -0.625 / 4]
    np.testing.assert_allclose(found, expected)


def test_leaving_out_blocks_gives_the_influence_on_a_mean():
    random = np.random.default_rng(0)
    parts = [Part(random.integers(0, 9, size=30), random.random(30)) for _ in range(3)]
    values = [random.random(30) for _ in parts]
    found = block_influence(lambda fold, rows: np.average(values[fold][rows], weights=parts[fold].weight[rows]), parts)
    np.testing.assert_allclose(np.sort(found), np.sort(mean_influence(parts, values)), atol=1e-12)


def test_folds_of_equal_scores_have_the_interval_of_their_rows():
    low, high, method = fold_interval([0.9] * 5, 80, 20, "accuracy", trials=Trials(100, 100))
    assert (low, high, method) == (*exact_interval(0.9, 100), "nadeau-bengio")
    assert fold_interval([0.9] * 5, 80, 20, "r2", trials=Trials(100, 100))[:2] == (0.9, 0.9)


def test_a_score_that_is_no_share_has_students_interval():
    influence = np.array([0.1, -0.1, 0.2, -0.2])  # variance 0.1 x 4 / 3; t of three degrees of freedom is 3.18245
    low, high, method = score_interval(-1.5, influence, "neg_log_loss", rows=4)
    assert (low + high, high - low) == pytest.approx((-3, 2 * 3.18245 * math.sqrt(0.4 / 3)), abs=1e-4)
    assert method == "jackknife"


def test_one_unit_says_nothing():
    assert score_interval(0.8, np.zeros(1), "accuracy", rows=10).method == "none"


def test_a_perfect_score_over_groups_says_no_less_than_one_mistake():
    # five groups of 100 rows: 0.025 ** (1 / 5) is 0.4782; a row that is wrong says nothing of how groups differ
    perfect = score_interval(1.0, np.zeros(5), "accuracy", rows=500, folds=5)
    assert perfect[:2] == pytest.approx((0.4782, 1), abs=1e-4)
    one = score_interval(0.998, np.array([-0.8, 0.2, 0.2, 0.2, 0.2]) / 500, "accuracy", rows=500, folds=5)
    assert one[:2] == exact_interval(0.998, 5)
    assert one.low < perfect.low


def test_mistakes_in_two_groups_are_worth_twice_the_groups():
    influence = np.array([-0.6, -0.6, 0.4, 0.4, 0.4]) / 500
    assert score_interval(0.996, influence, "accuracy", rows=500, folds=5)[:2] == exact_interval(0.996, 10)


def test_rows_that_are_all_right_are_trials_also_where_they_were_left_out_in_blocks():
    assert score_interval(1.0, np.zeros(50), "f1", rows=500, units=500)[:2] == exact_interval(1.0, 500)


def r2_of(y, said):
    return lambda rows: 1 - ((y - said)[rows] ** 2).sum() / ((y[rows] - y[rows].mean()) ** 2).sum()


def test_the_interval_of_r2_is_a_jackknife_of_its_logarithm():
    random = np.random.default_rng(0)
    y = random.normal(size=30)
    said, everyone = y + random.normal(size=30), np.arange(30)
    score = r2_of(y, said)
    logarithms = np.log([1 - score(np.delete(everyone, row)) for row in everyone])
    whole = np.log(1 - score(everyone))
    error = math.sqrt(1.5 * 29 / 30 * ((logarithms - whole) ** 2).sum())  # 1.5: folds share training rows
    reach = 2.04523 * error  # Student's t of 29 degrees of freedom
    low, high, method = ratio_interval(score, Part(everyone, np.ones(30)), score(everyone), folds=5)
    assert (low, high) == pytest.approx((1 - math.exp(whole + reach), 1 - math.exp(whole - reach)), abs=1e-5)
    assert high < 1
    assert method == "log-jackknife"
    assert ratio_interval(score, Part(everyone, np.ones(30)), -5.0, folds=5).low == -5


def test_one_group_with_all_the_error_leaves_the_interval_of_r2_unknown():
    y, groups = np.arange(30.0), np.repeat(np.arange(3), 10)
    score = r2_of(y, y + (groups == 0))
    low, high, method = ratio_interval(score, Part(groups, np.ones(30)), score(np.arange(30)))
    assert (np.isnan([low, high]).all(), method) == (True, "none")


def test_models_that_score_alike_in_every_fold_differ_by_their_rows():
    folds = [0.9] * 5, [0.9] * 5
    gains = np.repeat([1.0, -1.0, 0.0], [5, 5, 90]) / 100
    by_rows = difference_interval(0.0, gains, folds=5)  # variance 10 / 10,000 x 100 / 99 x 1.5; t is 1.98422
    assert by_rows.high == pytest.approx(1.98422 * math.sqrt(0.001 * 100 / 99 * 1.5), abs=1e-6)
    assert paired_interval(*folds, 80, 20)["ci95"] == [0, 0]
    found = paired_interval(*folds, 80, 20, by_rows)
    assert found == {"difference": 0, "ci95": [by_rows.low, by_rows.high], "told_apart": False}


def test_a_perfect_correlation_of_few_rows_has_the_interval_of_their_share_in_its_range():
    low, high, method = score_interval(1.0, np.zeros(20), "matthews_corrcoef", rows=20, folds=5)
    assert (low, high, method) == (pytest.approx(2 * exact_interval(1.0, 20)[0] - 1), 1.0, "korn-graubard")
    low, high, _ = score_interval(-0.01, np.array([-0.05, 0.05, 0]), "neg_log_loss", rows=3)
    assert low < -0.01
    assert high == 0


def test_one_unit_leaves_the_whole_range():
    assert score_interval(0.8, np.zeros(1), "matthews_corrcoef", rows=10)[:2] == (-1, 1)
    assert np.isnan(score_interval(0.8, np.zeros(1), "r2", rows=10).low)


def test_errors_that_do_not_differ_say_nothing_of_how_they_vary():
    assert np.isnan(score_interval(-1.0, np.zeros(9), "neg_mean_absolute_error", rows=9).low)
    constant = ratio_interval(lambda rows: 0.0, Part(np.arange(9), np.ones(9)), 0.0)
    assert np.isnan(constant.low)
    assert difference_interval(0.0, np.zeros(9))[:2] == (0, 0)


@pytest.mark.parametrize(
    ("first", "second", "scoring", "trials", "low", "high"),
    [
        ([0.9] * 5, [0.9] * 5, "accuracy", Trials(60, 60), -0.032, 0.032),  # sqrt(1) / 62 x 1.96
        ([0.9] * 5, [0.85] * 5, "accuracy", Trials(60, 60), 0.048 - 0.062, 0.048 + 0.062),  # sqrt(4 - 9 / 62) / 62
        ([1.0] * 5, [1.0] * 5, "accuracy", Trials(300, 5), -0.28, 0.28),  # five groups: 1.96 / 7
        ([0.9] * 5, [0.9] * 5, "matthews_corrcoef", Trials(60, 60), -0.063, 0.063),  # its range is twice as wide
        ([0.9], [0.8], "r2", Trials(60, 60), np.nan, np.nan),
    ],
)
def test_two_that_differ_alike_in_every_fold_have_the_interval_of_their_rows(first, second, scoring, trials, low, high):
    found = fold_difference(first, second, 48, 12, scoring, trials=trials)
    assert found["ci95"] == pytest.approx([low, high], abs=1e-3, nan_ok=True)
    assert not found["told_apart"]


def test_folds_that_are_all_right_are_as_many_trials_as_groups():
    assert fold_interval([1.0] * 5, 240, 60, "accuracy", trials=Trials(300, 5)).low == pytest.approx(0.025**0.2)
    assert fold_interval([1.0] * 5, 240, 60, "matthews_corrcoef", trials=Trials(300, 5)).low > -0.05
    assert np.isnan(fold_interval([0.7], 75, 25, "r2", trials=Trials(25, 25)).ends).all()
