"""What comes next, on arrays."""

import numpy as np
from made_bank import planted

from featurebank.bank.neighbours import unit_rows
from featurebank.explore.studio.chance import draws, honest_part, mixed, tenth_of
from featurebank.explore.studio.choosing import coverage_order, least_certain


def digests(n):
    return np.array([number.to_bytes(32, "big") for number in range(1, n + 1)], "S32")


def test_the_test_part_is_a_tenth_that_digests_and_the_seed_decide():
    one, other = draws(digests(5000), 0), draws(digests(5000), 1)
    assert 420 < len(tenth_of(one)) < 580
    assert abs(len(np.intersect1d(tenth_of(one), tenth_of(other))) - 50) < 25
    fewer = draws(digests(5000)[:100], 0)
    assert set(tenth_of(fewer)) == {number for number in tenth_of(one) if number < 100}  # new images move nothing


def test_a_tenth_is_mixed_in_whatever_is_there_before():
    chosen, asked = [(number, "uncertain") for number in range(1000)], list(range(1000, 1100))
    found = mixed(chosen, asked, 200, labelled=0, tested=0)
    tested = np.cumsum([why == "random" for _, why in found])
    assert np.abs(tested - np.arange(1, 201) / 10).max() <= 1
    late = mixed(chosen, asked, 10, labelled=300, tested=0)
    assert [why for _, why in late] == ["random"] * 10  # until it is a tenth


def test_what_is_left_comes_when_one_of_the_two_has_ended():
    assert mixed([], [3, 4], 5, 0, 0) == [(3, "random"), (4, "random")]
    assert mixed([(1, "coverage")], [], 5, 90, 0) == [(1, "coverage")]


def test_a_score_stands_on_a_beginning_of_the_random_order_alone():
    asked, labelled = np.arange(40)[::-1], np.zeros(40, bool)
    labelled[asked[:12]] = True
    labelled[asked[30:]] = True  # a region of the map
    assert honest_part(asked, labelled).tolist() == asked[:12].tolist()
    labelled[asked[11]] = False  # passed over
    labelled[asked[12]] = True
    assert honest_part(asked, labelled).tolist() == [*asked[:11], asked[12]]
    assert honest_part(asked, np.zeros(40, bool)).tolist() == []


def test_coverage_takes_every_group_before_it_takes_one_twice():
    X, groups = planted(np.random.default_rng(0), groups=20, size=15, width=24, away=12.0)
    Z = unit_rows(X)
    order = coverage_order(Z, np.empty(0, np.int64), np.arange(len(Z)), seed=0)
    assert set(groups[order[:20]]) == set(range(20))
    assert len(set(order.tolist())) == len(order) <= 50
    known = np.flatnonzero(groups < 5)
    later = coverage_order(Z, known, np.arange(len(Z)), seed=0)
    assert set(groups[later[:15]]) == set(range(5, 20))


def test_the_least_certain_come_first_and_are_spread():
    random = np.random.default_rng(0)
    sure = np.sort(random.uniform(0.5, 1, 500))
    proba = np.column_stack([sure, 1 - sure]).astype(np.float32)
    Z = unit_rows(random.normal(size=(500, 4)))
    found = least_certain(proba, Z, np.arange(1, 500))
    assert found[0] == 1
    assert len(found) == 32
    assert found.max() <= 100
    assert least_certain(proba, Z, np.empty(0, np.int64)).tolist() == []
    assert least_certain(proba, Z, np.array([7])).tolist() == [7]
