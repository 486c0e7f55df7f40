import pytest


@pytest.fixture
def labelled(two_classes, tmp_path):
    """A manifest of the ten new images in which one cat is called a dog, with a column of weights."""
    rows = [f"{label}/{i:02}.png,{label},{i + 1}" for label in ("cat", "dog") for i in range(5)]
    rows[0] = "cat/00.png,dog,5"
    (tmp_path / "new.csv").write_text("\n".join(["file,label,w", *rows]))
    return ["--root", two_classes.parent / "new", "--path-column", "file", tmp_path / "new.csv"]


def test_json_has_the_promised_fields_and_the_known_confusion(run_json, two_class_predictor, labelled):
    report = run_json("evaluate", two_class_predictor, *labelled)
    assert {
        "n_samples",
        "classes",
        "accuracy",
        "ci95",
        "balanced_accuracy",
        "macro_f1",
        "log_loss",
        "confusion",
    } <= set(report)
    assert report["confusion"] == [[4, 0], [1, 5]]
    assert (report["n_samples"], report["classes"], report["accuracy"]) == (10, ["cat", "dog"], 0.9)
    assert report["balanced_accuracy"] == pytest.approx((1 + 5 / 6) / 2)
    assert report["macro_f1"] == pytest.approx((8 / 9 + 10 / 11) / 2)
    assert report["ci95"] == pytest.approx([0.5958, 0.9821], abs=1e-4)  # Wilson, 9 of 10
    assert report["log_loss"] > 0


def test_intervals_rest_on_groups_where_these_are_named(run_cli, run_json, two_class_predictor, labelled, tmp_path):
    table = tmp_path / "new.csv"
    head, *rows = table.read_text().splitlines()
    table.write_text("\n".join([f"{head},patient", *(f"{row},P{i // 5}" for i, row in enumerate(rows))]))
    report = run_json("evaluate", two_class_predictor, *labelled, "--groups", "patient")
    assert report["accuracy"] == 0.9
    assert report["ci95"][0] < 0.2  # two patients tell next to nothing
    result = run_cli("evaluate", two_class_predictor, *labelled, "--groups", "Patient")
    assert "no column 'Patient'" in result.stderr
    assert "name one of them with --groups" in result.stderr


def test_weights_count(run_json, two_class_predictor, labelled):
    report = run_json("evaluate", two_class_predictor, *labelled, "--sample-weight", "w")
    assert report["confusion"] == [[14, 0], [5, 15]]
    assert report["accuracy"] == pytest.approx(29 / 34)


def test_the_tables_show_scores_and_confusion(run_cli, two_class_predictor, two_classes):
    result = run_cli("evaluate", two_class_predictor, two_classes.parent / "new")
    assert result.exit_code == 0
    assert result.stdout.startswith("10 images")
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["cat", "5", "0"] in rows
    assert ["dog", "0", "5"] in rows
    assert ["accuracy", "%", "100.0", "72.2..100.0"] in rows
    assert sum(row[:1] == ["accuracy"] for row in rows) == 1


def test_unknown_labels_are_an_error(run_cli, two_class_predictor, two_classes, tmp_path):
    (tmp_path / "wolf").symlink_to(two_classes / "dog")
    result = run_cli("evaluate", two_class_predictor, tmp_path)
    assert result.exit_code == 1
    assert result.stderr == "Error: column 'label' holds ['wolf']; this predictor knows cat, dog\n"


def test_unreadable_images_are_warned_about(run_cli, two_class_predictor, two_classes, tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "bad.png").write_bytes(b"")
    (tmp_path / "cat" / "good.png").symlink_to(two_classes / "cat" / "00.png")
    result = run_cli("evaluate", two_class_predictor, tmp_path)
    first, second = result.stderr.splitlines()
    assert first == "Warning: cat/bad.png: the file is empty"
    assert second.startswith("Warning: 1 of these images were among those the predictor learned from")
    assert result.stdout.split()[:2] == ["1", "image"]


def test_text_for_a_predictor_of_numbers_is_an_error(run_cli, own_bank, two_classes, tmp_path):
    rows = [f"{name}/{i:02}.png,{i + 0.5}" for name in ("cat", "dog") for i in range(20)]
    (tmp_path / "size.csv").write_text("\n".join(["path,size", *rows]))
    run_cli("label", own_bank, tmp_path / "size.csv")
    fitted = tmp_path / "size.featurebank"
    options = ["--target", "size", "--model", "ridge", "--features", "layer3", "--folds", 2, "-o", fitted]
    assert run_cli("fit", own_bank, *options).exit_code == 0
    result = run_cli("evaluate", fitted, two_classes.parent / "new", "--target", "label")
    assert (result.exit_code, result.stderr) == (
        1,
        "Error: column 'label' holds text; this predictor gives numbers of 'size': name a column of numbers\n",
    )
    absent = run_cli("evaluate", fitted, two_classes.parent / "new")
    assert "it has 'label': name one of them with --target" in absent.stderr


def test_a_split_above_the_class_folders_is_seen_through_and_said(run_cli, two_class_predictor, two_classes, tmp_path):
    for part in ("train", "val"):
        (tmp_path / "data" / part).parent.mkdir(exist_ok=True)
        (tmp_path / "data" / part).symlink_to(two_classes.parent / "new")
    result = run_cli("evaluate", two_class_predictor, tmp_path / "data")
    assert "20 images" in result.stdout
    assert result.stderr.startswith("'train', 'val' are the parts of a split (column split: train 10, val 10)")
    labelled = run_cli("evaluate", two_class_predictor, tmp_path / "data" / "val")
    assert "10 images" in labelled.stdout
