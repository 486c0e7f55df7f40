import numpy as np
import pytest

from featurebank.bank.spec import FeatureSpec
from featurebank.extraction.drift import measure_drift, relative_distances

SPEC = FeatureSpec("net", "", "0" * 64, "penultimate", "vector", 0, "none", {}, 1, "none", "bf16", "float16")
RNG = np.random.default_rng(0)
LABELS = ["a", "b"] * 20
ROWS = RNG.standard_normal((40, 1, 16)).astype(np.float32)


def test_relative_distances_have_known_values():
    expected = np.array([[3.0, 4.0], [0.0, 1.0]])
    np.testing.assert_allclose(relative_distances(np.array([[3.0, 5.0], [0.0, 1.0]]), expected), [0.2, 0])


def test_a_row_that_turns_by_60_degrees_is_half_away():
    turned = ROWS[:4].copy() * 0
    turned[:, 0, 0] = 1
    expected = turned.copy()
    turned[1, 0, :2] = 0.5, np.sqrt(0.75)
    drift = measure_drift(SPEC, expected, turned, None)
    assert (drift.images, drift.score, drift.score_fp32) == (4, None, None)
    assert drift.largest == pytest.approx(0.5, abs=1e-6)
    assert drift.mean == pytest.approx(0.125, abs=1e-6)
    assert str(drift) == "bf16 against fp32 on 4 images, net/penultimate: 1-cos 1.2e-01 on average, 5.0e-01 at most"


def test_the_ridge_scores_see_what_the_reduced_rows_lost():
    apart = ROWS + 10 * (np.array(LABELS) == "a")[:, None, None].astype(np.float32)
    drift = measure_drift(SPEC, apart, ROWS, LABELS)
    assert drift.score_fp32 == 1
    assert drift.score < 0.8
    assert "quick ridge score 100.0 % -> " in str(drift)


@pytest.mark.parametrize("labels", [["a"] * 40, [str(i) for i in range(40)], ["a"] * 39 + ["b"]])
def test_labels_that_cannot_be_scored_give_no_score(labels):
    assert measure_drift(SPEC, ROWS, ROWS, labels).score is None
