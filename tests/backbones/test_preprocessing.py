import warnings

import numpy as np
import pytest
import timm
import torch
import torchvision
from pictures import encode
from PIL import Image
from timm.data import create_transform, resolve_data_config
from torchvision.transforms import InterpolationMode
from torchvision.transforms._presets import ImageClassification

from featurebank.backbones import timm_models, torchvision_models
from featurebank.backbones.base import Backbone
from featurebank.backbones.engine import Engine
from featurebank.backbones.preprocessing import Preprocessing
from featurebank.errors import BackboneError, ImageError
from featurebank.images import decoding

SIZES = [(500, 375), (375, 500), (333, 251), (97, 61), (61, 97), (31, 400), (224, 224), (256, 256), (1, 1)]
HALF = (0.5, 0.5, 0.5)


def network_input(preprocessing, image):
    """Return what a network sees of an image: prepared and normalised by the engine."""
    backbone = Backbone.from_module(torch.nn.Identity(), name="eye", version="1", transform=preprocessing)
    return Engine(backbone, [backbone.spec("logits:none")], device="cpu")([backbone.prepare(image)])[0][0]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(
    "weights",
    [
        "ResNet18_Weights.IMAGENET1K_V1",
        "ResNet50_Weights.IMAGENET1K_V2",
        "EfficientNet_B0_Weights.IMAGENET1K_V1",
        "EfficientNet_B5_Weights.IMAGENET1K_V1",
        "Inception_V3_Weights.IMAGENET1K_V1",
        "MaxVit_T_Weights.IMAGENET1K_V1",
        "Swin_V2_T_Weights.IMAGENET1K_V1",
        "ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1",
    ],
)
def test_torchvision_preprocessing_equals_the_official_transform_bit_for_bit(noise, weights, size):
    entry = torchvision.models.get_weight(weights)
    image = noise(*size)
    expected = entry.transforms()(image).numpy()
    assert np.array_equal(network_input(torchvision_models.preprocessing_of(entry), image), expected)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(
    "config",
    [
        {},
        {"crop_pct": 0.875, "interpolation": "bicubic", "input_size": (3, 224, 224)},
        {"crop_pct": 1.0, "interpolation": "lanczos"},
        {"crop_mode": "squash", "crop_pct": 1.0},
        {
            "crop_mode": "squash",
            "crop_pct": 0.9,
            "interpolation": "bicubic",
            "mean": (0.48, 0.46, 0.41),
            "std": (0.27, 0.26, 0.28),
        },
    ],
    ids=["own", "lite", "whole", "squash", "squash and crop"],
)
def test_timm_preprocessing_equals_timms_own_transform_bit_for_bit(noise, config, size):
    model = timm.create_model("test_resnet", pretrained_cfg_overlay=config)
    image = noise(*size)
    expected = create_transform(**resolve_data_config({}, model=model))(image).numpy()
    assert np.array_equal(network_input(timm_models.preprocessing_of(model), image), expected)


@pytest.mark.parametrize("size", [(40, 30), (30, 41), (33, 33), (200, 20)], ids=str)
@pytest.mark.parametrize("crop", [32, 33, 56])
def test_a_crop_larger_than_the_resized_image_is_padded_as_torchvision_pads_it(noise, crop, size):
    image = noise(*size)
    official = ImageClassification(crop_size=crop, resize_size=24, interpolation=InterpolationMode.BILINEAR)
    own = Preprocessing(24, (crop, crop), "bilinear", tuple(official.mean), tuple(official.std))
    assert np.array_equal(network_input(own, image), official(image).numpy())


@pytest.mark.parametrize(
    "config", [{"crop_mode": "border"}, {"input_size": (3, 160, 128)}], ids=["border", "not square"]
)
def test_a_timm_transform_of_another_kind_is_refused(config):
    model = timm.create_model("test_resnet", pretrained_cfg_overlay=config)
    with pytest.raises(BackboneError, match="expected a square centre crop"):
        timm_models.preprocessing_of(model)


@pytest.mark.parametrize("change", [{"interpolation": "cubic"}, {"mode": "border"}], ids=str)
def test_unknown_interpolations_and_modes_are_refused(change):
    with pytest.raises(BackboneError, match="expected one of nearest, bilinear, bicubic"):
        Preprocessing(**{"resize": 8, "crop": (8, 8), "interpolation": "bilinear", "mean": HALF, "std": HALF, **change})


@pytest.mark.parametrize(
    "change",
    [
        {"resize": 0},
        {"resize": 8193},
        {"resize": "8"},
        {"resize": True},
        {"crop": (8, 10**6)},
        {"crop": (-8, 8)},
        {"crop": (8.0, 8.0)},
        {"crop": (8,)},
        {"crop": (8, 8, 8)},
    ],
    ids=str,
)
def test_sizes_that_no_network_takes_are_refused_in_one_short_line(change):
    fields = {"resize": 8, "crop": (8, 8), "interpolation": "bilinear", "mean": HALF, "std": HALF, **change}
    with pytest.raises(BackboneError, match=r"whole numbers of pixels, a height and a width of 1 to 8192$"):
        Preprocessing(**fields)


def test_another_size_keeps_the_share_of_the_crop():
    own = Preprocessing(256, (224, 224), "bilinear", HALF, HALF)
    assert own.with_size(448) == Preprocessing(512, (448, 448), "bilinear", HALF, HALF)
    assert own.with_size(32) == Preprocessing(37, (32, 32), "bilinear", HALF, HALF)
    whole = Preprocessing(384, (384, 384), "bicubic", HALF, HALF, "squash")
    assert whole.with_size(100) == Preprocessing(100, (100, 100), "bicubic", HALF, HALF, "squash")


def test_a_preprocessing_survives_its_dictionary():
    own = Preprocessing(256, (224, 224), "bilinear", (0.1, 0.2, 0.3), HALF, "squash")
    assert Preprocessing.from_dict(own.to_dict()) == own
    assert own.to_dict()["crop"] == [224, 224]


def test_an_image_so_long_that_resizing_would_fill_the_memory_is_refused():
    image = decoding.decode(encode(Image.new("1", (60000, 1))))
    with pytest.raises(ImageError, match="60000x1 pixels become 15360000x256 when resized"):
        Preprocessing(256, (224, 224), "bilinear", HALF, HALF)(image)


def test_every_torchvision_weight_resolves_to_its_own_numbers():
    for name in torchvision_models.names():
        for entry in torchvision.models.get_model_weights(name):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                official = entry.transforms()
            own = torchvision_models.preprocessing_of(entry)
            assert (own.resize, own.crop) == (official.resize_size[0], tuple(official.crop_size * 2)), entry
            assert (list(own.mean), list(own.std)) == (list(official.mean), list(official.std)), entry
            assert own.interpolation == official.interpolation.value, entry
