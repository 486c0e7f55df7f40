"""Classes whose names are not UTF-8, as folders of other systems have them: up to predictor, tables and report."""

import numpy as np
import pandas as pd
import pytest
from made_bank import make_bank

from featurebank import Predictor, fit, label_issues, make_report
from featurebank_cli.output import write_csv

ODD = "th\udce9"


@pytest.fixture
def bank(tmp_path):
    X = np.random.default_rng(0).normal(size=(40, 5))
    labels = [ODD if row[0] > 0 else "кот" for row in X]
    return make_bank(tmp_path / "a.bank", X, label=pd.Series(labels, dtype=object))


def test_a_class_of_any_bytes_comes_through(bank, tmp_path):
    result = fit(bank, models={"logreg": {"C": [1.0]}})
    result.save(tmp_path / "a.featurebank")
    predictor = Predictor.load(tmp_path / "a.featurebank")
    assert predictor.classes.tolist() == [ODD, "кот"] or predictor.classes.tolist() == ["кот", ODD]
    table = predictor.predict_bank(bank)
    assert set(table["label"]) == {ODD, "кот"}
    assert {"proba_кот", f"proba_{ODD}"} <= set(table.columns)
    assert set(predictor.oof["true"]) == {ODD, "кот"}
    write_csv(tmp_path / "oof.csv", result.oof)
    data = (tmp_path / "oof.csv").read_bytes()
    assert b"proba_th\xe9" in data.splitlines()[0]
    assert data.count(b",th\xe9,") >= 1
    assert list(label_issues(bank, models={"logreg": {"C": [1.0]}}).columns)[-1] == "label"
    page = make_report(bank, tmp_path / "a.featurebank").encode().decode()
    assert "кот" in page
