import numpy as np
import pandas as pd
import pytest
from made_bank import make_bank

from featurebank import Bank
from featurebank.bank import merging, samples
from featurebank.bank.spec import FeatureSpec
from featurebank.bank.upkeep import prune, set_damaged_features_aside, set_damaged_tables_aside
from featurebank.errors import BankError, CorruptError

SPEC = FeatureSpec("net", "", "0" * 64, "fc", "vector", 0, "none", {"crop": [4, 4]}, 1, "none", "fp32", "float16")


def digest(number):
    return bytes([number]) * 32


def add(bank, source, numbers):
    """Add the samples ``1.png``, … of a source, whose contents are the numbers, with their rows."""
    n = len(numbers)
    plain = {"root": source, "size": 1, "mtime_ns": 1, "status": samples.OK, "error": "", "row_hash": 0, "stamp": 0}
    fields = {name: [value] * n for name, value in {"source": source, **plain}.items()}
    fields |= {"path": [b"%d.png" % number for number in numbers], "digest": [digest(number) for number in numbers]}
    bank.add_features(SPEC, fields["digest"], np.array(numbers, np.float32)[:, None, None])
    table = samples.make_table(fields, pd.DataFrame({"label": pd.Series(["x"] * n, dtype=object)}))
    bank.add_samples(table, newest=bank.table.newest_stamp)


@pytest.fixture
def bank(tmp_path):
    """Two sources that share the content 3."""
    bank = Bank.create(tmp_path / "a.bank")
    bank.add_spec(SPEC)
    add(bank, "/old", [1, 2, 3])
    add(bank, "/new", [3, 4])
    return bank


def test_a_source_that_is_named_is_marked_gone_and_only_its_own_rows_are_dropped(bank):
    assert prune(bank, grace=0, source="/old/") == {"gone": 3, "rows": 2, "removed": 1}
    assert bank.missing(SPEC, map(digest, [1, 2, 3, 4])) == {digest(1), digest(2)}
    assert bank.samples["status"].tolist() == ["ok", "ok", "gone", "gone", "gone"]
    assert bank.info()["sources"] == ["/new"]
    assert bank.load("net/fc").tolist() == [[3], [4]]
    assert bank.prune(source="/old") == {"gone": 0, "rows": 0, "removed": 0}


def test_the_rows_of_a_source_that_was_just_written_are_spared(bank):
    assert bank.prune(source="/old") == {"gone": 3, "rows": 0, "removed": 0}
    assert bank.missing(SPEC, map(digest, [1, 2, 3, 4])) == set()


def test_a_source_that_comes_back_has_its_labels(bank):
    bank.prune(source="/old")
    assert bank.samples["label"].tolist() == ["x"] * 5
    add(bank, "/old", [1, 2, 3])
    assert bank.load("net/fc", "label")[1].tolist() == ["x"] * 5


def test_a_source_without_a_path_is_named_as_it_is(bank):
    add(bank, "memory", [7])
    assert bank.prune(source="memory")["gone"] == 1


def test_an_unknown_source_is_an_error_and_changes_nothing(bank):
    before = sorted(bank.path.rglob("*.h5"))
    with pytest.raises(BankError, match=r"no source '/odl' in .*; expected one of its own: '/new', '/old'"):
        bank.prune(source="/odl", grace=0)
    assert sorted(bank.path.rglob("*.h5")) == before


def test_what_was_set_aside_says_what_it_costs(bank):
    for file in [*bank.path.glob("samples/*.h5"), *bank.path.glob("features/*/*.h5")]:
        file.write_bytes(file.read_bytes()[:-10])
    tables, rows = set_damaged_tables_aside(bank), set_damaged_features_aside(bank, [SPEC])
    assert len(tables) == len(rows) == 2
    for line in tables + rows:
        assert "delete it" not in line
        assert ".h5' is damaged or not a segment: " in line
        assert ".h5.damaged': " in line
    assert all(line.endswith("are lost: attach them again with `featurebank label`") for line in tables)
    assert all(line.endswith("; no label is lost") for line in rows)


def test_a_spec_that_was_set_aside_costs_nothing(bank):
    file = bank.feature_folder(SPEC) / "spec.json"
    file.write_text(file.read_text().replace("fp32", "bf16"))
    (line,) = set_damaged_tables_aside(bank)
    assert "holds the spec of another feature set; set aside as 'spec.json.damaged': it is written again" in line
    assert line.endswith("nothing is lost")


# --- merging -----------------------------------------------------------------------------------------------


def files_of(bank):
    return sorted(str(file.relative_to(bank.path)) for file in bank.path.rglob("*.h5"))


@pytest.fixture
def banks(tmp_path):
    """Contents 0, 1, 2 labelled a, and contents 2, 3, 4, 5 labelled b; 000.png to 002.png are in both."""
    rows = np.arange(12.0).reshape(6, 2)
    first = make_bank(tmp_path / "one.bank", rows[:3], label=["a"] * 3)
    second = make_bank(
        tmp_path / "two.bank", {"penultimate": rows[2:], "other": -rows[2:]}, range(2, 6), label=["b"] * 4
    )
    return first, second, rows


def test_a_merge_has_the_rows_of_all_and_the_row_that_was_written_last(banks, tmp_path):
    first, second, rows = banks
    bank = Bank.create(tmp_path / "all.bank")
    found = bank.merge(first, second)
    assert found["copied"] == 5
    assert found["there"] == 0
    assert found["bytes"] == sum((bank.path / file).stat().st_size for file in files_of(bank))
    assert [each.name for each in bank.feature_sets] == ["net/other", "net/penultimate"]
    assert bank.feature_set("net/penultimate").rows == 6
    assert bank.samples["label"].tolist() == ["b"] * 4  # 000.png to 002.png were written again, with other contents
    assert bank.load("net/penultimate").tolist() == rows[2:].tolist()
    assert bank.load("net/other").tolist() == (-rows[2:]).tolist()


def test_a_merge_keeps_how_each_source_is_read(banks, tmp_path):
    first, second, _ = banks
    (source,) = second.table.rows["source"].unique()
    second.keep_named_options(source, {"--path-column": "my file"})
    bank = Bank.create(tmp_path / "all.bank")
    bank.merge(first, second)
    assert bank.named_options(source) == {"--path-column": "my file"}
    (file,) = (bank.path / "sources").iterdir()
    for strange in ('{"options": ["--bank"]}', '{"options": {"--bank": "x", "--encoding": 3}}', "no JSON"):
        file.write_text(strange)
        assert bank.named_options(source) == {}


def test_the_second_merge_copies_nothing(banks, tmp_path):
    first, second, _ = banks
    bank = Bank.create(tmp_path / "all.bank")
    bank.merge(first)
    before = files_of(bank)
    assert bank.merge(first) == {"copied": 0, "bytes": 0, "there": 2}
    assert files_of(bank) == before
    assert bank.merge(second, first)["copied"] == 3


def test_progress_counts_the_files_and_one_that_two_banks_have_is_copied_once(banks, tmp_path):
    first, second, _ = banks
    second.merge(first)
    seen = []
    found = merging.merge(Bank.create(tmp_path / "all.bank"), [first, second], progress=lambda *step: seen.append(step))
    assert (found["copied"], found["there"]) == (5, 2)
    assert seen == [(number, 5) for number in range(1, 6)]


def test_samples_are_listed_first_and_copied_last(banks, tmp_path):
    """What another process adds meanwhile is taken by the next merge, whole: no sample comes without its rows."""
    first, second, _ = banks
    copied = []

    def show(done, total):
        copied.append(files_of(Bank(tmp_path / "all.bank")))
        if done == 1:
            first.merge(second)

    bank = Bank.create(tmp_path / "all.bank")
    merging.merge(bank, [first], progress=show)
    assert [[name.split("/")[0] for name in names] for names in copied] == [["features"], ["features", "samples"]]
    assert bank.load("net/penultimate").shape == (3, 2)
    assert bank.merge(first)["copied"] == 3


def test_a_merge_can_be_compacted_and_merged_again(banks, tmp_path):
    first, second, rows = banks
    bank = Bank.create(tmp_path / "all.bank")
    bank.merge(first, second)
    assert bank.compact(grace=0)["merged"] == 4
    bank.merge(first, second)
    assert bank.feature_set("net/penultimate").rows == 6
    assert bank.load("net/penultimate").tolist() == rows[2:].tolist()


def test_a_bank_takes_in_another_and_keeps_its_own(banks):
    first, second, _ = banks
    first.label(pd.DataFrame({"path": ["000.png"], "site": ["north"]}))
    second.merge(first)
    assert second.samples.set_index("path").loc["000.png", ["label", "site"]].tolist() == ["a", "north"]
    assert len(first.samples) == 3


def test_a_damaged_file_is_named_and_nothing_of_it_is_copied(banks, tmp_path):
    first, _, _ = banks
    (file,) = first.path.glob("features/*/*.h5")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    bank = Bank.create(tmp_path / "all.bank")
    with pytest.raises(CorruptError, match=file.name):
        bank.merge(first)
    assert files_of(bank) == []


@pytest.mark.parametrize(("others", "message"), [([], "no bank to merge"), (["one.bank"], "merged into itself")])
def test_a_merge_of_nothing_or_of_itself_is_refused(banks, others, message):
    first, _, _ = banks
    with pytest.raises(BankError, match=message):
        first.merge(*(first.path.parent / other for other in others))


def test_a_file_that_a_compaction_replaced_meanwhile_is_named(banks, tmp_path):
    first, _, _ = banks
    (file,) = first.feature_set("net/penultimate").segments
    file.path.unlink()
    with pytest.raises(BankError, match="was replaced while it was read: try again"):
        merging._copy((file, tmp_path / "copy.h5"))
