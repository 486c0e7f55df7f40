"""Files that an earlier version wrote stay readable."""

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from featurebank import Bank, Predictor

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture
def v1(tmp_path):
    shutil.copytree(DATA / "v1", tmp_path / "v1")
    return tmp_path / "v1"


def test_a_version_1_bank_reads_as_it_was_written(v1):
    expected = json.loads((v1 / "expected.json").read_text())
    bank = Bank(v1 / "photos.bank")
    X, paths = bank.load("efficientnet_lite0/blocks.1", return_paths=True)
    assert paths == expected["paths"]
    np.testing.assert_array_equal(X[:, :8], np.array(expected["blocks.1"], np.float32))
    row = bank.samples.set_index("path").loc["dark/0.png"]
    assert row[["label", "weight", "note", "count", "checked"]].tolist() == ["dark", 0.5, "ünïcode", 7, True]
    assert bank.verify() == []
    bank.compact(grace=0)
    assert bank.load("efficientnet_lite0/penultimate").shape == (24, 1280)


def test_a_version_1_predictor_gives_its_probabilities(v1):
    expected = json.loads((v1 / "expected.json").read_text())
    table = Predictor.load(v1 / "photos.featurebank").predict_bank(Bank(v1 / "photos.bank"))
    assert table["label"].tolist() == expected["label"]
    assert "unlike" not in table
    np.testing.assert_allclose(table["proba_dark"], expected["proba_dark"], atol=1e-6)


@pytest.mark.parametrize("name", ["kind", "labels", "views", "tasks"])
def test_a_version_2_predictor_gives_its_probabilities(v1, tmp_path, name):
    """Version 2 named the modules of its models as they were before the packages had their present names."""
    expected = pd.DataFrame(**json.loads((DATA / "v2" / "expected.json").read_text())[name])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = Predictor.load(DATA / "v2" / f"{name}.featurebank")
    loaded.save(tmp_path / "again.featurebank")
    for predictor in (loaded, Predictor.load(tmp_path / "again.featurebank")):
        table = predictor.predict_bank(Bank(v1 / "photos.bank")).drop(columns=["source", "error"])
        pd.testing.assert_frame_equal(table, expected, check_dtype=False, rtol=0, atol=1e-6)
    assert loaded.oof is None
    assert (loaded.task, len(loaded.tasks)) == {
        "kind": ("classification", 1),
        "labels": ("multilabel", 1),
        "views": ("classification", 1),
        "tasks": ("multitask", 3),
    }[name]
