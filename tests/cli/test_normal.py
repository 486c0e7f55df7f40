"""From images to anomalies and where they are: extract, fit --normal, predict --maps, evaluate, report."""

import csv
import io
import json

import numpy as np
import pytest
from PIL import Image

from featurebank import Predictor, explain, make_report

SCRATCH = slice(36, 52), slice(12, 28)


def save_parts(folder, random, good, bad):
    """Save striped parts in noise under good/, and ones with a square of noise under bad/."""
    stripes = np.indices((64, 64))[1] // 8 % 2 * 60 + 60
    for name, count in (("good", good), ("bad", bad)):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = (stripes + random.integers(0, 30, (64, 64))).astype(np.uint8)
            if name == "bad":
                pixels[SCRATCH] = random.integers(0, 256, (16, 16))
            Image.fromarray(pixels).convert("RGB").save(folder / name / f"{number:02}.png")
    return folder


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A folder with parts, new parts, the bank of the former, and the report of a fit of its good ones."""
    from click.testing import CliRunner

    from featurebank_cli import main

    folder = tmp_path_factory.mktemp("parts")
    random = np.random.default_rng(0)
    save_parts(folder / "old", random, 40, 4)
    save_parts(folder / "new", random, 6, 4)
    layers = ["--layer", "layer2", "--layer", "layer1:none"]
    backbone = ["--backbone", "resnet18", "--weights", "random:0", "--size", "64", *layers]
    made = CliRunner().invoke(main, ["extract", f"{folder}/old", "--bank", f"{folder}/parts.bank", *backbone])
    assert made.exit_code == 0, made.stderr
    fitted = CliRunner().invoke(
        main, ["fit", f"{folder}/parts.bank", "--normal", "good", "--false-alarms", "0.1", "--model", "knn", "--json"]
    )
    assert fitted.exit_code == 0, fitted.stderr
    return folder, json.loads(fitted.stdout)


def test_the_report_says_what_is_promised_and_found(parts):
    _, report = parts
    found = report["one_class"]
    assert (report["task"], report["target"], report["normal"], found["false_alarms"]) == (
        "anomaly",
        "label",
        "good",
        0.1,
    )
    assert found["maps"] == ["resnet18/layer1:none"]
    assert (found["normals"], found["scores"]["n_anomalies"], found["scores"]["detection"]) == (40, 4, 1.0)


@pytest.mark.slow
def test_fit_prints_sentences_and_takes_every_image_without_a_value(parts, run_cli, tmp_path):
    folder, _ = parts
    models = ["--model", "knn", "-o", tmp_path / "all.featurebank"]
    result = run_cli("fit", folder / "parts.bank", *models, "--normal")
    assert result.exit_code == 0, result.stderr
    assert "Learned from 44 normal images" in result.stdout
    assert "False alarms: at most 2.22 % of new normal images are expected to be flagged" in result.stdout


def test_predict_flags_anomalies_and_masks_where(parts, run_cli, tmp_path):
    folder, _ = parts
    result = run_cli("predict", folder / "parts.featurebank", folder / "new", "--maps", tmp_path / "masks")
    assert result.exit_code == 0, result.stderr
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert list(rows[0]) == ["path", "label", "score", "anomaly", "is_anomaly", "error", "mask"]
    bad = [row for row in rows if "/bad/" in row["path"]]
    assert [(row["label"], row["is_anomaly"]) for row in bad] == [("anomaly", "True")] * 4
    assert all(float(row["anomaly"]) == pytest.approx(1 / 41) for row in bad)
    for row in bad:
        mask = np.asarray(Image.open(row["mask"]))
        assert set(np.unique(mask)) == {0, 255}
        assert mask[SCRATCH].mean() > 200
        assert mask.shape == (64, 64)
    assert sorted(path.name for path in (tmp_path / "masks" / "bad").iterdir()) == [
        f"{i:02}.png.mask.png" for i in range(4)
    ]


def test_the_map_peaks_at_what_is_strange(parts):
    folder, _ = parts
    predictor = Predictor.load(folder / "parts.featurebank")
    for path in sorted((folder / "new" / "bad").iterdir()):
        found = explain(predictor, path)
        row, column = found.peak
        assert (found.method, found.label, found.map.shape) == ("patches", "anomaly", (64, 64))
        assert abs(row - 44) <= 10
        assert abs(column - 20) <= 10
        assert found.map.max() > 1


def test_evaluate_scores_what_is_not_normal(parts, run_cli, run_json):
    folder, _ = parts
    report = run_json("evaluate", folder / "parts.featurebank", folder / "new")
    assert (report["n_samples"], report["n_anomalies"], report["detection"], report["roc_auc"]) == (10, 4, 1.0, 1.0)
    assert report["false_alarms"] <= 0.5
    assert "roc auc" in run_cli("evaluate", folder / "parts.featurebank", folder / "new").stdout


@pytest.mark.slow
def test_the_page_tells_and_shows_where(parts):
    folder, _ = parts
    page = make_report(folder / "parts.bank", folder / "parts.featurebank", maps=["pca"])
    assert "AUROC 100.0 %" in page.html
    assert "Learned from 40 normal images" in page.html
    assert "--normal good --false-alarms 0.1" in page.html
    assert "They come with a predictor of classes" not in page.html
    shown = [page.facts["paths"][each["row"]] for each in page.facts["why"]]
    assert set(shown[:4]) == {f"bad/{i:02}.png" for i in range(4)}
    assert page.facts["confusion"]["classes"] == ["good", "anomaly"]
    assert {page.facts["paths"][each["row"]] for each in page.facts["flagged"][:4]} == set(shown[:4])
    (folds,) = (each for each in page.facts["data"]["balance"] if each["name"] == "folds of the fit")
    assert [each["name"] for each in folds["rows"]] == ["0", "1", "2", "3", "4"]
    assert "Flagged as anomalies" in page.html


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["fit", "parts.bank", "--target", "label", "--normal", "good", "--nested"],
            "nested and normal images alone do not go together",
        ),
        (
            ["fit", "parts.bank", "--normal", "good", "--false-alarms", "0.01"],
            "40 normals can promise false alarms of 0.0244",
        ),
        (["export", "parts.featurebank", "--onnx", "a.onnx"], "a predictor of anomalies cannot be expressed in ONNX"),
        (["next", "parts.bank", "--predictor", "parts.featurebank"], "p-values have no probabilities"),
    ],
)
def test_what_cannot_be_done_is_said(parts, run_cli, monkeypatch, words, message):
    monkeypatch.chdir(parts[0])
    result = run_cli(*words)
    assert result.exit_code == 1
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
