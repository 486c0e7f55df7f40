import json
import os
import re
import shlex
import shutil

import pytest
from PIL import Image

from featurebank import Bank, extract
from featurebank.bank.repair_hints import moved_command
from featurebank.errors import ImageError
from featurebank.images.formats import pillow_formats

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
    assert lines[1] == "  labels: cat 2, dog 2"
    assert lines[2] == "  resnet18/penultimate  4 rows of 1x512 float32, random:0, 64 px"
    assert lines[3].startswith(
        "  23% of the images' area lies outside the crop and is never seen; --fit squash, pad or "
    )
    assert lines[4] == f"bank: {bank}   next: featurebank fit {bank}"


def test_many_classes_are_not_all_listed_and_images_without_one_are_counted(run_cli, run_json, photos, tmp_path):
    for name in ("a", "b", "c", "d", "e"):
        (photos / name).mkdir()
        Image.new("RGB", (40, 40), (0, 0, ord(name))).save(photos / name / "01.png")
    (photos / "dog" / "00.png").rename(photos / "a" / "00.png")
    Image.new("RGB", (40, 40)).save(photos / "00.png")
    lines = run_cli("extract", photos, "--bank", tmp_path / "a.bank", *NET).stdout.splitlines()
    assert lines[1] == "  labels: a 2, b 1, c 1, cat 2, d 1, dog 1, … (7 classes); 1 in no class folder"
    counts = {"": 1, "a": 2, "b": 1, "c": 1, "cat": 2, "d": 1, "dog": 1, "e": 1}
    assert run_json("extract", photos, "--bank", tmp_path / "a.bank", *NET)["labels"] == counts


def test_a_flat_folder_is_labelled_before_it_can_be_fitted(run_cli, photos, tmp_path):
    bank, labels = tmp_path / "a.bank", tmp_path / "labels.csv"

    def next_command():
        result = run_cli("extract", photos / "cat", "--bank", bank, *NET)
        assert "labels:" not in result.stdout
        return result.stdout.splitlines()[-1].partition("next: ")[2]

    label_first = f"featurebank label {bank} LABELS.csv (columns: path, label), then featurebank fit {bank}"
    assert next_command() == label_first
    labels.write_text("path,site\n00.png,a\n01.png,a\n")
    run_cli("label", bank, labels)
    assert next_command() == label_first  # one class is none
    labels.write_text("path,site\n00.png,b\n")
    run_cli("label", bank, labels)
    assert next_command() == f"featurebank fit {bank}"
    labels.write_text("path,age\n00.png,3\n01.png,4\n")
    run_cli("label", bank, labels)
    assert next_command() == f"featurebank fit {bank} --target COLUMN (one of site, age)"


def test_unreadable_images_are_reported_and_strict_makes_them_an_error(run_cli, photos, tmp_path):
    (photos / "cat" / "bad\x1b.png").write_bytes(b"no image")
    for name in ("cat/notes.txt", "dog/more.TXT", "draft.psd"):
        (photos / name).write_text("")
    arguments = ["extract", photos, "--bank", tmp_path / "a.bank", *NET, "--json"]
    result = run_cli(*arguments)
    report = json.loads(result.stdout)
    assert (result.exit_code, report["samples"], report["failed"]) == (0, 5, 1)
    assert report["failures"][0]["path"] == "cat/bad\x1b.png"
    assert result.stderr.splitlines() == [
        f"Warning: cat/bad\\x1b.png: not a readable image; expected {', '.join(pillow_formats())}, HEIC",
        "left out by their suffix: 2 .txt, 1 .psd",
    ]
    assert run_cli(*arguments, "--strict").exit_code == 1


def test_when_no_image_can_be_read_nothing_is_next(run_cli, tmp_path):
    for name in ("a/0.jpg", "b/1.jpg"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True)
        (tmp_path / "photos" / name).write_text("<html>404</html>")
    result = run_cli("extract", tmp_path / "photos", "--bank", tmp_path / "a.bank", *NET)
    assert result.exit_code == 1
    assert "next:" not in result.stdout
    assert result.stderr.splitlines()[-1].startswith("Error: none of the 2 images could be read; first: a/0.jpg: ")
    result = run_cli("extract", tmp_path / "photos", "--bank", tmp_path / "a.bank", *NET, "--json")
    assert (result.exit_code, json.loads(result.stdout)["failed"]) == (1, 2)
    with pytest.raises(ImageError, match="none of the 2 images could be read"):
        extract(tmp_path / "photos", tmp_path / "a.bank", backbone="resnet18", weights="random:0", size=64)


def test_what_is_understood_of_the_folders_is_said(run_cli, run_json, photos, tmp_path):
    (tmp_path / "download" / "data").mkdir(parents=True)
    for part in ("Training", "Validation"):
        (tmp_path / "download" / "data" / part).symlink_to(photos)
    arguments = ["extract", tmp_path / "download", "--bank", tmp_path / "a.bank", *NET]
    result = run_cli(*arguments)
    notes = [
        "seen through 'data', the one folder that all others lie in",
        "'Training', 'Validation' are the parts of a split (column split: train 4, val 4), the folders in them are the "
        "classes",
    ]
    assert result.stderr.splitlines() == notes
    assert "  labels: cat 4, dog 4" in result.stdout.splitlines()
    assert run_json(*arguments)["notes"] == notes
    assert Bank(tmp_path / "a.bank").select().columns["split"].tolist() == ["train"] * 4 + ["val"] * 4


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
    assert "0 hits, 4 misses, +1 new: hit or miss is not known until they are read\n" in shown
    assert "unlike resnet18/penultimate" in shown
    assert ": preprocessing is {" in shown
    assert "'crop': [32, 32]" in shown
    assert sorted(bank.rglob("*")) == before


def test_explain_says_what_would_be_done_before_there_is_a_bank(run_cli, run_json, photos, tmp_path):
    bank = tmp_path / "a.bank"
    facts = run_json("extract", photos, "--bank", bank, *NET, "--explain")
    assert (facts["samples"], facts["unchanged"], facts["new"]) == (4, 0, 4)
    assert [(each["name"], each["hits"]) for each in facts["feature_sets"]] == [("resnet18/penultimate", 0)]
    shown = run_cli("extract", photos, "--bank", bank, *NET, "--explain")
    assert (shown.exit_code, "a.bank does not exist yet: extract would make it" in shown.stdout) == (0, True)
    assert not bank.exists()


def test_views_are_stored_and_named_by_explain(run_cli, run_json, photos, tmp_path):
    bank = tmp_path / "a.bank"
    run_json("extract", photos, "--bank", bank, *NET)
    before = sorted(bank.rglob("*"))
    asked = ["extract", photos, "--bank", bank, *NET, "--views", "flips"]
    shown = run_cli(*asked, "--explain").stdout
    assert "0 hits, 4 misses" in shown
    assert "views is 'flips', there 'none'\n" in shown
    assert run_json(*asked, "--explain")["feature_sets"][0]["differs"] == {"views": ["none", "flips"]}
    assert sorted(bank.rglob("*")) == before
    result = run_cli(*asked)
    assert "4 embedded, 0 reused" in result.stdout
    assert re.search(
        r"  resnet18/penultimate@[0-9a-f]{8}  4 rows of 4x512 float16, random:0, 64 px, flips\n", result.stdout
    )
    assert run_json(*asked)["reused"] == 4
    names = [each["name"] for each in run_json("info", bank)["feature_sets"]]
    assert len(names) == len(set(names)) == 2
    assert all(name.startswith("resnet18/penultimate@") for name in names)


def test_unknown_views_are_one_line_with_the_nearest_name(run_cli, photos, tmp_path):
    for views, line in (
        ("dihedrl", "no views 'dihedrl'; did you mean dihedral?"),
        ("augment:1", "views 'augment:1'; expected augment:K with K from 2 to 256, e.g. augment:8"),
    ):
        result = run_cli("extract", photos, "--bank", tmp_path / "a.bank", *NET, "--views", views)
        assert (result.exit_code, result.stderr) == (1, f"Error: {line}\n")
    assert not (tmp_path / "a.bank").exists()


def test_explain_says_nothing_of_unread_files_where_all_are_known(run_cli, photos, tmp_path):
    run_cli("extract", photos, "--bank", tmp_path / "a.bank", *NET)
    shown = run_cli("extract", photos, "--bank", tmp_path / "a.bank", *NET, "--explain").stdout
    assert shown.endswith(": 4 hits, 0 misses\n")
    Image.new("RGB", (40, 40), "red").save(photos / "cat" / "new.png")
    (photos / "dog" / "00.png").unlink()
    Image.new("RGB", (40, 40), "blue").save(photos / "dog" / "00.png")
    shown = run_cli("extract", photos, "--bank", tmp_path / "a.bank", *NET, "--explain").stdout
    assert shown.endswith(": 3 hits, 0 misses, +1 new +1 changed: hit or miss is not known until they are read\n")


def test_a_renamed_folder_that_counts_twice_is_warned_about_and_pruned(run_cli, run_json, photos, tmp_path):
    bank, moved = tmp_path / "a.bank", tmp_path / "moved"
    run_json("extract", photos, "--bank", bank, *NET)
    photos.rename(moved)
    result = run_cli("extract", moved, "--bank", bank, *NET)
    assert result.stderr == (
        f"Warning: '{photos}' is no longer there, yet its 4 samples still count, 4 of them again in '{moved}': "
        f"`featurebank prune {bank} --source {photos}` drops them (a folder that moves keeps its name and labels with "
        f"`featurebank extract {photos} --bank {bank} --root {moved}`)\n"
    )
    assert run_json("info", bank)["samples"] == {"ok": 8, "failed": 0, "gone": 0}
    rebound = run_cli("extract", photos, "--bank", bank, *NET, "--root", moved)  # now both names lie in one folder
    assert rebound.stderr == (
        f"Warning: '{moved}' has its files in the same folder, and its 4 samples count too, 4 of them again in "
        f"'{photos}': `featurebank prune {bank} --source {moved}` drops them\n"
    )
    assert run_json("prune", bank, "--source", moved)["gone"] == 4
    assert run_json("info", bank)["samples"] == {"ok": 4, "failed": 0, "gone": 4}
    assert run_cli("extract", photos, "--bank", bank, *NET, "--root", moved).stderr == ""


def test_other_images_of_a_missing_folder_are_no_reason_for_a_warning(run_cli, photos, tmp_path):
    run_cli("extract", photos / "cat", "--bank", tmp_path / "a.bank", *NET)
    (photos / "cat").rename(tmp_path / "elsewhere")
    assert run_cli("extract", photos / "dog", "--bank", tmp_path / "a.bank", *NET).stderr == ""


def test_rows_lost_with_a_renamed_folder_have_a_way_out(run_cli, run_json, photos, tmp_path):
    bank, moved = tmp_path / "a.bank", tmp_path / "moved"
    run_json("extract", photos, "--bank", bank, *NET)
    photos.rename(moved)
    run_json("extract", moved, "--bank", bank, *NET)
    (moved / "dog" / "01.png").unlink()
    (file,) = bank.glob("features/*/*.h5")
    file.write_bytes(file.read_bytes()[:-10])
    damage, lost = run_cli("extract", moved, "--bank", bank, *NET).stderr.splitlines()
    assert damage.endswith(
        f"set aside as '{file.name}.damaged': its rows are computed again from the images, when their sources are "
        "extracted; no label is lost"
    )
    assert "delete it" not in damage
    facts = f"3 of them again in '{moved}' and 1 of them without a row in 'resnet18/penultimate'"
    assert f"its 4 samples still count, {facts}: `featurebank prune {bank} --source {photos}` drops" in lost
    failed = run_cli("fit", bank, "--model", "svm", "--folds", 2)
    command = f"`featurebank prune {bank} --source {photos}` if not; or choose other sets with --features\n"
    assert failed.stderr.startswith("Error: 1 of 7 samples have no row in 'resnet18/penultimate': ")
    assert failed.stderr.endswith(command)
    assert run_cli("prune", bank, "--source", photos).exit_code == 0
    assert run_cli("extract", moved, "--bank", bank, *NET).stderr == ""
    assert len(Bank(bank).load("penultimate")) == 3


def test_damaged_samples_name_what_is_lost(run_cli, photos, tmp_path):
    bank = tmp_path / "a.bank"
    run_cli("extract", photos, "--bank", bank, *NET)
    (file,) = bank.glob("samples/*.h5")
    file.write_bytes(file.read_bytes()[:-10])
    (line,) = run_cli("extract", photos, "--bank", bank, *NET).stderr.splitlines()
    assert f"set aside as '{file.name}.damaged': its samples are listed again" in line
    assert line.endswith(
        "labels that were attached by hand and lay in it are lost: attach them again with `featurebank label`"
    )


@pytest.mark.slow
def test_a_reduced_precision_prints_its_drift(run_cli, run_json, photos, tmp_path):
    result = run_cli("extract", photos, "--bank", tmp_path / "a.bank", "--precision", "bf16", *NET)
    assert re.search(r"bf16 against fp32 on \d+ images, resnet18/penultimate: 1-cos .*quick ridge score", result.stderr)
    assert "eager on cpu in batches of 32" in result.stdout
    assert run_json("extract", photos, "--bank", tmp_path / "b.bank", "--precision", "fp16", *NET)["drift"][0]["images"]


def test_an_engine_that_cannot_be_had_is_one_line(run_cli, photos, tmp_path):
    options = ("--engine", "onnx", "--precision", "bf16")
    result = run_cli("extract", photos, "--bank", tmp_path / "a.bank", *options, *NET)
    assert result.exit_code == 1
    assert result.stderr == "Error: engine 'onnx' runs fp32 on the cpu, not bf16 on cpu; use eager or compile\n"


def test_an_estimate_keeps_nothing(run_cli, run_json, two_classes, tmp_path):
    line = ["extract", two_classes, "--bank", tmp_path / "a.bank", "--backbone", "resnet18", "--weights", "random:0"]
    line += ["--size", 32, "--engine", "eager", "--estimate"]
    found = run_json(*line)
    assert (found["images"], found["samples"], found["failed"]) == (40, 40, 0)
    assert found["hours"] == pytest.approx(40 / found["images_per_second"] / 3600)
    shown = run_cli(*line).stdout.splitlines()
    assert shown[0].startswith("40 of 40 images to embed: ")
    assert len(shown) == 2
    assert not (tmp_path / "a.bank").exists()


def test_an_estimate_explains_nothing(run_cli, two_classes, tmp_path):
    options = ["--estimate", "--explain"]
    assert run_cli("extract", two_classes, "--bank", tmp_path / "a.bank", *options).exit_code == 2


def test_what_the_network_never_sees_is_said_once_unless_all_is_seen(run_cli, run_json, photos, tmp_path):
    unseen = 1 - (64 / 73) ** 2  # resized to 73 pixels, cropped to 64
    result = run_cli("extract", photos, "--bank", tmp_path / "a.bank", *NET)
    assert result.stdout.count(f"{unseen:.0%} of the images' area lies outside the crop and is never seen; --fit ") == 1
    assert run_json("extract", photos, "--bank", tmp_path / "b.bank", *NET)["unseen"] == pytest.approx(unseen)
    assert run_json("extract", photos, "--bank", tmp_path / "b.bank", *NET)["unseen"] is None  # nothing was embedded
    result = run_cli("extract", photos, "--bank", tmp_path / "a.bank", *NET, "--fit", "tiles")
    assert "never seen" not in result.stdout
    assert ", tiles\n" in result.stdout
    both = run_json("info", tmp_path / "a.bank")["feature_sets"]
    assert sorted(each["fit"] for each in both) == ["crop", "tiles"]


def test_commands_that_are_hinted_name_what_the_user_had_to_name(run_cli, run_json, photos, tmp_path):
    table, bank = tmp_path / "my list.csv", tmp_path / "my photos.bank"
    rows = [f"{path.parent.name}/{path.name}~{path.parent.name}\n" for path in sorted(photos.glob("*/*.png"))]
    table.write_text("where they are~kind\n" + "".join(rows), encoding="utf-16-be")
    named = ["--path-column", "where they are", "--separator", "~", "--encoding", "utf-16-be"]
    result = run_cli("extract", table, "--bank", bank, *NET, *named, "--root", photos)
    assert f"next: featurebank fit '{bank}'" in result.stdout
    run_json("extract", photos / "cat", "--bank", bank, *NET, "--layer", "layer3:max")
    (again,) = re.findall("`(featurebank extract '[^`]*)`", "".join(run_json("info", bank)["incomplete"]))
    assert run_json(*shlex.split(again)[1:])["embedded"] == 2  # the cats' contents are there
    elsewhere = photos.rename(tmp_path / "elsewhere")
    moved = moved_command(Bank(bank), str(table), str(elsewhere))
    assert (run_json(*shlex.split(moved)[1:], *NET)["reused"], "--root" in moved) == (4, True)
    shutil.rmtree(bank / "sources")  # as in banks of before
    assert Bank(bank).named_options(str(table)) == {}


def test_a_root_that_is_hinted_is_a_word_of_the_shell(run_cli, photos, tmp_path):
    folder = photos.rename(tmp_path / "my photos")
    (tmp_path / "tables").mkdir()
    absolute = tmp_path / "tables" / "absolute.csv"
    absolute.write_text(f"path\n{folder}/cat/00.png\n{folder}/cat/01.png\n")
    result = run_cli("extract", absolute, "--bank", tmp_path / "a.bank", *NET)
    root = re.search("with (--root .*)", result.stderr)[1]
    assert shlex.split(root) == ["--root", f"{folder}/cat"]
    assert run_cli("extract", absolute, "--bank", tmp_path / "a.bank", *NET, *shlex.split(root)).exit_code == 0
