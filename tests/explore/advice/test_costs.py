"""Stages, layer curves and cuts of real architectures, with random weights."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from featurebank import load_backbone
from featurebank.backbones.base import Backbone
from featurebank.backbones.preprocessing import Preprocessing
from featurebank.errors import LayerError
from featurebank.explore.advice.costs import curve_layers, cut_after, main_blocks
from featurebank.finetuning.cut import Tail

NETWORKS = {
    "efficientnet_lite0": ["blocks.1", "blocks.2", "blocks.4", "blocks.6"],
    "resnet18": ["layer1", "layer2", "layer3", "layer4"],
    "vgg11": ["features.4", "features.10", "features.15", "features.20"],
    "mobilenet_v3_small": ["features.3", "features.5", "features.8", "features.11"],
    "timm:vit_tiny_patch16_224": ["blocks.2", "blocks.5", "blocks.8", "blocks.11"],
}


@pytest.fixture(scope="module")
def load():
    kept = {}

    def get(name):
        if name not in kept:
            kept[name] = load_backbone(name, "random:0")
        return kept[name]

    return get


@pytest.mark.parametrize("name", NETWORKS)
def test_a_layer_curve_is_some_stages_and_the_penultimate_layer(load, name):
    found = curve_layers(load(name).layers)
    assert found == [*NETWORKS[name], "penultimate"]
    depths = [load(name).layers[layer].depth for layer in found]
    assert depths == sorted(depths)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet18", "timm:vit_tiny_patch16_224"])
def test_what_comes_after_a_layer_can_be_cut_there(load, name):
    backbone = load(name)
    names = main_blocks(backbone.layers)
    for before, after in pairwise(names):
        assert cut_after(backbone, before) == after
    assert cut_after(backbone, names[-1]) == cut_after(backbone, "penultimate") == names[-1]
    assert Tail(backbone, names[-1]).cut == names[-1]


def test_a_layer_inside_a_stage_is_cut_behind_it(load):
    assert cut_after(load("resnet18"), "layer2.0.conv1") == "layer3"


def test_a_short_network_has_all_its_stages_in_its_curve(load):
    assert curve_layers(load("resnet18").layers, count=9) == ["layer1", "layer2", "layer3", "layer4", "penultimate"]
    assert curve_layers(load("resnet18").layers, count=2) == ["layer2", "layer4", "penultimate"]


class Crossed(nn.Module):
    """Hands its images past every stage."""

    name, version = "crossed", "1"

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))
        self.fc = nn.Linear(3, 2)

    def forward(self, x):
        y = x
        for layer in (self.a, self.b, self.c):
            y = layer(y) + x.mean() + torch.sin(y)
        return self.fc(y.mean((2, 3)))


def test_a_network_that_cannot_be_cut_says_so():
    half = Preprocessing(8, (8, 8), "bilinear", (0.5,) * 3, (0.5,) * 3)
    backbone = Backbone.from_module(Crossed(), transform=half)
    assert main_blocks(backbone.layers) == ["a", "b", "c"]
    with pytest.raises(LayerError, match="cannot be cut before any of its stages"):
        cut_after(backbone, "penultimate")
