"""The demonstration runs from the command line, scores what it should, and computes nothing twice."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.planted_faults import flipped_labels

from featurebank import Bank
from featurebank_cli.solar_cells import cells_folder

FEATUREBANK = Path(sys.executable).with_name("featurebank")
PENULTIMATE = ["efficientnet_lite0/penultimate"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def run(folder, *arguments):
    done = subprocess.run([FEATUREBANK, *arguments, "--json"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def first(folder):
    return run(folder, "demo")


def best_mean(report, features=None):
    return max(each["mean"] for each in report["candidates"] if features in (None, each["features"]))


def test_it_embeds_every_cell_and_reports_what_is_promised(folder, first):
    assert {"extract", "fit", "protocols", "seconds"} <= set(first)
    counts = {name: first["extract"][name] for name in ("samples", "embedded", "reused", "failed")}
    assert counts == {"samples": 2624, "embedded": 2624, "reused": 0, "failed": 0}
    assert [each["rows"] for each in first["extract"]["feature_sets"]] == [2624] * 5
    assert {"n_samples", "classes", "folds", "candidates", "best", "warnings"} <= set(first["fit"])
    assert (first["fit"]["n_samples"], first["fit"]["folds"]) == (2624, 5)
    for protocol in ("A", "B", "C"):
        found = first["protocols"][protocol]
        assert {"score", "ci95", "features", "model"} <= set(found)
        assert found["ci95"][0] < found["score"] < found["ci95"][1]
    made = {"solar.bank", "solar.featurebank", "solar.report.html", "solar_cells.csv"}
    assert made <= {path.name for path in folder.iterdir()}
    assert "<!doctype html>" in (folder / first["report"]).read_text()


def test_the_scores_are_the_known_ones(first):
    assert best_mean(first["fit"]) >= 0.865
    assert best_mean(first["fit"], PENULTIMATE) >= 0.845
    assert first["protocols"]["B"]["score"] == first["fit"]["best"]["mean"] == best_mean(first["fit"])
    assert first["protocols"]["A"]["score"] >= 0.84
    assert first["protocols"]["C"]["score"] >= 0.89


def test_a_second_run_embeds_nothing_and_finds_the_same(folder, first):
    second = run(folder, "demo")
    print(f"the second extraction took {second['extract']['seconds']:.2f} s, expected below 3")
    assert (second["extract"]["embedded"], second["extract"]["reused"]) == (0, 2624)
    scores = [[each["fold_scores"] for each in report["fit"]["candidates"]] for report in (first, second)]
    assert scores[0] == scores[1]
    assert second["protocols"] == first["protocols"]


def test_the_predictor_labels_a_cell(folder, first):
    report = run(folder, "predict", "solar.featurebank", cells_folder() / "images" / "cell0001.png")
    (row,) = report["predictions"]
    assert (row["label"], row["error"]) == ("defective", "")
    by_demo = first["predictions"][0]
    assert (by_demo["path"], by_demo["label"]) == ("cell0001.png", "defective")
    assert row["probability"] == pytest.approx(by_demo["probability"], abs=1e-4)


def test_flipped_labels_of_certain_cells_are_found(folder, first):
    for seed in range(2):
        assert flipped_labels(Bank(folder / "solar.bank"), seed)["recall at that budget"] >= 0.5
