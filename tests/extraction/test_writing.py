"""Segments are written beside computing: in order, two in flight at most, and what goes wrong reaches the caller."""

import threading

import numpy as np
import pandas as pd
import pytest

from featurebank import Bank
from featurebank.bank.spec import FeatureSpec
from featurebank.errors import BankError, StorageError
from featurebank.extraction.tracker import Tracker
from featurebank.extraction.writing import Writer
from featurebank.images.sources import Source

SPEC = FeatureSpec("net", "", "0" * 64, "layer", "vector", 0, "none", {}, 1, "none", "fp32", "float16")
COUNT, WIDTH, AT = 40, 70_000, 10
"""Ten rows are 1.4 MB: more than is written at once."""


@pytest.fixture
def tracker(tmp_path):
    bank = Bank.create(tmp_path / "a.bank")
    bank.add_spec(SPEC, None)
    ones = np.ones(COUNT, np.int64)
    paths = [b"%02d.jpg" % number for number in range(COUNT)]
    return Tracker(Source("/p", "/p", paths, ones, ones, pd.DataFrame(index=range(COUNT))), bank, [SPEC], False)


def digest(number):
    return bytes([number + 1]) * 32


def take(writer, first, width=WIDTH):
    """Hand over ten rows, which fill a segment."""
    numbers = range(first, first + AT)
    rows = np.array(numbers, np.float32)[:, None, None].repeat(width, 2)
    writer.add(SPEC, [digest(number) for number in numbers], rows, {"by": "test"})
    writer.settle([(number, digest(number)) for number in numbers])


def take_and_close(writer):
    try:
        take(writer, 0)
    finally:
        writer.close()


def test_rows_are_written_by_a_thread_and_read_back(tracker):
    threads = set()
    add = tracker.bank.add_stored
    tracker.bank.add_stored = lambda *given: (threads.add(threading.current_thread().name), add(*given))
    writer = Writer(tracker, AT)
    for first in range(0, COUNT, AT):
        take(writer, first)
    writer.close()
    assert threads == {"featurebank-write_0"}
    stored = tracker.bank.feature_set_of(SPEC)
    keys = np.array([digest(number) for number in range(COUNT)], "S32")
    assert stored.read(keys)[:, 0].tolist() == list(range(COUNT))
    assert len(Bank(tracker.bank.path).table) == COUNT
    assert tracker.committed.all()


def test_a_few_rows_are_there_as_soon_as_they_are_handed_over(tracker):
    writer = Writer(tracker, AT)
    take(writer, 0, width=4)
    assert tracker.bank.feature_set_of(SPEC).rows == AT
    assert tracker.committed.sum() == AT


def test_two_segments_are_in_flight_at_most_and_features_come_before_samples(tracker):
    may_go, events = threading.Semaphore(0), []
    add, commit = tracker.bank.add_stored, tracker.commit_samples

    def slowly(*given):
        assert may_go.acquire(timeout=60)
        add(*given)
        events.append("features")

    tracker.bank.add_stored = slowly
    tracker.commit_samples = lambda: (commit(), events.append(f"{tracker.committed.sum()} samples"))
    writer = Writer(tracker, AT)
    take(writer, 0)
    take(writer, AT)  # neither waits
    assert events == []
    assert not tracker.done.any()
    threading.Timer(0.05, may_go.release).start()
    take(writer, 2 * AT)  # waits for the first
    assert events[:2] == ["features", "10 samples"]
    tracker.settle(39, digest(39), "broken")  # as the reading side does meanwhile: it goes with the next
    may_go.release(3)
    writer.close()
    assert events == ["features", "10 samples", "features", "21 samples", "features", "31 samples"]
    assert Bank(tracker.bank.path).table.rows["error"].tolist().count("broken") == 1


def test_what_goes_wrong_while_writing_reaches_the_caller_and_no_sample_is_said_to_be_there(tracker):
    def full(*given):
        raise StorageError("no space is left")

    tracker.bank.add_stored = full
    writer = Writer(tracker, AT)
    with pytest.raises(StorageError, match="no space"):  # at the first call after it is known, whichever that is
        take_and_close(writer)
    assert not tracker.done.any()
    assert len(Bank(tracker.bank.path).table) == 0


def test_rows_that_are_refused_are_refused_at_once(tracker):
    writer = Writer(tracker, AT)
    with pytest.raises(BankError, match="more than float16 holds"):
        writer.add(SPEC, [digest(0)], np.full((1, 1, 4), 1e6, np.float32), {})


def test_who_waits_for_rows_has_the_first_at_once_and_the_next_in_ever_longer_steps(tracker, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("featurebank.extraction.writing.time.monotonic", lambda: now[0])
    writer, committed = Writer(tracker, COUNT, early=True), []
    for first, moment in enumerate((0.1, 0.6, 1.2, 2.4)):
        now[0] = moment
        take(writer, first * AT, width=4)
        committed.append(int(tracker.committed.sum()))
    assert committed == [AT, AT, 3 * AT, 3 * AT]
