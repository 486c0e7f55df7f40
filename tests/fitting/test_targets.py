"""Whole numbers: classes, amounts, or a question."""

import numpy as np
import pandas as pd
import pytest

from featurebank.bank.samples import SampleTable
from featurebank.errors import ColumnError, TopModelError
from featurebank.fitting.checks import check_class_options
from featurebank.fitting.targets import Target, read_target, task_of

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("y", "task", "word"),
    [
        (np.repeat([0, 1], 10), "classification", None),
        (np.repeat(np.arange(10), 3), "classification", "taken for classes"),
        (np.repeat(np.arange(1, 16), 2), "classification", "taken for classes"),
        (np.repeat(np.arange(100), 5), "classification", "taken for classes"),  # numbers of classes, from 0 on
        (np.repeat(np.arange(1, 103), 8), "classification", "taken for classes"),
        (RANDOM.permutation(np.arange(1000, 1040)), "regression", "taken for amounts"),  # prices
        (np.array([2.5, 3.0]), "regression", None),
        (np.repeat([7.0, 8.0], 4), "classification", None),
        (np.array(["7", "8"]), "classification", None),
        (np.array([True, False]), "classification", None),
    ],
)
def test_task_of_column(y, task, word):
    found, notes = task_of(y, "age")
    assert found == task
    assert [word in note and "'age'" in note for note in notes] == ([] if word is None else [True])


@pytest.mark.parametrize(
    "y",
    [
        RANDOM.integers(18, 78, 300),
        np.repeat([23, 31, 40, 44, 52, 58, 61, 63, 66, 70, 71], 5),
        np.repeat(np.arange(10_000, 10_200, 7), 6),
    ],
)
def test_ages_and_numbers_of_products_are_a_question(y):
    with pytest.raises(ColumnError, match="may be amounts or classes; expected to be told which: --task regression"):
        task_of(y, "age")
    assert task_of(y, "age", "regression")[0] == "regression"
    assert task_of(y, "age", "classification") == ("classification", [])


@pytest.mark.parametrize("name", ["class_weight", "calibrate", "threshold", "positive"])
def test_options_about_classes_are_refused_for_numbers(name):
    with pytest.raises(TopModelError, match=r"'x' for a target of numbers; expected classes: leave it out"):
        check_class_options({name: "x"}, {"regression"})
    check_class_options({name: "x"}, {"regression", "classification"})
    check_class_options({name: None}, {"regression"})


def test_threshold_is_refused_for_several_labels():
    check_class_options({"calibrate": "isotonic", "class_weight": "balanced"}, {"multilabel"})
    with pytest.raises(TopModelError, match="threshold 'f1' for a target of several labels"):
        check_class_options({"threshold": "f1"}, {"multilabel"})


@pytest.mark.parametrize(
    ("cells", "task", "error"),
    [
        ([*"12345678", "k. A."], None, r"size: text, since 1 of 9 cells is no number: 'k. A.' \(8.png\); for numbers"),
        (
            [*"12345678", "k. A."],
            "regression",
            r"'size' holds text; regression needs numbers \(size: text, since 1 of 9",
        ),
        ([*"12345678", "k. A."], "classification", None),
        (["1", "2", "3", "4", "5", "A"] * 4, None, None),
        (["cat", "dog", "bird", "wolf"], None, None),
    ],
)
def test_numbers_that_one_cell_makes_text_are_not_taken_for_classes_in_silence(cells, task, error):
    rows = {"path": [f"{row}.png".encode() for row in range(len(cells))]}
    table = SampleTable(pd.DataFrame(rows), pd.DataFrame({"size": pd.Series(cells, dtype=object)}))
    if error is not None:
        with pytest.raises(ColumnError, match=error):
            read_target(table, Target(["size"], task=task))
        return
    assert read_target(table, Target(["size"], task=task)).task == "classification"


def test_text_of_which_hardly_a_value_comes_back_is_no_classes():
    with pytest.raises(ColumnError, match=r"80 different texts in 80 rows \(e.g. '0,5'\).*write them with a point"):
        task_of(np.array([f"{i},5" for i in range(80)]), "price")
    with pytest.raises(ColumnError, match=r"30 different texts in 40 rows .*: name another column"):
        task_of(np.array([f"a{i % 30}.png" for i in range(40)]), "file")
    assert task_of(np.array(["a", "b", "c", "d"]), "kind")[0] == "classification"
