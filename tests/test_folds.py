import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import LeaveOneGroupOut, PredefinedSplit, StratifiedGroupKFold, StratifiedKFold

from featurebank.errors import TopModelError
from featurebank.folds import fold_numbers, make_folds, tie

Y = np.array(["a", "b", "b"] * 20)
X = np.zeros((60, 1))
GROUPS = np.arange(60) // 4


def equal(found, expected):
    return all(
        np.array_equal(one, two)
        for fold, other in zip(found, expected, strict=True)
        for one, two in zip(fold, other, strict=True)
    )


@pytest.mark.parametrize("seed", [0, 7])
def test_an_integer_means_shuffled_stratified_folds(seed):
    expected = StratifiedKFold(4, shuffle=True, random_state=seed).split(X, Y)
    assert equal(make_folds(4, X, Y, None, seed), expected)


@pytest.mark.parametrize("seed", [0, 7])
def test_an_integer_with_groups_means_the_same_and_no_group_straddles(seed):
    folds = make_folds(4, X, Y, GROUPS, seed)
    assert equal(folds, StratifiedGroupKFold(4, shuffle=True, random_state=seed).split(X, Y, GROUPS))
    assert all(not set(GROUPS[train]) & set(GROUPS[test]) for train, test in folds)


def test_the_seed_moves_rows_between_folds():
    assert not equal(make_folds(4, X, Y, None, 0), make_folds(4, X, Y, None, 1))


def test_a_splitter_or_a_list_of_folds_is_taken_as_it_is():
    assert equal(make_folds(LeaveOneGroupOut(), X, Y, GROUPS, 0), LeaveOneGroupOut().split(X, Y, GROUPS))
    assert equal(make_folds(PredefinedSplit(GROUPS), X, Y, None, 0), PredefinedSplit(GROUPS).split())
    mine = [(np.arange(30), np.arange(30, 60))]
    assert equal(make_folds(mine, X, Y, None, 0), mine)


@pytest.mark.parametrize(("k", "groups"), [(1, None), (41, None), (16, GROUPS), (2, GROUPS[:5])])
def test_data_that_cannot_be_split_so_is_an_error(k, groups):
    with pytest.raises(TopModelError, match="cannot be split into these folds"):
        make_folds(k, X, Y, groups, 0)


def test_an_empty_fold_is_an_error():
    with pytest.raises(TopModelError, match="fold 1 would be empty"):
        make_folds([(np.arange(5), np.arange(5, 60)), (np.arange(60), np.arange(0))], X, Y, None, 0)


def test_fold_numbers_say_which_fold_tests_a_row():
    folds = [(np.array([2, 3]), np.array([0])), (np.array([0]), np.array([3, 1]))]
    assert fold_numbers(folds, 5).tolist() == [0, 1, -1, 1, -1]


def test_rows_that_share_a_value_of_any_key_are_tied():
    assert tie(["a", "a", "b", "c", "d"], [1, 2, 2, 3, 3]).tolist() == [0, 0, 0, 1, 1]
    assert tie([5, 3, 5]).tolist() == [0, 1, 0]


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=15))
def test_ties_are_the_transitive_closure_of_sharing(pairs):
    expected = [{row} for row in range(len(pairs))]
    for row, (a, b) in enumerate(pairs):
        for other, (c, d) in enumerate(pairs):
            if a == c or b == d:
                merged = expected[row] | expected[other]
                for each in merged:
                    expected[each] = merged
    groups = tie([a for a, _ in pairs], [b for _, b in pairs])
    assert [set(np.flatnonzero(groups == group)) for group in groups] == expected
