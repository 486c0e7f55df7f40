import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    LeaveOneGroupOut,
    PredefinedSplit,
    StratifiedGroupKFold,
    StratifiedKFold,
)

from featurebank.errors import TopModelError
from featurebank.topmodels.folds import Folds, fold_numbers, make_folds, rare_class_notes, tie

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


@pytest.mark.parametrize(
    ("kind", "splitter"),
    [
        ("stratified", StratifiedKFold),
        ("stratified-group", StratifiedGroupKFold),
        ("group", GroupKFold),
        ("plain", KFold),
    ],
)
def test_folds_by_name_are_scikit_learns_repeated_with_the_next_seed(kind, splitter):
    found = list(Folds(kind, 3, repeats=2, random_state=5).split(X, Y, GROUPS))
    expected = [fold for seed in (5, 6) for fold in splitter(3, shuffle=True, random_state=seed).split(X, Y, GROUPS)]
    assert equal(found, expected)
    assert Folds(kind, 3, repeats=2).get_n_splits() == 6


def test_one_group_out_has_a_fold_a_group():
    assert equal(Folds("logo").split(X, Y, GROUPS), LeaveOneGroupOut().split(X, Y, GROUPS))
    assert Folds("logo").get_n_splits(X, Y, GROUPS) == 15


def test_too_few_groups_are_counted():
    with pytest.raises(TopModelError, match="there are 2 groups: ask for as many folds at most"):
        make_folds(Folds("group", 5), X, Y, np.arange(len(Y)) % 2, 0)


@pytest.mark.parametrize("kind", ["group", "stratified-group", "logo"])
def test_folds_by_group_need_groups(kind):
    with pytest.raises(TopModelError, match=f"{kind} folds and no groups"):
        make_folds(Folds(kind), X, Y, None, 0)


def test_unknown_folds_are_an_error_with_a_hint():
    with pytest.raises(TopModelError, match="no folds 'stratifed'; did you mean stratified"):
        make_folds(Folds("stratifed"), X, Y, None, 0)


def test_numbers_get_plain_folds_and_several_labels_are_stratified_by_their_combination():
    numbers = np.linspace(0, 1, 60)
    assert equal(make_folds(4, X, numbers, None, 1, "regression"), KFold(4, shuffle=True, random_state=1).split(X))
    labels = np.column_stack([Y == "a", np.arange(60) % 2]).astype(int)
    codes = 2 * labels[:, 0] + labels[:, 1]
    expected = StratifiedKFold(4, shuffle=True, random_state=1).split(X, codes)
    assert equal(make_folds(4, X, labels, None, 1, "multilabel"), expected)
    labels[:, 1] = np.arange(60) == 7
    with pytest.raises(TopModelError, match=r"label 1 is the same in all rows that fold \d trains on"):
        make_folds(4, X, labels, None, 1, "multilabel")


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


def test_classes_too_rare_for_the_folds_are_told_of_in_our_words_alone(recwarn):
    y = np.repeat(["a", "b", "rare"], [12, 12, 2])
    assert len(make_folds(5, np.zeros((26, 1)), y, None, 0)) == 5
    assert not recwarn.list
    said = "class 'rare' has 2 rows for 5 folds: not every fold tests it, and its recall stands on these few"
    assert rare_class_notes(5, y) == rare_class_notes(Folds("stratified", 5), y) == [said]
    assert rare_class_notes(Folds("plain", 5), y) == rare_class_notes([], y) == rare_class_notes(2, y) == []
