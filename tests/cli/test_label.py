import shutil

import pandas as pd
import pytest

from featurebank import Bank

NET = ["--backbone", "resnet18", "--weights", "random:0", "--size", "64", "--layer", "layer3", "--layer", "penultimate"]


def column(bank, name):
    return Bank(bank).samples.set_index("path")[name]


def write(path, *lines):
    path.write_text("\n".join(lines) + "\n")
    return path


def test_columns_are_attached_and_corrected(run_json, own_bank, tmp_path):
    labels = write(
        tmp_path / "labels.csv", "path,label,site", "cat/00.png,dog,north", "dog/00.png,,south", "dog/01.png,dog,"
    )
    assert run_json("label", own_bank, labels) == {"rows": 3, "changed": 2, "columns": ["label", "site"]}
    assert column(own_bank, "label")["cat/00.png"] == "dog"
    assert column(own_bank, "label")["dog/00.png"] == "dog"
    assert column(own_bank, "site").dropna().to_dict() == {"cat/00.png": "north", "dog/00.png": "south"}
    assert Bank(own_bank).load("resnet18/layer3", "label")[1].tolist().count("dog") == 21
    assert run_json("label", own_bank, labels)["changed"] == 0


def test_a_path_column_of_another_name_and_parquet(run_cli, own_bank, tmp_path):
    pd.DataFrame({"file": ["cat/00.png"], "age": [3]}).to_parquet(tmp_path / "labels.parquet")
    result = run_cli("label", own_bank, tmp_path / "labels.parquet", "--path-column", "file")
    assert result.stdout == "1 of 1 samples changed: age\n"
    assert column(own_bank, "age")["cat/00.png"] == 3


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["path,label", "cat/00.png,dog", "cow/00.png,cow"], "path 'cow/00.png' is not in the bank"),
        (["path,label", "photos/cat/00.png,dog"], "did you mean 'cat/00.png'? `featurebank info BANK --samples` lists"),
        (["path,label", "cat/OO.png,dog"], "path 'cat/OO.png' is not in the bank; did you mean 'cat/00.png'?"),
        (["path,label", "cat/00.png,dog", "cat/00.png,cat"], "labels name a path more than once"),
        (["file,label", "cat/00.png,dog"], "labels have the columns file, label; expected 'path'"),
        (["path", "cat/00.png"], "labels have the columns path; expected 'path' and at least one more"),
        (["path,label"], "has no rows; expected one a sample"),
    ],
)
def test_labels_that_do_not_fit_are_an_error_and_write_nothing(run_cli, own_bank, tmp_path, lines, message):
    before = sorted(own_bank.rglob("*.h5"))
    result = run_cli("label", own_bank, write(tmp_path / "labels.csv", *lines))
    assert result.exit_code == 1
    assert message in result.stderr
    assert sorted(own_bank.rglob("*.h5")) == before
    assert column(own_bank, "label")["cat/00.png"] == "cat"


def test_a_corrected_label_survives_an_extraction_of_the_unchanged_folder(run_json, own_bank, two_classes, tmp_path):
    run_json("label", own_bank, write(tmp_path / "labels.csv", "path,label", "cat/00.png,dog"))
    report = run_json("extract", two_classes, "--bank", own_bank, *NET)
    assert (report["embedded"], report["reused"]) == (0, 40)
    assert column(own_bank, "label")["cat/00.png"] == "dog"


def test_a_value_edited_in_the_manifest_wins_over_a_correction(run_json, two_classes, tmp_path):
    for name in ("a.png", "b.png"):
        shutil.copy(two_classes / "cat" / "00.png", tmp_path / name)
    bank, manifest = tmp_path / "a.bank", tmp_path / "photos.csv"

    def extracted(*rows):
        run_json("extract", write(manifest, "path,label", *rows), "--bank", bank, *NET)
        return column(bank, "label").tolist()

    assert extracted("a.png,cat", "b.png,cat") == ["cat", "cat"]
    run_json("label", bank, write(tmp_path / "labels.csv", "path,label", "a.png,lynx", "b.png,lynx"))
    assert extracted("a.png,cat", "b.png,cat") == ["lynx", "lynx"]
    assert extracted("a.png,tiger", "b.png,cat") == ["tiger", "lynx"]


def test_a_folder_in_place_of_a_table_is_an_error_of_one_line(run_cli, own_bank, two_classes):
    result = run_cli("label", own_bank, two_classes)
    ending = "is a folder; expected a file that ends in .csv, .tsv, .txt, .parquet, .pq, .jsonl, .ndjson"
    assert (result.exit_code, result.stderr) == (1, f"Error: {str(two_classes)!r} {ending}\n")


@pytest.mark.parametrize("about", [["score"], ["given", "suggested", "quality"]])
def test_of_our_own_lists_only_what_was_filled_in_is_taken(run_json, own_bank, tmp_path, about):
    (source,) = {*Bank(own_bank).samples["source"]}
    header, told = ["source", "path", *about, "kind", "site"], ["0.5"] * len(about)
    lines = [[source, "cat/00.png", *told, "tabby", ""], [source, "dog/00.png", *told, "", ""]]
    table = write(tmp_path / "list.csv", *(",".join(line) for line in [header, *lines]))
    assert run_json("label", own_bank, table) == {"rows": 2, "changed": 1, "columns": ["kind", "site"]}
    assert not {*about} & {*Bank(own_bank).samples.columns}
    assert run_json("label", own_bank, table, "--column", about[0])["columns"] == [about[0]]
