import itertools
import math
import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurebank.bank import samples, segment
from featurebank.bank.sample_segments import decode_table, encode_table
from featurebank.bank.samples import FAILED, GONE, OK, merge, next_stamp
from featurebank.errors import CorruptError
from featurebank.images.columns import tidy

NUMBERS = itertools.count()


def table(paths, stamps=None, source="s", columns=None, status=OK):
    n = len(paths)
    fields = {
        "source": [source] * n,
        "root": ["/root"] * n,
        "path": paths,
        "digest": [bytes([position % 256]) * 32 for position in range(n)],
        "size": list(range(n)),
        "mtime_ns": [2**62] * n,
        "status": [status] * n,
        "error": ["broken"] * n,
        "row_hash": [2**64 - 1] * n,
        "stamp": stamps if stamps is not None else [1] * n,
    }
    return samples.make_table(fields, tidy(pd.DataFrame(columns or {}, index=range(n))))


def plain(frame):
    """Return columns as (dtype, values) with gaps as None."""
    return {
        name: (str(column.dtype), [None if pd.isna(value) else value for value in column])
        for name, column in frame.items()
    }


# --- merging -----------------------------------------------------------------------------------------------


def test_of_one_sample_the_row_with_the_highest_stamp_wins_in_any_order_of_tables():
    tables = [
        table([b"a", b"b"], [5, 1], columns={"label": ["old a", "only b"]}),
        table([b"a"], [9], columns={"label": ["new a"]}, status=GONE),
        table([b"a"], [7], columns={"label": ["middle a"]}),
    ]
    for order in itertools.permutations(tables):
        merged = merge(order)
        assert merged.rows["stamp"].tolist() == [9, 1]
        assert merged.rows["status"].tolist() == [GONE, OK]
        assert merged.columns["label"].tolist() == ["new a", "only b"]


def test_rows_are_sorted_by_source_and_path_bytes():
    merged = merge(
        [table([b"b", b"\xff", b"B"], source="s"), table([b"z", b"a/b", b"a"], source="r"), table([b"a"], source="s")]
    )
    assert list(zip(merged.rows["source"], merged.rows["path"], strict=True)) == [
        ("r", b"a"), ("r", b"a/b"), ("r", b"z"), ("s", b"B"), ("s", b"a"), ("s", b"b"), ("s", b"\xff"),
    ]  # fmt: skip


def test_a_column_that_one_table_lacks_is_missing_there():
    merged = merge([table([b"a"], columns={"n": [1]}), table([b"b"], columns={"m": [True]})])
    assert plain(merged.columns) == {"n": ("Int64", [1, None]), "m": ("boolean", [None, True])}


@pytest.mark.parametrize(
    ("first", "second", "merged"),
    [
        ([1, 2], [3, 4], ("Int64", [1, 2, 3, 4])),
        ([1, 2], [0.5, 4.0], ("Float64", [1.0, 2.0, 0.5, 4.0])),
        ([1, 2], ["x", None], ("object", ["1", "2", "x", None])),
        ([True, False], [1, 2], ("object", ["True", "False", "1", "2"])),
        ([1, 2], [None, None], ("Int64", [1, 2, None, None])),
        ([None, None], [True, None], ("boolean", [None, None, True, None])),
        ([0.5, None], ["x", "y"], ("object", ["0.5", None, "x", "y"])),
        ([None, None], [None, None], ("object", [None, None, None, None])),
    ],
    ids=str,
)
def test_columns_of_two_kinds_become_the_kind_that_holds_both(first, second, merged):
    tables = [table([b"a", b"b"], columns={"c": first}), table([b"c", b"d"], columns={"c": second})]
    assert plain(merge(tables).columns) == {"c": merged}


def test_merging_nothing_gives_an_empty_table():
    assert len(merge([])) == len(merge([samples.empty_table()])) == 0


# --- stamps ------------------------------------------------------------------------------------------------


def test_stamps_rise_with_every_call():
    stamps = list(itertools.accumulate(range(1000), lambda newest, _: next_stamp(newest), initial=0))
    assert stamps == sorted(set(stamps))


@pytest.mark.parametrize("ahead", [0, 1, 3600 * 10**6, 10**15])
def test_a_stamp_is_above_the_newest_even_when_this_clock_is_behind(ahead):
    newest = (time.time_ns() // 1000 + ahead) << 12 | 0xFFF
    assert newest < next_stamp(newest) < 2**64


def test_a_first_stamp_is_the_time_in_microseconds():
    before, stamp, after = time.time_ns() // 1000, next_stamp(0), time.time_ns() // 1000
    assert before <= stamp >> 12 <= after


# --- the segment -------------------------------------------------------------------------------------------


def round_trip(folder, given_table, supersedes=()):
    path = folder / f"{next(NUMBERS)}.h5"
    path.write_bytes(encode_table(given_table, supersedes))
    return segment.open_segment(path, "samples")


ANY_TEXT = st.text(st.characters(), max_size=8)  # every code point, lone surrogates included
CELLS = {
    "Int64": st.integers(-(2**63) + 1, 2**63 - 1),
    "Float64": st.floats(allow_nan=False),
    "boolean": st.booleans(),
    "object": ANY_TEXT,
}


@st.composite
def tables(draw):
    n = draw(st.integers(0, 5))
    names = draw(st.lists(st.text(min_size=1, max_size=8), max_size=4, unique=True))
    columns = {}
    for name in names:
        dtype = draw(st.sampled_from(sorted(CELLS)))
        values = draw(st.lists(st.none() | CELLS[dtype], min_size=n, max_size=n))
        columns[name] = pd.Series(values, dtype=dtype)
    unsigned, signed = st.integers(0, 2**64 - 1), st.integers(-(2**63), 2**63 - 1)
    kinds = {
        "source": ANY_TEXT,
        "root": ANY_TEXT,
        "path": st.binary(min_size=1, max_size=8).filter(lambda path: path[:1] != b"/" and b".." not in path),
        "digest": st.binary(min_size=32, max_size=32),
        "size": signed,
        "mtime_ns": signed,
        "status": st.sampled_from([OK, FAILED, GONE]),
        "error": ANY_TEXT,
        "row_hash": unsigned,
        "stamp": unsigned,
    }
    fields = {name: draw(st.lists(kind, min_size=n, max_size=n)) for name, kind in kinds.items()}
    return samples.make_table(fields, pd.DataFrame(columns, index=range(n)))


@settings(max_examples=60)
@given(tables())
def test_any_table_is_read_back_as_it_was_written(tmp_path_factory, written):
    again = decode_table(round_trip(tmp_path_factory.getbasetemp(), written))
    assert plain(again.rows) == plain(written.rows)
    assert plain(again.columns) == plain(written.columns)
    assert list(again.columns.index) == list(range(len(written)))


def test_minus_zero_and_infinities_are_kept(tmp_path):
    written = table([b"a", b"b", b"c"], columns={"f": [-0.0, math.inf, -math.inf]})
    found = decode_table(round_trip(tmp_path, written)).columns["f"].to_numpy(float)
    assert found.tolist() == [0.0, math.inf, -math.inf]
    assert np.signbit(found).tolist() == [True, False, True]


def test_a_segment_names_the_ones_it_supersedes(tmp_path):
    assert round_trip(tmp_path, table([b"a"]), ["x.h5"]).meta["supersedes"] == ["x.h5"]


BAD_PATHS = [b"", b"../a", b"a/../../b", b"/etc/passwd"]


def with_digest(given_table, digest):
    given_table.rows["digest"] = [digest] * len(given_table)
    return given_table


@pytest.mark.parametrize("path", BAD_PATHS)
@pytest.mark.parametrize("status", [FAILED, GONE])
def test_a_refused_path_is_kept_with_its_error(tmp_path, path, status):
    written = with_digest(table([path, b"a"], status=status), samples.NO_DIGEST)
    assert decode_table(round_trip(tmp_path, written)).rows["path"].tolist() == [path, b"a"]


@pytest.mark.parametrize("path", BAD_PATHS)
@pytest.mark.parametrize(("status", "digest"), [(OK, bytes(32)), (OK, b"d" * 32), (FAILED, b"d" * 32)])
def test_a_path_that_leaves_its_root_and_claims_to_have_been_read_is_damage(tmp_path, path, status, digest):
    with pytest.raises(CorruptError, match="do not make a sample table"):
        decode_table(round_trip(tmp_path, with_digest(table([path], status=status), digest)))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("status", np.array([3, 0], "u1")),
        ("source", np.array([1, 0], "<u4")),
        ("path/offsets", np.array([0, 9, 2], "<i8")),
        ("path/offsets", np.array([1, 1, 2], "<i8")),
        ("path/offsets", np.array([0, 2], "<i8")),
        ("digest", np.zeros((2, 31), "u1")),
        ("stamp", np.array([1.0, 2.0], "<f8")),
        ("columns/0/data", np.array([0xFF, 0xFF], "u1")),
        ("columns/0/mask", np.zeros(3, "u1")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_valid_segment_whose_arrays_make_no_table_is_refused(tmp_path, name, values):
    whole = round_trip(tmp_path, table([b"a", b"b"], columns={"t": ["x", "y"]}))
    arrays = {each: np.array(whole.read(each)) for each in whole.names} | {name: values}
    path = tmp_path / "damaged.h5"
    path.write_bytes(segment.encode("samples", whole.meta, arrays))
    with pytest.raises(CorruptError, match="do not make a sample table"):
        decode_table(segment.open_segment(path, "samples"))
