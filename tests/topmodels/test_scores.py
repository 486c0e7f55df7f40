import math

import numpy as np
import pytest

from featurebank.topmodels.scores import (
    Part,
    block_influence,
    corrected_interval,
    exact_interval,
    fold_interval,
    mean_influence,
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
    assert corrected_interval([0.7], 75, 25) == (0.7, 0.7)


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
    low, high, method = fold_interval([0.9] * 5, 80, 20, "accuracy", rows=100)
    assert (low, high, method) == (*exact_interval(0.9, 100), "nadeau-bengio")
    assert fold_interval([0.9] * 5, 80, 20, "r2", rows=100)[:2] == (0.9, 0.9)


def test_a_score_that_is_no_share_has_students_interval():
    influence = np.array([0.1, -0.1, 0.2, -0.2])  # variance 0.1 x 4 / 3; t of three degrees of freedom is 3.18245
    low, high, method = score_interval(-1.5, influence, "neg_log_loss", rows=4)
    assert (low + high, high - low) == pytest.approx((-3, 2 * 3.18245 * math.sqrt(0.4 / 3)), abs=1e-4)
    assert method == "jackknife"


def test_one_unit_says_nothing():
    assert score_interval(0.8, np.zeros(1), "accuracy", rows=10).method == "none"
