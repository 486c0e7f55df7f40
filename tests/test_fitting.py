import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from featurebank import Bank, extract, fit, load_backbone, samples
from featurebank.errors import BankError, ColumnError, FeatureSetError, TopModelError
from featurebank.fitting import candidate_features, default_output, default_target
from featurebank.search import TopModelSearchCV
from featurebank.spec import FeatureSpec

SPEC = FeatureSpec(
    "net", "1", "0" * 64, "penultimate", "vector", 0, "none", {"crop": [4, 4]}, 1, "none", "fp32", "float32"
)
NAME = "net/penultimate"
SVM = {"svm": {"C": [1.0]}}


def make_bank(path, X, contents, **columns):
    """A bank of given embeddings: row i is the image ``i.png`` whose content is the number contents[i]."""
    bank = Bank.create(path)
    digests = [int(content).to_bytes(32, "big") for content in contents]
    first = {digest: row for row, digest in reversed(list(enumerate(digests)))}
    bank.add_spec(SPEC)
    bank.add_features(SPEC, list(first), X[list(first.values())][:, None].astype(np.float32))
    n = len(digests)
    plain = {
        "source": "/s",
        "root": "/s",
        "size": 1,
        "mtime_ns": 1,
        "status": samples.OK,
        "error": "",
        "origin": 0,
        "stamp": 0,
    }
    fields = {name: [value] * n for name, value in plain.items()}
    fields |= {"path": [b"%03d.png" % i for i in range(n)], "digest": digests}
    bank.add_samples(samples.make_table(fields, samples.tidy(pd.DataFrame(columns))), newest=0)
    return bank


@pytest.fixture
def random():
    return np.random.default_rng(0)


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
        assert (each["select"], each["normalize"], each["interval"]) == (None, "standardize", "nadeau-bengio")
        assert len(each["fold_scores"]) == 4
        assert each["ci95"][0] <= each["mean"] <= each["ci95"][1]
    assert report["best"] == max(report["candidates"], key=lambda each: each["mean"])
    assert all("near-duplicate" in warning for warning in report["warnings"])


def test_scores_equal_those_of_the_search_over_loaded_rows(two_class_bank):
    names = ["resnet18/penultimate", "resnet18/layer3"]
    X, y = Bank(two_class_bank).load(names, "label")
    result = fit(two_class_bank, features="+".join(names), models=SVM, seed=5)
    search = TopModelSearchCV(SVM, random_state=5).fit(X, y)
    assert result.report["best"]["features"] == names
    assert result.report["best"]["fold_scores"] == search.best_candidate_.fold_scores
    np.testing.assert_array_equal(result.predictor.model.decision_function(X), search.decision_function(X))


def test_the_fold_of_every_sample_is_kept(two_class_bank):
    result = fit(two_class_bank, models=SVM, folds=3, seed=2)
    X, y, paths = Bank(two_class_bank).load("resnet18/layer3", "label", return_paths=True)
    numbers = np.empty(40, int)
    for number, (_, test) in enumerate(StratifiedKFold(3, shuffle=True, random_state=2).split(X, y)):
        numbers[test] = number
    source = str(two_class_bank.parent / "photos")
    assert result.predictor.fit["samples"] == [[source, path, fold] for path, fold in zip(paths, numbers, strict=True)]


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
    assert all(len(folds) == 1 for folds in folds_by(result.predictor.fit["samples"], contents).values())
    assert result.report["grouped"]
    assert result.report["warnings"] == ["30 samples repeat the content of another; folds keep them together"]
    expected = StratifiedGroupKFold(5, shuffle=True, random_state=0).split(y, y, contents)
    assert all(map(np.array_equal, (test for _, test in result.search.folds_), (test for _, test in expected)))


def test_neither_content_nor_groups_straddle_folds_when_both_are_given(tmp_path, random):
    contents, site = np.arange(80), np.arange(80) // 4
    contents[79] = contents[0]  # ties the first and the last site
    bank = make_bank(tmp_path / "a.bank", random.normal(size=(80, 16)), contents, label=np.arange(80) % 2, site=site)
    folds = fit(bank, models=SVM, groups="site").predictor.fit["samples"]
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
    assert all(len(folds) == 1 for folds in folds_by(tied.predictor.fit["samples"], looks).values())


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


def test_identical_content_under_two_labels_is_reported(tmp_path, random):
    y = ["a", "b"] * 15
    contents = [0, 0, 2, 3, 2, *range(5, 30)]  # 0 carries both labels, 2 the same twice
    result = fit(make_bank(tmp_path / "a.bank", random.normal(size=(30, 16)), contents, label=y), models=SVM, folds=2)
    assert result.report["warnings"] == [
        "1 images of identical content carry different values of label: correct them with `featurebank label`",
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


# --- what is meant when nothing is said --------------------------------------------------------------------


def test_the_default_target_is_label_or_the_only_column(tmp_path):
    X = np.eye(4)
    assert default_target(make_bank(tmp_path / "a.bank", X, range(4), label=[0, 1, 0, 1], site=[0, 0, 1, 1])) == "label"
    assert default_target(make_bank(tmp_path / "b.bank", X, range(4), site=[0, 0, 1, 1])) == "site"
    several = make_bank(tmp_path / "c.bank", X, range(4), site=[0, 0, 1, 1], age=[1, 2, 3, 4])
    with pytest.raises(ColumnError, match="the bank has the columns 'site', 'age'; name the one to learn"):
        default_target(several)
    with pytest.raises(ColumnError, match="the bank has the columns none"):
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


def test_fitting_never_loads_torch(two_class_bank):
    code = (
        "import sys; from featurebank.fitting import fit\n"
        f"result = fit({str(two_class_bank)!r}, models={{'svm': {{'C': [1.0]}}, 'logreg': {{'C': [0.01]}}}})\n"
        "assert result.report['best']['mean'] > 0.9\n"
        "assert 'torch' not in sys.modules"
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
