import json
import os
import pickle
import struct
import warnings
import zipfile

import numpy as np
import pytest
import torch
import torchvision
from networks import embed
from safetensors.torch import save, save_file
from torchvision.models.feature_extraction import create_feature_extractor

from featurebank.backbones import torchvision_models
from featurebank.backbones.checkpoints import state_digest
from featurebank.backbones.registry import dump_tensors, list_backbones, load_backbone, load_tensors
from featurebank.errors import BackboneError, WeightsError

pytestmark = pytest.mark.filterwarnings("ignore:NOTE. The nodes obtained", "ignore:Detected pickle protocol")
SIZES = [(320, 240), (97, 211)]


def build(name, **options):
    """Return torchvision's own network, its builders' warnings silenced."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(torchvision.models, name)(weights=None, **options).eval()


def official(model, weights, nodes, photos):
    """Return the outputs of a model's nodes with nothing but torchvision."""
    batch = torch.stack([weights.transforms()(photo) for photo in photos])
    with torch.no_grad():
        return create_feature_extractor(model, {node: node for node in nodes})(batch)


def write(path, content):
    torch.save(content, path)
    return str(path)


@pytest.fixture(scope="module")
def photos(noise):
    return [noise(*size, seed=seed) for seed, size in enumerate(SIZES)]


# --- features equal torchvision's --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "last", "middle"),
    [
        ("alexnet", "classifier.5", "features.12"),
        pytest.param("vgg16", "classifier.5", "features.23", marks=pytest.mark.slow),
        ("googlenet", "dropout", "inception4d"),
        ("resnet18", "flatten", "layer3"),
        ("densenet121", "flatten", "features.transition2"),
        pytest.param("inception_v3", "flatten", "Mixed_6e", marks=pytest.mark.slow),
        pytest.param("vit_b_16", "encoder.ln", "encoder.layers.encoder_layer_5", marks=pytest.mark.slow),
    ],
)
def test_features_equal_those_of_torchvisions_own_extractor(photos, distance, name, last, middle):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build(name)
    weights = torchvision.models.get_model_weights(name).DEFAULT
    expected = official(model, weights, [last, middle], photos)
    if name == "vit_b_16":
        expected = {node: tokens[:, 0] for node, tokens in expected.items()}
    else:
        expected[middle] = expected[middle].mean((2, 3))
    penultimate, pooled = embed(load_backbone(name, "random:0"), ["penultimate", middle], photos)
    assert distance(penultimate, expected[last]) < 1e-5
    assert distance(pooled, expected[middle]) < 1e-5


def test_logits_equal_the_models_output(photos, distance):
    torch.manual_seed(0)
    model = build("squeezenet1_1")
    batch = torch.stack([torchvision.models.SqueezeNet1_1_Weights.DEFAULT.transforms()(photo) for photo in photos])
    with torch.no_grad():
        expected = model(batch)
    logits, penultimate = embed(load_backbone("squeezenet1_1", "random:0"), ["logits", "penultimate:none"], photos)
    assert distance(logits, expected) < 1e-5
    assert penultimate.shape == (2, 512, 13, 13)


@pytest.mark.parametrize("where", ["a file", "the hub's cache"])
@pytest.mark.parametrize(("name", "last"), [("googlenet", "dropout"), ("inception_v3", "flatten")])
def test_official_weights_of_the_models_that_normalise_themselves_give_torchvisions_features(
    photos, distance, empty_hub, tmp_path, name, last, where
):
    weights = torchvision.models.get_model_weights(name).IMAGENET1K_V1
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = build(name, init_weights=False, aux_logits=True)
    folder = tmp_path if where == "a file" else empty_hub
    path = write(folder / os.path.basename(weights.url), model.state_dict())
    model.transform_input = True  # as torchvision sets it for its own weights
    expected = official(model, weights, [last], photos)[last]
    (found,) = embed(load_backbone(name, path if where == "a file" else "IMAGENET1K_V1"), ["penultimate"], photos)
    assert distance(found, expected) < 1e-5


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_your_own_weights_of_those_models_get_the_usual_normalisation(photos, distance, tmp_path, name):
    torch.manual_seed(2)
    model = build(name, init_weights=False, aux_logits=False, num_classes=5)
    batch = torch.stack(
        [torchvision.models.get_model_weights(name).DEFAULT.transforms()(photo) for photo in photos[:1]]
    )
    with torch.no_grad():
        expected = model(batch)
    backbone = load_backbone(name, write(tmp_path / "mine.pth", model.state_dict()))
    assert distance(embed(backbone, ["logits"], photos[:1], batch_size=1)[0], expected) < 1e-5


# --- weights -----------------------------------------------------------------------------------------------


def state_of(classes=7, seed=3):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build("resnet18", num_classes=classes).state_dict()


def wrapped(key):
    return lambda state: {key: state, "epoch": 3}


@pytest.mark.parametrize(
    "wrap",
    [
        dict,
        wrapped("state_dict"),
        wrapped("model"),
        wrapped("model_state_dict"),
        lambda state: {"module." + name: tensor for name, tensor in state.items()},
        lambda state: {"state_dict": {"module." + name: tensor for name, tensor in state.items()}},
    ],
    ids=["plain", "state_dict", "model", "model_state_dict", "module.", "both"],
)
def test_a_checkpoint_keeps_its_tensors_and_its_number_of_classes(tmp_path, wrap):
    state = state_of()
    backbone = load_backbone("resnet18", write(tmp_path / "mine.pth", wrap(state)))
    assert backbone.weights == state_digest(state)
    assert backbone.layers["logits"].shape == (7,)


def test_a_safetensors_checkpoint_is_the_same_backbone(tmp_path):
    save_file(state_of(), tmp_path / "mine.safetensors")
    backbone = load_backbone("resnet18", str(tmp_path / "mine.safetensors"))
    assert backbone.weights == state_digest(state_of())
    assert backbone.layers["logits"].shape == (7,)


def test_densenet_checkpoints_with_the_old_names_load(tmp_path):
    state = build("densenet121").state_dict()
    old = {
        name.replace("norm1.", "norm.1.")
        .replace("norm2.", "norm.2.")
        .replace("conv1.", "conv.1.")
        .replace("conv2.", "conv.2.")
        if "denselayer" in name
        else name: tensor
        for name, tensor in state.items()
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    assert load_backbone("densenet121", write(tmp_path / "old.pth", old)).weights == state_digest(state)


@pytest.mark.slow
def test_a_vision_transformers_checkpoint_brings_its_input_size(tmp_path):
    state = build("vit_b_16", image_size=96).state_dict()
    backbone = load_backbone("vit_b_16", write(tmp_path / "mine.pth", state))
    assert backbone.input_size == (96, 96)
    assert backbone.weights == state_digest(state)
    again = load_tensors("vit_b_16", dump_tensors(backbone), backbone.preprocessing)
    assert again.layers["encoder.ln"].shape == (37, 768)


def test_a_file_of_official_weights_brings_their_own_preprocessing(tmp_path):
    weights = torchvision.models.ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1
    state = build("vit_b_16", image_size=384).state_dict()
    backbone = load_backbone("vit_b_16", write(tmp_path / os.path.basename(weights.url), state))
    assert backbone.preprocessing == torchvision_models.preprocessing_of(weights)
    assert backbone.input_size == (384, 384)


def test_tensors_survive_a_predictors_file():
    backbone = load_backbone("squeezenet1_1", "random:4", size=64)
    again = load_tensors("squeezenet1_1", dump_tensors(backbone), backbone.preprocessing)
    assert again.spec("penultimate") == backbone.spec("penultimate")
    with pytest.raises(WeightsError, match="embedded weights of squeezenet1_1 are damaged"):
        load_tensors("squeezenet1_1", dump_tensors(backbone)[:-9], backbone.preprocessing)


class Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (self.marker, "w")


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".ckpt"])
def test_a_pickle_with_code_in_it_is_refused_and_not_run(tmp_path, suffix):
    marker = tmp_path / "was run"
    for path, dump in ((tmp_path / f"new{suffix}", torch.save), (tmp_path / f"old{suffix}", pickle.dump)):
        with open(path, "wb") as file:
            dump({"fc.weight": Evil(str(marker))}, file)
        with pytest.raises(WeightsError, match="no file of plain tensors"):
            load_backbone("resnet18", str(path))
    assert not marker.exists()
    torch.load(tmp_path / f"new{suffix}", weights_only=False)["fc.weight"].close()
    assert marker.exists()  # the code in it does work


def without(name):
    return lambda state: {key: tensor for key, tensor in state.items() if key != name}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda state: build("squeezenet1_0").state_dict(), "do not fit this backbone"),
        (lambda state: {**state, "conv1.weight": torch.zeros(64, 3, 5, 5)}, "do not fit this backbone"),
        (lambda state: {**state, "fc.bias": torch.tensor(1.0)}, "do not fit this backbone"),
        (without("fc.bias"), "do not fit this backbone"),
        (lambda state: {}, "do not fit this backbone"),
        (lambda state: [torch.zeros(2)], "does not hold a dictionary of tensors"),
        (lambda state: {**state, "fc.bias": "text"}, "does not hold a dictionary of tensors"),
        (lambda state: {**state, 3: torch.zeros(2)}, "does not hold a dictionary of tensors"),
        (lambda state: None, "does not hold a dictionary of tensors"),
    ],
    ids=[
        "another network",
        "another shape",
        "a scalar",
        "one missing",
        "none",
        "list",
        "text",
        "number as name",
        "null",
    ],
)
def test_tensors_that_do_not_fit_are_refused_in_one_line(tmp_path, damage, message):
    path = write(tmp_path / "mine.pth", damage(state_of()))
    with pytest.raises(WeightsError, match=message) as caught:
        load_backbone("resnet18", path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["cut.pth", "cut.safetensors", "text.pth", "text.safetensors", "empty.pth"])
def test_a_damaged_checkpoint_is_refused_in_one_line(tmp_path, name):
    if name.startswith("cut"):
        save_file(state_of(), tmp_path / name) if name.endswith("s") else write(tmp_path / name, state_of())
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:100_000])
    else:
        (tmp_path / name).write_bytes(b"" if name == "empty.pth" else b"not tensors\nat all")
    with pytest.raises(WeightsError, match="no file of plain tensors") as caught:
        load_backbone("resnet18", str(tmp_path / name))
    assert "\n" not in str(caught.value)


# --- checkpoints that declare more than they hold ----------------------------------------------------------

HUGE = 1 << 40


class Uninitialised:
    """A tensor that the file makes from a number: a gigabyte of address space, no byte of it in the file."""

    def __reduce__(self):
        return torch.Tensor, (1 << 28,)


@pytest.fixture
def options(monkeypatch):
    """Collect the options that torchvision's networks are built with."""
    seen = []
    whole = torchvision.models.get_model

    def spy(name, **given):
        seen.append({key: given[key] for key in ("num_classes", "image_size") if key in given})
        return whole(name, **given)

    monkeypatch.setattr(torchvision.models, "get_model", spy)
    return seen


def odd_tensors():
    """Return tensors that a torch file may hold and a network's may not be, with torch's warnings silenced."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [
            torch.sparse_coo_tensor(size=(HUGE, 512)),
            torch.zeros(1, 0).to_sparse_csr(),
            torch.quantize_per_tensor(torch.zeros(1), 1, 0, torch.qint8).expand(5),
            torch.empty(HUGE, device="meta"),
        ]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", ["fc.weight", "conv1.weight", "of_nothing"])
@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.zeros(1).expand(HUGE), f"declares {4 * HUGE} bytes and holds 4; expected all of them"),
        (torch.zeros(512).expand(HUGE, 512), f"declares {2048 * HUGE} bytes and holds 2048; expected all of them"),
        (torch.zeros(8).as_strided((HUGE, 4), (0, 1)), f"declares {16 * HUGE} bytes and holds 32"),
        (torch.zeros(1).expand(1 << 31, 1 << 31), f"declares {4 << 62} bytes and holds 4"),
        (torch.zeros(1).expand(64, 3, 7, 7), "declares 37632 bytes and holds 4"),
        (Uninitialised(), f"declares {4 << 28} bytes and holds"),
        *((tensor, "sparse, quantized or empty") for tensor in odd_tensors()),
    ],
    ids=[
        "expanded", "expanded rows", "overlapping", "more than 64 bits", "of the right shape", "made from a number",
        "sparse", "sparse rows", "quantized", "meta",
    ],
)  # fmt: skip
def test_a_tensor_that_declares_more_than_it_holds_is_refused_in_one_line(tmp_path, options, name, tensor, message):
    path = write(tmp_path / "mine.pth", {"fc.bias": torch.zeros(7), name: tensor})
    assert os.path.getsize(path) < 10_000
    with pytest.raises(WeightsError, match=message) as caught:
        load_backbone("resnet18", path)
    assert f"tensor {name!r}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert options == []


@pytest.mark.parametrize("damage", ["shape", "offsets"])
def test_a_safetensors_file_that_declares_more_than_it_holds_is_refused_in_one_line(tmp_path, options, damage):
    entry = {"dtype": "F32", "shape": [HUGE, 512], "data_offsets": [0, 4]}
    if damage == "offsets":
        entry["data_offsets"] = [0, 2048 * HUGE]
    header = json.dumps({"fc.weight": entry}).encode()
    (tmp_path / "mine.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with pytest.raises(WeightsError, match="no file of plain tensors") as caught:
        load_backbone("resnet18", str(tmp_path / "mine.safetensors"))
    assert "\n" not in str(caught.value)
    with pytest.raises(WeightsError, match="are damaged"):
        load_tensors("resnet18", (tmp_path / "mine.safetensors").read_bytes(), None)
    assert options == []


def test_a_compressed_torch_file_is_refused_before_it_is_inflated(tmp_path, monkeypatch):
    write(tmp_path / "stored.pth", {"fc.bias": torch.zeros(1 << 22)})
    with (
        zipfile.ZipFile(tmp_path / "stored.pth") as stored,
        zipfile.ZipFile(tmp_path / "mine.pth", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for info in stored.infolist():
            bomb.writestr(info.filename, stored.read(info))
    assert torch.load(tmp_path / "mine.pth", weights_only=True)["fc.bias"].shape == (1 << 22,)  # torch does inflate it
    monkeypatch.setattr(torch, "load", None)
    with pytest.raises(WeightsError, match=r"its \d{5} bytes unpack to 1677\d{4}; expected a file that torch.save"):
        load_backbone("resnet18", str(tmp_path / "mine.pth"))


@pytest.mark.parametrize(
    "head",
    [
        {"fc.bias": (100_000,)},
        {"fc.weight": (100_000, 1)},
        {"fc.weight": (100_000, 512, 1), "fc.bias": (100_000,)},
        {"fc.weight": (7, 512), "fc.bias": (100_000,)},
        {"fc.weight": (1000, 512), "fc.bias": (100_000,)},
        {"fc.weight": (), "fc.bias": ()},
        {"conv1.weight": (100_000, 3)},
        {"conv1.weight": (65, 3, 7, 7)},
    ],
    ids=str,
)
def test_a_network_is_not_built_after_a_head_that_is_not_whole(tmp_path, options, head):
    state = {name: tensor for name, tensor in state_of(1000).items() if name not in head}
    state |= {name: torch.zeros(shape) for name, shape in head.items()}
    with pytest.raises(WeightsError, match="do not fit this backbone"):
        load_backbone("resnet18", write(tmp_path / "mine.pth", state))
    with pytest.raises(WeightsError, match="do not fit this backbone"):
        load_tensors("resnet18", save(state), None)
    assert options == 2 * [{}]


@pytest.mark.parametrize(
    ("tokens", "patch"),
    [
        ((1, 100_000, 1), (768, 3, 16, 16)),
        ((1, 197, 768), (768, 3, 16, 1000)),
        ((1, 2, 1), (1, 1, 1, 100_000)),
        ((2, 5, 768), (768, 3, 16, 16)),
        ((197, 768), (768, 3, 16, 16)),
    ],
    ids=str,
)
def test_a_transformer_is_not_built_after_tokens_that_do_not_fit(options, tokens, patch):
    state = {"encoder.pos_embedding": torch.zeros(tokens), "conv_proj.weight": torch.zeros(patch)}
    with pytest.raises(WeightsError, match="do not fit this backbone"):
        load_tensors("vit_b_16", save(state), None)
    assert not any(options)


def test_a_missing_checkpoint_is_an_error_that_names_it():
    with pytest.raises(WeightsError, match=r"no checkpoint at '/nowhere/mine\.pth'"):
        load_backbone("resnet18", "/nowhere/mine.pth")


def test_unknown_weights_list_the_known_ones():
    with pytest.raises(
        WeightsError, match="expected one of DEFAULT, IMAGENET1K_V1, IMAGENET1K_V2, a file, or random:SEED"
    ):
        load_backbone("resnet50", "IMAGENET1K_V9")


@pytest.mark.parametrize(
    "seed", ["random", "random:", "random:x", "random:-1", "random:1.5", "random:²", f"random:{2**64}"]
)
def test_a_seed_that_is_no_whole_number_is_refused(seed):
    with pytest.raises(WeightsError, match="expected random:SEED with a whole number"):
        load_backbone("resnet18", seed)


@pytest.mark.parametrize("weights", ["DEFAULT", "IMAGENET1K_V1"])
def test_weights_that_are_not_here_say_what_was_wanted_where_it_was_sought_and_what_to_do(empty_hub, weights):
    with pytest.raises(WeightsError) as caught:
        load_backbone("resnet18", weights)
    message = str(caught.value)
    assert "\n" not in message
    wanted = [
        "IMAGENET1K_V1 of resnet18",
        str(empty_hub / "resnet18-f37072fd.pth"),
        "https://download.pytorch.org/models/",
        "no network",
        "--weights FILE",
    ]
    assert [text for text in wanted if text not in message] == []


@pytest.mark.parametrize("allow_download", [True, False])
def test_weights_in_the_hubs_cache_are_used(empty_hub, allow_download):
    state = state_of(classes=1000)
    torch.save(state, empty_hub / "resnet18-f37072fd.pth")
    assert load_backbone("resnet18", allow_download=allow_download).weights == state_digest(state)


def test_nothing_is_fetched_unless_it_is_allowed(empty_hub):
    with pytest.raises(WeightsError, match="allow the download") as caught:
        load_backbone("resnet18", allow_download=False)
    assert str(empty_hub / "resnet18-f37072fd.pth") in str(caught.value)
    assert "no network" not in str(caught.value)


def test_random_weights_depend_on_the_seed_alone_and_leave_torchs_random_state_as_it_was():
    torch.manual_seed(11)
    before = torch.get_rng_state()
    first = load_backbone("squeezenet1_1", "random:5")
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(12)
    assert load_backbone("squeezenet1_1", "random:5").weights == first.weights
    assert load_backbone("squeezenet1_1", "random:6").weights != first.weights
    torch.manual_seed(5)
    assert first.weights == state_digest(build("squeezenet1_1").state_dict())


def test_a_loaded_network_is_frozen_and_in_eval_mode():
    model = load_backbone("resnet18", "random:0").model
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())


# --- names, sizes, listing ---------------------------------------------------------------------------------


def test_an_unknown_name_suggests_near_ones():
    with pytest.raises(BackboneError, match="no backbone 'resnet81'; did you mean resnet18"):
        load_backbone("resnet81", "random:0")
    with pytest.raises(BackboneError, match="`featurebank backbones` lists them"):
        load_backbone("zzzzzzzzzz", "random:0")


def test_a_size_replaces_the_weights_own_and_is_part_of_the_fingerprint(noise):
    own, small = (load_backbone("resnet18", "random:0", size) for size in (None, 96))
    assert (own.input_size, small.input_size) == ((224, 224), (96, 96))
    assert small.prepare(noise(50, 80)).shape == (96, 96, 3)
    assert small.layers["layer4"].shape == (512, 3, 3)
    assert own.spec("layer4").fingerprint != small.spec("layer4").fingerprint
    for size in (0, -1, 8193, 10**12):
        with pytest.raises(BackboneError, match=f"an input size of {size} pixels; expected 1 to 8192"):
            load_backbone("resnet18", "random:0", size)


def test_every_classification_model_of_torchvision_is_listed_with_its_facts(empty_hub):
    (empty_hub / "resnet18-f37072fd.pth").touch()
    listed = {entry["name"]: entry for entry in list_backbones()}
    assert set(torchvision.models.list_models(module=torchvision.models)) < set(listed)
    assert listed["resnet18"] == {
        "name": "resnet18",
        "parameters": 11689512,
        "input_size": 224,
        "license": "",
        "weights": "IMAGENET1K_V1",
        "weights_here": True,
    }
    assert listed["resnet34"]["weights_here"] is False
    assert listed["vit_h_14"]["license"] == "CC-BY-NC-4.0"
    assert [entry["name"] for entry in list_backbones("densenet*")] == [
        "densenet121",
        "densenet161",
        "densenet169",
        "densenet201",
    ]


SMALL = [
    "convnext_tiny", "efficientnet_b0", "mnasnet0_5", "mobilenet_v3_small", "regnet_y_400mf", "shufflenet_v2_x0_5",
    "squeezenet1_1", "swin_t",
]  # fmt: skip
ALL = [pytest.param(name, marks=[] if name in SMALL else pytest.mark.slow) for name in torchvision_models.names()]


@pytest.mark.parametrize("name", ALL)
def test_every_model_lists_its_layers_and_its_features_are_finite(noise, name):
    backbone = load_backbone(name, "random:0")
    layers = backbone.layers
    assert layers["logits"].shape == (1000,)
    assert layers["penultimate"].takes_input
    assert layers["penultimate"].layout == ("NCHW" if name.startswith("squeezenet") else "vector")
    assert len(layers) > 10
    head = dict(backbone.model.named_modules())[layers["penultimate"].module]
    logits, penultimate = embed(backbone, ["logits", "penultimate"], [noise(300, 200)], batch_size=1)
    assert penultimate.shape == (1, head.weight.shape[1])
    assert np.isfinite(logits).all()
    assert np.isfinite(penultimate).all()
    assert penultimate.any()
