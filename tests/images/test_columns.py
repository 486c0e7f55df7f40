"""The users' columns: four kinds, text that becomes numbers, overlaid values, and the hash of a row."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurebank.errors import ColumnError
from featurebank.images.columns import overlay, row_hashes, tidy
from featurebank.images.tables import parse_text


def plain(frame):
    """Return columns as (dtype, values) with gaps as None."""
    return {
        name: (str(column.dtype), [None if pd.isna(value) else value for value in column])
        for name, column in frame.items()
    }


def tidied(**columns):
    return plain(tidy(pd.DataFrame(columns)))


def test_numbers_and_booleans_keep_their_meaning_gaps_included():
    assert tidied(
        whole=[1, 2],
        gaps=pd.array([2**53 + 1, None], dtype="Int64"),
        objects=pd.Series([2**53 + 1, None], dtype=object),
        small=np.array([1, 255], np.uint8),
        share=np.array([0.5, np.nan], np.float32),
        mixed=pd.Series([1, 0.5], dtype=object),
        yes=[True, False],
        maybe=[True, None],
    ) == {
        "whole": ("Int64", [1, 2]),
        "gaps": ("Int64", [2**53 + 1, None]),
        "objects": ("Int64", [2**53 + 1, None]),
        "small": ("Int64", [1, 255]),
        "share": ("Float64", [0.5, None]),
        "mixed": ("Float64", [1.0, 0.5]),
        "yes": ("boolean", [True, False]),
        "maybe": ("boolean", [True, None]),
    }


def test_everything_else_becomes_text_unguessed():
    assert tidied(
        text=["007", None],
        both=["x", 1],
        day=pd.to_datetime(["2024-05-06", None]),
        kind=pd.Categorical(["b", None]),
        levels=pd.Categorical([3, 4]),
        large=np.array([2**64 - 1, 0], np.uint64),
        larger=[2**70, 1],
        empty=["", float("nan")],
    ) == {
        "text": ("object", ["007", None]),
        "both": ("object", ["x", "1"]),
        "day": ("object", ["2024-05-06T00:00:00", None]),
        "kind": ("object", ["b", None]),
        "levels": ("object", ["3", "4"]),
        "large": ("object", ["18446744073709551615", "0"]),
        "larger": ("object", [str(2**70), "1"]),
        "empty": ("object", ["", None]),
    }


@pytest.mark.parametrize("cell", [[1], (1, 2), {"a": 1}, {1}, np.zeros(2)], ids=lambda cell: type(cell).__name__)
def test_containers_are_refused(cell):
    with pytest.raises(ColumnError, match="column 'c' holds lists or other containers"):
        tidy(pd.DataFrame({"c": pd.Series([None, cell], dtype=object)}))


@pytest.mark.parametrize("names", [["a", "a"], [1, "1"], ["", "a"]], ids=str)
def test_column_names_must_be_distinct_and_not_empty(names):
    with pytest.raises(ColumnError, match="not distinct, non-empty Unicode text"):
        tidy(pd.DataFrame([[1, 2]], columns=names))


def test_tidy_drops_the_index_and_keeps_the_number_of_rows():
    assert plain(tidy(pd.DataFrame({"a": [1, 2]}, index=[7, 3]))) == {"a": ("Int64", [1, 2])}
    assert len(tidy(pd.DataFrame(index=[7, 3]))) == 2


@pytest.mark.parametrize(
    ("cells", "kind", "values"),
    [
        (["1", "-20", ""], "Int64", [1, -20, None]),
        (["0", "1"], "Int64", [0, 1]),
        (["0.5", "1", ""], "Float64", [0.5, 1.0, None]),
        (["1e-3", ".5", "-2."], "Float64", [0.001, 0.5, -2.0]),
        (["007", "1"], "object", ["007", "1"]),
        (["00.5", "1"], "object", ["00.5", "1"]),
        (["-01", "1"], "object", ["-01", "1"]),
        (["1", "x"], "object", ["1", "x"]),
        (["nan", "1"], "object", ["nan", "1"]),
        (["inf", "-inf"], "object", ["inf", "-inf"]),
        (["1e999", "1"], "object", ["1e999", "1"]),
        (["1_000", "1"], "object", ["1_000", "1"]),
        (["NA", "None", ""], "object", ["NA", "None", None]),
        (["True", "False"], "object", ["True", "False"]),
        (["12345678901234567890", "1"], "object", ["12345678901234567890", "1"]),
        (["9007199254740993", "0.5"], "object", ["9007199254740993", "0.5"]),
        (["9007199254740993", "1"], "Int64", [9007199254740993, 1]),
        (["١", "٢"], "object", ["١", "٢"]),
        (["0x10", "1"], "object", ["0x10", "1"]),
        (["", ""], "object", [None, None]),
        ([None, float("nan"), "1"], "Int64", [None, None, 1]),
    ],
    ids=str,
)
def test_text_becomes_a_number_only_where_every_cell_does_and_loses_nothing(cells, kind, values):
    assert plain(parse_text(pd.DataFrame({"c": pd.Series(cells, dtype=object)}))) == {"c": (kind, values)}


@given(st.lists(st.integers(-(2**62), 2**62), min_size=1))
def test_written_integers_are_read_back_exactly(values):
    column = parse_text(pd.DataFrame({"c": pd.Series(map(str, values), dtype=object)}))["c"]
    assert [int(value) for value in column] == values


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_written_floats_are_read_back_exactly(values):
    column = parse_text(pd.DataFrame({"c": pd.Series(map(repr, values), dtype=object)}))["c"]
    assert [float(value) for value in column] == values


def test_overlaid_values_win_and_gaps_do_not():
    old = tidy(pd.DataFrame({"a": [1, 2, None], "keep": ["x", "y", "z"]}))
    new = tidy(pd.DataFrame({"a": [9, None, 8], "b": [True, None, False]}))
    assert plain(overlay(old, new)) == {
        "a": ("Float64", [9, 2, 8]),
        "keep": ("object", ["x", "y", "z"]),
        "b": ("boolean", [True, None, False]),
    }


def test_origins_tell_changed_cells_apart_and_ignore_the_order_of_columns():
    columns = {"a": pd.Series(["x", "x", None, "\udcff"], dtype=object), "b": [1, 2, 1, 1]}
    first = row_hashes(tidy(pd.DataFrame(columns)))
    again = row_hashes(tidy(pd.DataFrame({"b": columns["b"], "a": columns["a"]})))
    assert first.tolist() == again.tolist()
    assert len(set(first.tolist())) == 4
    assert len(row_hashes(pd.DataFrame(index=range(3)))) == 3


def test_a_column_name_that_is_no_unicode_text_is_refused():
    with pytest.raises(ColumnError, match="Unicode text: rename them"):
        tidy(pd.DataFrame({0: [1]}).set_axis(pd.Index(["\ud800"], dtype=object), axis=1))
