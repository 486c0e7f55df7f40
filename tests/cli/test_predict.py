import csv
import io
import json
import os
import shutil
from functools import partial

import pandas as pd
import pytest

from featurebank import Predictor, extract, fit
from featurebank.backbones.engine import Engine
from featurebank_cli.output import as_columns, csv_text


@pytest.fixture
def new(two_classes):
    return two_classes.parent / "new"


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_folders_and_files_become_csv(run_cli, two_class_predictor, new):
    result = run_cli("predict", two_class_predictor, new, new / "cat" / "00.png")
    rows = rows_of(result.stdout)
    assert list(rows[0]) == ["path", "label", "probability", "unlike", "is_unlike", "error"]
    images = [*sorted(new.rglob("*.png")), new / "cat" / "00.png"]
    assert [row["path"] for row in rows] == [str(path) for path in images]
    assert [row["label"] for row in rows] == [path.parent.name for path in images]
    assert all(0 < float(row["probability"]) <= 1 and row["error"] == "" for row in rows)


def test_proba_adds_a_column_for_each_class(run_cli, two_class_predictor, new):
    (row,) = rows_of(run_cli("predict", two_class_predictor, new / "dog" / "01.png", "--proba").stdout)
    assert list(row) == ["path", "label", "probability", "unlike", "is_unlike", "error", "proba_cat", "proba_dog"]
    assert float(row["proba_cat"]) + float(row["proba_dog"]) == pytest.approx(1)
    assert row["probability"] == row["proba_dog"]


def test_images_of_another_kind_are_flagged(run_cli, run_json, two_class_predictor, new, tmp_path, noise):
    noise(64, 64).save(tmp_path / "noise.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    images = [new / "cat" / "00.png", tmp_path / "noise.png", tmp_path / "broken.png"]
    result = run_cli("predict", two_class_predictor, *images)
    usual, strange, broken = rows_of(result.stdout)
    assert float(usual["unlike"]) < float(strange["unlike"]) == 1
    assert (usual["is_unlike"], strange["is_unlike"]) == ("False", "True")
    assert broken["unlike"] == broken["is_unlike"] == ""
    assert "1 of 3 images is unlike those it learned from: column is_unlike" in result.stderr
    flags = [row["is_unlike"] for row in run_json("predict", two_class_predictor, *images)["predictions"]]
    assert flags == [False, True, None]


def test_json_is_one_object(run_json, two_class_predictor, new):
    report = run_json("predict", two_class_predictor, new / "cat" / "00.png", "--proba")
    assert (report["predictor"], report["target"]) == (str(two_class_predictor), "label")
    (row,) = report["predictions"]
    expected = Predictor.load(two_class_predictor).predict_proba([new / "cat" / "00.png"])[0].tolist()
    assert [row["proba_cat"], row["proba_dog"]] == pytest.approx(expected)
    assert (row["label"], row["error"]) == ("cat", "")


def test_the_bank_gives_what_the_files_give(run_json, two_class_predictor, two_class_bank, two_classes):
    by_bank = run_json("predict", two_class_predictor, "--bank", two_class_bank)["predictions"]
    by_file = run_json("predict", two_class_predictor, two_classes)["predictions"]
    assert [row["source"] for row in by_bank] == [str(two_classes)] * 40
    assert [str(two_classes / row["path"]) for row in by_bank] == [row["path"] for row in by_file]
    assert [row["label"] for row in by_bank] == [row["label"] for row in by_file]
    chances = [row["probability"] for row in by_file]
    assert [row["probability"] for row in by_bank] == pytest.approx(chances, abs=1e-4)


def test_output_goes_to_a_file(run_cli, two_class_predictor, two_class_bank, tmp_path):
    result = run_cli("predict", two_class_predictor, "--bank", two_class_bank, "-o", tmp_path / "a.csv")
    assert (result.exit_code, result.stdout) == (0, "")
    rows = rows_of((tmp_path / "a.csv").read_text())
    assert list(rows[0]) == ["source", "path", "label", "probability", "unlike", "is_unlike", "error"]
    assert len(rows) == 40
    both = run_cli("predict", two_class_predictor, "--bank", two_class_bank, "-o", tmp_path / "b.csv", "--json")
    assert len(json.loads(both.stdout)["predictions"]) == 40
    assert (tmp_path / "b.csv").read_text() == (tmp_path / "a.csv").read_text()


def test_an_unreadable_image_keeps_its_row_and_strict_makes_it_an_error(run_cli, two_class_predictor, new, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    arguments = ["predict", two_class_predictor, new / "cat" / "00.png", bad, new / "dog" / "00.png"]
    result = run_cli(*arguments)
    assert result.exit_code == 0
    first, broken, last = rows_of(result.stdout)
    assert (first["label"], last["label"]) == ("cat", "dog")
    assert (broken["path"], broken["label"], broken["probability"]) == (str(bad), "", "")
    assert broken["error"].startswith("not a readable image")
    assert result.stderr.startswith(f"Warning: {bad}: not a readable image")
    assert run_cli(*arguments, "--strict").exit_code == 1
    assert json.loads(run_cli(*arguments, "--json").stdout)["predictions"][1]["label"] is None


def test_nothing_but_unreadable_images_is_an_error(run_cli, two_class_predictor, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    result = run_cli("predict", two_class_predictor, tmp_path / "bad.png")
    assert result.exit_code == 1
    assert rows_of(result.stdout)[0]["error"].startswith("not a readable image")


def test_a_file_that_is_not_there_is_said_before_the_model_is_loaded(run_cli, new, tmp_path):
    result = run_cli("predict", "nowhere.featurebank", new / "cat" / "00.png", tmp_path / "none.png")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"Error: no file or folder {str(tmp_path / 'none.png')!r} (1 of 2); check the path\n"


def test_names_that_look_like_formulas_are_defused(run_cli, two_classes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for old, new in (("cat", "=cat"), ("dog", "@dog")):
        (tmp_path / "photos" / new).mkdir(parents=True)
        for path in (two_classes / old).iterdir():
            (tmp_path / "photos" / new / path.name).symlink_to(path)
    bank = extract("photos", "a.bank", backbone="resnet18", weights="random:0", size=64)
    fit(bank, models={"logreg": {"C": 0.01}}).save("a.featurebank")
    for name in ("=1.png", "+1.png", "@1.png", "-1.png"):
        (tmp_path / name).symlink_to(two_classes / "cat" / "00.png")
    result = run_cli("predict", "a.featurebank", "--", "=1.png", "+1.png", "@1.png", "-1.png")
    assert [row["path"] for row in rows_of(result.stdout)] == ["'=1.png", "'+1.png", "'@1.png", "'-1.png"]
    assert [row["label"] for row in rows_of(result.stdout)] == ["'=cat"] * 4


def test_weights_can_be_brought_as_a_file(run_cli, two_class_predictor, new, tmp_path):
    from safetensors.torch import save_file

    from featurebank import load_backbone

    for seed in (0, 1):
        save_file(load_backbone("resnet18", f"random:{seed}").model.state_dict(), tmp_path / f"{seed}.safetensors")
    arguments = ["predict", two_class_predictor, new / "cat" / "00.png", "--weights"]
    assert run_cli(*arguments, tmp_path / "0.safetensors").stdout == run_cli(*arguments[:-1]).stdout
    result = run_cli(*arguments, tmp_path / "1.safetensors")
    assert result.exit_code == 1
    assert "bring the weights it was trained on" in result.stderr


def test_a_quoted_pattern_and_standard_input_name_images(two_class_predictor, new):
    from click.testing import CliRunner

    from featurebank_cli import main

    images, command = sorted(new.rglob("*.png")), ["predict", str(two_class_predictor)]
    for pattern in ("*/*.png", "**/*.png", "[cd]*"):
        rows = rows_of(CliRunner().invoke(main, [*command, str(new / pattern)]).stdout)
        assert [row["path"] for row in rows] == [str(path) for path in images]
    listed = "\n".join(map(str, images[:2])) + "\r\n\n"
    rows = rows_of(CliRunner().invoke(main, [*command, "-"], input=listed).stdout)
    assert [row["path"] for row in rows] == [str(path) for path in images[:2]]


def test_a_pattern_or_an_input_of_nothing_is_said(run_cli, new, tmp_path):
    for named, message in ((new / "*.gif", "no file or folder fits "), ("-", "no path on standard input")):
        result = run_cli("predict", tmp_path / "no.featurebank", named)
        assert result.exit_code == 1
        assert result.stderr.startswith(f"Error: {message}")


def test_a_name_with_brackets_is_a_name(run_cli, two_class_predictor, new, tmp_path):
    (tmp_path / "a[1].png").write_bytes((new / "cat" / "00.png").read_bytes())
    (row,) = rows_of(run_cli("predict", two_class_predictor, tmp_path / "a[1].png").stdout)
    assert row["path"] == str(tmp_path / "a[1].png")


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_a_device_is_taken_by_its_name_or_refused(
    run_cli, two_class_predictor, two_class_bank, new, command, monkeypatch
):
    for images in ([new], ["--bank", two_class_bank])[: 1 + (command == "predict")]:
        result = run_cli(command, two_class_predictor, *images, "--device", "cuda:99")
        assert (result.exit_code, result.stdout) == (1, "")
        assert "device 'cuda:99' is not on this machine" in result.stderr
    taken, make = [], Engine.__init__

    def noted(self, *args, **options):
        taken.append(options["device"])
        make(self, *args, **options)

    monkeypatch.setattr(Engine, "__init__", noted)
    assert run_cli(command, two_class_predictor, new, "--device", "cpu").exit_code == 0
    assert taken == ["cpu"]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_a_table_names_images_by_the_same_options_as_everywhere(run_cli, two_class_predictor, new, tmp_path, suffix):
    table, wanted = tmp_path / f"test{suffix}", sorted(path.relative_to(new) for path in new.rglob("*.png"))[:4]
    frame = pd.DataFrame({"picture": [str(path.with_suffix("")) for path in wanted], "age": [1, 2, 3, 4]})
    write = {".csv": frame.to_csv, ".tsv": partial(frame.to_csv, sep="\t"), ".parquet": frame.to_parquet}
    write.get(suffix, partial(frame.to_json, orient="records", lines=True))(table, index=False)
    result = run_cli("predict", two_class_predictor, table, "--path-column", "picture", "--root", new)
    rows = rows_of(result.stdout)
    assert [row["path"] for row in rows] == [str(new / path) for path in wanted]
    assert [row["label"] for row in rows] == [path.parent.name for path in wanted]


def test_a_row_without_a_file_keeps_its_place_and_its_reason(run_cli, two_class_predictor, new, tmp_path, monkeypatch):
    monkeypatch.chdir(new.parent)
    table = tmp_path / "test.csv"
    table.write_text("path;n\ncat/00.png;1\nnowhere.png;2\n../../outside.png;3\nhttps://x.org/a.png;4\n")
    result = run_cli("predict", two_class_predictor, table, "--root", "new", new / "dog" / "01.png")
    found, lost, outside, address, single = rows_of(result.stdout)
    assert (found["path"], found["label"], found["error"]) == (os.path.join("new", "cat", "00.png"), "cat", "")
    assert lost["error"].startswith("cannot be read: No such file")
    assert "leaves the root" in outside["error"]
    assert address["error"].startswith("a URL")
    assert (single["path"], single["label"]) == (str(new / "dog" / "01.png"), "dog")


def test_paths_of_a_table_beside_the_images_are_given_back_as_they_stand_there(
    run_cli, two_class_predictor, new, tmp_path, monkeypatch
):
    shutil.copytree(new, tmp_path / "new")
    (tmp_path / "test.csv").write_text("path\nnew/cat/00.png\nnew/nowhere.png\n")
    monkeypatch.chdir(tmp_path)
    result = run_cli("predict", two_class_predictor, "test.csv")
    assert [line.split(",")[0] for line in result.stdout.splitlines()] == ["path", "new/cat/00.png", "new/nowhere.png"]
    assert result.stdout.splitlines()[1].split(",")[1] == "cat"


def test_options_of_tables_without_one_are_refused(run_cli, two_class_predictor, new):
    result = run_cli("predict", two_class_predictor, new, "--path-column", "picture")
    assert (result.exit_code, "--path-column goes with a table of paths" in result.stderr) == (2, True)


def test_columns_become_the_csv_that_pandas_writes():
    frame = pd.DataFrame(
        {
            "path": pd.Series(["a,b.png", '"q".png', "=1.png", "caf\udce9\n.png", ""], dtype=object),
            "label": ["cat", None, "-dog", "1", "x"],
            "share": [0.1, float("nan"), 1e-9, 1.0, 123456789.123],
            "count": [1, 2, 3, 4, 5],
            "is_unlike": pd.Series([True, None, False, True, None], dtype=object),
            "=odd": [True, False, True, False, True],
        }
    )
    wanted = frame.replace({"=1.png": "'=1.png", "-dog": "'-dog"}).rename(columns={"=odd": "'=odd"})
    for rows in (len(frame), 0):
        assert csv_text(as_columns(frame[:rows])) == csv_text(frame[:rows]) == wanted[:rows].to_csv(index=False)


def test_the_table_of_a_predictor_is_its_columns(two_class_predictor, new):
    predictor, paths = Predictor.load(two_class_predictor), [*sorted(new.rglob("*.png"))[:3], "none.png"]
    table, columns = predictor.predict_table(paths), predictor.predict_columns(paths)
    assert list(table) == list(columns)
    assert table["path"].dtype == object
    assert as_columns(table) == as_columns(columns)
    assert columns["label"][-1] is None
