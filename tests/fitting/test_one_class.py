import numpy as np
import pandas as pd
import pytest
from made_bank import make_bank
from sklearn.metrics import roc_auc_score

from featurebank import Predictor, fit
from featurebank.errors import ColumnError, PredictorError, TopModelError


def parts_bank(path, random, good=160, bad=18, width=8, away=6.0, **columns):
    """Good parts around a mean, and bad ones, half scratched and half bent, away from it."""
    X = random.normal(size=(good + bad, width)) + 4
    X[good:] += away * random.normal(size=(bad, width))
    kind = np.array(["good"] * good + ["scratched"] * (bad // 2) + ["bent"] * (bad - bad // 2))
    return make_bank(path, X, kind=kind, **columns), X, kind


def test_normal_rows_are_learned_and_the_others_score(tmp_path, random):
    bank, _, kind = parts_bank(tmp_path / "a.bank", random)
    result = fit(bank, target="kind", normal="good", models="mahalanobis", false_alarms=0.05)
    found, table = result.report["one_class"], result.oof
    assert (found["normals"], found["units"], found["false_alarms"], found["least"]) == (160, 160, 0.05, 1 / 161)
    assert found["scores"]["n_anomalies"] == 18
    assert found["scores"]["roc_auc"] == roc_auc_score(kind != "good", -table["score"]) > 0.95
    assert found["scores"]["detection"] == (table["predicted"] == "anomaly")[kind != "good"].mean()
    assert "false_alarms" not in found["scores"]  # of rows that set the threshold
    assert (table["fold"][kind != "good"] == -1).all()
    assert (table["anomaly"][kind == "good"] <= 0.05).mean() <= 0.05
    assert "no measure of real ones" in found["sentences"][0]
    is_better = any(each["ci95"][0] > 0.5 for each in result.report["candidates"])
    assert ("choice among them is arbitrary" in found["sentences"][0]) != is_better
    assert any("5 % takes 19, 1 % 99, 0.1 % 999" in each for each in found["sentences"])


def test_nothing_is_learned_from_anomalies(tmp_path, random):
    bank, X, kind = parts_bank(tmp_path / "a.bank", random)
    X[160:] = 100 * random.normal(size=(18, 8))
    other = make_bank(tmp_path / "b.bank", X, kind=kind)
    one, two = (fit(each, target="kind", normal="good", models="gmm").predictor.model for each in (bank, other))
    np.testing.assert_array_equal(one.score_samples(X), two.score_samples(X))


def test_the_file_says_the_same_and_predicts_a_banks_rows(tmp_path, random):
    bank, X, kind = parts_bank(tmp_path / "a.bank", random)
    result = fit(bank, target="kind", normal="good", models=["mahalanobis", "pca-residual"])
    result.save(tmp_path / "a.featurebank")
    loaded = Predictor.load(tmp_path / "a.featurebank")
    assert (loaded.task, loaded.target, len(loaded.classes)) == ("anomaly", "kind", 0)
    table = loaded.predict_bank(bank)
    assert list(table) == ["source", "path", "label", "score", "anomaly", "is_anomaly", "error"]
    np.testing.assert_allclose(table["score"], result.predictor.model.score_samples(X.astype("f4")), rtol=1e-6)
    assert set(table["label"]) == {"good", "anomaly"}
    np.testing.assert_array_equal(table["is_anomaly"], table["anomaly"] <= 0.01)
    assert loaded.model.predict(X[-1:].astype("f4")).tolist() == [-1]
    assert loaded.oof.equals(result.oof)
    with pytest.raises(PredictorError, match="gives p-values of 'kind', which have no probabilities"):
        loaded.probabilities(X.astype("f4"))
    with pytest.raises(PredictorError, match="is scored without weights"):
        loaded.single.score(X.astype("f4"), kind == "good", np.ones(len(X)))
    assert loaded.single.score(X.astype("f4"), kind == "good", None)["detection"] > 0.9


def test_every_row_is_normal_where_no_target_is_given(tmp_path, random):
    bank = make_bank(tmp_path / "a.bank", random.normal(size=(50, 6)) + 3)
    result = fit(bank, normal="*", models="knn")
    found = result.report["one_class"]
    assert (found["normals"], found["scores"], found["false_alarms"]) == (50, None, 1 / 51)  # 1 % would take 99
    assert result.predictor.predict_bank(bank)["label"].isin(["normal", "anomaly"]).all()


def test_normals_alone_are_scored_by_their_false_alarms(tmp_path, random):
    bank = make_bank(tmp_path / "a.bank", random.normal(size=(60, 4)) + 3, split=["train"] * 40 + ["test"] * 20)
    found = fit(bank, normal="*", models="knn").report["one_class"]
    assert any(each.startswith("Scored on 20 normals held out: false alarms") for each in found["sentences"])


def test_of_many_values_an_error_names_the_first(tmp_path, random):
    bank = make_bank(tmp_path / "a.bank", random.normal(size=(60, 4)), p=np.arange(60) + 0.5)
    with pytest.raises(ColumnError, match=r"no readable sample has p 'x'; expected one of 0\.5, .*, … \(60 in all\)$"):
        fit(bank, target="p", normal="x", models="knn")


def test_a_column_without_the_normal_value_is_scored_with_a_warning(tmp_path, random):
    bank, _, _ = parts_bank(tmp_path / "a.bank", random)
    task = fit(bank, target="kind", normal="good", models="knn").predictor.single
    with pytest.warns(UserWarning, match="none of these 3 images has the value 'good' of normal ones"):
        assert not task._normal_rows(pd.Series(["yes", "no", "no"])).any()


def test_a_number_is_a_value_too(tmp_path, random):
    bank = make_bank(tmp_path / "a.bank", random.normal(size=(60, 4)) + 3, p=np.repeat([0.0, 0.5], 30))
    assert fit(bank, target="p", normal="0", models="knn").report["one_class"]["normals"] == 30


def test_a_given_split_holds_normals_out_and_measures_false_alarms(tmp_path, random):
    split = np.array(["train"] * 100 + ["test"] * 78)
    bank, _, _ = parts_bank(tmp_path / "a.bank", random, split=split)
    found = fit(bank, target="kind", normal="good", models="ocsvm", false_alarms=0.1).report["one_class"]
    assert found["normals"] == 100
    assert found["scores"]["normals"] == "held out"
    assert found["scores"]["n_samples"] == 78
    assert found["scores"]["false_alarms"] <= 0.3


def test_identical_content_is_one_unit_of_the_promise(tmp_path, random):
    contents = np.arange(120) // 2
    bank = make_bank(tmp_path / "a.bank", (random.normal(size=(60, 6)) + 3)[contents], contents)
    result = fit(bank, normal="*", models="mahalanobis")
    assert (result.report["one_class"]["normals"], result.report["one_class"]["units"]) == (120, 60)
    folds = result.predictor.model.folds_
    np.testing.assert_array_equal(folds[::2], folds[1::2])


def test_what_contamination_may_cost_is_what_is_left_of_the_rate(tmp_path, random):
    bank, _, kind = parts_bank(tmp_path / "a.bank", random)
    result = fit(bank, target="kind", normal="good", models="mahalanobis", false_alarms=0.1)
    one, five = result.report["one_class"]["contamination"]
    assert (one["share"], one["false_alarms"]) == (0.01, pytest.approx(0.09 / 0.99))
    assert five["detection"] == (result.oof["anomaly"][kind != "good"] <= 0.05 / 0.95).mean()
    assert sum("in truth" in each for each in result.report["one_class"]["sentences"]) == 2


def test_of_few_normals_contamination_is_not_told(tmp_path, random):
    bank, _, _ = parts_bank(tmp_path / "a.bank", random, good=16)
    found = fit(bank, target="kind", normal="good", models="mahalanobis", false_alarms=0.1).report["one_class"]
    assert not any("in truth" in each for each in found["sentences"])  # 5 % of 16 is not one image


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"normal": "god"}, ColumnError, "no readable sample has kind 'god'; did you mean good"),
        ({"normal": "good", "scoring": "f1"}, TopModelError, "scoring and normal images alone do not go together"),
        ({"normal": "good", "folds": 3}, TopModelError, "folds and normal images alone do not go together"),
        ({"normal": "*"}, TopModelError, "every row is normal, and a target 'kind' is given"),
        ({"false_alarms": 0.1}, TopModelError, "a rate of false alarms goes with normal images"),
        ({"normal": "good", "false_alarms": 0.001}, TopModelError, "160 normals can promise false alarms of 0.00621"),
        ({"normal": "good", "false_alarms": 2.0}, TopModelError, "false alarms of 2.0; expected a share"),
        ({"normal": "bent"}, TopModelError, "9 normals to learn from; expected at least 10"),
        ({"normal": "good", "given": ["a"]}, TopModelError, r"a given predictor \(--with\) and normal images alone"),
        ({"normal": "good", "models": "svm"}, TopModelError, "no one-class top model 'svm'"),
    ],
)
def test_what_does_not_fit_is_an_error(tmp_path, random, options, error, message):
    bank, _, _ = parts_bank(tmp_path / "a.bank", random)
    with pytest.raises(error, match=message):
        fit(bank, target="kind", **options)
