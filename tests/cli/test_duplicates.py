import shutil

import pandas as pd
import pytest


@pytest.fixture
def doubled(run_json, two_classes, tmp_path):
    """A bank of two cats, one of which is there twice."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for name, number in (("a.png", "00"), ("b.png", "01"), ("=b.png", "01")):
        shutil.copy(two_classes / "cat" / f"{number}.png", photos / name)
    net = ("--backbone", "resnet18", "--weights", "random:0", "--size", 32)
    run_json("extract", photos, "--bank", tmp_path / "a.bank", *net)
    return tmp_path / "a.bank"


def test_groups_are_listed_and_written(run_json, doubled, tmp_path):
    report = run_json("duplicates", doubled, "-o", tmp_path / "duplicates.csv")
    assert (report["groups"], report["kinds"]) == (1, {"exact": 2})
    assert [each["path"] for each in report["duplicates"]] == ["=b.png", "b.png"]
    table = pd.read_csv(tmp_path / "duplicates.csv")
    assert table.columns.tolist() == ["group", "kind", "source", "path", "similarity"]
    assert table["path"].tolist() == ["'=b.png", "b.png"]


def test_the_table_is_readable(run_cli, doubled):
    result = run_cli("duplicates", doubled)
    assert result.exit_code == 0
    assert "1 group: 2 exact" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 100
