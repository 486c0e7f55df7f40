import numpy as np
import pandas as pd
import pytest

from featurebank import Bank
from featurebank.bank import samples
from featurebank.bank.spec import FeatureSpec
from featurebank.bank.upkeep import prune, set_damaged_features_aside, set_damaged_tables_aside
from featurebank.errors import BankError

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
