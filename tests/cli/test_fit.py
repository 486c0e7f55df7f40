import json

import numpy as np
import pandas as pd
import pytest
from made_bank import make_bank

from featurebank import Bank, Predictor, fit
from featurebank.bank.spec import common_backbone, short
from featurebank.topmodels.models import CLASSIFIERS, FOR_MANY_ROWS, REGRESSORS


def test_json_has_the_promised_fields_and_equals_the_library(run_json, two_class_bank, tmp_path):
    report = run_json(
        "fit", two_class_bank, "--model", "svm", "--folds", 4, "--seed", 2, "-o", tmp_path / "a.featurebank"
    )
    assert {"n_samples", "classes", "folds", "candidates", "best", "warnings"} <= set(report)
    assert (report["n_samples"], report["classes"], report["folds"]) == (40, ["cat", "dog"], 4)
    assert len(report["candidates"]) == 2 * 4 + 8  # the grid on two sets, refined on the better one
    for each in report["candidates"]:
        assert {"features", "model", "params", "mean", "std", "ci95", "fold_scores", "seconds"} <= set(each)
        assert 0 <= each["mean"] <= 1
    assert report["best"] in report["candidates"]
    library = fit(two_class_bank, models=["svm"], folds=4, random_state=2).report["candidates"]
    assert [each["fold_scores"] for each in report["candidates"]] == [each["fold_scores"] for each in library]


def test_the_predictor_is_saved_beside_the_bank_or_where_it_is_told(run_json, own_bank, tmp_path):
    first = run_json("fit", own_bank, "--model", "logreg")
    assert first["predictor"] == str(own_bank.with_suffix(".featurebank"))
    run_json("fit", own_bank, "--model", "logreg", "-o", tmp_path / "b.featurebank")
    one, two = (Predictor.load(path) for path in (first["predictor"], tmp_path / "b.featurebank"))
    assert one.predict_bank(Bank(own_bank)).equals(two.predict_bank(Bank(own_bank)))


def test_features_and_models_are_candidates_and_all_are_tried_by_default(run_json, own_bank):
    report = run_json("fit", own_bank)
    assert {(each["features"][0], each["model"]) for each in report["candidates"]} == {
        (f"resnet18/{layer}", model) for layer in ("layer3", "penultimate") for model in ("logreg", "svm", "mlp")
    }
    joined = "resnet18/penultimate+resnet18/layer3"
    report = run_json("fit", own_bank, "--model", "svm", "--features", joined, "--features", "resnet18/layer3")
    assert {tuple(each["features"]) for each in report["candidates"]} == {
        tuple(joined.split("+")),
        ("resnet18/layer3",),
    }


def test_features_are_named_as_the_table_shows_them(run_json, own_bank):
    report = run_json("fit", own_bank, "--model", "svm", "--features", "layer3 + penultimate", "--features", "layer3")
    assert {tuple(each["features"]) for each in report["candidates"]} == {
        ("resnet18/layer3", "resnet18/penultimate"),
        ("resnet18/layer3",),
    }


def test_the_table_shows_the_best_of_each_features_and_model(run_cli, own_bank):
    result = run_cli("fit", own_bank, "--model", "svm", "--model", "logreg")
    lines = [line.split() for line in result.stdout.splitlines()]
    assert result.stdout.startswith("accuracy, 5-fold, 40 samples, 2 classes, resnet18")
    rows = [line[:2] for line in lines if line[:1] in (["layer3"], ["penultimate"])]
    assert sorted(rows) == [[layer, model] for layer in ("layer3", "penultimate") for model in ("logreg", "svm")]
    assert "The best was selected among these, so its score is a little optimistic." in result.stdout
    assert lines[-1][:2] == ["predictor:", str(own_bank.with_suffix(".featurebank"))]


def test_target_groups_weights_and_scoring_reach_the_fit(run_cli, run_json, own_bank, tmp_path):
    rows = [f"{c}/{i:02}.png,{'ab'[i % 2]},{i // 4},{1 + i % 3}" for c in ("cat", "dog") for i in range(20)]
    rows[0] = "cat/00.png,,0,1"
    (tmp_path / "labels.csv").write_text("\n".join(["path,side,site,w", *rows]))
    run_json("label", own_bank, tmp_path / "labels.csv")
    options = ["--target", "side", "--groups", "site", "--sample-weight", "w", "--scoring", "balanced_accuracy"]
    result = run_cli("fit", own_bank, "--model", "svm", *options, "--json")
    report = json.loads(result.stdout)
    assert (report["classes"], report["n_samples"]) == (["a", "b"], 39)
    assert "1 sample has no side and is left out" in report["warnings"]
    assert "Warning: 1 sample has no side and is left out" in result.stderr
    names = {"target": "side", "groups": "site", "sample_weight": "w", "scoring": "balanced_accuracy"}
    library = fit(own_bank, models=["svm"], **names).report
    assert [each["fold_scores"] for each in report["candidates"]] == [e["fold_scores"] for e in library["candidates"]]


@pytest.mark.parametrize(
    ("names", "common", "shown"),
    [
        (["resnet18/layer3+resnet18/layer4"], "resnet18/", "resnet18/layer3 + layer4"),
        (["timm:vit/blocks.9:cls"], "timm:vit/", "timm:vit/blocks.9:cls"),
        (["a/x+b/x"], "", "a/x + b/x"),
    ],
)
def test_a_backbone_that_is_common_is_named_once(names, common, shown):
    assert common_backbone(names) == common
    assert short(names[0]) == shown


def test_every_option_of_the_search_reaches_it(run_cli, own_bank, tmp_path):
    options = ["--model", "svm", "--normalize", "l2", "--select", "0.5", "--rule", "one-se", "--cv", "stratified"]
    more = ["--calibrate", "temperature", "--repeats", 3, "--folds", 2]
    more += ["--class-weight", "cat=2,dog=1", "--threshold", "f1_macro"]
    result = run_cli("fit", own_bank, *options, *more, "--features", "all", "--learning-curve", "--json")
    report = json.loads(result.stdout)
    assert report["folds"] == 6
    assert {(each["normalize"], each["select"]) for each in report["candidates"]} == {("l2", 0.5)}
    assert ["resnet18/layer3", "resnet18/penultimate"] in [each["features"] for each in report["candidates"]]
    assert report["calibration"]["method"] == "temperature"
    assert report["threshold"]["scoring"] == "f1_macro"
    assert report["learning_curve"]["verdict"]
    model = Predictor.load(report["predictor"]).model
    assert [type(step).__name__ for step in model] == ["Normalizer", "SelectRelevant", "FixedThresholdClassifier"]
    assert model[-1].estimator_.class_weight == {"cat": 2.0, "dog": 1.0}


def test_the_findings_are_printed_a_line_each(run_cli, own_bank):
    options = ["--model", "svm", "--model", "logreg", "--nested", "--learning-curve", "--calibrate", "sigmoid"]
    options += ["--folds", 3]
    result = run_cli("fit", own_bank, *options, "--features", "layer3", "--features", "penultimate")
    assert "give the same answers on every row" in result.stdout
    assert "Nested, the selection included: " in result.stdout
    assert any(line.startswith(("Label more", "Stop", "Not clear")) for line in result.stdout.splitlines())


def test_out_of_fold_predictions_lie_beside_the_predictor(run_json, own_bank):
    report = run_json("fit", own_bank, "--model", "logreg")
    frame = pd.read_csv(report["oof"])
    assert report["oof"] == str(own_bank.with_suffix(".oof.csv"))
    assert list(frame) == ["source", "path", "fold", "true", "predicted", "proba_cat", "proba_dog"]
    assert len(frame) == 40
    assert (frame["true"] == frame["path"].str.split("/").str[0]).all()


def test_a_predictor_of_something_else_is_replaced_with_a_word(run_cli, own_bank, tmp_path):
    rows = [f"{c}/{i:02}.png,{'ab'[i % 2]}" for c in ("cat", "dog") for i in range(20)]
    (tmp_path / "labels.csv").write_text("\n".join(["path,side", *rows]))
    run_cli("label", own_bank, tmp_path / "labels.csv")
    assert "held a predictor" not in run_cli("fit", own_bank, "--model", "ridge").stderr
    result = run_cli("fit", own_bank, "--model", "ridge", "--target", "side")
    assert "held a predictor of 'label'; it is replaced by one of 'side'" in result.stderr
    again = run_cli("fit", own_bank, "--model", "ridge", "--target", "side")
    assert " held a predictor of 20" in again.stderr
    assert "which this one replaces; -o names another file" in again.stderr
    refused = run_cli("fit", own_bank, "-o", tmp_path / "labels.csv")
    assert (refused.exit_code, (tmp_path / "labels.csv").read_text()[:9]) == (1, "path,side")
    assert "labels.csv' is there and is no predictor; name another file with -o" in refused.stderr


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--class-weight", "cat:2"], 2, "expected balanced, or CLASS=WEIGHT"),
        (["--class-weight", "cta=2"], 1, "a weight for the class 'cta'; did you mean cat?"),
        (["--cv", "statified"], 1, "no folds 'statified'; did you mean stratified?"),
        (["--cv", "group"], 1, "group folds and no groups; name the column of groups"),
        (["--normal", "a", "--normal", "b"], 2, "a, b: expected one value; where several are normal"),
        (["--normalize", "l3"], 1, "no normalisation 'l3'; expected one of standardize, none, l2"),
        (["--model", "sklearn.ensemble.Forest"], 1, "no estimator at 'sklearn.ensemble.Forest'"),
        (["--select", "2"], 1, "a share of 2.0 dimensions; expected a number above 0"),
        (["--threshold", "f2"], 1, "no scoring 'f2'"),
        (["--time-limit", "0"], 2, "0.0 is not in the range"),
    ],
)
def test_what_cannot_be_had_is_an_error(run_cli, own_bank, options, code, message):
    result = run_cli("fit", own_bank, "--model", "ridge", *options)
    assert result.exit_code == code
    assert message in result.stderr


def test_views_are_candidates_and_the_table_names_them(run_cli, two_classes, tmp_path):
    options = ["--backbone", "resnet18", "--weights", "random:0", "--size", 64, "--layer", "layer3"]
    bank = tmp_path / "a.bank"
    assert run_cli("extract", two_classes, "--bank", bank, *options, "--views", "hflip").exit_code == 0
    arguments = ["fit", bank, "--model", "ridge", "--views", "mean", "--views", "all"]
    report = json.loads(run_cli(*arguments, "--json").stdout)
    assert {each["views"] for each in report["candidates"]} == {"mean", "all"}
    lines = run_cli(*arguments).stdout.splitlines()
    rows = [line.split("ridge")[0].strip() for line in lines if line.strip().startswith("layer3")]
    assert sorted(rows) == ["layer3", "layer3, all views"]
    result = run_cli("fit", bank, "--views", "most")
    assert (result.exit_code, result.stderr) == (1, "Error: views='most'; expected one of mean, first, all\n")


def test_rows_without_a_label_can_help_and_the_table_says_whether_they_did(run_cli, run_json, own_bank, tmp_path):
    rows = [f"{c}/{i:02}.png,{c}" for c in ("cat", "dog") for i in range(8)]
    (tmp_path / "few.csv").write_text("\n".join(["path,few", *rows]))
    run_json("label", own_bank, tmp_path / "few.csv")
    options = ["--target", "few", "--model", "logreg", "--features", "layer3", "--folds", 2]
    flags = ["--unlabelled", "self-training", "--unlabelled", "spreading"]
    result = run_cli("fit", own_bank, *options, *flags)
    assert "24 rows without a label; parameters chosen inside each fold" in result.stdout
    lines = [line.split()[:2] for line in result.stdout.splitlines()]
    assert [line for line in lines if line[-1:] == ["logreg"]][-3:] == [
        [name, "logreg"] for name in ("supervised", "self-training", "spreading")
    ]
    assert "The rows without a label " in result.stdout
    report = run_json("fit", own_bank, *options, "--unlabelled", "whiten")
    assert [each["method"] for each in report["unlabelled"]["methods"]] == ["supervised", "whiten"]
    assert "unlabelled" not in run_json("fit", own_bank, *options)
    refused = run_cli("fit", own_bank, *flags, "--model", "logreg")
    assert refused.stderr == "Error: every readable sample has a value of 'label'; expected some without one\n"


def test_a_fit_without_memory_reads_in_batches_and_says_so(run_cli, run_json, own_bank, tmp_path):
    options = ("fit", own_bank, "--features", "penultimate", "--memory", 0, "-o", tmp_path / "a.featurebank")
    report = run_json(*options, "--model", "ridge", "--model", "lda")
    assert any("read in batches" in note for note in report["warnings"])
    library = fit(own_bank, features="penultimate", models=["ridge", "lda"]).report["candidates"]
    assert [each["mean"] for each in report["candidates"]] == [each["mean"] for each in library]
    result = run_cli(*options, "--model", "svm")
    assert result.exit_code == 1
    assert "svm needs all rows in memory" in result.stderr


def test_a_split_is_taken_and_said_or_not_taken(run_cli, run_json, own_bank):
    table = Bank(own_bank).table
    words = ["train" if number % 4 else "test" for number in range(len(table))]
    Bank(own_bank).label(pd.DataFrame({"path": table.paths, "split": words}))
    arguments = ["fit", own_bank, "--model", "logreg", "--features", "resnet18/layer3"]
    said = "Split by the column split: folds are drawn from train (30), test (10) is held out to the end; --split none"
    lines = run_cli(*arguments).stdout.splitlines()
    assert lines[0] == f"{said} takes all samples alike."
    assert any(line.startswith("Held-out accuracy: ") and line.endswith("of 10 samples.") for line in lines)
    report = run_json(*arguments, "--split", "none")
    assert (report["n_samples"], "split" in report) == (40, False)
    assert run_json(*arguments, "--split", "split")["split"]["parts"] == {"train": 30, "test": 10}
    assert "gives no split" in run_cli(*arguments, "--split", "label").stderr


def test_a_committee_its_members_and_its_cost_are_told(run_cli, run_json, tmp_path):
    random = np.random.default_rng(0)
    known = random.normal(size=(160, 2))
    layers = {name: np.c_[known[:, [i]], random.normal(size=(160, 4))] for i, name in enumerate("xy")}
    make_bank(tmp_path / "a.bank", layers, label=np.where(known.sum(axis=1) > 0, "b", "a"))
    said = run_cli("fit", tmp_path / "a.bank", "--ensemble", "--model", "ridge").stdout
    assert "2 feature sets" in said
    assert "A committee of 2 " in said
    assert "ridge on net/x" in said
    assert "Log loss, out of fold: 0." in said
    assert "Cost: each new image is embedded by net; not measured:" in said
    one = run_json("fit", tmp_path / "a.bank", "--ensemble", "--members", 1, "--model", "ridge")
    assert one["ensemble"]["is_shipped"] is False
    refused = run_cli("fit", tmp_path / "a.bank", "--members", 2)
    assert refused.exit_code == 1
    assert "members without a committee" in refused.stderr


def test_the_help_names_every_top_model(run_cli):
    said = " ".join(run_cli("fit", "--help").output.split())
    named = {*CLASSIFIERS, *REGRESSORS, *FOR_MANY_ROWS}
    assert [name for name in named if name not in said] == []


def test_what_one_group_cannot_tell_is_null_and_not_known(run_json, run_cli, tmp_path):
    random, group = np.random.default_rng(0), np.arange(40) // 20
    X, parts = random.normal(size=(40, 4)), np.array(["train", "val"])[group]
    bank = make_bank(tmp_path / "a.bank", X, age=X[:, 0] + random.normal(size=40), site=group, part=parts)
    asked = ["fit", tmp_path / "a.bank", "--target", "age", "--model", "ridge", "--cv", "predefined:part"]
    asked += ["--groups", "site"]
    assert bank.samples.shape[0] == 40
    assert run_json(*asked)["best"]["ci95"] == [None, None]
    assert "not known" in run_cli(*asked).stdout
