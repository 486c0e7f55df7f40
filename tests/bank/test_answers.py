"""Answers to one column, one by one: compare and set, other writers, compaction."""

import threading

import numpy as np
import pandas as pd
import pytest
from made_bank import make_bank
from object_maker import digest

from featurebank import Bank
from featurebank.bank import answers as module
from featurebank.bank.answers import Answer, Answers
from featurebank.errors import BankError, ColumnError


@pytest.fixture
def bank(tmp_path):
    return make_bank(tmp_path / "a.bank", np.zeros((300, 2)), site=["x"] * 300)


def labels_of(bank, column="label"):
    table = Bank(bank.path).samples
    return {path: label for path, label in zip(table["path"], table[column], strict=True) if pd.notna(label)}


def test_an_answer_is_a_label_of_the_bank_and_other_columns_stay(bank):
    found = Answers(bank, "label")
    saved, conflicts = found.write([Answer(digest(3), "cat", None), Answer(digest(256), "dog", None)])[:2]
    assert (saved, conflicts) == ([digest(3), digest(256)], [])
    assert labels_of(bank) == {"003.png": "cat", "256.png": "dog"}
    assert set(Bank(bank.path).samples["site"]) == {"x"}
    assert found.labels[found.find(digest(256))] == "dog"


def test_an_answer_can_be_taken_back(bank):
    found = Answers(bank, "label")
    found.write([Answer(digest(3), "cat", None)])
    found.write([Answer(digest(3), None, "cat")])
    assert labels_of(bank) == {}
    assert found.labels[3] is None


def test_what_another_wrote_meanwhile_is_a_conflict_and_stays(bank):
    one, other = Answers(bank, "label"), Answers(Bank(bank.path), "label", by="anna")
    other.write([Answer(digest(3), "dog", None)])
    saved, conflicts = one.write([Answer(digest(3), "cat", None), Answer(digest(4), "cat", None)])[:2]
    assert saved == [digest(4)]
    assert [(each.digest, each.label, each.by) for each in conflicts] == [(digest(3), "dog", "anna")]
    assert conflicts[0].when.endswith("+00:00")
    assert labels_of(bank) == {"003.png": "dog", "004.png": "cat"}


def test_the_command_that_labels_meanwhile_is_seen(bank):
    found = Answers(bank, "label")
    Bank(bank.path).label(pd.DataFrame({"path": ["005.png"], "label": ["owl"]}))
    saved, conflicts = found.write([Answer(digest(5), "cat", None)])[:2]
    assert saved == []
    assert conflicts[0].label == "owl"


def test_the_same_answer_of_two_is_no_conflict_and_is_written_once(bank):
    one, other = Answers(bank, "label"), Answers(Bank(bank.path), "label")
    one.write([Answer(digest(3), "cat", None)])
    count = len(bank.sample_segments())
    assert other.write([Answer(digest(3), "cat", None)]) == ([digest(3)], [], [])
    assert len(bank.sample_segments()) == count


def test_who_and_when_are_kept_and_go_with_the_answer(bank):
    found = Answers(bank, "label", by="anna")
    found.write([Answer(digest(3), "cat", None)])
    assert labels_of(bank, "label_by") == {"003.png": "anna"}
    found.write([Answer(digest(3), None, "cat")])
    assert labels_of(bank, "label_by") == labels_of(bank, "label_at") == {}


def test_images_of_one_content_are_one_question(tmp_path):
    bank = make_bank(tmp_path / "a.bank", np.zeros((4, 2)), contents=[0, 1, 1, 2])
    found = Answers(bank, "label")
    assert len(found.digests) == 3
    found.write([Answer(digest(1), "cat", None)])
    assert labels_of(bank) == {"001.png": "cat", "002.png": "cat"}


@pytest.mark.parametrize(
    ("values", "answer", "stored"),
    [([1, 2], "7", 7), ([True, None], "false", False), (["1", "x"], "7", "7")],
)
def test_a_column_keeps_its_kind(tmp_path, values, answer, stored):
    bank = make_bank(tmp_path / "a.bank", np.zeros((2, 2)), kind=values)
    found = Answers(bank, "kind")
    found.write([Answer(digest(1), answer, found.labels[1])])
    assert Bank(bank.path).samples["kind"].tolist() == [values[0], stored]


def test_an_answer_that_is_spelled_otherwise_is_taken_back_as_the_column_holds_it(tmp_path):
    bank = make_bank(tmp_path / "a.bank", np.zeros((2, 2)), kind=[False, None])
    found = Answers(bank, "kind")
    done = found.write([Answer(digest(0), "TRUE", "False"), Answer(digest(1), "false", None)])
    assert Bank(bank.path).samples["kind"].tolist() == [True, False]
    assert found.write(done.back).conflicts == []
    assert labels_of(bank, "kind") == {"000.png": False}


@pytest.mark.parametrize("name", ["", " ", "\ud800"])
def test_what_can_be_no_column_is_refused_before_anything_is_written(bank, name):
    with pytest.raises(ColumnError, match="is no name of a column; expected text"):
        Answers(bank, name)


@pytest.mark.parametrize("label", ["cat", "007", "1.5", "9" * 20, "-" + "9" * 20])
def test_an_answer_that_does_not_fit_a_column_of_whole_numbers_is_refused(tmp_path, label):
    bank = make_bank(tmp_path / "a.bank", np.zeros((2, 2)), kind=[1, 2])
    with pytest.raises(ColumnError, match=f"'{label}' does not fit column 'kind', which holds whole numbers"):
        Answers(bank, "kind").write([Answer(digest(1), label, "2")])
    assert Bank(bank.path).samples["kind"].tolist() == [1, 2]


def test_a_column_of_fractions_is_refused(tmp_path):
    bank = make_bank(tmp_path / "a.bank", np.zeros((2, 2)), kind=[1.5, 2.5])
    with pytest.raises(ColumnError, match="column 'kind' holds fractions; expected classes"):
        Answers(bank, "kind")


def test_an_image_that_is_not_there_is_refused_and_nothing_is_written(bank):
    with pytest.raises(BankError, match="an image that the bank does not have"):
        Answers(bank, "label").write([Answer(digest(3), "cat", None), Answer(digest(999), "cat", None)])
    assert "label" not in Bank(bank.path).samples


def test_many_answers_do_not_leave_many_files(bank, monkeypatch):
    monkeypatch.setattr(module, "MANY", 4)
    found, other = Answers(bank, "label"), Answers(Bank(bank.path), "label")
    for number in range(9):
        found.write([Answer(digest(number), f"c{number}", None)])
        found.compact()
    assert len(bank.sample_segments()) < 6
    assert labels_of(bank) == {f"{number:03}.png": f"c{number}" for number in range(9)}
    other.refresh()
    assert other.labels[:9].tolist() == [f"c{number}" for number in range(9)]
    module.compact_small(bank, 4096, grace=0)
    assert len(list((bank.path / "samples").glob("*.h5"))) == len(bank.sample_segments())


def test_writers_at_the_same_time_lose_nothing_and_one_of_two_answers_wins(bank):
    results = []

    def run(name):
        own = Answers(Bank(bank.path), "label", by=name)
        results.extend((name, own.write([Answer(digest(number), name, None)])) for number in range(6))

    threads = [threading.Thread(target=run, args=(name,)) for name in ("anna", "ben")]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    won = {saved[0]: name for name, (saved, *_) in results if saved}
    lost = {conflicts[0].digest for _, (_, conflicts, _) in results if conflicts}
    assert len(results) == 12
    assert set(won) == lost == {digest(number) for number in range(6)}
    assert labels_of(bank) == {f"{int.from_bytes(key, 'big'):03}.png": name for key, name in won.items()}


def test_new_images_are_seen(bank, tmp_path):
    found = Answers(bank, "label")
    found.write([Answer(digest(1), "cat", None)])
    Bank(bank.path).merge(make_bank(tmp_path / "b.bank", np.zeros((2, 2)), contents=[1, 999]))
    assert found.refresh()
    assert (found.find(digest(0)), found.find(digest(1)), found.find(digest(999))) == (-1, 0, 299)
