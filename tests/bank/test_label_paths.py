"""Paths in a table of labels: the sample of the bank that is meant."""

import os

import pandas as pd
import pytest
from made_bank import make_bank

from featurebank.bank.label_paths import is_sample, meant_paths
from featurebank.bank.samples import make_table
from featurebank.errors import BankError


def samples(*paths, source="/photos", root="/photos"):
    names = [os.fsencode(path) for path in paths]
    same = {"source": source, "root": root, "digest": bytes(32), "size": 0, "mtime_ns": 0}
    same |= {"status": 0, "error": "", "row_hash": 0, "stamp": 1}
    return make_table(
        {**{key: [value] * len(names) for key, value in same.items()}, "path": names},
        pd.DataFrame(index=range(len(names))),
    )


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("cat/1.png", "cat/1.png"),
        ("cat\\1.png", "cat/1.png"),
        ("C:\\photos\\cat\\1.png", "cat/1.png"),
        ("/photos/cat/1.png", "cat/1.png"),
        ("/elsewhere/cat/1.png", "cat/1.png"),
        ("../photos/cat/1.png", "cat/1.png"),
        ("cat/1", "cat/1.png"),
        ("2", "dog/2.png"),
        ("CAT/1.PNG", "cat/1.png"),
        ("mu\u0308ller", "müller.png"),
        ("photos/cat/1.png", "photos/cat/1.png"),  # it says the folder it starts from: a near path is told instead
        ("bird/1.png", "bird/1.png"),
    ],
)
def test_the_sample_that_is_meant(path, meant):
    assert meant_paths(samples("cat/1.png", "dog/2.png", "müller.png"), [path], None) == [meant]


def test_a_source_that_is_named_has_its_own_paths():
    one = samples("1.png")
    assert meant_paths(one, ["1", "1"], ["/photos", "/others"]) == ["1.png", "1"]


def test_names_of_samples_are_known_as_tables_have_them():
    known = is_sample(samples("caf\udce9.png", "=b.png"))
    assert [known(name) for name in ("caf\udce9.png", "'=b.png", "café.png")] == [True, True, False]


def test_a_bank_takes_labels_by_id_and_leaves_out_rows_without_a_path(tmp_path, caplog):
    bank = make_bank(tmp_path / "a.bank", [[0.0]] * 3)
    paths = bank.samples["path"].tolist()
    ids = [path.removesuffix(".png") for path in paths]
    frame = pd.DataFrame({"id": [*ids, None, ""], "label": ["a", "007", "NA", "lost", "lost"]})
    assert bank.label(frame, path_column="id") == 3
    assert bank.samples["label"].tolist() == ["a", "007", "NA"]
    assert "2 rows have no path and are left out: 4, 5" in caplog.text
    with pytest.raises(BankError, match="labels name a path more than once"):
        bank.label(pd.DataFrame({"path": [ids[0], paths[0]], "label": ["a", "b"]}))
