import json
import subprocess
import sys

import numpy as np
import pytest
from made_bank import make_bank, make_views_bank
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from featurebank import Bank, Predictor, extract, fit, load_backbone
from featurebank.bank import samples
from featurebank.bank.defaults import candidate_features, default_target
from featurebank.errors import BankError, ColumnError, FeatureSetError, PredictorError, TopModelError
from featurebank.fitting.fit import default_output
from featurebank.fitting.targets import Target
from featurebank.fitting.training_data import TrainingData, load_rows
from featurebank.topmodels.scaling import FlooredScaler
from featurebank.topmodels.scores import wilson_interval
from featurebank.topmodels.search import TopModelSearchCV

NAME = "net/penultimate"
SVM = {"svm": {"C": [1.0]}}


def test_the_report_says_what_was_tried_on_which_folds(two_class_bank):
    result = fit(two_class_bank, models={"svm": {"C": [1.0, 10.0]}, "logreg": {"C": [0.01]}}, folds=4)
    report = result.report
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert (report["n_samples"], report["classes"], report["target"]) == (40, ["cat", "dog"], "label")
    assert (report["folds"], report["grouped"], report["scoring"], report["seed"]) == (4, False, "accuracy", 0)
    tried = [(each["features"], each["model"], each["params"]) for each in report["candidates"]]
    assert tried == [
        ([f"resnet18/{layer}"], model, params)
        for layer in ("layer3", "penultimate")
        for model, params in (("svm", {"C": 1.0}), ("svm", {"C": 10.0}), ("logreg", {"C": 0.01}))
    ]
    for each in report["candidates"]:
        assert set(each) >= {"features", "model", "params", "mean", "std", "ci95", "fold_scores", "seconds"}
        assert (each["select"], each["normalize"], each["interval"]) == (None, "standardize", "korn-graubard")
        assert len(each["fold_scores"]) == 4
        assert each["ci95"][0] <= each["mean"] <= each["ci95"][1]
    assert report["best"] == max(report["candidates"], key=lambda each: each["mean"])
    assert all("near-duplicate" in warning for warning in report["warnings"])


def test_scores_equal_those_of_the_search_over_loaded_rows(two_class_bank):
    names = ["resnet18/penultimate", "resnet18/layer3"]
    X, y = Bank(two_class_bank).load(names, "label")
    result = fit(two_class_bank, features="+".join(names), models=SVM, random_state=5)
    blocks = {names[0]: slice(0, 512), names[1]: slice(512, None)}
    search = TopModelSearchCV(SVM, blocks=blocks, features=[names], random_state=5).fit(X, y)
    assert result.report["best"]["features"] == names
    assert result.report["best"]["fold_scores"] == search.best_candidate_.fold_scores
    np.testing.assert_array_equal(result.predictor.model.decision_function(X), search.decision_function(X))


def test_the_fold_of_every_sample_is_kept(two_class_bank):
    with pytest.warns(FutureWarning, match=r"^fit\(seed=\) is now random_state=; the old spelling goes"):
        result = fit(two_class_bank, models=SVM, folds=3, seed=2)
    X, y, paths = Bank(two_class_bank).load("resnet18/layer3", "label", return_paths=True)
    numbers = np.empty(40, int)
    for number, (_, test) in enumerate(StratifiedKFold(3, shuffle=True, random_state=2).split(X, y)):
        numbers[test] = number
    source = str(two_class_bank.parent / "photos")
    assert result.predictor.report["samples"] == [
        [source, path, fold] for path, fold in zip(paths, numbers, strict=True)
    ]


# --- rows that belong together, rows that are left out -----------------------------------------------------


def folds_by(report_samples, keys):
    """Return the set of folds of each key."""
    found = {}
    for (_, _, fold), key in zip(report_samples, keys, strict=True):
        found.setdefault(key, set()).add(fold)
    return found


def test_identical_content_never_straddles_folds(tmp_path, random):
    contents = np.arange(60) // 2
    y = np.where(contents % 2, "a", "b")
    result = fit(make_bank(tmp_path / "a.bank", random.normal(size=(60, 16)), contents, label=y), models=SVM)
    assert all(len(folds) == 1 for folds in folds_by(result.predictor.report["samples"], contents).values())
    assert result.report["grouped"]
    assert result.report["warnings"] == ["30 samples repeat the content of another; folds keep them together"]
    expected = StratifiedGroupKFold(5, shuffle=True, random_state=0).split(y, y, contents)
    assert all(map(np.array_equal, (test for _, test in result.search.folds_), (test for _, test in expected)))


def test_neither_content_nor_groups_straddle_folds_when_both_are_given(tmp_path, random):
    contents, site = np.arange(80), np.arange(80) // 4
    contents[79] = contents[0]  # ties the first and the last site
    bank = make_bank(tmp_path / "a.bank", random.normal(size=(80, 16)), contents, label=np.arange(80) % 2, site=site)
    folds = fit(bank, models=SVM, groups="site").predictor.report["samples"]
    by_site = folds_by(folds, site)
    assert all(len(each) == 1 for each in by_site.values())
    assert by_site[0] == by_site[19]
    assert len(set().union(*by_site.values())) == 5


def test_repeated_content_does_not_inflate_scores(tmp_path, random):
    contents = np.arange(200) // 2
    X, y = random.normal(size=(200, 16))[contents], contents % 2
    models = {"svm": {"C": [100.0], "gamma": [1.0]}}
    assert TopModelSearchCV(models).fit(X, y).best_score_ > 0.8  # plain folds find each row's copy in training
    low, high = fit(make_bank(tmp_path / "a.bank", X, contents, label=y), models=models).report["best"]["ci95"]
    assert low < 0.5 < high < 0.8


def test_images_that_look_alike_are_reported_and_tied_on_request(tmp_path, random):
    looks, y = np.arange(100) // 2, np.arange(100) // 2 % 2
    X = random.normal(size=(100, 16))[looks] + random.normal(0, 1e-3, (100, 16))
    bank = make_bank(tmp_path / "a.bank", X, range(100), label=y)
    (warning,) = fit(bank, models=SVM).report["warnings"]
    assert "have a near-duplicate" in warning
    assert "--groups @near-duplicates keeps them together" in warning
    tied = fit(bank, models=SVM, groups="@near-duplicates")
    assert tied.report["warnings"] == []
    assert all(len(folds) == 1 for folds in folds_by(tied.predictor.report["samples"], looks).values())


def test_nested_scores_include_the_selection(tmp_path, random):
    X, y, weight = random.normal(size=(60, 16)), np.arange(60) % 2, random.random(60)
    bank = make_bank(tmp_path / "a.bank", X, range(60), label=y, w=weight)
    grid, seen = {"svm": {"C": [0.1, 1.0, 10.0], "gamma": [0.01, 0.1, 1.0]}}, []
    result = fit(bank, models=grid, nested=True, folds=3, sample_weight="w", progress=lambda *now: seen.append(now))
    X, expected = X.astype(np.float32), []
    for train, test in result.search.folds_:
        inner = TopModelSearchCV(grid, cv=3).fit(X[train], y[train], sample_weight=weight[train])
        expected.append(inner.score(X[test], y[test], sample_weight=weight[test]))
    nested = result.report["nested"]
    assert nested["fold_scores"] == expected
    assert nested["mean"] == np.mean(expected) < result.report["best"]["mean"]
    assert nested["ci95"][0] < nested["mean"] < nested["ci95"][1]
    assert seen == [(done, 4 * 27) for done in range(1, 4 * 27 + 1)]
    assert "nested" not in fit(bank, models=SVM).report


def test_random_labels_score_chance(tmp_path, random):
    bank = make_bank(tmp_path / "a.bank", random.normal(size=(150, 20)), range(150), label=np.arange(150) % 3)
    best = fit(bank, models={"logreg": {"C": [0.01]}}).report["best"]
    assert best["ci95"][0] < 1 / 3 < best["ci95"][1]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["net/blocks.2", "net/blocks.10", "net/blocks.9", "net/logits"], "net/blocks.10"),
        (["net/blocks.2:max", "net/penultimate", "net/logits"], "net/penultimate"),
    ],
)
def test_near_duplicates_are_looked_for_in_the_deepest_layer_below_the_logits(names, expected):
    blocks = {name: slice(number, number + 1) for number, name in enumerate(names)}
    rows = TrainingData(samples.empty_table(), np.zeros((0, len(names))), blocks, np.empty(0), "", None, None, None, [])
    assert rows.alike_in == expected


def test_identical_content_under_two_labels_is_reported(tmp_path, random):
    y = ["a", "b"] * 15
    contents = [0, 0, 2, 3, 2, *range(5, 30)]  # 0 carries both labels, 2 the same twice
    bank = make_bank(tmp_path / "a.bank", random.normal(size=(30, 16)), contents, label=y)
    path = bank.select().paths[0]
    assert fit(bank, models=SVM, folds=2).report["warnings"] == [
        f"1 content comes with different values of label, e.g. that of {path!r}: correct them with `featurebank label`",
        "2 samples repeat the content of another; folds keep them together",
    ]


def test_samples_without_a_label_or_weight_are_left_out_and_reported(tmp_path, random):
    y = [None, None, *("a", "b") * 19]
    weight = [1.0] * 37 + [None] * 3
    bank = make_bank(tmp_path / "a.bank", random.normal(size=(40, 16)), range(40), label=y, w=weight)
    report = fit(bank, models=SVM).report
    assert (report["n_samples"], report["warnings"]) == (38, ["2 samples have no label and are left out"])
    report = fit(bank, models=SVM, sample_weight="w").report
    assert report["n_samples"] == 35
    assert report["warnings"] == ["2 samples have no label and are left out", "3 samples have no w and are left out"]


def test_weights_count_in_fits_and_scores(tmp_path, random):
    X, y = random.normal(size=(60, 16)), np.arange(60) % 2
    weight = random.random(60)
    bank = make_bank(tmp_path / "a.bank", X, range(60), label=y, w=weight)
    expected = TopModelSearchCV(SVM).fit(X.astype(np.float32), y, sample_weight=weight)
    found = fit(bank, models=SVM, sample_weight="w").report["best"]["fold_scores"]
    assert found == expected.best_candidate_.fold_scores
    assert found != fit(bank, models=SVM).report["best"]["fold_scores"]


@pytest.mark.parametrize("labels", [[0, 1], [True, False], ["1", "01"]])
def test_classes_keep_their_kind(tmp_path, random, labels):
    y = np.array(labels * 15)
    bank = make_bank(tmp_path / "a.bank", random.normal(size=(30, 16)) + np.arange(30)[:, None] % 2, range(30), label=y)
    result = fit(bank, models=SVM)
    assert result.report["classes"] == sorted(labels)
    table = result.predictor.predict_bank(bank)
    assert set(table["label"]) <= set(labels)
    assert {type(value) for value in table["label"]} == {type(labels[0])}


def test_weights_of_classes_that_are_numbers_in_text_are_kept_in_the_file(tmp_path, random):
    y = np.array(["007", "cat"] * 15)
    bank = make_bank(tmp_path / "a.bank", random.normal(size=(30, 16)), range(30), label=y)
    result = fit(bank, models=SVM, class_weight={"007": 50.0})
    result.predictor.save(tmp_path / "a.featurebank")
    found = Predictor.load(tmp_path / "a.featurebank").predict_bank(bank)["label"]
    assert found.tolist() == result.predictor.predict_bank(bank)["label"].tolist()


def test_an_integer_cv_is_a_number_of_folds(tmp_path, random):
    y = np.array(["a", "b"] * 15)
    bank = make_bank(tmp_path / "a.bank", random.normal(size=(30, 16)), range(30), label=y)
    found, expected = (fit(bank, models=SVM, **asked).report["best"] for asked in ({"cv": 3}, {"folds": 3}))
    assert found["fold_scores"] == expected["fold_scores"]
    with pytest.raises(TopModelError, match="cv of StratifiedKFold; expected a number of folds or a name"):
        fit(bank, models=SVM, cv=StratifiedKFold(3))
    with pytest.raises(TopModelError, match="fold"):
        fit(bank, models=SVM, cv=1)


# --- what is meant when nothing is said --------------------------------------------------------------------


def test_the_default_target_is_label_or_the_only_column(tmp_path):
    X = np.eye(4)
    assert default_target(make_bank(tmp_path / "a.bank", X, range(4), label=[0, 1, 0, 1], site=[0, 0, 1, 1])) == "label"
    assert default_target(make_bank(tmp_path / "b.bank", X, range(4), site=[0, 0, 1, 1])) == "site"
    several = make_bank(tmp_path / "c.bank", X, range(4), site=[0, 0, 1, 1], age=[1, 2, 3, 4])
    with pytest.raises(ColumnError, match="the bank has the columns 'site', 'age'; name the one to learn"):
        default_target(several)
    with pytest.raises(ColumnError, match="the bank has no column to learn"):
        default_target(Bank.create(tmp_path / "d.bank"))


def test_the_default_candidates_are_the_pooled_sets(own_bank, two_classes):
    extract(
        two_classes, own_bank, backbone="resnet18", weights="random:0", size=64, layers=["layer4:none", "layer4:max"]
    )
    assert candidate_features(Bank(own_bank), None) == [
        ["resnet18/layer3"],
        ["resnet18/layer4:max"],
        ["resnet18/penultimate"],
    ]
    assert candidate_features(Bank(own_bank), ["resnet18/layer3+resnet18/penultimate", "resnet18/layer4:none"]) == [
        ["resnet18/layer3", "resnet18/penultimate"],
        ["resnet18/layer4:none"],
    ]


def test_what_does_not_fit_the_bank_is_an_error(two_class_bank, tmp_path):
    with pytest.raises(FeatureSetError, match="no feature set 'resnet18/layer9'"):
        fit(two_class_bank, features=["resnet18/layer3+resnet18/layer9"])
    with pytest.raises(ColumnError, match="no column 'species'"):
        fit(two_class_bank, target="species")
    with pytest.raises(ColumnError, match="'label' is no column of numbers, so it cannot weight"):
        fit(two_class_bank, sample_weight="label")
    with pytest.raises(TopModelError, match="cannot be split"):
        fit(two_class_bank, folds=50)
    with pytest.raises(BankError, match="has no pooled feature set; run `featurebank extract` first"):
        fit(Bank.create(tmp_path / "empty.bank"), target="label")


def test_a_group_that_is_missing_is_an_error(tmp_path, random):
    site = [None, *np.arange(29) // 3]
    bank = make_bank(tmp_path / "a.bank", random.normal(size=(30, 16)), range(30), label=np.arange(30) % 2, site=site)
    with pytest.raises(ColumnError, match="column 'site' has 1 missing values"):
        fit(bank, models=SVM, groups="site")


def test_the_predictor_lies_beside_the_bank(own_bank):
    assert default_output(Bank(own_bank)) == own_bank.parent / "own.featurebank"


# --- weights -----------------------------------------------------------------------------------------------


def test_fitting_and_saving_never_load_torch(two_class_bank, tmp_path):
    code = (
        "import sys; from featurebank.fitting.fit import fit\n"
        "own = 'sklearn.naive_bayes.GaussianNB'\n"  # whether it can be saved is tried first
        "models = {'svm': {'C': [1.0]}, 'sgd-svm': {}, own: {}}\n"
        f"result = fit({str(two_class_bank)!r}, features='resnet18/penultimate', models=models)\n"
        "assert result.report['best']['mean'] > 0.9\n"
        f"result.predictor.save({str(tmp_path / 'a.featurebank')!r})\n"
        "assert 'torch' not in sys.modules\n"
        "import torch, sklearn.externals.array_api_compat.torch"  # as ever, where it is wanted
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_checkpoint_that_changed_since_extraction_is_an_error(two_classes, tmp_path):
    from safetensors.torch import save_file

    def save(seed):
        save_file(load_backbone("shufflenet_v2_x0_5", f"random:{seed}").model.state_dict(), file)

    file = tmp_path / "mine.safetensors"
    save(1)
    bank = extract(two_classes, tmp_path / "a.bank", backbone="shufflenet_v2_x0_5", weights=str(file), size=32)
    save(2)
    with pytest.raises(BankError, match=r"mine.safetensors' has changed since its features were extracted"):
        fit(bank, models=SVM)


# --- numbers, several labels, given splits -----------------------------------------------------------------


def test_a_column_of_fractions_is_learned_as_numbers(tmp_path, random):
    X = random.normal(size=(80, 16))
    bank = make_bank(tmp_path / "a.bank", X, range(80), age=X[:, 0] + 0.1 * random.normal(size=80))
    result = fit(bank, models=["ridge"])
    report = result.report
    assert (report["task"], report["scoring"], report["classes"]) == ("regression", "r2", [])
    assert report["best"]["mean"] > 0.9
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    result.save(tmp_path / "a.featurebank")
    table = Predictor.load(tmp_path / "a.featurebank").predict_bank(bank)
    assert list(table) == ["source", "path", "label", "unlike", "is_unlike", "error"]
    np.testing.assert_allclose(table["label"].astype(float), result.search.predict(X.astype(np.float32)), rtol=1e-6)
    with pytest.raises(ColumnError, match="column 'age' holds text; regression needs numbers"):
        fit(make_bank(tmp_path / "b.bank", X, range(80), age=["a"] * 80), task="regression")


@pytest.mark.parametrize("kind", ["columns", "cells"])
def test_several_labels_come_from_columns_or_from_cells(tmp_path, random, kind):
    X = random.normal(size=(90, 16))
    labels = (X[:, :3] > 0).astype(int)
    names = np.array(["cat", "dog", "sky"])
    cells = ["|".join(names[row == 1]) or None for row in labels]
    columns = {"tags": cells} if kind == "cells" else dict(zip(names, labels.T, strict=True))
    bank = make_bank(tmp_path / "a.bank", X, range(90), **columns)
    options = {"target": "tags", "separator": "|"} if kind == "cells" else {"target": list(names)}
    result = fit(bank, models=["svm", "logreg"], **options)
    report = result.report
    assert (report["task"], report["classes"]) == ("multilabel", ["cat", "dog", "sky"])
    assert [each["label"] for each in report["per_label"]] == ["cat", "dog", "sky"]
    assert all(each["roc_auc"] > 0.8 for each in report["per_label"])
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    result.save(tmp_path / "a.featurebank")
    table = Predictor.load(tmp_path / "a.featurebank").predict_bank(bank)
    said = result.search.predict(X.astype(np.float32))
    assert table["label"].tolist() == [";".join(names[row == 1]) for row in said]
    assert {"proba_cat", "proba_dog", "proba_sky"} <= set(table)
    assert table[["proba_cat", "proba_dog", "proba_sky"]].to_numpy().max() <= 1


def test_labels_in_a_column_that_is_not_0_and_1_are_an_error_and_make_tasks_of_their_own(tmp_path, random):
    bank = make_bank(tmp_path / "a.bank", random.normal(size=(30, 4)), range(30), a=[0, 1] * 15, b=[0, 1, 2] * 10)
    with pytest.raises(ColumnError, match="column 'b' holds more than 0 and 1"):
        load_rows(bank, [NAME], Target(["a", "b"]), None, None)
    assert fit(bank, target=["a", "b"], models="ridge", folds=2).report["task"] == "multitask"


def test_a_given_split_is_the_only_fold_and_test_rows_are_held_out(tmp_path, random):
    X, y = random.normal(size=(90, 16)), np.arange(90) % 2
    X[:, 0] += 2 * y
    split = np.array(["train", "Train", "val", "test", "train"] * 18)
    bank = make_bank(tmp_path / "a.bank", X, range(90), label=y, split=split)
    result = fit(bank, models=SVM, cv="predefined:split")
    X = X.astype(np.float32)
    train, val, test = (np.char.lower(split) == name for name in ("train", "val", "test"))
    pipeline = make_pipeline(StandardScaler(), SVC())
    assert result.report["n_samples"] == 72
    assert result.report["best"]["fold_scores"] == [pipeline.fit(X[train], y[train]).score(X[val], y[val])]
    assert result.report["best"]["interval"] == "wilson"
    held = result.report["held_out"]
    assert held["accuracy"] == pipeline.fit(X[~test], y[~test]).score(X[test], y[test])
    assert held["intervals"]["accuracy"] == list(wilson_interval(held["accuracy"] * 18, 18))
    numbered = make_bank(tmp_path / "b.bank", X, range(90), label=y, part=np.arange(90) % 3 - 1)
    assert [len(test) for _, test in fit(numbered, models=SVM, cv="predefined:part").search.folds_] == [30, 30]
    with pytest.raises(TopModelError, match="predefined folds can be neither nested nor repeated"):
        fit(bank, cv="predefined:split", nested=True)
    with pytest.raises(TopModelError, match="column 'split' gives no split"):
        fit(make_bank(tmp_path / "c.bank", X, range(90), split=["train"] * 90, y=y), target="y", cv="predefined:split")


def test_mean_first_and_all_views_are_compared_on_the_same_folds(tmp_path, random):
    bank, name, X, y = make_views_bank(tmp_path / "a.bank", random)
    result = fit(bank, models={"logreg": {"C": [0.1]}}, features=name, views=["mean", "first", "all"])
    assert [each["views"] for each in result.report["candidates"]] == ["mean", "first", "all"]
    for each in result.report["candidates"]:
        alone = fit(bank, models={"logreg": {"C": [0.1]}}, features=name, views=each["views"])
        assert alone.report["best"]["fold_scores"] == pytest.approx(each["fold_scores"])
        assert [feature.views for feature in alone.predictor.features] == [each["views"]]
    rows = X.astype(np.float32).reshape(len(X), -1)
    assert result.predictor.predict_bank(bank)["label"].tolist() == result.search.predict(rows).tolist()
    assert len(result.oof) == len(y)


@pytest.mark.slow
def test_all_views_go_with_every_other_option(tmp_path, random):
    bank, name, _, y = make_views_bank(tmp_path / "a.bank", random)
    options = {"nested": True, "learning_curve": True, "calibrate": "sigmoid", "threshold": "f1_macro", "folds": 3}
    for model in ("logreg", "svm"):
        report = fit(bank, models=model, features=name, views="all", class_weight="balanced", **options).report
        assert report["nested"]["mean"] > 0.7
        assert report["learning_curve"]["points"][-1]["n_train"] == 2 / 3 * len(y)  # images, not views
        assert report["n_samples"] == len(y)


def test_views_that_are_not_there_are_an_error(tmp_path, random):
    bank, name, _, _ = make_views_bank(tmp_path / "a.bank", random)
    plain = next(each.name for each in bank.feature_sets if each.name != name)
    with pytest.raises(BankError, match="views all of feature sets with one view; run extract with --views first"):
        fit(bank, models=SVM, features=plain, views="all")
    with pytest.raises(BankError, match="views='last'; expected one of mean, first, all"):
        fit(bank, models=SVM, views="last")
    tried = fit(bank, models=SVM, views=["all", "mean"]).report["candidates"]  # beside it, the set of one view is fine
    assert [(each["features"], each["views"]) for each in tried] == [
        ([name], "all"),
        ([name], "mean"),
        ([plain], "all"),
    ]


def test_near_duplicates_across_a_given_split_are_counted(tmp_path, random):
    looks, y = np.arange(100) // 2, np.arange(100) // 2 % 2
    X = random.normal(size=(100, 16))[looks] + random.normal(0, 1e-3, (100, 16))
    together = np.where(looks < 40, "train", "test")
    torn = np.where(np.arange(100) % 2, "train", "test")
    bank = make_bank(tmp_path / "a.bank", X, range(100), label=y, together=together, torn=torn)
    assert fit(bank, models=SVM, target="label", cv="predefined:together").report["warnings"] == []
    (warning,) = fit(bank, models=SVM, target="label", cv="predefined:torn").report["warnings"]
    assert warning.startswith("100 samples have a near-duplicate")


@pytest.mark.parametrize(("cv", "count"), [("logo", 6), ("group", 4), ("stratified-group", 4)])
def test_folds_by_name_hold_groups_together(tmp_path, random, cv, count):
    site = np.arange(60) % 6
    bank = make_bank(
        tmp_path / "a.bank", random.normal(size=(60, 8)), range(60), label=np.arange(60) // 6 % 2, site=site
    )
    result = fit(bank, models=SVM, target="label", groups="site", cv=cv, folds=4)
    assert result.report["folds"] == count
    assert all(len(each) == 1 for each in folds_by(result.predictor.report["samples"], site).values())
    assert result.report["best"]["interval"] == "korn-graubard"


def test_repeated_folds_are_drawn_anew(tmp_path, random):
    bank = make_bank(tmp_path / "a.bank", random.normal(size=(60, 8)), range(60), label=np.arange(60) % 2)
    report = fit(bank, models=SVM, folds=3, repeats=4).report
    assert len(report["best"]["fold_scores"]) == report["folds"] == 12


# --- calibration, threshold, learning curve, out-of-fold predictions ---------------------------------------


def test_calibration_is_reported_before_and_after_and_shipped(tmp_path, random):
    X, y = random.normal(size=(400, 30)), np.arange(400) % 2
    X[:, 0] += y
    bank = make_bank(tmp_path / "a.bank", X, range(400), label=y)
    models = {"logreg": {"C": [1e4]}}
    plain, tuned = fit(bank, models=models), fit(bank, models=models, calibrate="temperature")
    before, after = plain.report["calibration"], tuned.report["calibration"]
    assert (before["method"], after["method"]) == (None, "temperature")
    assert before["ece_before"] == before["ece_after"] == after["ece_before"]
    assert after["ece_after"] < after["ece_before"]
    tuned.save(tmp_path / "a.featurebank")
    table = Predictor.load(tmp_path / "a.featurebank").predict_bank(bank)
    assert tuned.predictor.calibrator.temperature_ > 1
    assert table["probability"].mean() < plain.predictor.predict_bank(bank)["probability"].mean()
    curve = tuned.report["abstention"]
    assert curve[0]["coverage"] == 1.0
    assert curve[0]["accuracy"] == pytest.approx(tuned.report["best"]["mean"], abs=1e-9)


def test_a_threshold_is_tuned_out_of_fold_and_shipped(tmp_path, random):
    y = (np.arange(300) % 6 == 0).astype(int)
    X = random.normal(size=(300, 16))
    X[:, 0] += 1.5 * y
    bank = make_bank(tmp_path / "a.bank", X, range(300), label=y)
    result = fit(bank, models={"logreg": {"C": [0.1]}}, threshold="balanced_accuracy")
    tuned = result.report["threshold"]
    assert (tuned["on"], tuned["positive"]) == ("predict_proba", 1)
    assert tuned["after"] > tuned["before"] + 0.05
    assert 0 < tuned["threshold"] < 0.5
    result.save(tmp_path / "a.featurebank")
    loaded = Predictor.load(tmp_path / "a.featurebank")
    chances = loaded.model.predict_proba(X.astype(np.float32))[:, 1]
    np.testing.assert_array_equal(
        loaded.model.predict(X.astype(np.float32)), (chances >= tuned["threshold"]).astype(int)
    )
    with pytest.raises(TopModelError, match="judges scores, not labels"):
        fit(bank, models=SVM, threshold="roc_auc")
    three = make_bank(tmp_path / "b.bank", X, range(300), label=np.arange(300) % 3)
    with pytest.raises(TopModelError, match="a threshold for 3 classes; expected two"):
        fit(three, models=SVM, threshold="f1_macro")


def test_a_threshold_for_numbers_is_an_error(tmp_path, random):
    X = random.normal(size=(40, 4))
    bank = make_bank(tmp_path / "a.bank", X, np.arange(40), age=X[:, 0], size=X[:, 1])
    for target in ("age", ["age", "size"]):
        with pytest.raises(TopModelError, match="threshold 'f1' for a target of numbers; expected classes"):
            fit(bank, target=target, models="ridge", threshold="f1")


def test_a_learning_curve_says_whether_to_label_more(tmp_path, random):
    X, y = random.normal(size=(120, 8)), np.arange(120) % 2
    bank = make_bank(tmp_path / "a.bank", X, range(120), label=y)
    curve = fit(bank, models={"ridge": {"alpha": [1.0]}}, learning_curve=True).report["learning_curve"]
    assert json.loads(json.dumps(curve, allow_nan=False)) == curve
    assert "Label more" not in curve["verdict"]
    assert {1, 2, 5, 10, 20} <= {point["per_class"] for point in curve["points"]}


def test_out_of_fold_predictions_name_their_samples(two_class_bank):
    result = fit(two_class_bank, features="resnet18/layer3", models={"logreg": {"C": [0.01]}}, folds=4)
    X, y, paths = Bank(two_class_bank).load("resnet18/layer3", "label", return_paths=True)
    oof = result.oof.set_index("path").loc[paths]
    pipeline = make_pipeline(FlooredScaler(), LogisticRegression(C=0.01))
    expected = cross_val_predict(pipeline, X, y, cv=result.search.folds_, method="predict_proba")
    np.testing.assert_allclose(oof[["proba_cat", "proba_dog"]], expected, atol=1e-3)
    assert (oof["true"] == y).all()
    assert (oof["fold"].to_numpy() == [row[2] for row in result.predictor.report["samples"]]).all()


def test_an_imbalance_is_reported_with_the_recall_of_each_class(tmp_path, random):
    y = (np.arange(100) % 5 == 0).astype(int)
    bank = make_bank(tmp_path / "a.bank", random.normal(size=(100, 8)), range(100), label=y)
    report = fit(bank, models={"ridge": {"alpha": [1e6]}}).report
    assert report["imbalanced"]
    assert [(each["class"], each["n"]) for each in report["per_class"]] == [(0, 80), (1, 20)]
    assert [each["recall"] for each in report["per_class"]] == [1.0, 0.0]
    assert report["best"]["balanced_accuracy"] == 0.5


def test_a_model_that_a_predictor_may_not_hold_is_refused_before_fitting(two_class_bank):
    seen = []
    with pytest.raises(PredictorError, match=r"the model holds .*, which a predictor may not"):
        fit(two_class_bank, models=[FunctionClassifier()], progress=lambda *now: seen.append(now))
    assert seen == []


class FunctionClassifier(LogisticRegression):
    """An estimator of a type that no predictor file may hold."""


def test_what_an_interruption_costs_is_said(tmp_path, random):
    bank = make_bank(tmp_path / "a.bank", random.normal(size=(60, 8)), range(60), label=np.arange(60) % 2)

    def interrupt(done, total):
        if done == 7:
            raise KeyboardInterrupt

    models = {"ridge": {"alpha": [1.0]}, "svm": {"C": [1.0]}}
    report = fit(bank, models=models, nested=True, learning_curve=True, progress=interrupt).report
    assert report["interrupted"]
    assert [each["model"] for each in report["candidates"]] == ["ridge"]
    assert report["warnings"][-1] == "interrupted: neither a nested score nor a learning curve was made"
    assert not {"nested", "learning_curve"} & set(report)


def test_a_nested_search_keeps_its_time_limit(tmp_path, random):
    bank = make_bank(tmp_path / "a.bank", random.normal(size=(60, 8)), range(60), label=np.arange(60) % 2)
    report = fit(bank, time_limit=0.001, nested=True, folds=3).report
    assert report["timed_out"]
    assert len(report["nested"]["fold_scores"]) == 3


def test_channels_that_are_nearly_constant_are_told_of_and_kept_small(tmp_path):
    random = np.random.default_rng(0)
    y = np.arange(60) % 2
    X = np.concatenate([random.normal(size=(60, 6)) + 2 * y[:, None], 1e-5 * random.normal(size=(60, 14))], axis=1)
    bank = make_bank(tmp_path / "x.bank", X, label=np.where(y, "b", "a"))
    result = fit(bank, models={"svm": {"C": [1.0]}}, folds=3)
    told = [each for each in result.report["warnings"] if "nearly constant" in each]
    assert len(told) == 1
    assert told[0].startswith("14 of 20 channels of ")
    assert "(70 %)" in told[0]
    assert result.report["best"]["mean"] > 0.85


def test_a_mistyped_label_is_listed_and_its_row_stays(tmp_path):
    y = np.array([f"c{number % 4}" for number in range(120)], object)
    X = np.random.default_rng(0).normal(size=(120, 16)) + 2 * np.eye(16)[np.arange(120) % 4]
    y[0] = "typo"
    bank = make_bank(tmp_path / "t.bank", X, label=y)
    for model in ("logreg", "svm", "centroid"):
        result = fit(bank, target="label", models=[model])
        rare = [each for each in result.report["warnings"] if "rare class 'typo'" in each]
        assert len(rare) == 1
        assert rare[0].startswith("1 row of the rare class 'typo' (e.g. ")
        oof = result.predictor.oof
        assert len(oof) == 120
        assert oof.filter(like="proba_").notna().all(axis=None)
        np.testing.assert_allclose(oof.filter(like="proba_").sum(axis=1), 1, atol=1e-6)
        assert result.predictor.classes.tolist() == ["c0", "c1", "c2", "c3", "typo"]


def test_a_mistyped_class_is_named_with_what_was_meant_in_our_own_words(tmp_path, random):
    y = np.repeat(["benign", "malign", "benin"], [12, 12, 1])
    bank = make_bank(tmp_path / "t.bank", random.normal(size=(25, 4)), label=y)
    told = fit(bank, models={"ridge": {"alpha": [1.0]}}, nested=True).report["warnings"]
    assert sum("'benin' in 1 row" in each and "did you mean benign?" in each for each in told) == 1
    assert not any("least populated" in each for each in told)


@pytest.mark.parametrize("options", [{}, {"groups": "patient"}, {"scoring": "roc_auc"}, {"target": "age"}])
def test_where_nothing_is_chosen_the_nested_score_has_the_interval_of_the_only_candidate(tmp_path, options):
    X = np.random.default_rng(0).normal(size=(60, 4))
    about = {"label": np.where(X[:, 0] > 0.3 * X[:, 1], "a", "b"), "age": X[:, 0], "patient": np.arange(60) // 4}
    bank = make_bank(tmp_path / "a.bank", X, **about)
    asked = {"target": "label", "models": {"ridge": {"alpha": [9.0]}}, "folds": 3, "nested": True}
    report = fit(bank, **asked | options).report
    assert report["nested"]["mean"] == pytest.approx(report["best"]["mean"])
    assert report["nested"]["ci95"] == pytest.approx(report["best"]["ci95"])


def test_a_nested_search_has_as_many_folds_as_its_rows_have_groups(tmp_path, random):
    y, groups = np.arange(60) % 2, np.arange(60) // 20
    bank = make_bank(tmp_path / "a.bank", random.normal(size=(60, 6)) + y[:, None], label=y, patient=groups)
    options = {"models": SVM, "groups": "patient", "nested": True}
    assert len(fit(bank, folds=3, **options).report["nested"]["fold_scores"]) == 3
    with pytest.raises(TopModelError, match="a nested score on 2 folds of 3 groups trains on one group; expected two"):
        fit(bank, folds=2, **options)


def test_probabilities_far_from_the_accuracy_are_told_and_the_remedy_works(tmp_path, random):
    y = np.arange(60) % 3
    bank = make_bank(tmp_path / "a.bank", random.normal(size=(60, 6)) + 8 * np.eye(3, 6)[y], label=y)
    timid = {"logreg": {"C": [0.001]}}
    told = [each for each in fit(bank, models=timid).report["warnings"] if "too low" in each]
    assert len(told) == 1
    assert "where 1.00 of the answers are right; --calibrate auto" in told[0]
    mended = fit(bank, models=timid, calibrate="auto").report
    assert not any("too low" in each for each in mended["warnings"])
    assert mended["calibration"]["ece_after"] < 0.1 < 0.3 < mended["calibration"]["ece_before"]


def test_a_threshold_of_three_classes_is_refused_before_the_search(tmp_path, random):
    bank, worked = make_bank(tmp_path / "a.bank", random.normal(size=(60, 6)), label=np.arange(60) % 3), []
    with pytest.raises(TopModelError, match="a threshold for 3 classes; expected two classes: leave it out"):
        fit(bank, threshold="f1", models=SVM, progress=lambda *now: worked.append(now))
    assert worked == []


def test_weights_by_the_names_of_labels_say_what_they_are_of(tmp_path, random):
    X = random.normal(size=(40, 4))
    bank = make_bank(tmp_path / "a.bank", X, rust=(X[:, 0] > 0).astype(int), dent=(X[:, 1] > 0).astype(int))
    with pytest.raises(TopModelError, match="a weight for the class 'rust'; expected one of 0, 1"):
        fit(bank, target=["rust", "dent"], models=SVM, class_weight={"rust": 2})
