import re

import numpy as np
import pandas as pd
import pytest


def test_a_bank_as_one_file(run_cli, run_json, two_class_bank, tmp_path):
    facts = run_json("export", two_class_bank, "-o", tmp_path / "a.parquet")
    assert (facts["format"], facts["samples"], len(facts["feature_sets"])) == ("parquet", 40, 2)
    frame = pd.read_parquet(tmp_path / "a.parquet")
    assert np.stack(frame["resnet18/penultimate"]).shape == (40, 512)
    assert frame["label"].value_counts().to_dict() == {"cat": 20, "dog": 20}
    shown = run_cli("export", two_class_bank, "-o", tmp_path / "a", "--to", "npz", "--features", "penultimate").stdout
    assert shown.splitlines()[0].startswith(f"40 samples in {tmp_path / 'a'} (npz, ")
    assert shown.splitlines()[1] == "  resnet18/penultimate  1x512 float16"


@pytest.mark.parametrize(
    "arguments",
    [[], ["-o", "a.npz", "--onnx", "a.onnx"], ["--onnx", "a.onnx", "--to", "npz"], ["-o", "a.npz", "--allow-download"]],
)
def test_usage(run_cli, two_class_bank, arguments):
    assert run_cli("export", two_class_bank, *arguments).exit_code == 2


def test_errors_are_one_line(run_cli, two_class_bank, tmp_path):
    for arguments in (
        [two_class_bank, "-o", tmp_path / "a.txt"],
        [two_class_bank, "-o", tmp_path / "no" / "a.npz"],
        [two_class_bank, "-o", tmp_path / "a.npz", "--features", "x/y"],
        [two_class_bank, "-o", tmp_path / "a.npz", "--target", "colour"],
        [tmp_path / "no.bank", "-o", tmp_path / "a.npz"],
        [tmp_path / "no.featurebank", "--onnx", tmp_path / "a.onnx"],
    ):
        result = run_cli("export", *arguments)
        assert result.exit_code == 1
        assert result.stderr.startswith("Error: ")
        assert len(result.stderr.splitlines()) == 1


def test_a_predictor_as_onnx(run_cli, run_json, two_class_predictor, tmp_path):
    pytest.importorskip("onnxruntime")
    facts = run_json("export", two_class_predictor, "--onnx", tmp_path / "a.onnx")
    assert facts["worst"] < 1e-4
    assert facts["classes"] == ["cat", "dog"]
    assert (tmp_path / "a.onnx").stat().st_size == facts["bytes"]


@pytest.mark.slow
def test_a_tuned_threshold_is_said(run_cli, two_class_bank, tmp_path):
    pytest.importorskip("onnxruntime")
    made = tmp_path / "a.featurebank"
    run_cli("fit", two_class_bank, "--model", "logreg", "--folds", 2, "--threshold", "recall", "-o", made)
    lines = run_cli("export", made, "--onnx", tmp_path / "a.onnx").stdout.splitlines()
    assert re.match(r"the label is (cat|dog) where its probability is -?[\d.e-]+ or more", lines[1])
