"""Names of other tools: answered with the name that is known here, and without a network."""

import json
import sys

import pytest
import timm
import torch
from safetensors.torch import save_file

from featurebank.backbones.checkpoints import state_digest
from featurebank.backbones.names import suggest
from featurebank.backbones.registry import build_backbone, load_backbone
from featurebank.errors import BackboneError, WeightsError

KNOWN = ["efficientnet_b0", "mobilenet_v2", "resnet18", "resnet50", "vit_b_16", "vit_l_16"]


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("resnet50d", "timm:resnet50d"),
        ("mobilenetv3_large_100", "timm:mobilenetv3_large_100"),
        ("efficientnet_b0.ra_in1k", "timm:efficientnet_b0.ra_in1k"),
        ("vit_small_patch14_dinov2.lvd142m", "timm:vit_small_patch14_dinov2.lvd142m"),
        ("timm/vit_small_patch14_dinov2.lvd142m", "timm:vit_small_patch14_dinov2.lvd142m"),
        ("hf-hub:timm/resnet18.a1_in1k", "timm:resnet18.a1_in1k"),
        ("dinov2_vits14", "timm:vit_small_patch14_dinov2"),
        ("dinov2_vitb14_reg", "timm:vit_base_patch14_reg4_dinov2"),
        ("facebook/dinov2-small", "timm:vit_small_patch14_dinov2"),
        ("facebook/dinov2-with-registers-large", "timm:vit_large_patch14_reg4_dinov2"),
        ("dino_vitb8", "timm:vit_base_patch8_224.dino"),
        ("facebook/vit-mae-base", "timm:vit_base_patch16_224.mae"),
        ("openai/clip-vit-base-patch32", "timm:vit_base_patch32_clip_224"),
        ("google/siglip-base-patch16-224", "timm:vit_base_patch16_siglip_224"),
        ("ViT-L/14", "timm:vit_large_patch14_224"),
        ("RN50", "timm:resnet50_clip"),
        ("ViT-B/16", "vit_b_16"),
        ("ResNet50", "resnet50"),
        ("microsoft/resnet-50", "resnet50"),
        ("MobileNetV2", "mobilenet_v2"),
        ("torchvision.models.resnet50", "resnet50"),
        ("https://huggingface.co/timm/resnet50d.ra2_in1k", "timm:resnet50d.ra2_in1k"),
        ("TIMM:resnet50d", "timm:resnet50d"),
        ("resnet81", "resnet18"),
    ],
)
def test_the_nearest_name_comes_first(name, nearest):
    first = suggest(name, KNOWN).removeprefix("did you mean ").rstrip("?").split(" or ")[0]
    assert first == nearest


def test_what_is_suggested_is_known():
    for name in ("dinov2_vits14", "facebook/convnext-tiny-224", "microsoft/swin-tiny-patch4-window7-224"):
        for each in suggest(name).removeprefix("did you mean ").rstrip("?").split(" or "):
            assert timm.is_model(each.removeprefix("timm:").partition(".")[0])


def test_a_repository_that_timm_does_not_name_is_answered_with_timms_way_to_it():
    assert suggest("MahmoodLab/uni").startswith("timm:hf-hub:MahmoodLab/uni takes it from the Hub")


def test_a_name_like_no_other_says_where_names_are():
    assert suggest("xyzzy", KNOWN) == "`featurebank backbones` lists them"


def test_without_timm_it_is_said_to_be_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    assert suggest("ResNet-18", KNOWN).startswith("did you mean resnet18?; timm, which has more, is not installed")


def test_an_unknown_backbone_is_answered_in_one_line():
    with pytest.raises(BackboneError, match=r"no backbone 'resnet50d'; did you mean timm:resnet50d\?") as caught:
        load_backbone("resnet50d")
    assert "\n" not in str(caught.value)


# --- networks of the Hub -----------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The Hub's cache with one network of timm's in it: the repository's name and the network's tensors."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--lab--slides"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    config = {"architecture": "test_resnet", "num_classes": 5, "pretrained_cfg": {"input_size": [3, 96, 96]}}
    (snapshot / "config.json").write_text(json.dumps(config))
    with torch.random.fork_rng():
        torch.manual_seed(3)
        state = timm.create_model("test_resnet", num_classes=5).state_dict()
    save_file(state, snapshot / "model.safetensors")
    return "lab/slides", state


@pytest.mark.parametrize("prefix", ["timm:hf-hub:", "timm:hf_hub:"])
def test_a_network_of_the_hub_is_loaded_with_its_own_configuration(hub, prefix):
    name, state = hub
    backbone = load_backbone(f"{prefix}{name}", allow_download=False)
    assert backbone.weights == state_digest(state)
    assert (backbone.name, backbone.input_size) == (f"timm:hf-hub:{name}", (96, 96))
    again = build_backbone(backbone.name, state, backbone.preprocessing)
    assert again.spec("logits") == backbone.spec("logits")


def test_a_network_of_the_hub_takes_a_file(hub, tmp_path):
    name, state = hub
    torch.save({"state_dict": {f"model.{key}": tensor for key, tensor in state.items()}}, tmp_path / "mine.ckpt")
    assert load_backbone(f"timm:hf-hub:{name}", str(tmp_path / "mine.ckpt")).weights == state_digest(state)


@pytest.mark.parametrize("allow_download", [True, False])
def test_a_network_of_the_hub_that_is_not_here_says_what_to_do(allow_download):
    with pytest.raises(
        WeightsError, match=r"config\.json of lab/none is not on this machine.*--weights FILE"
    ) as caught:
        load_backbone("timm:hf-hub:lab/none", allow_download=allow_download)
    assert "\n" not in str(caught.value)


def test_a_repository_of_timms_own_is_answered_with_its_name():
    with pytest.raises(BackboneError, match=r"expected its name there: timm:resnet18\.a1_in1k"):
        load_backbone("timm:hf-hub:timm/resnet18.a1_in1k")


@pytest.mark.parametrize("name", ["timm:local-dir:/tmp", "timm:hf-hub:lab/none", "timm:../x"])
def test_the_name_in_a_predictor_reads_no_file_and_fetches_nothing(monkeypatch, name):
    import huggingface_hub

    real = huggingface_hub.hf_hub_download
    asked = []

    def spy(*args, **options):
        asked.append(options["local_files_only"])
        return real(*args, **options)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", spy)
    with pytest.raises((BackboneError, WeightsError)):
        build_backbone(name, {}, None)
    assert all(asked)
