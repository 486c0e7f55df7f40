import json
import os

import pytest
from PIL import Image

from featurebank import Bank

NET = ["--backbone", "resnet18", "--weights", "random:0", "--size", "64"]


@pytest.fixture
def photos(two_classes, tmp_path):
    """Four images in class folders, linked from `two_classes`."""
    for name in ("cat/00.png", "cat/01.png", "dog/00.png", "dog/01.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(two_classes / name)
    return tmp_path / "photos"


def test_json_has_the_promised_fields(run_json, photos, tmp_path):
    report = run_json(
        "extract", photos, "--bank", tmp_path / "a.bank", *NET, "--layer", "layer3:max", "--layer", "penultimate"
    )
    counts = {name: report[name] for name in ("samples", "embedded", "reused", "failed", "gone", "failures")}
    assert counts == {"samples": 4, "embedded": 4, "reused": 0, "failed": 0, "gone": 0, "failures": []}
    sets = [{name: each[name] for name in ("name", "rows", "shape", "dtype")} for each in report["feature_sets"]]
    assert sets == [
        {"name": "resnet18/layer3:max", "rows": 4, "shape": [1, 256], "dtype": "float16"},
        {"name": "resnet18/penultimate", "rows": 4, "shape": [1, 512], "dtype": "float16"},
    ]
    assert all(len(each["fingerprint"]) == 64 for each in report["feature_sets"])
    assert report["seconds"] > 0
    assert report["images_per_second"] > 0
    again = run_json("extract", photos, "--bank", tmp_path / "a.bank", *NET)
    assert (again["embedded"], again["reused"]) == (0, 4)


def test_the_summary_says_what_was_done_and_what_is_next(run_cli, photos, tmp_path):
    bank = tmp_path / "a.bank"
    lines = run_cli("extract", photos, "--bank", bank, *NET, "--store", "float32").stdout.splitlines()
    assert lines[0].startswith("4 samples: 4 embedded, 0 reused, 0 failed in ")
    assert lines[1] == "  resnet18/penultimate  4 rows of 1x512 float32"
    assert lines[2] == f"bank: {bank}   next: featurebank fit {bank}"


def test_unreadable_images_are_reported_and_strict_makes_them_an_error(run_cli, photos, tmp_path):
    (photos / "cat" / "bad\x1b.png").write_bytes(b"no image")
    (photos / "cat" / "notes.txt").write_text("")
    arguments = ["extract", photos, "--bank", tmp_path / "a.bank", *NET, "--json"]
    result = run_cli(*arguments)
    report = json.loads(result.stdout)
    assert (result.exit_code, report["samples"], report["failed"]) == (0, 5, 1)
    assert report["failures"][0]["path"] == "cat/bad\x1b.png"
    assert result.stderr.splitlines() == [
        "Warning: cat/bad\\x1b.png: not a readable image; expected JPEG, PNG, BMP, TIFF, WEBP, GIF",
        "ignored 1 files that are not images by their suffix",
    ]
    assert run_cli(*arguments, "--strict").exit_code == 1


def test_many_unreadable_images_are_not_all_listed(run_cli, photos, tmp_path):
    for number in range(13):
        (photos / "cat" / f"bad{number}.png").write_bytes(b"no image")
    lines = run_cli("extract", photos, "--bank", tmp_path / "a.bank", *NET).stderr.splitlines()
    assert len(lines) == 11
    assert lines[-1] == f"Warning: … and 3 more; `featurebank info {tmp_path / 'a.bank'} --failures` lists them"


def test_a_manifest_has_its_own_path_column_and_root(run_json, photos, tmp_path):
    (tmp_path / "list.csv").write_text("file,species\ncat/00.png,felis\ndog/01.png,canis\n")
    options = ["--path-column", "file", "--root", photos]
    report = run_json("extract", tmp_path / "list.csv", "--bank", tmp_path / "a.bank", *NET, *options)
    assert report["embedded"] == 2
    assert Bank(tmp_path / "a.bank").samples["species"].tolist() == ["felis", "canis"]


def test_a_moved_folder_is_rebound_by_root(run_json, photos, tmp_path):
    run_json("extract", photos, "--bank", tmp_path / "a.bank", *NET)
    photos.rename(tmp_path / "moved")
    report = run_json("extract", photos, "--bank", tmp_path / "a.bank", *NET, "--root", tmp_path / "moved")
    assert (report["embedded"], report["reused"], report["gone"]) == (0, 4, 0)


def test_verify_reads_unchanged_files_again(run_json, photos, tmp_path):
    file = photos / "new.bmp"  # a bitmap's size does not depend on its colours
    Image.new("RGB", (40, 40), "red").save(file)
    run_json("extract", photos, "--bank", tmp_path / "a.bank", *NET)
    before = file.stat()
    Image.new("RGB", (40, 40), "blue").save(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert run_json("extract", photos, "--bank", tmp_path / "a.bank", *NET)["embedded"] == 0
    assert run_json("extract", photos, "--bank", tmp_path / "a.bank", *NET, "--verify")["embedded"] == 1


def test_explain_says_what_would_be_done_and_does_nothing(run_cli, run_json, photos, tmp_path):
    bank = tmp_path / "a.bank"
    run_json("extract", photos, "--bank", bank, *NET)
    Image.new("RGB", (40, 40), "red").save(photos / "new.bmp")
    before = sorted(bank.rglob("*"))
    facts = run_json("extract", photos, "--bank", bank, *NET, "--explain")
    assert (facts["samples"], facts["unchanged"], facts["changed"], facts["new"]) == (5, 4, 0, 1)
    assert [(each["hits"], each["misses"]) for each in facts["feature_sets"]] == [(4, 0)]
    shown = run_cli("extract", photos, "--bank", bank, *NET[:-1], "32", "--explain").stdout
    assert "0 hits, 4 misses" in shown
    assert "unlike resnet18/penultimate" in shown
    assert ": preprocessing is {" in shown
    assert "'crop': [32, 32]" in shown
    assert sorted(bank.rglob("*")) == before
