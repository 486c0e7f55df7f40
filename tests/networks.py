"""A small network, and how features are computed with one, shared by the tests."""

import torch
from torch import nn

from featurebank.backbones.engine import Engine
from featurebank.backbones.preprocessing import Preprocessing

TINY = Preprocessing(32, (32, 32), "bilinear", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def tiny_net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU(inplace=True), nn.Conv2d(16, 32, 3),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 24), nn.Linear(24, 7),
    )  # fmt: skip


def specs_of(backbone, *layers):
    return [backbone.spec(layer) for layer in layers]


def embed(backbone, layers, photos, batch_size=4):
    specs = specs_of(backbone, *layers)
    return Engine(backbone, specs, device="cpu", batch_size=batch_size)([backbone.prepare(photo) for photo in photos])
