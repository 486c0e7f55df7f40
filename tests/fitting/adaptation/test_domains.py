import numpy as np
import pytest

from featurebank.errors import TopModelError
from featurebank.fitting.adaptation.domains import Shift, domain_shift


def rows(n, width, offset, seed):
    random = np.random.default_rng(seed)
    is_source = np.arange(n) < n * 2 // 3
    return random.normal(size=(n, width)) + offset * is_source[:, None], is_source


def test_one_distribution_is_no_shift_nearly_always():
    found = [domain_shift(*rows(120, width, 0.0, seed)) for seed in range(30) for width in (3, 60)]
    assert sum(each.is_shift for each in found) <= 3
    assert abs(np.mean([each.accuracy for each in found]) - 0.5) < 0.02
    assert abs(np.mean([each.auc for each in found]) - 0.5) < 0.02


def test_a_known_shift_is_measured():
    # two normal distributions a deviation apart on one axis: the best rule errs in Phi(-1/2) = 0.3085 of rows
    X, is_source = rows(6000, 1, 1.0, 0)
    found = domain_shift(X, is_source)
    assert found.accuracy == pytest.approx(0.6915, abs=0.015)
    assert found.a_distance == pytest.approx(2 * (1 - 2 * 0.3085), abs=0.06)
    assert found.is_shift
    assert found.ci95[0] < 0.6915 < found.ci95[1]
    assert found.auc == pytest.approx(0.7602, abs=0.015)  # Phi(1/sqrt 2)


def test_disjoint_domains_are_two_apart_and_sizes_do_not_matter():
    X, is_source = rows(90, 2, 20.0, 0)
    found = domain_shift(X, is_source)
    assert (found.accuracy, found.auc, found.a_distance) == (1.0, 1.0, 2.0)
    assert found.ci95 == pytest.approx([0.9598, 1.0], abs=1e-4)  # Clopper and Pearson, 90 of 90
    X, is_source = rows(400, 2, 0.0, 1)
    is_source = np.arange(400) < 380  # always the larger domain would be right in 95 %
    assert domain_shift(X, is_source).ci95[0] < 0.5


def test_rows_of_a_group_stay_together():
    # each group of ten rows is one point: with its rows in all folds the domains seem far apart
    random = np.random.default_rng(0)
    groups = np.repeat(np.arange(24), 10)
    X = random.normal(size=(24, 30))[groups] + 0.01 * random.normal(size=(240, 30))
    is_source = groups % 2 == 0
    assert domain_shift(X, is_source).accuracy > 0.9
    assert not domain_shift(X, is_source, groups=groups).is_shift


def test_constant_columns_and_too_few_rows():
    X, is_source = rows(60, 2, 0.0, 0)
    assert not domain_shift(np.column_stack([X, np.ones((60, 3))]), is_source).is_shift
    with pytest.raises(TopModelError, match="one domain only; ask for fewer folds"):
        domain_shift(X[:23], np.arange(23) < 20)


def test_the_sentence_says_shift_or_no_shift():
    assert Shift(0.52, [0.46, 0.58], 0.5, [0.4, 0.6]).sentence("mono", "poly") == (
        "no shift: a classifier tells mono from poly with 52.0 % (95 % 46.0..58.0), which chance explains"
    )
    assert Shift(0.9, [0.85, 0.95], 0.95, [0.9, 1.0]).sentence("mono", "poly") == (
        "shift: a classifier tells mono from poly with 90.0 % (95 % 85.0..95.0), chance is 50; "
        "proxy A-distance 1.60 of 2"
    )
