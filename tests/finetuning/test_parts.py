from random import Random

import numpy as np
import pytest
import torch
from made_bank import make_bank

from featurebank import load_backbone
from featurebank.errors import FeatureBankError, FineTuneError, TopModelError
from featurebank.finetuning.augmentation import parse
from featurebank.finetuning.cut import Tail, classifier_of, find_cut, layer_at
from featurebank.finetuning.experiment import TrainingSet, hold_out
from featurebank.finetuning.finetune import _without_test
from featurebank.finetuning.network import active, find_blocks, rates
from featurebank.finetuning.optimization import (
    Mix,
    factor,
    find_rate,
    judge,
    loss_of,
    make_optimizer,
    mixed_loss,
    row_weights,
)
from featurebank.finetuning.recipe import Recipe
from featurebank.finetuning.training import MovingAverage, between, interpolate
from featurebank.topmodels.class_weights import resolve_class_weight

# --- blocks ------------------------------------------------------------------------------------------------


def blocks_of(name, cut, size):
    backbone = load_backbone(name, "random:0", size)
    module = find_cut(backbone, cut)
    shape = layer_at(backbone, module).shape if module else (3, *backbone.input_size)
    tail = Tail(backbone, module)
    return tail, find_blocks(tail, classifier_of(backbone), torch.zeros(2, *shape))


@pytest.mark.parametrize(
    ("name", "cut", "size", "expected"),
    [
        ("resnet18", "layer3", 32, ["layer3", "layer4", "fc"]),
        ("resnet18", "input", 32, ["conv1..bn1", "layer1", "layer2", "layer3", "layer4", "fc"]),
        ("resnet18", "head", 32, ["fc"]),
        ("efficientnet_lite0", "blocks.5", 64, ["blocks.5", "blocks.6..bn2", "classifier"]),
        ("densenet121", "denseblock4", 32, ["features.denseblock4..features.norm5", "classifier"]),
        ("inception_v3", "Mixed_7a", 96, ["Mixed_7a", "Mixed_7b", "Mixed_7c", "fc"]),
        ("timm:vit_tiny_patch16_224", "blocks.10", 32, ["blocks.10", "blocks.11..norm", "head"]),
    ],
)
def test_blocks_follow_the_architecture_and_end_in_the_head(name, cut, size, expected):
    tail, blocks = blocks_of(name, cut, size)
    assert [block.name for block in blocks] == expected
    found = [name for block in blocks for name in block.parameters]
    assert len(found) == len(set(found))
    unused = {name for name, _ in tail.network.named_parameters() if name.lower().startswith(("aux", "cls", "pos"))}
    assert set(found) == {name for name, _ in tail.network.named_parameters()} - unused


def test_a_class_token_trains_with_the_first_block():
    _, blocks = blocks_of("timm:vit_tiny_patch16_224", "input", 32)
    assert {"cls_token", "pos_embed"} <= set(blocks[0].parameters)


def test_each_earlier_block_is_slower():
    assert rates([None] * 3, 1e-2, 10.0) == pytest.approx([1e-4, 1e-3, 1e-2])


def test_gradual_unfreezing_goes_from_the_head_down():
    _, blocks = blocks_of("resnet18", "layer3", 32)
    assert [active(blocks, "gradual", epoch) for epoch in (1, 2, 3, 4)] == [
        [False, False, True],
        [False, True, True],
        [True, True, True],
        [True, True, True],
    ]
    assert active(blocks, "all", 1) == [True] * 3


# --- rates, optimisers, averages ---------------------------------------------------------------------------


def test_the_rate_grows_then_falls_to_nearly_nothing():
    factors = [factor(step, 100) for step in range(100)]
    assert factors[9] == factors[10] == 1
    assert np.all(np.diff(factors[:10]) > 0)
    assert np.all(np.diff(factors[10:]) < 0)
    assert 0 < factors[-1] < 1e-3
    assert factor(0, 4) == 1


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop", "adagrad"])
def test_every_optimiser_has_a_rate_a_block_and_decays_weights_alone(optimizer):
    _, blocks = blocks_of("resnet18", "layer4", 32)
    made = make_optimizer(blocks, Recipe("layer4", optimizer=optimizer, weight_decay=0.1, lr_decay=5), 1.0)
    groups = made.param_groups
    assert [group["lr"] for group in groups] == [0.2, 0.2, 1.0, 1.0]
    for group in groups:
        assert {each.ndim > 1 for each in group["params"]} == {group["weight_decay"] > 0}


def test_the_search_for_a_rate_stops_where_the_loss_explodes():
    tried = []

    def step(rate):
        tried.append(rate)
        return 1.0 if rate < 1e-4 else 0.1 if rate < 1e-2 else float("nan")

    assert 1e-4 < find_rate(step) < 1e-2
    assert max(tried) < 2e-2


def test_a_moving_average_begins_where_training_does_and_follows_it():
    average = MovingAverage({"w": torch.tensor([0.0]), "count": torch.tensor(1)})
    for _ in range(3):
        average.update({"w": torch.tensor([1.0]), "count": torch.tensor(7)})
    assert 0 < float(average.values["w"]) < 1
    assert average.values["count"] == 1 or average.values["count"] == 7


def test_the_best_point_between_start_and_end_is_found_and_the_end_wins_ties():
    start, end = {"w": torch.tensor([0.0])}, {"w": torch.tensor([1.0])}
    assert interpolate(start, end, lambda state: (-abs(float(state["w"]) - 0.3), 0.0)) == 0.3
    assert interpolate(start, end, lambda state: (0.0, 0.0)) == 1.0
    assert torch.equal(between(start, end, 0.25)["w"], torch.tensor([0.25]))


# --- the objective -----------------------------------------------------------------------------------------


def test_weights_of_rows_and_classes_multiply_and_count_one_on_average():
    y = np.array(["a", "a", "b", "a"])
    found = row_weights(y, np.array([1.0, 2.0, 1.0, 1.0]), {"a": 1.0, "b": 3.0})
    np.testing.assert_allclose(found, np.array([1, 2, 3, 1]) / 1.75, rtol=1e-6)
    assert resolve_class_weight({1: 2.0}, np.array([0, 1])) == {0: 1.0, 1: 2.0}
    with pytest.raises(TopModelError, match="a weight for the class 'c'; expected one of a, b"):
        resolve_class_weight({"c": 1}, y)


def test_a_row_of_weight_two_counts_like_two_rows():
    logits, y = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 3, 1])
    doubled = loss_of(logits[[0, 1, 2, 2]], y[[0, 1, 2, 2]], torch.ones(4), 0.1)
    assert torch.allclose(loss_of(logits, y, torch.tensor([1.0, 1.0, 2.0]), 0.1), doubled)
    assert torch.allclose(loss_of(logits, y, torch.ones(3)), torch.nn.functional.cross_entropy(logits, y))


def test_mixed_rows_have_both_labels_by_their_shares():
    mix = Mix(np.random.default_rng(0), 3, 0.4)
    x = torch.eye(3)
    assert torch.allclose(mix(x), mix.share * x + (1 - mix.share) * x[mix.order])
    y, ones = torch.tensor([0, 1, 2]), torch.ones(3)
    soft = mix.share * torch.eye(3)[y] + (1 - mix.share) * torch.eye(3)[y[mix.order]]
    logits = torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.cross_entropy(logits, soft)
    assert torch.allclose(mixed_loss(logits, y, ones, mix), expected)


def test_the_judge_agrees_with_scikit_learn():
    from sklearn.metrics import accuracy_score, log_loss

    random = np.random.default_rng(0)
    logits, codes, weight = random.normal(size=(20, 3)), random.integers(0, 3, 20), random.uniform(0.1, 1, 20)
    proba = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    found = judge(logits.astype(np.float32), codes, weight)
    expected = (
        log_loss(codes, proba, sample_weight=weight),
        accuracy_score(codes, proba.argmax(1), sample_weight=weight),
    )
    assert found == pytest.approx(expected, abs=1e-6)


# --- rows --------------------------------------------------------------------------------------------------


def labels(count=40, groups=None, repeats=()):
    digests = [bytes([row]) * 32 for row in range(count)]
    for first, second in repeats:
        digests[second] = digests[first]
    return TrainingSet(np.array(["a", "b"])[np.arange(count) % 2], digests, groups)


def test_the_validation_part_is_stratified_and_repeats_with_the_seed():
    every = labels()
    train, held = hold_out(every, np.arange(40), 0.25, 0)
    assert sorted([*train, *held]) == list(range(40))
    assert (every.y[held] == "a").sum() == (every.y[held] == "b").sum() == 5
    assert all(
        np.array_equal(one, two)
        for one, two in zip((train, held), hold_out(every, np.arange(40), 0.25, 0), strict=True)
    )
    assert not np.array_equal(held, hold_out(every, np.arange(40), 0.25, 1)[1])


def test_groups_and_repeated_contents_never_straddle_the_split():
    groups = np.arange(40) // 4
    every = labels(groups=groups, repeats=[(0, 39), (5, 20)])
    for seed in range(5):
        train, held = hold_out(every, np.arange(40), 0.3, seed)
        assert not set(groups[train]) & set(groups[held])
        assert not {every.digests[i] for i in train} & {every.digests[i] for i in held}


def test_only_the_given_rows_are_divided():
    train, held = hold_out(labels(), np.arange(0, 20), 0.25, 0)
    assert sorted([*train, *held]) == list(range(20))
    everyone, nobody = hold_out(labels(), np.arange(20), 0.0, 0)
    assert (len(everyone), len(nobody)) == (20, 0)


def test_three_rows_a_class_are_divided_without_a_warning(recwarn):
    few = labels(count=6)
    train, held = hold_out(few, np.arange(6), 0.15, 0)
    assert sorted([*train, *held]) == list(range(6))
    assert sorted(few.y[held]) == ["a", "b"]
    assert not recwarn.list


def test_a_class_without_rows_is_an_error():
    with pytest.raises(FineTuneError, match=r"class .b. has no row to train on"):
        hold_out(labels(), np.arange(0, 40, 2), 0.2, 0)


# --- recipes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "adan"}, "no optimizer 'adan'; did you mean adam?"),
        ({"average": "swa"}, "no average 'swa'; expected one of none, ema, wise-ft"),
        ({"init": "zero"}, "no init 'zero'; expected one of pretrained, random"),
        ({"unfreeze": "some"}, "no unfreeze 'some'; expected one of all, gradual"),
        ({"augment": "fresh"}, "no augment 'fresh'; expected one of cached, live"),
        ({"augment": "cached:x"}, "no views 'x'; expected one of none, hflip"),
        ({"augment": "cached:4", "views": "flips"}, "views 'flips' in predicting, and 'augment:4' cached"),
        ({"augment": "cached:hflip", "views": "flips"}, "views 'flips' in predicting, and 'hflip' cached"),
        ({"lr": 0}, "lr 0; expected auto, or a number above 0"),
        ({"lr": float("nan")}, "lr nan; expected auto, or a number above 0"),
        ({"epochs": 0}, "epochs 0; expected a number from 1 up"),
        ({"refit": True, "validation": 0.0}, "refit with nothing that validation rows chose"),
        ({"validation": 1.0}, "validation 1.0; expected a share from 0 to 0.5"),
        ({"precision": "fp8"}, "no precision 'fp8'; expected one of fp32, bf16, fp16"),
        (
            {"cut": "input", "augment": "cached:4"},
            "all of the network is trained, so nothing can be cached; expected augment live",
        ),
    ],
)
def test_a_choice_that_there_is_not_is_an_error(options, message):
    with pytest.raises(FeatureBankError) as caught:
        Recipe(**{"cut": "layer4", **options})
    assert message in str(caught.value)


def test_what_is_done_to_images_depends_on_the_cut_when_nothing_is_said():
    assert Recipe("layer4").cached_views == "augment:8"
    assert Recipe("head").cached_views == "none"
    assert not Recipe("input").is_cached


@pytest.mark.parametrize(
    ("augment", "views", "cached"),
    [("cached:8", "none", "augment:8"), ("cached:1", "none", "none"), ("cached:none", "none", "none"),
     ("cached:dihedral", "flips", "dihedral"), ("cached:4", "augment:4", "augment:4")],
)  # fmt: skip
def test_cached_views_are_named_as_extract_names_them(augment, views, cached):
    assert Recipe("layer4", augment=augment, views=views).cached_views == cached


# --- live changes ------------------------------------------------------------------------------------------


def test_what_is_not_named_is_not_done(noise):
    image = noise(40, 30)
    assert parse("live:none")(image, Random(0)).tobytes() == image.tobytes()
    flipped = parse("live:hflip=1")(image, Random(0))
    assert np.array_equal(np.asarray(flipped), np.asarray(image)[:, ::-1])


def test_changes_repeat_with_the_seed_and_differ_between_seeds(noise):
    change = parse("live:hflip,vflip,crop=0.3,translate=0.1,rotate=15,jitter=0.2")
    one, again, other = (change(noise(40, 30), Random(seed)) for seed in (1, 1, 2))
    assert one.tobytes() == again.tobytes()
    assert one.tobytes() != other.tobytes()
    sizes = [parse("live:crop=0.3")(noise(40, 30), Random(seed)).size for seed in range(50)]
    areas = [width * height / 1200 for width, height in sizes]
    assert 0.25 < min(areas) < 0.5 < max(areas) <= 1


def test_plain_live_makes_the_changes_of_the_cached_views(noise):
    from featurebank.images.views import augment

    assert parse("live")(noise(40, 30), Random(3)).tobytes() == augment(noise(40, 30), Random(3)).tobytes()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("live:hflop", "no augmentation 'hflop'; did you mean hflip?"),
        ("live:rotate", "augmentation rotate=; expected a number from 0 to 180, e.g. rotate=0.2"),
        ("live:crop=0", "augmentation crop=0; expected a number from 0 to 1"),
        ("live:jitter=two", "augmentation jitter=two; expected a number from 0 to 1"),
        ("live:", "no augmentation ''"),
    ],
)
def test_an_unknown_change_is_an_error(text, message):
    with pytest.raises(FineTuneError) as caught:
        parse(text)
    assert message in str(caught.value)


def test_the_test_part_of_a_split_is_not_trained_on(tmp_path):
    parts = ["train"] * 6 + ["val"] * 2 + ["test"] * 4
    bank = make_bank(tmp_path / "a.bank", np.eye(12), label=["a", "b"] * 6, split=parts)
    table, said = _without_test(bank.select("label"), "label", None)
    assert table.columns["split"].tolist() == parts[:8]
    assert said == ["4 test samples of the column split are not trained on; --split none takes all"]
    assert len(_without_test(bank.select("label"), "label", "none")[0]) == 12
