import numpy as np
import pytest
import timm
import torch
from networks import embed
from safetensors.torch import save_file
from timm.data import create_transform, resolve_data_config

from featurebank.backbones.checkpoints import state_digest
from featurebank.backbones.engine import Engine
from featurebank.backbones.registry import dump_tensors, list_backbones, load_backbone, load_tensors
from featurebank.errors import BackboneError, LayerError, WeightsError


def build(name, seed=0, **options):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return timm.create_model(name, **options).eval()


def batch_of(model, photos):
    transform = create_transform(**resolve_data_config({}, model=model))
    return torch.stack([transform(photo) for photo in photos])


@pytest.mark.parametrize(
    "name", ["resnet18", "test_convnext", "test_efficientnet", "test_maxvit", "test_vit", "test_vit2"]
)
def test_features_equal_timms_own_before_and_after_the_classifier(photos, distance, name):
    model = build(name)
    with torch.no_grad():
        features = model.forward_features(batch_of(model, photos))
        before, after = model.forward_head(features, pre_logits=True), model.forward_head(features)
    penultimate, logits = embed(load_backbone(f"timm:{name}", "random:0"), ["penultimate", "logits"], photos)
    assert distance(penultimate, before) < 1e-5
    assert distance(logits, after) < 1e-5


@pytest.mark.parametrize(("name", "layout"), [("test_vit", "cls-tokens"), ("test_vit2", "tokens")])
def test_averages_over_a_transformers_block_leave_out_its_class_or_register_token(photos, distance, name, layout):
    model = build(name)
    options = {"output_fmt": "NLC", "intermediates_only": True, "return_prefix_tokens": True, "norm": False}
    with torch.no_grad():
        ((patches, prefix),) = model.forward_intermediates(batch_of(model, photos), indices=[2], **options)
    backbone = load_backbone(f"timm:{name}", "random:0")
    assert (backbone.layers["blocks.2"].layout, backbone.layers["blocks.2"].prefix) == (layout, 1)
    default, mean, largest = embed(backbone, ["blocks.2", "blocks.2:avg", "blocks.2:max"], photos)
    assert distance(default, prefix[:, 0] if layout == "cls-tokens" else patches.mean(1)) < 1e-5
    assert distance(mean, patches.mean(1)) < 1e-5
    assert distance(largest, patches.amax(1)) < 1e-5


def test_a_distilled_transformers_penultimate_layer_is_the_input_of_its_last_head(photos, distance):
    model = build("deit_tiny_distilled_patch16_224")
    with torch.no_grad():
        tokens = model.forward_features(batch_of(model, photos))
    backbone = load_backbone("timm:deit_tiny_distilled_patch16_224", "random:0")
    assert (backbone.layers["blocks.3"].layout, backbone.layers["blocks.3"].prefix) == ("cls-tokens", 2)
    penultimate, logits = embed(backbone, ["penultimate", "logits"], photos)
    assert distance(penultimate, tokens[:, 1]) < 1e-5
    with torch.no_grad():
        assert distance(logits, model.forward_head(tokens)) < 1e-5


@pytest.mark.parametrize(("name", "tokens"), [("vit_small_patch14_dinov2", 1), ("vit_small_patch14_reg4_dinov2", 5)])
def test_a_network_without_a_head_gives_its_class_token_as_penultimate_layer_and_output(noise, distance, name, tokens):
    model = build(name, img_size=56)
    backbone = load_backbone(f"timm:{name}", "random:0", 56)
    assert backbone.input_size == (56, 56)
    assert (backbone.layers["blocks.5"].layout, backbone.layers["blocks.5"].shape) == ("cls-tokens", (16 + tokens, 384))
    assert backbone.layers["blocks.5"].prefix == tokens
    prepared = backbone.prepare(noise(80, 100))
    mean, std = (
        torch.tensor(values).view(3, 1, 1) for values in (backbone.preprocessing.mean, backbone.preprocessing.std)
    )
    with torch.no_grad():
        expected = model.forward_features(
            (torch.from_numpy(prepared.copy()).permute(2, 0, 1)[None] / 255 - mean) / std
        )[:, 0]
    specs = [backbone.spec(layer) for layer in ("penultimate", "logits")]
    penultimate, output = Engine(backbone, specs, device="cpu")([prepared])
    assert distance(penultimate, expected) < 1e-5
    assert np.array_equal(penultimate, output)


def test_of_several_heads_in_a_list_the_last_one_decides_the_penultimate_layer():
    layer = load_backbone("timm:crossvit_9_240", "random:0").layers["penultimate"]
    assert (layer.module, layer.takes_input, layer.shape) == ("head.1", True, (256,))


def test_channels_last_maps_are_told_from_channels_first_ones():
    layers = load_backbone("timm:swin_tiny_patch4_window7_224", "random:0").layers
    assert (layers["layers.1"].layout, layers["layers.1"].shape) == ("NHWC", (28, 28, 192))
    assert (layers["patch_embed.proj"].layout, layers["patch_embed.proj"].shape) == ("NCHW", (96, 56, 56))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_checkpoint_keeps_its_tensors_and_its_number_of_classes(tmp_path, suffix):
    state = build("test_vit", 3, num_classes=7).state_dict()
    path = tmp_path / f"mine{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save({"state_dict_ema": state}, path)
    backbone = load_backbone("timm:test_vit", str(path))
    assert backbone.weights == state_digest(state)
    assert backbone.layers["logits"].shape == (7,)


def test_a_checkpoint_of_another_network_is_refused_in_one_line(tmp_path):
    torch.save(build("test_vit2").state_dict(), tmp_path / "mine.pth")
    with pytest.raises(WeightsError, match="do not fit this backbone") as caught:
        load_backbone("timm:test_resnet", str(tmp_path / "mine.pth"))
    assert "\n" not in str(caught.value)


def test_tensors_survive_a_predictors_file_at_another_size():
    backbone = load_backbone("timm:test_vit", "random:0", 64)
    again = load_tensors("timm:test_vit", dump_tensors(backbone), backbone.preprocessing, 64)
    assert again.spec("penultimate") == backbone.spec("penultimate")
    assert (
        backbone.spec("penultimate").fingerprint
        != load_backbone("timm:test_vit", "random:0").spec("penultimate").fingerprint
    )


def test_weights_that_are_not_here_say_what_was_wanted_where_it_was_sought_and_what_to_do():
    with pytest.raises(
        WeightsError, match=r"weights DEFAULT of timm:resnet18 .*timm/resnet18\.a1_in1k.*--weights FILE"
    ) as caught:
        load_backbone("timm:resnet18")
    assert "\n" not in str(caught.value)


def test_nothing_is_fetched_unless_it_is_allowed():
    with pytest.raises(WeightsError, match=r"timm/resnet18\.a1_in1k\): allow the download"):
        load_backbone("timm:resnet18", allow_download=False)


@pytest.mark.parametrize(
    ("name", "weights"), [("resnet18", "best"), ("resnet18.best", "DEFAULT"), ("resnet18.best", "random:0")]
)
def test_an_unknown_tag_lists_the_known_ones(name, weights):
    with pytest.raises(
        WeightsError, match=r"no weights 'best'; expected one of DEFAULT, a1_in1k, .*, a file, or random:SEED"
    ):
        load_backbone(f"timm:{name}", weights)


def test_a_tag_in_the_name_brings_its_own_configuration():
    backbone = load_backbone("timm:vit_tiny_patch16_224.augreg_in21k", "random:0")
    assert backbone.layers["logits"].shape == (21843,)
    assert backbone.spec("logits").name == "timm:vit_tiny_patch16_224.augreg_in21k/logits"


def test_an_unknown_name_suggests_near_ones():
    with pytest.raises(
        BackboneError, match="timm has no model 'vit_tinny_patch16_224'; did you mean timm:vit_tiny_patch16_224"
    ):
        load_backbone("timm:vit_tinny_patch16_224", "random:0")


def test_an_unknown_layer_suggests_near_names():
    with pytest.raises(LayerError, match=r"did you mean .*blocks\.\d"):
        load_backbone("timm:test_vit", "random:0").spec("block.2")


def test_models_are_listed_with_their_facts():
    (listed,) = list_backbones("timm:deit_tiny_patch16_224")
    assert listed == {
        "name": "timm:deit_tiny_patch16_224",
        "parameters": 5717416,
        "input_size": 224,
        "license": "apache-2.0",
        "weights": "fb_in1k",
        "weights_here": False,
    }


def test_a_size_that_patches_do_not_cover_is_refused():
    with pytest.raises(BackboneError, match=r"patches of 16 pixels see 32 of them.*--size 32 or 48"):
        load_backbone("timm:vit_tiny_patch16_224", weights="random:0", size=40)
    assert load_backbone("timm:vit_tiny_patch16_224", weights="random:0", size=48).input_size == (48, 48)
