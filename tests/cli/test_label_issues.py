import os
import shutil

import pandas as pd
import pytest

from featurebank import Bank
from featurebank_cli import output
from featurebank_cli.output import undefused, write_csv

MODEL = ["--features", "resnet18/layer3", "--model", "logreg"]


@pytest.fixture
def flipped(own_bank):
    """A bank in which one cat is called a dog."""
    Bank(own_bank).label(pd.DataFrame({"path": ["cat/03.png"], "label": ["dog"]}))
    return own_bank


def test_the_csv_is_corrected_and_read_back(run_cli, run_json, flipped, tmp_path):
    issues = tmp_path / "issues.csv"
    report = run_json("label-issues", flipped, *MODEL, "-o", issues)
    assert report["target"] == "label"
    assert report["issues"][0] | {"source": "", "quality": 0} == {
        "source": "",
        "path": "cat/03.png",
        "given": "dog",
        "suggested": "cat",
        "quality": 0,
        "label": None,
    }
    assert run_json("label", flipped, issues, "--column", "label")["changed"] == 0  # nothing was filled in yet
    table = pd.read_csv(issues, dtype=object)
    table.loc[table["path"] == "cat/03.png", "label"] = "cat"
    table.to_csv(issues, index=False)
    assert run_json("label", flipped, issues, "--column", "label") == {
        "rows": len(table),
        "changed": 1,
        "columns": ["label"],
    }
    samples = Bank(flipped).samples
    assert samples.set_index("path")["label"]["cat/03.png"] == "cat"
    assert not {"given", "suggested", "quality"} & set(samples.columns)


def test_an_earlier_fit_is_judged_by(run_json, run_cli, flipped, tmp_path):
    run_json("fit", flipped, *MODEL, "-o", tmp_path / "a.featurebank")
    report = run_json("label-issues", flipped, "--oof", tmp_path / "a.oof.csv")
    assert report["issues"][0]["path"] == "cat/03.png"
    both = run_cli("label-issues", flipped, "--oof", tmp_path / "a.oof.csv", "--model", "svm")
    assert (both.exit_code, both.stdout) == (2, "")


def test_the_table_is_readable(run_cli, flipped):
    result = run_cli("label-issues", flipped, *MODEL)
    assert result.exit_code == 0
    assert "doubtful labels of label" in result.stdout
    assert ["cat/03.png", "dog", "cat"] in [line.split()[1:4] for line in result.stdout.splitlines()]


def test_a_name_that_is_not_utf_8_makes_the_round_too(run_json, two_classes, tmp_path):
    photos = shutil.copytree(two_classes, tmp_path / "photos")
    (photos / "cat" / "03.png").rename(os.fsdecode(os.fsencode(photos) + b"/dog/=caf\xe9.png"))
    net = ["--backbone", "resnet18", "--weights", "random:0", "--size", 64, "--layer", "layer3"]
    run_json("extract", photos, "--bank", tmp_path / "a.bank", *net)
    report = run_json("label-issues", tmp_path / "a.bank", "--model", "logreg", "-o", tmp_path / "issues.csv")
    assert report["issues"][0]["path"] == "dog/=caf\udce9.png"
    data = (tmp_path / "issues.csv").read_bytes()
    assert b"dog/=caf\xe9.png,dog,cat," in data
    header, first, *_ = data.splitlines()
    (tmp_path / "corrected.csv").write_bytes(header + b"\n" + first + b"cat\n")
    assert run_json("label", tmp_path / "a.bank", tmp_path / "corrected.csv", "--column", "label")["changed"] == 1
    assert Bank(tmp_path / "a.bank").samples["label"].tolist().count("cat") == 20


def test_no_doubt_is_one_line(run_cli, two_class_bank):
    result = run_cli("label-issues", two_class_bank, *MODEL)
    assert (result.exit_code, result.stdout) == (0, "0 doubtful labels of label\n")


@pytest.mark.parametrize("rows_written", [3, 100])
def test_names_that_a_spreadsheet_would_run_come_back_as_they_were(rows_written, tmp_path, monkeypatch):
    from featurebank.images.tables import read_table

    monkeypatch.setattr(output, "ROWS_WRITTEN", rows_written)
    names = ["=1+1", "-a", "'-b", "''=c", "'d", "e\nf", "caf\udce9", "g"]
    frame = pd.DataFrame({"path": pd.Series(names, dtype=object), "@n": pd.Series(["+"] * 8, dtype=object)})
    write_csv(tmp_path / "a.csv", frame)
    pd.testing.assert_frame_equal(undefused(read_table(tmp_path / "a.csv")), frame, check_dtype=False)
    write_csv(tmp_path / "none.csv", frame[:0])
    assert (tmp_path / "none.csv").read_text() == "path,'@n\n"


def test_a_column_that_is_not_there_is_an_error(run_cli, own_bank, tmp_path):
    (tmp_path / "a.csv").write_text("path,site\ncat/00.png,north\n")
    result = run_cli("label", own_bank, tmp_path / "a.csv", "--column", "label")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "the labels have no column 'label'; they have 'path', 'site': name one of them" in result.stderr


def test_of_a_predictor_of_several_tasks_one_is_named(run_cli, run_json, flipped, tmp_path):
    labels = tmp_path / "kind.csv"
    labels.write_text("path,kind\n" + "\n".join(f"{c}/{i:02}.png,{c}" for c in ("cat", "dog") for i in range(20)))
    run_json("label", flipped, labels)
    output = tmp_path / "both.featurebank"
    run_json("fit", flipped, "--target", "label", "--target", "kind", *MODEL, "-o", output)
    result = run_cli("label-issues", flipped, "--predictor", output)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "predicts several tasks, label, kind; expected one: name it with --target" in result.stderr
    assert run_json("label-issues", flipped, "--predictor", output, "--target", "kind")["issues"] == []
    found = run_json("label-issues", flipped, "--predictor", output, "--target", "label")["issues"]
    assert [each["path"] for each in found][:1] == ["cat/03.png"]
    wrong = run_cli("label-issues", flipped, "--predictor", output, "--target", "size")
    assert "no task 'size'; this predictor knows label, kind" in wrong.stderr
