import numpy as np
import pandas as pd
import pytest
from scipy import stats

from featurebank import Bank, fit, rank_features
from featurebank.errors import BankError, FeatureSetError, TopModelError
from featurebank.explore.advice.measures import h_score, logme
from featurebank.explore.advice.ranking import COLUMNS, correlations
from featurebank.topmodels.scores import paired_interval

SIGNALS = {"layer1": 0.5, "layer2": 1.0, "layer3": 1.5, "layer4": 2.5, "penultimate": 4.0}
ORDER = ["penultimate", "layer4", "layer3", "layer2", "layer1"]
QUICK = {"folds": 3, "n_jobs": 1}


@pytest.fixture
def graded(planted_bank, planted_layers):
    """A bank of five layers whose classes lie further and further apart."""
    layers, y = planted_layers(150, 3, SIGNALS)
    shuffled = np.random.default_rng(0).permutation(y)
    numbers = (y == "class0") + np.random.default_rng(1).normal(size=150) / 5
    return planted_bank(layers, {"label": y, "shuffled": shuffled, "number": numbers})


def test_layers_are_ranked_as_they_were_made_by_the_top_model_and_by_every_measure(graded):
    ranking = rank_features(graded, **QUICK, target="label")
    assert list(ranking.table) == COLUMNS
    assert ranking.table["features"].tolist() == [f"resnet18/{layer}" for layer in ORDER]
    assert ranking.table["score"].is_monotonic_decreasing
    for measure in ("logme", "h_score", "ridge"):
        assert ranking.table[measure].is_monotonic_decreasing
    assert ranking.correlations.set_index("measure")[["spearman", "kendall"]].min().min() > 0.9
    assert ranking.correlations["sets"].tolist() == [5, 5, 5]


def test_the_figures_are_those_of_fit_on_the_same_folds_and_of_the_measures(graded):
    table = rank_features(graded, **QUICK, target="label").table
    fitted = fit(graded, target="label", models=["logreg", "ridge"], folds=3).report["candidates"]
    X, y = Bank(graded).load("layer2", target="label")
    (row,) = table[table["features"] == "resnet18/layer2"].to_dict("records")

    def best(features, model):
        found = [each for each in fitted if (each["features"], each["model"]) == ([features], model)]
        return max(found[:7], key=lambda each: each["mean"])  # the grid; fit refines the best features further

    mine, first = best("resnet18/layer2", "logreg"), best(table["features"][0], "logreg")
    assert row["score"] == pytest.approx(mine["mean"])
    assert row["ridge"] == pytest.approx(best("resnet18/layer2", "ridge")["mean"])
    gap = paired_interval(mine["fold_scores"], first["fold_scores"], 100, 50)
    assert row["difference"] == pytest.approx(gap["difference"])
    assert (row["difference_low"], row["difference_high"]) == pytest.approx(tuple(gap["ci95"]))
    assert row["told_apart"] == gap["told_apart"]
    assert (row["logme"], row["h_score"]) == (logme(X, y), h_score(X, y))
    assert (row["rows"], row["missing"], row["dimensions"]) == (150, 0, 12)


def test_shuffled_labels_stay_at_chance_on_every_layer(graded):
    table = rank_features(graded, **QUICK, target="shuffled").table
    assert table["score"].max() < 1 / 3 + 0.12
    assert (table["ci_low"] < 0.4).all()
    assert not table["told_apart"].any()
    assert table["h_score"].max() < rank_features(graded, **QUICK, target="label").table["h_score"].max() / 3


def test_numbers_are_ranked_without_an_h_score(graded):
    ranking = rank_features(graded, **QUICK, target="number")
    assert (ranking.report["task"], ranking.report["model"], ranking.report["scoring"]) == ("regression", "svr", "r2")
    assert ranking.table["features"][0] == "resnet18/penultimate"
    assert ranking.table["h_score"].isna().all()
    agree = ranking.correlations.set_index("measure")["spearman"]
    assert agree["logme"] > 0.8
    assert np.isnan(agree["h_score"])


def test_models_features_groups_and_scoring_can_be_named(graded):
    named = ["layer2+layer3", "layer1"]
    ranking = rank_features(
        graded, **QUICK, target="label", model="lda", features=named, scoring="balanced_accuracy", random_state=3
    )
    assert ranking.table["features"].tolist() == ["resnet18/layer2+resnet18/layer3", "resnet18/layer1"]
    assert ranking.table["dimensions"].tolist() == [24, 12]
    assert (ranking.report["model"], ranking.report["scoring"], ranking.report["seed"]) == (
        *("lda", "balanced_accuracy", 3),
    )
    assert ranking.correlations["spearman"].isna().all()  # two sets have no ranks to speak of
    again = rank_features(
        graded, **QUICK, target="label", model="lda", features=named, scoring="balanced_accuracy", random_state=3
    )
    drop = ["seconds"]
    pd.testing.assert_frame_equal(ranking.table.drop(columns=drop), again.table.drop(columns=drop))


def test_a_set_that_lacks_rows_is_listed_without_scores_and_an_error_where_it_is_named(planted_bank, planted_layers):
    layers, y = planted_layers(60, 2, {"layer1": 1.0, "layer2": 1.0})
    layers["layer2"][:7] = np.nan
    path = planted_bank(layers, {"label": y})
    ranking = rank_features(path, **QUICK)
    last = ranking.table.iloc[-1]
    assert (last["features"], last["rows"], last["missing"]) == ("resnet18/layer2", 53, 7)
    assert last[["dimensions", "score", "told_apart", "logme", "h_score", "ridge"]].isna().all()
    assert ranking.table["dimensions"][0] == 12
    assert any("7 of 60 samples have no row" in note for note in ranking.report["warnings"])
    with pytest.raises(BankError, match="7 of 60 samples have no row in 'resnet18/layer2'"):
        rank_features(path, features="layer2", **QUICK)


def test_samples_without_a_label_are_left_out_with_a_word(planted_bank, planted_layers):
    layers, y = planted_layers(60, 2, {"layer1": 1.0})
    path = planted_bank(layers, {"label": [None, *y[1:]]})
    ranking = rank_features(path, **QUICK)
    assert ranking.report["n_samples"] == 59
    assert "1 sample has no label and is left out" in ranking.report["warnings"]


def test_correlations_are_scipys_and_constants_have_none():
    random = np.random.default_rng(0)
    table = pd.DataFrame(random.normal(size=(8, 3)), columns=["score", "logme", "ridge"]).assign(h_score=1.0)
    found = correlations(table).set_index("measure")
    assert found.loc["logme", "spearman"] == stats.spearmanr(table["score"], table["logme"]).statistic
    assert found.loc["ridge", "kendall"] == stats.kendalltau(table["score"], table["ridge"]).statistic
    assert np.isnan(found.loc["h_score", "spearman"])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"features": "layer9"}, FeatureSetError, "no feature set 'layer9'"),
        ({"model": "logrge"}, TopModelError, "did you mean logreg?"),
        ({"model": "svr"}, TopModelError, "it is for regression"),
        ({"scoring": "acuracy"}, TopModelError, "no scoring 'acuracy'"),
        ({"folds": 200}, TopModelError, "cannot be split into these folds"),
    ],
)
def test_what_cannot_be_had_is_an_error(graded, options, error, message):
    with pytest.raises(error, match=message):
        rank_features(graded, target="label", **options)


def test_a_ranking_shows_itself(graded):
    ranking = rank_features(graded, **QUICK, target="label")
    assert repr(ranking).startswith("<Ranking: resnet18/penultimate first of 5, logreg ")
    assert ranking.to_frame() is ranking.table
    assert "<table" in ranking._repr_html_()
    found = ranking.to_dict()
    assert [each["features"] for each in found["features"]] == ranking.table["features"].tolist()
    assert [each["measure"] for each in found["correlations"]] == ["logme", "h_score", "ridge"]
