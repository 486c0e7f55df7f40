"""Splits that folders or a table give: what learns, what is compared on, what is held out."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from made_bank import make_bank
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from featurebank import fit
from featurebank.bank.defaults import default_target
from featurebank.errors import ColumnError, TopModelError
from featurebank.fitting.unlabelled import fit_semi_supervised

SVM = {"svm": {"C": [1.0]}}
WORDS = np.array(["train", "Train", "val", "test", "train"] * 18)


@pytest.fixture
def rows():
    random = np.random.default_rng(0)
    X, y = random.normal(size=(90, 16)), np.array(["cat", "dog"])[random.permutation(90) % 2]
    X[:, 0] += 2 * (y == "dog")
    return X, y


def bank_of(tmp_path, rows, words, **columns):
    X, y = rows
    return make_bank(
        tmp_path / "a.bank", X[: len(words)], range(len(words)), label=y[: len(words)], split=words, **columns
    )


def svm():
    return make_pipeline(StandardScaler(), SVC())


def test_val_is_the_fold_and_test_is_held_out_without_being_asked(tmp_path, rows):
    X, y = rows[0].astype(np.float32), rows[1]
    result = fit(bank_of(tmp_path, rows, WORDS), models=SVM)
    train, val, test = (np.char.lower(WORDS) == name for name in ("train", "val", "test"))
    assert result.report["best"]["fold_scores"] == [svm().fit(X[train], y[train]).score(X[val], y[val])]
    assert result.report["held_out"]["accuracy"] == svm().fit(X[~test], y[~test]).score(X[test], y[test])
    assert result.report["split"] == {
        "column": "split",
        "parts": {"train": 54, "val": 18, "test": 18},
        "sentence": "Split by the column split: models learn from train (54) and are compared on val (18), "
        "test (18) is held out to the end; --split none takes all samples alike",
    }
    assert result.predictor.report["split"] == result.report["split"]
    assert json.loads(json.dumps(result.report, allow_nan=False)) == result.report


def test_without_val_folds_are_drawn_from_train_and_test_is_held_out(tmp_path, rows):
    X, y = rows[0].astype(np.float32), rows[1]
    words = np.where(WORDS == "val", "training", WORDS)
    result = fit(bank_of(tmp_path, rows, words), models=SVM)
    kept = words != "test"
    folds = list(StratifiedKFold(5, shuffle=True, random_state=0).split(X[kept], y[kept]))
    for mine, theirs in zip(result.search.folds_, folds, strict=True):
        np.testing.assert_array_equal(mine[1], theirs[1])
    assert result.report["held_out"]["accuracy"] == svm().fit(X[kept], y[kept]).score(X[~kept], y[~kept])
    assert "folds are drawn from train (72), test (18) is held out" in result.report["split"]["sentence"]


@pytest.mark.parametrize("options", [{"cv": "stratified"}, {"repeats": 2}, {"nested": True}])
def test_folds_that_are_asked_for_are_drawn_from_train_and_val(tmp_path, rows, options):
    report = fit(bank_of(tmp_path, rows, WORDS), models=SVM, folds=3, **options).report
    assert (report["n_samples"], report["folds"]) == (72, 3 * options.get("repeats", 1))
    assert report["held_out"]["n_samples"] == 18
    assert "folds are drawn from train (54) and val (18)" in report["split"]["sentence"]


def test_no_split_and_another_column_can_be_asked_for(tmp_path, rows):
    other = np.where(np.arange(90) < 60, "training", "eval")
    bank = bank_of(tmp_path, rows, WORDS, site=other)
    plain = fit(bank, models=SVM, split="none").report
    assert (plain["n_samples"], plain["folds"], "split" in plain, "held_out" in plain) == (90, 5, False, False)
    report = fit(bank, models=SVM, split="site").report
    assert (report["n_samples"], report["held_out"]["n_samples"], report["split"]["column"]) == (60, 30, "site")
    given = fit(bank, models=SVM, cv="predefined:site").report
    assert (given["n_samples"], given["folds"], "split" in given) == (90, 1, False)


def test_samples_without_a_part_train(tmp_path, rows):
    words = WORDS.astype(object)
    words[WORDS == "Train"] = None
    report = fit(bank_of(tmp_path, rows, words), models=SVM).report
    assert report["split"]["parts"] == {"train": 54, "val": 18, "test": 18}
    assert "18 samples without a part count as train" in report["split"]["sentence"]


@pytest.mark.parametrize("words", [["a", "train", "test"] * 30, ["train"] * 90, [0, 1, 2] * 30, ["1", "2"] * 45])
def test_a_column_of_other_words_splits_nothing(tmp_path, rows, words):
    bank = bank_of(tmp_path, rows, words)
    report = fit(bank, models=SVM).report
    assert (report["n_samples"], report["folds"], "split" in report) == (90, 5, False)
    with pytest.raises(TopModelError, match="column 'split' gives no split: "):
        fit(bank, models=SVM, split="split")


def test_a_split_that_cannot_be_learned_from_is_said_and_not_taken(tmp_path, rows):
    X, _ = rows
    normal = ["good"] * 60 + ["good", "bad"] * 15
    words = ["train"] * 60 + ["test"] * 30
    report = fit(make_bank(tmp_path / "a.bank", X, range(90), label=normal, split=words), models=SVM).report
    assert (report["n_samples"], report["split"]["column"]) == (90, None)
    assert report["split"]["sentence"].startswith("The column split is not used as a split: train has one value")
    labels = [*(["cat", "dog"] * 30), *[None] * 30]
    report = fit(make_bank(tmp_path / "b.bank", X, range(90), label=labels, split=words), models=SVM).report
    assert (report["n_samples"], "split" in report) == (60, False)


def test_classes_that_val_lacks_have_folds_drawn(tmp_path, rows):
    X, _ = rows
    labels, words = np.array(["cat", "dog", "cow"] * 30), np.array(["train"] * 60 + ["val"] * 30)
    labels[words == "val"] = "cat"
    report = fit(make_bank(tmp_path / "a.bank", X, range(90), label=labels, split=words), models=SVM).report
    assert (report["n_samples"], report["folds"]) == (90, 5)


def test_tasks_and_rows_without_a_label_keep_to_the_split(tmp_path, rows):
    X, y = rows
    number = np.arange(90) % 7 + 0.5
    bank = make_bank(tmp_path / "a.bank", X, range(90), label=y, size=number, split=WORDS)
    result = fit(bank, target=["label", "size"], models=["ridge"])
    assert result.report["split"]["parts"]["test"] == 18
    assert [each["held_out"]["n_samples"] for each in result.report["tasks"].values()] == [18, 18]
    labels = y.astype(object)
    labels[:20] = None
    bank = make_bank(tmp_path / "b.bank", X, range(90), label=labels, split=WORDS)
    report = fit_semi_supervised(bank, ["spreading"], models={"logreg": {"C": [1.0]}}).report
    assert (report["held_out"]["n_samples"], report["split"]["parts"]) == (14, {"train": 42, "val": 14, "test": 14})


def test_what_cannot_be_had_is_an_error(tmp_path, rows):
    bank = bank_of(tmp_path, rows, WORDS)
    with pytest.raises(ColumnError, match="no column 'part'"):
        fit(bank, models=SVM, split="part")
    with pytest.raises(TopModelError, match="are two splits"):
        fit(bank, models=SVM, split="split", cv="predefined:split")


def test_a_split_is_not_what_is_learned_by_default(tmp_path, rows):
    X, _ = rows
    bank = make_bank(tmp_path / "a.bank", X, range(90), species=["a", "b"] * 45, split=WORDS)
    assert default_target(bank) == "species"
    with pytest.raises(ColumnError, match="name the one to learn"):
        default_target(make_bank(tmp_path / "b.bank", X, range(90), split=WORDS))
    bank.label(pd.DataFrame({"path": bank.table.paths, "split": ["x", "y"] * 45}))
    with pytest.raises(ColumnError, match="'species', 'split'"):
        default_target(bank)
