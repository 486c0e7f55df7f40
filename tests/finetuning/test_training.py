"""Whole fine-tunings, small: cached against live, the start, seeds, stopping, resuming."""

import numpy as np
import pytest
import torch
import torchvision
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from featurebank import Backbone, Bank, Predictor, Preprocessing, Recipe, load_backbone
from featurebank.backbones.request import Request
from featurebank.bank.images import source_of
from featurebank.bank.samples import values_of
from featurebank.errors import FineTuneError, ImageError, LayerError
from featurebank.finetuning.experiment import Experiment, TrainingSet
from featurebank.finetuning.head import to_layers
from featurebank.finetuning.optimization import loss_of
from featurebank.finetuning.tuning import finish, train_network
from featurebank.topmodels.scaling import FlooredScaler

FAMILIES = [
    pytest.param("alexnet", "features.8", 64, marks=pytest.mark.slow),
    pytest.param("vgg16", "features.28", 32, marks=pytest.mark.slow),
    pytest.param("googlenet", "inception5a", 64, marks=pytest.mark.slow),
    pytest.param("inception_v3", "Mixed_7a", 96, marks=pytest.mark.slow),
    ("resnet18", "layer4", 32),
    ("resnet50", "layer4", 32),
    pytest.param("densenet121", "denseblock4", 32, marks=pytest.mark.slow),
    ("efficientnet_lite0", "blocks.5", 64),
    ("vit_b_16", "encoder_layer_11", 32),
]
QUICK = {"augment": "cached:2", "epochs": 1, "batch_size": 8, "validation": 0.25}


def small_vit():
    """ViT-B/16 for images of 32 pixels: four patches."""
    torch.manual_seed(0)
    model = torchvision.models.vit_b_16(image_size=32)
    torch.nn.init.normal_(model.heads.head.weight)  # it begins with zeros
    return Backbone("vit_b_16", model, Preprocessing(32, (32, 32), "bilinear", (0.5,) * 3, (0.5,) * 3))


@pytest.fixture
def make(own_bank):
    """Make an Experiment over the 40 images of the bank: make("layer4", epochs=2); name= and size= choose the rest."""

    def setup(cut="layer4", *, name="resnet18", size=64, count=40, device="cpu", **options):
        bank = Bank(own_bank)
        table = bank.select("label").take(np.linspace(0, 39, count, dtype=int))
        labels = TrainingSet(values_of(table, "label"), list(table.rows["digest"]))
        recipe = Recipe(cut, **{**QUICK, **options})
        request = Request(small_vit()) if name == "vit_b_16" else Request(name, weights="random:0", size=size)
        return Experiment(bank, request, source_of(table), labels, recipe, device)

    return setup


def train(setup, **options):
    return train_network(setup, setup.activations()[0], **options)


def states(trained):
    return {name: each.clone() for name, each in trained.network.tail.network.state_dict().items()}


# --- cached against live -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "cut", "size"), FAMILIES)
def test_the_two_paths_give_every_family_the_same_loss_and_an_epoch_trains(make, name, cut, size):
    store = "float32" if name == "inception_v3" else "float16"  # whose random weights give more than float16 holds
    how = {"name": name, "size": size, "count": 32, "batch_size": 32}
    setup = make(cut, **how, store=store, optimizer="sgd")
    live = make(cut, **how, augment="live", views="augment:2")
    cached_feed, live_feed = setup.activations()[0], live.activations()[0]
    rows, views = np.arange(len(setup.data.y)), np.arange(len(setup.data.y)) % 2
    network = setup.network()
    y = torch.from_numpy(np.unique(setup.data.y, return_inverse=True)[1])
    with torch.no_grad():
        found, expected = (
            loss_of(network.tail(network.place(next(iter(feed.stream([(rows, views)]))))), y, torch.ones(len(y)))
            for feed in (cached_feed, live_feed)
        )
    assert float(found) == pytest.approx(float(expected), rel=1e-3, abs=1e-3)
    trained = train_network(setup, cached_feed)
    assert len(trained.state.history) == 2
    assert np.isfinite(trained.state.history[1].train_loss)


def test_a_cache_in_float32_is_the_live_input_itself(make, distance):
    cached, live = make(store="float32", augment="cached:flips"), make(augment="live", views="flips")
    rows, views = np.arange(8), np.arange(8) % 4
    found, expected = (next(iter(setup.activations()[0].stream([(rows, views)]))) for setup in (cached, live))
    assert distance(found, expected) < 1e-5


def test_images_are_not_read_again_once_their_activations_are_there(make):
    setup = make()
    setup.activations()
    again = make()
    object.__setattr__(again, "source", None)
    assert again.missing == 0
    assert len(again.activations()[0]) == 40


def test_an_image_that_is_gone_is_named(make, tmp_path):
    setup = make()
    object.__setattr__(setup.source, "paths", [b"/nowhere/a.png", *setup.source.paths[1:]])
    with pytest.raises(ImageError, match=r"1 of 40 images cannot be used; '/nowhere/a.png': cannot be read"):
        setup.activations()


def test_the_bank_gets_feature_rows_and_no_samples(make, own_bank):
    before = Bank(own_bank).samples
    setup = make("layer4", augment="cached:3")
    setup.activations()
    bank = Bank(own_bank)
    assert bank.samples.equals(before)
    stored = bank.feature_set("layer4.input:none")
    assert (stored.rows, stored.shape, stored.dtype) == (40, (3, 256, 4, 4), "float16")


def test_random_changes_of_live_images_repeat_with_the_seed(make):
    feed = make(augment="live:hflip,crop=0.5").activations()[0]
    draws = feed.draw(np.random.default_rng(0), 4)
    first, again = (next(iter(feed.stream([(np.arange(4), draws)]))) for _ in range(2))
    plain = next(iter(feed.stream([(np.arange(4), np.zeros(4, np.int64))])))
    assert torch.equal(first, again)
    assert not torch.allclose(first, plain, atol=1e-2)


# --- the start ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("store", "tolerance"), [("float32", 1e-5), ("float16", 5e-3)])
def test_at_the_start_the_network_says_what_the_top_model_says(make, own_bank, store, tolerance):
    setup = make(store=store, validation=0.0)
    X = Bank(own_bank).load("resnet18/penultimate")
    if store == "float32":  # the same float32 vector that the network sees
        X = setup.network().embeddings(setup.activations()[0], np.arange(40), 1, 8)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01)).fit(X, setup.data.y)
    network = setup.network()
    network.set_head(to_layers(model))
    logits = network.logits(setup.activations()[0], np.arange(40), 1, 8)
    found = torch.from_numpy(logits).softmax(1).numpy()
    np.testing.assert_allclose(found, model.predict_proba(X), atol=tolerance)


def test_the_head_of_a_predictor_gives_its_parameters(make):
    setup = make(validation=0.0, cut="head", lr=1e-12)
    top_model = make_pipeline(FlooredScaler(), LogisticRegression(C=0.5))
    feed = setup.activations()[0]
    trained = train_network(setup, feed, top_model=top_model)
    X = setup.network().embeddings(feed, np.arange(40), 1, 8)
    expected = top_model.fit(X, setup.data.y).predict_proba(X)
    found = torch.from_numpy(trained.network.logits(feed, np.arange(40), 1, 8)).softmax(1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_views_are_averaged_in_predicting(make):
    setup = make(augment="cached:flips", views="flips")
    network, feed = setup.network(), setup.activations()[0]
    each = [next(iter(feed.stream([(np.arange(8), np.full(8, view))]))) for view in range(4)]
    with torch.no_grad():
        expected = torch.stack([network.tail(network.place(x)) for x in each]).mean(0)
    np.testing.assert_allclose(network.logits(feed, np.arange(8), 4, 5), expected, rtol=1e-4, atol=1e-5)


def test_random_weights_are_the_architecture_s_own_and_train_with_their_statistics(make):
    setup = make(init="random", random_state=3)
    trained = train(setup)
    fresh = load_backbone("resnet18", "random:3", 64).model.state_dict()
    assert set(trained.state.start) >= {"layer4.0.bn1.running_mean", "layer4.0.conv1.weight"}
    assert torch.equal(trained.state.start["layer4.0.conv1.weight"], fresh["layer4.0.conv1.weight"])
    assert trained.state.history[1].train_loss > 0
    assert not torch.equal(states(trained)["layer4.0.bn1.running_mean"], fresh["layer4.0.bn1.running_mean"])


# --- training ----------------------------------------------------------------------------------------------


def test_a_seed_repeats_every_bit_and_another_does_not(make):
    first, again, other = (states(train(make(epochs=2, patience=9, random_state=seed))) for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["fc.weight"], other["fc.weight"])


def test_training_lowers_the_loss_and_leaves_the_statistics_and_the_backbone_alone(make):
    setup = make(epochs=6, patience=6)
    before = {name: each.clone() for name, each in setup.backbone.model.state_dict().items()}
    trained = train(setup)
    history = trained.state.history
    assert history[-1].train_loss < history[1].train_loss
    assert [epoch.number for epoch in history] == list(range(7))
    after = states(trained)
    assert torch.equal(after["layer4.0.bn1.running_mean"], before["layer4.0.bn1.running_mean"])
    assert all(torch.equal(before[name], each) for name, each in setup.backbone.model.state_dict().items())


def test_the_best_epoch_is_restored_and_patience_ends_the_rest(make):
    seen = []
    setup = make(epochs=9, patience=2, lr=1.0, optimizer="sgd")  # only makes it worse
    feed = setup.activations()[0]
    trained = train_network(setup, feed, on_epoch=seen.append)
    state = trained.state
    trained_best = max(state.history[1:], key=lambda epoch: (epoch.score, -epoch.loss)).number
    assert len(state.history) - 1 == min(9, trained_best + 2)
    assert seen == state.history
    best = state.history[state.best_epoch]
    assert all((best.score, -best.loss) >= (epoch.score, -epoch.loss) for epoch in state.history)
    assert all(torch.equal(state.best[name], states(trained)[name]) for name in state.best)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "sgd"},
        {"optimizer": "rmsprop"},
        {"optimizer": "adagrad"},
        {"average": "ema"},
        {"average": "wise-ft"},
        {"mixup": 0.3, "label_smoothing": 0.1},
        {"head": "mlp:8"},
        {"class_weight": {"cat": 3}},
        {"unfreeze": "gradual"},
        {"lr": "auto"},
        {"precision": "bf16"},
        {"augment": "live"},
        {"cut": "input"},
        {"cut": "head"},
        {"batchnorm": "train"},
        {"validation": 0.0},
        {"refit": True},
    ],
    ids=str,
)
def test_every_option_trains(make, options):
    options = {"cut": "layer4", **options, **({"augment": "live"} if options.get("cut") == "input" else {})}
    state = train(make(**options)).state
    assert np.isfinite(state.history[-1].train_loss)
    assert state.history[-1].images_per_second > 0
    if options.get("validation") == 0.0:
        assert state.best_epoch == 1


def test_a_loss_that_explodes_is_an_error_that_names_the_rate(make):
    with pytest.raises(FineTuneError, match=r"the loss is no number in epoch 1; .*smaller learning rate than 1e\+30"):
        train(make(lr=1e30, optimizer="sgd"))


# --- stopping and going on ---------------------------------------------------------------------------------


def stop_after(epoch):
    def tell(done):
        if done.number == epoch:
            raise KeyboardInterrupt

    return tell


@pytest.mark.parametrize("cut", ["head", pytest.param("layer4", marks=pytest.mark.slow)])
def test_an_interruption_keeps_the_best_so_far_and_resuming_ends_as_if_there_had_been_none(make, tmp_path, cut):
    path = tmp_path / "a.checkpoint"
    setup = make(cut, epochs=4, patience=9, average="ema")
    stopped = train(setup, on_epoch=stop_after(3), checkpoint=path)
    assert stopped.state.interrupted
    assert path.is_file()
    resumed = train(setup, checkpoint=path, resume=True)
    straight = train(setup)
    assert [epoch.loss for epoch in resumed.state.history] == [epoch.loss for epoch in straight.state.history]
    first, second = states(resumed), states(straight)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_stop_in_the_first_epoch_keeps_the_head_of_the_start(make):
    def stop(done, total):
        raise KeyboardInterrupt

    trained = train(make(), on_step=stop)
    assert trained.state.interrupted
    assert trained.state.best_epoch == 0
    assert all(torch.equal(each, states(trained)[name]) for name, each in trained.state.start.items())


def test_more_epochs_may_follow_but_nothing_else_may_change(make, tmp_path):
    path = tmp_path / "a.checkpoint"
    train(make("head", epochs=1), checkpoint=path)
    longer = train(make("head", epochs=2), checkpoint=path, resume=True)
    assert longer.state.history[-1].number == 2
    with pytest.raises(FineTuneError, match="the checkpoint is of a fine-tuning with other rows, weights or options"):
        train(make("head", epochs=2, random_state=1), checkpoint=path, resume=True)
    with pytest.raises(FineTuneError, match="no checkpoint at"):
        train(make(), checkpoint=tmp_path / "b", resume=True)


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:100], lambda data: b"\xff" * len(data)])
def test_a_damaged_checkpoint_is_an_error(make, tmp_path, damage):
    path = tmp_path / "a.checkpoint"
    train(make("head"), checkpoint=path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(FineTuneError, match=r"the checkpoint is damaged .*leave out --resume to begin anew"):
        train(make("head", epochs=2), checkpoint=path, resume=True)


# --- what comes of it --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "cut", "size", "head"),
    [("resnet18", "layer4", 64, "linear"), ("resnet18", "layer4", 64, "mlp:8"),
     ("googlenet", "inception5b", 64, "linear"), ("vit_b_16", "encoder_layer_11", 32, "linear"),
     ("inception_v3", "Mixed_7c", 96, "linear"), ("timm:vit_tiny_patch16_224", "blocks.11", 32, "linear")],
)  # fmt: skip
def test_the_predictor_says_what_the_network_says(make, two_classes, tmp_path, name, cut, size, head):
    store = "float32" if name == "inception_v3" else "float16"
    setup = make(cut, name=name, size=size, head=head, count=20, store=store, validation=0.0, epochs=2)
    feed = setup.activations()[0]
    trained = train_network(setup, feed)
    tuned = finish(setup, trained)
    assert tuned.backbone.weights != setup.backbone.weights
    tuned.predictor().save(tmp_path / "a.featurebank")
    loaded = Predictor.load(tmp_path / "a.featurebank")
    rows = np.arange(len(setup.data.y))
    expected = torch.from_numpy(trained.network.logits(feed, rows, 1, 8)).softmax(1).numpy()
    paths = [path.decode() for path in setup.source.paths]
    np.testing.assert_allclose(loaded.predict_proba(paths), expected, atol=1e-2)
    again = load_backbone(str(tmp_path / "a.featurebank"))
    assert again.weights == tuned.backbone.weights
    assert again.layers["logits"].shape == ((2,) if head == "linear" else (1000,))


def test_a_cut_that_is_none_is_an_error_before_any_image_is_read(make):
    with pytest.raises(LayerError, match="no module 'layer9' to cut before"):
        make("layer9").activations()
