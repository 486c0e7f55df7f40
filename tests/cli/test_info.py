import csv
import io
import re
import shlex

import pytest

from featurebank import Bank, extract
from featurebank.errors import BankError

NET = ["--backbone", "resnet18", "--weights", "random:0", "--size", "32"]


@pytest.fixture
def bank(two_classes, tmp_path):
    """Two images and one that cannot be read, from a manifest with columns of each kind and a formula."""
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes((two_classes / "cat" / "00.png").read_bytes() + name.encode())
    (tmp_path / "bad.png").write_bytes(b"no image")
    lines = ["path,label,age,note", "a.png,cat,3,=1+1", "b.png,,4,fine", "bad.png,dog,5,"]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    with pytest.warns(UserWarning, match="1 of 3 images could not be read"):
        extract(tmp_path / "list.csv", tmp_path / "a.bank", backbone="resnet18", weights="random:0", size=32)
    return tmp_path / "a.bank"


def test_json_counts_samples_columns_and_feature_sets(run_json, bank):
    facts = run_json("info", bank)
    assert facts["samples"] == {"ok": 2, "failed": 1, "gone": 0}
    assert facts["columns"] == {
        "label": {"kind": "str", "missing": 1},
        "age": {"kind": "int", "missing": 0},
        "note": {"kind": "str", "missing": 1},
    }
    (found,) = facts["feature_sets"]
    assert (found["name"], found["rows"], found["shape"], found["dtype"]) == (
        "resnet18/penultimate",
        2,
        [1, 512],
        "float16",
    )
    assert facts["sources"] == [str(bank.parent / "list.csv")]
    assert facts["bytes"] == sum(file.stat().st_size for file in bank.rglob("*") if file.is_file())


def test_the_page_says_the_same(run_cli, bank):
    lines = run_cli("info", bank).stdout.splitlines()
    assert lines[0].startswith(f"{bank}: ")
    assert lines[0].endswith("samples: 2 ok, 1 failed, 0 gone")
    rows = [line.split() for line in lines]
    assert ["age", "int", "0"] in rows
    assert ["resnet18/penultimate", "2", "1x512", "float16"] in [row[:4] for row in rows]


def test_samples_are_listed_as_csv_with_formulas_defused(run_cli, run_json, bank):
    rows = list(csv.DictReader(io.StringIO(run_cli("info", bank, "--samples").stdout)))
    assert [row["path"] for row in rows] == ["a.png", "b.png", "bad.png"]
    assert [row["status"] for row in rows] == ["ok", "ok", "failed"]
    assert rows[0]["note"] == "'=1+1"
    assert [row["age"] for row in rows] == ["3", "4", "5"]
    listed = run_json("info", bank, "--samples")["samples"]
    assert [(row["path"], row["label"], row["age"]) for row in listed] == [
        ("a.png", "cat", 3),
        ("b.png", None, 4),
        ("bad.png", "dog", 5),
    ]
    assert listed[0]["note"] == "=1+1"


def test_failures_are_listed_with_their_reason(run_cli, run_json, bank):
    (row,) = csv.DictReader(io.StringIO(run_cli("info", bank, "--failures").stdout))
    assert list(row) == ["source", "path", "error"]
    assert (row["path"], row["error"][:20]) == ("bad.png", "not a readable image")
    assert run_json("info", bank, "--failures")["failures"] == [row]


def test_a_set_that_lacks_rows_is_named_with_the_command_that_makes_them(run_cli, run_json, bank):
    assert run_json("info", bank)["incomplete"] == []
    (bank.parent / "c.png").write_bytes((bank.parent / "a.png").read_bytes() + b"c")
    (bank.parent / "more.csv").write_text("path\nc.png\n")
    net = {"backbone": "resnet18", "weights": "random:0", "size": 32}
    extract(bank.parent / "more.csv", bank, layers="layer3:max", **net)
    command = f"featurebank extract {{}} --bank {bank} --backbone resnet18 --weights random:0 --size 32 --layer {{}}"
    first = command.format(bank.parent / "list.csv", "layer3:max")
    second = command.format(bank.parent / "more.csv", "penultimate")
    expected = [
        f"2 of 3 samples have no row in 'resnet18/layer3:max': run `{first}` (2 samples)",
        f"1 of 3 samples have no row in 'resnet18/penultimate': run `{second}` (1 sample)",
    ]
    expected = [f"{line}; or choose other sets with --features" for line in expected]
    assert run_json("info", bank)["incomplete"] == expected
    assert run_cli("info", bank).stdout.splitlines()[-2:] == expected
    with pytest.raises(BankError, match="; 1 more sets lack rows, `featurebank info` lists them"):
        Bank(bank).features(["layer3:max", "penultimate"], Bank(bank).select())
    again = run_cli("extract", bank.parent / "more.csv", "--bank", bank, "--layer", "layer3:max", *NET).stdout
    assert f"2 feature sets lack rows of these samples; `featurebank info {bank}` says what to run" in again


def test_the_remedy_names_precision_and_decoder(run_cli, run_json, bank):
    asked = ["--bank", bank, *NET, "--layer", "penultimate", "--precision", "bf16", "--decoder", "tensor"]
    (bank.parent / "more.csv").write_text("path\na.png\n")
    run_json("extract", bank.parent / "more.csv", *asked)
    (bank.parent / "c.png").write_bytes((bank.parent / "a.png").read_bytes() + b"c")
    (bank.parent / "more.csv").write_text("path\na.png\nc.png\n")
    run_json("extract", bank.parent / "more.csv", "--bank", bank, *NET)
    (line,) = [line for line in run_json("info", bank)["incomplete"] if "bf16" in line and "more.csv" in line]
    command = re.search("`featurebank (extract [^`]*more.csv[^`]*)`", line)[1]
    assert "--precision bf16 --decoder tensor" in command
    assert run_json(*shlex.split(command))["embedded"] == 1
    sets = {each["precision"]: each for each in run_json("info", bank)["feature_sets"]}
    assert (sets["bf16"]["decoder"], sets["fp32"]["decoder"], sets["bf16"]["views"]) == ("tensor", "pil", "none")
    assert "bf16, tensor" in run_cli("info", bank).stdout


def test_two_sets_that_differ_in_size_alone_are_told_apart(run_cli, run_json, bank):
    run_json("extract", bank.parent / "list.csv", "--bank", bank, *NET[:-1], 64)
    shown = run_cli("info", bank).stdout
    assert "random:0, 64 px" in shown
    assert "random:0, 32 px" in shown


def test_missing_values_are_those_of_samples_that_are_there(bank, run_json):
    (source,) = run_json("info", bank)["sources"]
    run_json("prune", bank, "--source", source)
    facts = run_json("info", bank)
    assert facts["samples"] == {"ok": 0, "failed": 0, "gone": 3}
    assert [each["missing"] for each in facts["columns"].values()] == [0, 0, 0]
