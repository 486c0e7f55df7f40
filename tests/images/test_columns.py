"""The users' columns: four kinds, text that becomes numbers, overlaid values, and the hash of a row."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurebank.errors import ColumnError
from featurebank.images.cells import OF_STRANGERS, notes_on_strangers
from featurebank.images.columns import overlay, row_hashes, tidy
from featurebank.images.scanning import scan
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


NUMBERS = ["1.5", "2", "3", "4", "5.25"]


@pytest.mark.parametrize(
    ("cells", "odd"),
    [
        ([*NUMBERS, "k. A."], "1 of 6 cells is no number: 'k. A.' (row 5)"),
        (["<0,1", *(each.replace(".", ",") for each in NUMBERS)], "1 of 6 cells is no number: '<0,1' (row 0)"),
        ([*NUMBERS, "5 mm", *NUMBERS, "", None, "n/a", "k.A."], "2 of 13 cells are no numbers: '5 mm' (row 5), 'k.A."),
        (
            [*NUMBERS * 4, "a", "b", "c", "d"],
            "4 of 24 cells are no numbers: 'a' (row 20), 'b' (row 21), 'c' (row 22), …",
        ),
        ([*NUMBERS, "n/a"], "1 of 6 cells is no number: 'n/a' (row 5)"),  # of a source that was not parsed
        ([*NUMBERS, "a", "b"], ""),  # too many
        ([*(f"00{each}" for each in range(9)), "k. A."], ""),  # codes, which are text anyway
        (["1e5", "2e5", "3e5", "4e5", "k. A."], ""),
        (NUMBERS, ""),
        (["cat", "dog", "5"], ""),
        ([None, ""], ""),
    ],
)
def test_cells_that_make_text_of_numbers_are_named(cells, odd):
    columns = tidy(pd.DataFrame({"size": pd.Series(cells, dtype=object)}))
    notes = notes_on_strangers(columns, [f"row {row}" for row in range(len(cells))])
    assert [note.startswith(f"size: text, since {odd}") for note in notes] == [True] * bool(odd)


def test_numbers_with_one_word_are_said_by_every_source(tmp_path, caplog, noise):
    noise(8, 8).save(tmp_path / "a.png")
    sizes = [1.5, 2, 3, 4, "k. A.", 6]
    rows = [{"file_name": f"{row}.png", "size": size} for row, size in enumerate(sizes)]
    for row in range(len(sizes)):
        shutil.copy(tmp_path / "a.png", tmp_path / f"{row}.png")
    (tmp_path / "a.png").unlink()
    frame = pd.DataFrame(rows)
    frame.to_csv(tmp_path / "table.csv", index=False)
    (tmp_path / "table.jsonl").write_text("\n".join(map(json.dumps, rows)))
    said = {}
    for name, source, options in [
        ("csv", tmp_path / "table.csv", {}),
        ("jsonl", tmp_path / "table.jsonl", {}),
        ("frame", frame, {"root": tmp_path}),
        ("as text", tmp_path / "table.csv", {"labels_as": "text"}),
    ]:
        caplog.clear()
        scan(source, **options)
        said[name] = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    (tmp_path / "table.csv").rename(tmp_path / "metadata.csv")
    caplog.clear()
    scan(tmp_path)
    said["folder"] = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    wanted = [f"size: text, since 1 of 6 cells is no number: 'k. A.' (4.png); {OF_STRANGERS}"]
    assert said == {"csv": wanted, "jsonl": wanted, "frame": wanted, "as text": [], "folder": wanted}


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
