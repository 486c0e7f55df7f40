"""advise() on planted data whose answer is known, and the commands that it prints."""

import shlex
from dataclasses import replace

import numpy as np
import pytest

from featurebank import Bank, advise
from featurebank.errors import ColumnError, TopModelError
from featurebank.explore.advice.commands import Planner

CURVE = ("layer1", "layer2", "layer3", "layer4", "penultimate")
RISING = dict(zip(CURVE, (0.2, 0.5, 0.8, 1.1, 1.8), strict=True))
FALLING = dict(zip(CURVE, (0.6, 1.8, 1.2, 0.8, 0.4), strict=True))
EARLY = dict(zip(CURVE, (1.8, 1.2, 1.0, 0.8, 0.6), strict=True))
EASY = dict(zip(CURVE, (1.0, 3.0, 5.0, 8.0, 12.0), strict=True))
QUICK = {"folds": 4, "n_jobs": 1}


@pytest.fixture
def advised(planted_bank, planted_layers):
    """Plant classes in layers and ask: advised(n, k, signals, backbone=…) -> Advice."""

    def ask(n, k, signals, seed=0, backbone="resnet18", **options):
        layers, y = planted_layers(n, k, signals, seed)
        path = planted_bank(layers, {"label": y}, backbone, name=f"{len(signals)}-{n}-{seed}.bank")
        return advise(path, **{**QUICK, **options})

    return ask


def cell(advice):
    return advice.verdict.size, advice.verdict.similarity, advice.verdict.action


# --- known cases -------------------------------------------------------------------------------------------


def test_few_images_that_the_penultimate_layer_serves_best_get_a_top_model_on_it(advised):
    advice = advised(300, 2, RISING)
    assert cell(advice) == ("small", "similar", "penultimate")
    (command,) = advice.steps[0].commands
    assert "--features resnet18/penultimate --time-limit 60" in command


def test_few_images_that_a_lower_layer_serves_best_get_a_top_model_on_lower_layers(advised):
    advice = advised(300, 2, FALLING)
    assert cell(advice)[:2] == ("small", "different")
    assert {step.action for step in advice.steps} == {"lower", "top-blocks"}
    assert advice.verdict.trade
    (lower,) = [step for step in advice.steps if step.action == "lower"]
    assert "--features resnet18/penultimate" in lower.commands[0]
    assert "resnet18/layer2" in lower.commands[0]


def test_many_images_like_the_old_ones_get_their_top_blocks_tuned(advised):
    advice = advised(1200, 2, RISING)
    assert cell(advice) == ("large", "similar", "top-blocks")
    assert "--from layer4" in advice.steps[0].commands[0]
    assert [step.action for step in advice.steps] == ["top-blocks", "penultimate"]


@pytest.mark.slow
def test_many_images_unlike_the_old_ones_are_tuned_from_after_the_plateau_or_as_a_whole(advised):
    advice = advised(1200, 2, EARLY)
    assert cell(advice) == ("large", "different", "all")
    assert [step.action for step in advice.steps] == ["all", "retrain", "lower"]
    assert "--from input" in advice.steps[0].commands[0]
    assert "--from input --init random" in advice.steps[1].commands[0]
    middle = advised(1200, 2, {**EARLY, "layer1": 0.4, "layer2": 0.8, "layer3": 1.8}, seed=1)
    assert cell(middle) == ("large", "different", "top-blocks")
    assert "--from layer4" in middle.steps[0].commands[0]


@pytest.mark.parametrize("n", [40, 300, 1200])
def test_random_labels_are_told_from_nothing_and_nothing_is_trained(advised, n):
    nothing = dict.fromkeys(CURVE, 0.0)
    for seed in range(2):
        advice = advised(n, 2, nothing, seed=seed)
        assert advice.verdict.action == "labels"
        assert [step.action for step in advice.steps] == ["labels"]
        assert "finetune" not in advice.steps[0].commands[0]
        assert "cannot be told from a guess" in dict(advice.lines)["above chance"]


def test_solved_data_need_no_more_than_a_top_model(advised):
    advice = advised(1200, 3, EASY)
    assert advice.verdict.action in ("penultimate", "lower")
    assert advice.report["evidence"]["score"] >= 0.99
    assert "nothing else can gain more than a point" in advice.verdict.because
    assert advice.steps[1].action == "elsewhere"
    assert advice.steps[1].sentence.startswith("No other fit is worth its time: look for copies")
    assert advice.steps[1].commands == (f"featurebank duplicates {advice.report['bank']}",)


def test_one_layer_is_no_curve_and_the_command_that_makes_one_is_named(advised):
    advice = advised(300, 2, {"penultimate": 2.0})
    assert cell(advice) == ("small", "unknown", "layers")
    extract, again = advice.steps[0].commands
    words = shlex.split(extract)
    assert [words[at + 1] for at, word in enumerate(words) if word == "--layer"] == list(CURVE)
    assert "--backbone resnet18 --weights random:0 --size 32" in extract
    assert again == f"featurebank advise {advice.report['bank']} --target label"
    assert advice.steps[1].action == "penultimate"
    assert advice.steps[0].is_estimate
    assert advice.steps[0].seconds > 0


def test_lower_layers_without_the_penultimate_one_are_no_curve_either(advised):
    advice = advised(300, 2, {"layer2": 2.0, "layer3": 1.0})
    assert cell(advice) == ("small", "unknown", "layers")
    assert advice.steps[1].sentence == "Train a top model on resnet18/layer3."


def test_a_module_of_ones_own_is_never_fine_tuned_by_a_command(advised):
    advice = advised(1200, 2, RISING, backbone="net")
    assert cell(advice) == ("large", "similar", "penultimate")
    assert "'net' is a module of your own" in advice.verdict.because
    alone = advised(300, 2, {"penultimate": 2.0}, backbone="net")
    assert alone.steps[0].commands == ()
    assert "from Python" in alone.steps[0].cost
    assert " -o " not in alone.steps[1].commands[0]


def test_images_that_are_gone_are_not_fine_tuned(planted_bank, planted_layers):
    layers, y = planted_layers(1200, 2, RISING)
    path = planted_bank(layers, {"label": y})
    (path.parent / "planted.bank-images").rename(path.parent / "elsewhere")
    advice = advise(path, **QUICK)
    assert advice.verdict.action == "penultimate"
    assert "are not where they were" in advice.verdict.because


def test_numbers_get_top_models_only(planted_bank, planted_layers):
    layers, y = planted_layers(1200, 2, RISING)
    numbers = (y == "class0") + np.random.default_rng(0).normal(size=1200) * 0.1
    advice = advise(planted_bank(layers, {"age": numbers}), **QUICK)
    assert advice.report["task"] == "regression"
    assert advice.report["scoring"] == "r2"
    assert advice.verdict.action == "penultimate"
    assert "the target holds numbers" in advice.verdict.because


def test_classes_of_very_different_size_are_weighed_alike(planted_bank, planted_layers):
    layers, y = planted_layers(800, 2, RISING)
    y = np.where(np.random.default_rng(0).random(800) < 0.85, "class0", y)
    rare = y == "class1"
    layers = {name: X + 1.5 * rare[:, None] * (name == "penultimate") for name, X in layers.items()}
    advice = advise(planted_bank(layers, {"label": y}), **QUICK)
    assert advice.report["scoring"] == "balanced_accuracy"
    assert advice.report["chance"] == pytest.approx(0.5)
    assert advice.verdict.action == "penultimate"
    assert "--class-weight balanced" in advice.steps[0].commands[0]
    assert "--scoring balanced_accuracy" in advice.steps[0].commands[0]


def test_noise_with_a_frequent_class_is_still_noise(planted_bank, planted_layers):
    layers, y = planted_layers(400, 2, dict.fromkeys(CURVE, 0.0))
    y = np.where(np.random.default_rng(1).random(400) < 0.8, "class0", y)
    assert advise(planted_bank(layers, {"label": y}), **QUICK).verdict.action == "labels"


def test_no_command_writes_over_a_file_or_over_what_another_of_them_wrote(tmp_path):
    usual = tmp_path / "photos.featurebank"
    planner = Planner(Bank.create(tmp_path / "photos.bank"), None, None)
    assert [planner._output(usual) for _ in range(2)] == [None, tmp_path / "photos-2.featurebank"]
    usual.touch()
    later = Planner(planner.bank, None, None)
    assert later._output(usual) == tmp_path / "photos-2.featurebank"


# --- evidence ----------------------------------------------------------------------------------------------


def test_every_thing_that_was_looked_at_has_its_line_and_its_figures(advised):
    advice = advised(300, 3, RISING)
    assert [about for about, _ in advice.lines] == [
        *("size", "copies", "above chance", "similarity", "more labels", "gap")
    ]
    report = advice.report
    assert report["evidence"]["smallest_class"] == report["evidence"]["largest_class"] == 100
    assert report["chance"] == pytest.approx(1 / 3, abs=0.01)
    assert [each["features"] for each in report["layers"]] == [
        *([f"resnet18/{layer}"] for layer in CURVE),
        [f"resnet18/{layer}" for layer in CURVE[:-1]],
        [f"resnet18/{layer}" for layer in CURVE],
    ]
    means = [each["mean"] for each in report["layers"][:5]]
    assert means == sorted(means)
    assert 0 < report["evidence"]["gap"] < 0.2
    assert report["learning_curve"]["verdict"] == dict(advice.lines)["more labels"]
    assert advice.to_dict() is report
    assert advice.to_frame()["mean"].tolist()[:5] == means
    assert repr(advice) == "<Advice: small and probably similar: Train a top model on the penultimate layer.>"
    assert "featurebank fit" in advice._repr_html_()


def test_few_images_with_a_wide_interval_are_no_noise_where_no_shuffle_comes_near(advised):
    advice = advised(28, 2, {name: min(value, 0.9) for name, value in RISING.items()}, seed=14)
    facts = advice.report["evidence"]
    assert facts["above_chance"][1] <= 0
    assert facts["shuffled"] <= 0.01
    assert advice.verdict.action != "labels"
    assert "of shuffled labels are predicted as well" in dict(advice.lines)["above chance"]
    assert "chance" not in dict(advice.lines)["more labels"]


def test_copies_are_counted(planted_bank, planted_layers):
    layers, _ = planted_layers(100, 2, RISING)
    layers["penultimate"][1::10] = layers["penultimate"][::10] * 1.001
    advice = advise(planted_bank(layers, {"label": np.tile(["a", "b"], 50)}), **QUICK)
    assert advice.report["alike"] == 20
    assert any("near-duplicate" in note for note in advice.report["warnings"])


def test_of_several_networks_the_one_with_the_best_curve_is_advised_on(planted_bank, planted_layers):
    layers, y = planted_layers(300, 2, RISING)
    path = planted_bank(layers, {"label": y})
    bank = Bank(path)
    spec = bank.feature_set("penultimate").spec
    better = replace(spec, backbone="other")
    bank.add_spec(better)
    rows = np.eye(12, dtype=np.float32)[(y == "class1") * 1]
    bank.add_features(better, list(bank.table.rows["digest"]), rows[:, None])
    assert advise(path, **QUICK).report["backbone"] == "resnet18"


def test_sets_that_lack_rows_are_left_out_with_a_word(planted_bank, planted_layers):
    layers, y = planted_layers(300, 2, RISING)
    layers["layer2"][5] = np.nan
    advice = advise(planted_bank(layers, {"label": y}), **QUICK)
    assert "resnet18/layer2" not in [each["features"][0] for each in advice.report["layers"]]
    assert any("1 of 300 samples have no row in 'resnet18/layer2'" in note for note in advice.report["warnings"])


def test_the_same_seed_gives_the_same_advice(advised, planted_bank, planted_layers):
    layers, y = planted_layers(150, 2, FALLING)
    path = planted_bank(layers, {"label": y}, "net")
    first, second = (advise(path, **QUICK).report for _ in range(2))
    assert {**first, "seconds": 0} == {**second, "seconds": 0}


def test_progress_counts_to_the_end(planted_bank, planted_layers):
    layers, y = planted_layers(60, 2, {"penultimate": 1.0})
    seen = []
    advise(planted_bank(layers, {"label": y}, "net"), progress=lambda *done: seen.append(done), **QUICK)
    assert seen == sorted(seen)
    assert seen[-1] == (200, 200)


# --- what cannot be ----------------------------------------------------------------------------------------


def test_one_class_and_a_column_that_is_not_there_are_errors(planted_bank, planted_layers):
    layers, y = planted_layers(40, 2, {"penultimate": 1.0})
    path = planted_bank(layers, {"label": y, "same": np.full(40, "a")}, "net")
    with pytest.raises(TopModelError, match="y has one class, 'a'"):
        advise(path, target="same")
    with pytest.raises(ColumnError, match="no column 'species'"):
        advise(path, target="species")


def test_a_class_of_one_sample_and_constant_columns_are_no_harm(planted_bank, planted_layers):
    layers, y = planted_layers(60, 2, RISING)
    y[0] = "rare"
    layers["layer1"][:] = 1.0
    advice = advise(planted_bank(layers, {"label": y}, "net"), **QUICK)
    assert advice.report["evidence"]["smallest_class"] == 1
    assert advice.report["scoring"] == "balanced_accuracy"
