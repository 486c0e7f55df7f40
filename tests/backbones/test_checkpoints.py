"""Checkpoints as training tools write them: wrapped, prefixed, averaged, without a classifier."""

import argparse
import logging
import warnings

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from featurebank.backbones.checkpoints import checkpoint_entry, checkpoint_path, state_digest
from featurebank.backbones.engine import Engine
from featurebank.backbones.registry import dump_tensors, load_backbone, load_tensors
from featurebank.errors import LayerError, WeightsError


def state_of(seed, make=torchvision.models.resnet18, **options):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make(**options).state_dict()


@pytest.fixture(scope="module")
def states():
    """Two networks of one architecture: which of them was loaded can be told."""
    return state_of(1), state_of(2)


def prefixed(prefix, state):
    return {prefix + name: tensor for name, tensor in state.items()}


def headless(state, head="fc."):
    return {name: tensor for name, tensor in state.items() if not name.startswith(head)}


def saved(folder, content, name="mine.pth"):
    torch.save(content, folder / name)
    return str(folder / name)


def projection(prefix):
    return {f"{prefix}0.weight": torch.zeros(8, 512), f"{prefix}2.weight": torch.zeros(4, 8)}


WRAPPED = {
    "lightning": (
        lambda a, b: {"state_dict": prefixed("model.", a), "epoch": 3},
        "entry 'state_dict', prefix 'model.'",
    ),
    "lightning, deep": (lambda a, b: {"state_dict": prefixed("model.net.encoder.", a)}, "prefix 'model.net.encoder.'"),
    "compiled": (lambda a, b: prefixed("_orig_mod.", a), "prefix '_orig_mod.'"),
    "compiled, parallel": (lambda a, b: {"model": prefixed("module._orig_mod.", a)}, "prefix 'module._orig_mod.'"),
    "options beside": (lambda a, b: {"model": a, "args": argparse.Namespace(lr=1.0)}, "entry 'model'"),
    "figures beside": (lambda a, b: {"model": a, "best": np.float64(0.9), "all": np.ones(3)}, "entry 'model'"),
    "optimizer beside": (
        lambda a, b: {"net": a, "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{}]}},
        "entry 'net'",
    ),
    "weighted loss": (
        lambda a, b: {"state_dict": {**prefixed("net.", a), "criterion.weight": torch.ones(2)}},
        "prefix 'net.'",
    ),
    "one network, two names": (lambda a, b: {**prefixed("net.", a), **prefixed("encoder.net.", a)}, "prefix 'net.'"),
    "DINO": (
        lambda a, b: {
            "student": prefixed("module.backbone.", b),
            "teacher": {**prefixed("backbone.", a), **projection("head.mlp.")},
        },
        "FILE#ENTRY takes another: 'student.module.backbone'",
    ),
    "MoCo": (
        lambda a, b: {"state_dict": {**prefixed("module.encoder_q.", a), **prefixed("module.encoder_k.", b)}},
        "prefix 'module.encoder_q.'",
    ),
    "BYOL": (
        lambda a, b: {**prefixed("backbone.", a), **prefixed("backbone_momentum.", b), **projection("projection.")},
        "prefix 'backbone.'",
    ),
    "timm's average": (lambda a, b: {"state_dict": b, "state_dict_ema": a}, "entry 'state_dict_ema'"),
    "an average in the module": (
        lambda a, b: {"state_dict": {**prefixed("model.", b), **prefixed("ema_model.module.", a)}},
        "prefix 'ema_model.module.'",
    ),
    "AveragedModel": (lambda a, b: {"n_averaged": torch.tensor(3), **prefixed("module.", a)}, "prefix 'module.'"),
    "SwAV": (
        lambda a, b: prefixed("module.", {**a, "prototypes.weight": torch.ones(3, 4)}),
        "left out prototypes.weight",
    ),
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_the_entry_and_prefix_that_fit_are_taken_and_named(tmp_path, states, caplog, kind):
    wrap, said = WRAPPED[kind]
    with caplog.at_level(logging.INFO, logger="featurebank"):
        backbone = load_backbone("resnet18", saved(tmp_path, wrap(*states)))
    assert backbone.weights == state_digest(states[0])
    assert said in caplog.text


def test_a_plain_checkpoint_needs_no_word(tmp_path, states, caplog):
    with caplog.at_level(logging.INFO, logger="featurebank"):
        load_backbone("resnet18", saved(tmp_path, states[0]))
    assert caplog.text == ""


@pytest.mark.parametrize("suffix", [".pt", ".ckpt", ".bin", ".pth.tar", ".safetensors"])
def test_every_suffix_is_read_alike(tmp_path, states, suffix):
    content, path = prefixed("model.", states[0]), tmp_path / f"mine{suffix}"
    save_file(content, path) if suffix == ".safetensors" else torch.save(content, path)
    assert load_backbone("resnet18", str(path)).weights == state_digest(states[0])


def test_an_entry_can_be_asked_for(tmp_path, states):
    content = {"student": prefixed("module.backbone.", states[1]), "teacher": prefixed("backbone.", states[0])}
    path = saved(tmp_path, content)
    for asked in ("student", "student.module.backbone"):
        assert load_backbone("resnet18", f"{path}#{asked}").weights == state_digest(states[1])
    with pytest.raises(
        WeightsError, match=r"no such entry; expected one of 'student\.module\.backbone', 'teacher\.backb"
    ):
        load_backbone("resnet18", f"{path}#ema")


def test_entries_that_no_custom_tells_apart_are_listed(tmp_path, states):
    path = saved(tmp_path, {**prefixed("left.", states[0]), **prefixed("right.", states[1])})
    with pytest.raises(WeightsError, match=r"holds 2 networks .*'left', 'right'.*choose it with --weights FILE#ENTRY"):
        load_backbone("resnet18", path)
    assert load_backbone("resnet18", f"{path}#right").weights == state_digest(states[1])


def test_a_file_may_have_the_mark_of_an_entry_in_its_name():
    assert (str(checkpoint_path("a#1.pth")), checkpoint_entry("a#1.pth")) == ("a#1.pth", "")
    assert (str(checkpoint_path("a#1.pth#ema")), checkpoint_entry("a#1.pth#ema")) == ("a#1.pth", "ema")
    assert checkpoint_path("IMAGENET1K_V1#ema") is None


def test_a_teacher_of_another_network_is_no_choice(tmp_path, states):
    large = state_of(0, torchvision.models.resnet34)
    path = saved(tmp_path, {"state_dict": {**prefixed("teacher.", large), **prefixed("student.", states[0])}})
    assert load_backbone("resnet18", path).weights == state_digest(states[0])


# --- without a classifier ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photos(noise):
    return [noise(64, 48, seed=seed) for seed in range(2)]


def penultimate(backbone, photos, layer="penultimate"):
    engine = Engine(backbone, [backbone.spec(layer)], device="cpu")
    return engine([backbone.prepare(photo) for photo in photos])[0]


@pytest.mark.parametrize(
    "head", [{}, projection("fc."), {"fc.1.weight": torch.zeros(3, 512), "fc.1.bias": torch.zeros(3)}], ids=len
)
def test_without_a_classifier_the_layers_before_it_are_those_of_the_whole_network(tmp_path, states, photos, head):
    whole = load_backbone("resnet18", saved(tmp_path, states[0], "whole.pth"), 32)
    part = load_backbone("resnet18", saved(tmp_path, prefixed("backbone.", headless(states[0]) | head)), 32)
    assert np.array_equal(penultimate(part, photos), penultimate(whole, photos))
    assert part.weights == state_digest(headless(states[0]))
    assert list(part.layers)[-1] == "penultimate"


@pytest.mark.parametrize("layer", ["logits", "fc"])
def test_no_layer_is_made_of_a_classifier_that_is_not_there(tmp_path, states, layer):
    backbone = load_backbone("resnet18", saved(tmp_path, headless(states[0])), 32)
    with pytest.raises(LayerError, match=f"no layer '{layer}': the weights have no tensors of fc"):
        backbone.spec(layer)


def test_of_a_classifier_of_many_layers_only_what_is_before_them_can_be_had(tmp_path):
    state = headless(state_of(0, torchvision.models.alexnet), "classifier.")
    backbone = load_backbone("alexnet", saved(tmp_path, state))
    assert backbone.spec("features.12").name == "alexnet/features.12"
    with pytest.raises(LayerError, match=r"no layer 'penultimate': the weights have no tensors of classifier\.1"):
        backbone.spec("penultimate")


def test_a_network_of_timm_does_without_its_classifier(tmp_path, photos):
    state = state_of(3, lambda: timm.create_model("test_convnext"))
    whole = load_backbone("timm:test_convnext", saved(tmp_path, state, "whole.pth"))
    part = load_backbone("timm:test_convnext", saved(tmp_path, {"model": headless(state, "head.fc")}))
    assert np.array_equal(penultimate(part, photos), penultimate(whole, photos))
    with pytest.raises(LayerError, match=r"no tensors of head\.fc"):
        part.spec("logits")


def test_a_masked_autoencoder_is_its_encoder(tmp_path):
    state = headless(state_of(3, lambda: timm.create_model("test_vit")), "head.")
    content = {**state, "mask_token": torch.zeros(1, 1, 64), "decoder_embed.weight": torch.zeros(32, 64)}
    assert load_backbone("timm:test_vit", saved(tmp_path, {"model": content})).weights == state_digest(state)


def test_without_a_classifier_it_survives_a_predictors_file(tmp_path, states):
    backbone = load_backbone("resnet18", saved(tmp_path, headless(states[0])), 32)
    again = load_tensors("resnet18", dump_tensors(backbone), backbone.preprocessing)
    assert again.spec("penultimate") == backbone.spec("penultimate")


def test_a_prefix_and_other_classes_go_together(tmp_path):
    state = state_of(4, num_classes=5)
    backbone = load_backbone("resnet18", saved(tmp_path, {"state_dict": prefixed("model.", state)}), 32)
    assert (backbone.weights, backbone.layers["logits"].shape) == (state_digest(state), (5,))


def test_old_checkpoints_without_counters_of_batches_load(tmp_path, states):
    old = {name: tensor for name, tensor in states[0].items() if not name.endswith("num_batches_tracked")}
    assert load_backbone("resnet18", saved(tmp_path, old)).weights == state_digest(states[0])


@pytest.mark.parametrize("name", ["densenet121", pytest.param("vit_b_16", marks=pytest.mark.slow), "googlenet"])
def test_networks_that_are_built_after_their_tensors_take_prefixes_too(tmp_path, name):
    options = {"densenet121": {}, "vit_b_16": {"image_size": 32}, "googlenet": {"aux_logits": False}}[name]
    if name == "googlenet":
        options["init_weights"] = False
    state = state_of(0, getattr(torchvision.models, name), **options)
    old = {key.replace(".norm1.", ".norm.1."): tensor for key, tensor in state.items()}
    path = saved(tmp_path, {"state_dict": prefixed("model.", old)})
    assert load_backbone(name, path).weights == state_digest(state)


def test_the_packaged_networks_take_prefixes_too(tmp_path):
    state = state_of(0, lambda: timm.create_model("tf_efficientnet_lite0"))
    path = saved(tmp_path, {"state_dict": prefixed("model.", state)})
    assert load_backbone("efficientnet_lite0", path).weights == state_digest(state)


# --- what does not fit -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: headless(state, "bn1."), r"lacks bn1\.weight, bn1\.bias, bn1\.running_mean, and 1 more"),
        (lambda state: {**state, "gate.weight": torch.ones(2)}, r"has besides gate\.weight"),
        (
            lambda state: {**state, "conv1.weight": torch.ones(64, 1, 7, 7)},
            r"conv1\.weight of shape 64x1x7x7, expected 64x3x7x7",
        ),
        (lambda state: state_of(0, torchvision.models.resnet34), r"has besides layer1\.2\.conv1\.weight"),
        (lambda state: {"state_dict": prefixed("model.", headless(state, "bn1."))}, r"\(under 'state_dict\.model'\)"),
        (lambda state: {"a.b": torch.ones(2)}, r"lacks conv1\.weight.*has besides a\.b"),
    ],
    ids=["missing", "unexpected", "shape", "a larger network", "under a prefix", "nothing in common"],
)
def test_an_error_has_the_names_of_both_sides(tmp_path, states, change, message):
    with pytest.raises(WeightsError, match=message) as caught:
        load_backbone("resnet18", saved(tmp_path, change(states[0])))
    assert "\n" not in str(caught.value)
    assert "do not fit this backbone" in str(caught.value)


class Configuration:
    pass


@pytest.mark.parametrize("content", ["a module", "an object beside"])
def test_a_whole_module_is_refused_with_the_way_to_save_its_tensors(tmp_path, states, content):
    if content == "a module":
        content = torchvision.models.resnet18()
    else:
        content = {"state_dict": states[0], "config": Configuration()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = saved(tmp_path, content)
    with pytest.raises(WeightsError, match=r"no file of plain tensors: it holds .*, which is code; .*state_dict\(\)"):
        load_backbone("resnet18", path)


def test_what_was_fetched_in_the_place_of_a_checkpoint_is_named(tmp_path):
    (tmp_path / "mine.pth").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n")
    with pytest.raises(WeightsError, match=r"it is a Git LFS pointer .* fetch it anew"):
        load_backbone("resnet18", str(tmp_path / "mine.pth"))
