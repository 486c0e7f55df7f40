"""Commits of samples read what is new, once, and lose nothing that others wrote meanwhile."""

import os

import numpy as np
import pandas as pd
import pytest

from featurebank import Bank
from featurebank.bank import sample_segments
from featurebank.bank.spec import FeatureSpec
from featurebank.extraction.tracker import Tracker
from featurebank.images.scanning import scan

SPEC = FeatureSpec("net", "", "0" * 64, "fc", "vector", 0, "none", {"crop": [4, 4]}, 1, "none", "fp32", "float16")


@pytest.fixture
def tree(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(6):
        (folder / f"{number}.png").write_bytes(b"%d" % number)
    return folder


@pytest.fixture
def bank(tmp_path):
    bank = Bank.create(tmp_path / "a.bank")
    bank.add_spec(SPEC)
    bank.add_features(SPEC, [bytes([number]) * 32 for number in range(6)], np.zeros((6, 1, 2), np.float32))
    return bank


def begin(tree, bank):
    return Tracker(scan(tree), Bank(bank.path), [SPEC], False)


def commit(tracker, *numbers):
    for number in numbers:
        tracker.settle(number, bytes([number]) * 32, "", embedded=True)
    tracker.commit_samples()


def touch(tree):
    """Let every file look changed, so that each gets a new row."""
    for file in tree.iterdir():
        os.utime(file, ns=(1, 1))


def test_a_commit_reads_each_segment_of_another_once_and_none_of_its_own(tree, bank, monkeypatch):
    commit(begin(tree, bank), 0)
    tracker, other, read = begin(tree, bank), begin(tree, bank), []
    decode = sample_segments.decode_table
    monkeypatch.setattr(sample_segments, "decode_table", lambda file: read.append(file.path.name) or decode(file))
    for number in range(1, 6):
        commit(tracker, number)
        if number in (2, 3):
            other.bank.add_samples(other.table, newest=0)
    assert len(read) == len(set(read)) == 2
    assert len(Bank(bank.path).samples) == 6


def test_a_label_that_is_attached_meanwhile_stays(tree, bank):
    commit(begin(tree, bank), *range(6))
    touch(tree)
    tracker = begin(tree, bank)
    commit(tracker, 0, 1)
    bank.label(pd.DataFrame({"path": ["3.png", "0.png"], "site": ["north", "south"]}))
    commit(tracker, 2, 3)
    commit(tracker, 4, 5)
    found = Bank(bank.path).samples.set_index("path")
    assert found["mtime_ns"].tolist() == [1] * 6
    assert found["site"].dropna().to_dict() == {"3.png": "north", "0.png": "south"}


def test_a_label_survives_a_compaction_between_commits(tree, bank):
    commit(begin(tree, bank), *range(6))
    touch(tree)
    tracker = begin(tree, bank)
    commit(tracker, 0)
    bank.label(pd.DataFrame({"path": ["5.png"], "site": ["north"]}))
    bank.label(pd.DataFrame({"path": ["5.png"], "site": ["south"]}))
    assert bank.compact(grace=0)["merged"] == 4
    commit(tracker, 1, 2, 3, 4, 5)
    found = Bank(bank.path).samples.set_index("path")
    assert found["mtime_ns"].tolist() == [1] * 6
    assert found["site"].dropna().to_dict() == {"5.png": "south"}


def test_rows_that_another_run_has_written_are_not_written_again(tree, bank):
    first, second = begin(tree, bank), begin(tree, bank)
    commit(first, 0, 1, 2)
    commit(second, 0, 1, 2, 3)
    stamps = Bank(bank.path).table.rows["stamp"]
    assert stamps.nunique() == 2
    assert stamps.iloc[3] > stamps.iloc[:3].max()
    assert sum(file.shape("stamp")[0] for file in bank.sample_segments()) == 4


def test_the_stamp_is_above_that_of_a_writer_whose_clock_is_ahead(tree, bank):
    tracker = begin(tree, bank)
    ahead = begin(tree, bank)
    ahead.settle(0, bytes(32 * [9]), "", embedded=True)
    table, _ = ahead.updates()
    bank.add_samples(table, newest=2**62)
    commit(tracker, 0)
    assert Bank(bank.path).table.rows["digest"].tolist() == [bytes([0]) * 32]
