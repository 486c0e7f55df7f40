import numpy as np
import pytest

from featurebank import Bank
from featurebank.bank.defaults import candidate_features
from featurebank.bank.spec import layer_order
from featurebank.errors import BankError
from featurebank.explore.advice.networks import complete_sets, find_networks
from featurebank.explore.advice.probe import (
    Sizes,
    best_by_features,
    chance,
    compared,
    crossed,
    plateau,
    read_curve,
    search_rows,
    standard_error,
)
from featurebank.fitting.targets import Target
from featurebank.fitting.training_data import load_rows
from featurebank.topmodels.candidates import Candidate
from featurebank.topmodels.folds import Folds, sizes_of
from featurebank.topmodels.scores import Trials, corrected_interval

EVEN = Sizes(80, 20)


def scored(*scores, features=("a",)):
    candidates = [Candidate(features, "ridge", {"alpha": number}) for number in range(len(scores))]
    for candidate, each in zip(candidates, scores, strict=True):
        candidate.fold_scores = list(each)
    return candidates


# --- what the probe can be trusted to say ------------------------------------------------------------------


def test_the_choice_among_many_flatters_and_crossing_takes_the_flattery_away():
    random = np.random.default_rng(0)
    flattered, honest = [], []
    for _ in range(200):
        candidates = scored(*random.normal(0.5, 0.05, (40, 5)))
        flattered.append(max(each.mean for each in candidates))
        honest.append(np.mean(crossed(candidates)))
    assert np.mean(flattered) > 0.54
    assert abs(np.mean(honest) - 0.5) < 0.005


def test_crossing_keeps_what_is_really_better():
    good, bad = [0.9, 0.88, 0.92, 0.9], [0.5, 0.6, 0.5, 0.55]
    assert crossed(scored(bad, good)) == good


@pytest.mark.parametrize(
    ("curve", "number"),
    [
        ([[0.5, 0.52, 0.51], [0.7, 0.71, 0.72], [0.9, 0.91, 0.92]], 2),
        ([[0.9, 0.91, 0.92], [0.7, 0.71, 0.72], [0.5, 0.52, 0.51]], 0),
        ([[0.80, 0.90, 0.85], [0.91, 0.80, 0.85], [0.70, 0.70, 0.70]], 0),  # 0.3 points: within one error
        ([[0.880, 0.881, 0.879], [0.90, 0.90, 0.90]], 1),  # a hair less, yet surely
        ([[0.5, 1.0, 0.6], [0.9, 0.7, 0.9]], 1),  # within the error, yet 13 points
        ([[0.7, 0.7], [0.7, 0.7]], 0),
    ],
)
def test_the_plateau_begins_with_the_first_layer_as_good_as_the_best(curve, number):
    assert plateau(curve, EVEN) == number


def test_the_error_is_that_of_the_interval():
    differences = [0.1, 0.2, 0.4, 0.1, 0.3]
    low, high = corrected_interval(differences, *EVEN)
    assert (high - low) / 2 == pytest.approx(2.776445 * standard_error(differences, EVEN))
    found = compared(differences, [0.0] * 5, EVEN, "r2", Trials(100, 100))
    assert found == (pytest.approx(0.22), low, high)


# --- searches on rows --------------------------------------------------------------------------------------


@pytest.fixture
def rows(planted_bank, planted_layers):
    layers, y = planted_layers(90, 3, {"layer1": 0.5, "penultimate": 2.0})
    bank = Bank(planted_bank(layers, {"label": y, "size": np.linspace(0, 1.5, 90)}))
    return bank, load_rows(bank, ["layer1", "penultimate"], Target(["label"]), None, None)


def test_the_search_has_every_cell_on_the_same_folds_and_the_best_of_each(rows):
    _, loaded = rows
    names = list(loaded.blocks)
    search = search_rows(loaded, [[name] for name in names], ["ridge"], Folds("stratified", 3), n_jobs=1)
    best = best_by_features(search.candidates_, "ridge")
    assert list(best) == [(name,) for name in names]
    for features, each in best.items():
        assert each.mean == max(one.mean for one in search.candidates_ if one.features == features)
    assert best_by_features(search.candidates_, "svm") == {}
    assert sizes_of(search.folds_) == (60, 30)


def test_chance_is_the_most_frequent_class_or_the_mean(rows):
    bank, loaded = rows
    folds = search_rows(loaded, [list(loaded.blocks)], ["ridge"], Folds("stratified", 3), n_jobs=1).folds_
    assert chance(loaded, folds, "accuracy") == pytest.approx([1 / 3] * 3)
    numbers = load_rows(bank, ["layer1"], Target(["size"]), None, None)
    assert max(chance(numbers, folds, None)) <= 0


def test_folds_that_all_score_alike_still_leave_an_interval():
    perfect, guess = [1.0] * 5, [1 / 3] * 5
    value, low, high = compared(perfect, guess, Sizes(48, 12), "accuracy", Trials(60, 60))
    assert (compared(perfect, guess, Sizes(48, 12), "r2", Trials(60, 60)).low, value) == pytest.approx((2 / 3, 2 / 3))
    assert (low, high) == pytest.approx((0.52, 0.77), abs=0.01)
    assert compared(guess, guess, Sizes(48, 12), "accuracy", Trials(60, 60))[1:] == pytest.approx(
        (-0.032, 0.032), abs=1e-3
    )


# --- sets and networks -------------------------------------------------------------------------------------


def test_layers_are_ordered_by_their_numbers_and_the_last_two_come_last():
    names = ["logits", "blocks.10", "penultimate", "blocks.2.conv", "blocks.2", "blocks.9"]
    ordered = ["blocks.2", "blocks.2.conv", "blocks.9", "blocks.10", "penultimate", "logits"]
    assert sorted(names, key=layer_order) == ordered


def test_layers_of_unlike_names_are_ordered_by_the_network(planted_bank):
    layers = ["avgpool", "penultimate", "layer4.0.conv1", "maxpool", "layer1", "logits"]
    X = np.ones((4, 2))
    bank = Bank(planted_bank(dict.fromkeys(layers, X), {"label": list("abab")}))
    (network,) = find_networks(bank, [each.name for each in bank.feature_sets])
    found = [each.spec.layer for each in network.sets]
    assert found == ["maxpool", "layer1", "layer4.0.conv1", "avgpool", "penultimate", "logits"]
    assert network.is_ordered
    assert network.top.spec.layer == "penultimate"
    assert [each.spec.layer for each in network.lower] == found[:4]


def test_a_module_of_ones_own_is_ordered_by_name_and_says_so(planted_bank):
    bank = Bank(planted_bank({name: np.ones((4, 2)) for name in ("stem", "body.1")}, {"label": list("abab")}, "net"))
    (network,) = find_networks(bank, ["net/stem", "net/body.1"])
    assert not network.is_ordered
    assert network.request is None
    assert not network.has_curve


def test_networks_differ_in_anything_but_layer_and_pooling(two_class_bank, tmp_path, two_classes):
    from featurebank import extract

    bank = extract(
        two_classes, tmp_path / "b.bank", backbone="resnet18", weights="random:0", size=32, layers=["layer3"]
    )
    extract(two_classes, bank.path, backbone="resnet18", weights="random:0", size=32, layers=["layer1:max"])
    extract(two_classes, bank.path, backbone="resnet18", weights="random:1", size=32, layers=["layer3"])
    names = [each.name for each in bank.feature_sets]
    found = {tuple(each.spec.layer_name for each in network.sets) for network in find_networks(bank, names)}
    assert found == {("layer1:max", "layer3"), ("layer3",)}


def test_sets_without_some_rows_are_told_apart_with_the_remedy(planted_bank):
    X = np.ones((4, 2))
    half = np.where(np.arange(4)[:, None] < 3, X, np.nan)
    bank = Bank(planted_bank({"layer1": X, "layer2": half}, {"label": list("abab")}))
    whole, lacking, (note,) = complete_sets(bank, candidate_features(bank, None), bank.select("label"))
    assert whole == [["resnet18/layer1"]]
    assert lacking == {"resnet18/layer2": 1}
    assert "run `featurebank extract" in note
    bank = Bank(planted_bank({"layer2": half}, {"label": list("abab")}, name="b.bank"))
    with pytest.raises(BankError, match="1 of 4 samples have no row"):
        complete_sets(bank, candidate_features(bank, None), bank.select("label"))


@pytest.mark.parametrize(
    ("means", "is_ahead", "number"),
    [
        ((0.6, 0.7, 0.8, 0.9), True, 3),
        ((0.9, 0.8, 0.7, 0.6), False, 0),
        ((0.8, 0.9, 0.9, 0.9), False, 1),
        ((0.9, 0.9, 0.9, 0.9), False, 0),
    ],
)
def test_a_curve_says_whether_the_last_layer_leads_the_lower_half_and_where_it_flattens(means, is_ahead, number):
    names = ["a", "b", "c", "d"]
    spread = np.array([0.01, -0.01, 0.02, -0.02])
    candidates = []
    for name, mean, turn in zip(names, means, range(4), strict=True):
        candidates += scored(mean + np.roll(spread, turn), mean - 0.1 + spread, features=(name,))
    curve = read_curve(candidates, names, EVEN, 0.5, "accuracy", Trials(400, 400))
    assert (curve.lead.value > 0.05) == is_ahead
    assert curve.plateau == number
    assert curve.place == number / 3
    low = max(means[:2])  # the lower half of four
    assert curve.lead.value == pytest.approx(means[3] - low, abs=0.02)
