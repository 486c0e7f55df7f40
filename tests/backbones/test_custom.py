import numpy as np
import pytest
import torch
from torch import nn
from torchvision import transforms

from featurebank.backbones import entries
from featurebank.backbones.base import Backbone
from featurebank.backbones.checkpoints import state_digest
from featurebank.backbones.preprocessing import Preprocessing
from featurebank.backbones.registry import as_backbone
from featurebank.errors import BackboneError, LayerError

TINY = Preprocessing(8, (8, 8), "bilinear", (0.5,) * 3, (0.5,) * 3)


class Own(nn.Module):
    """A network that carries its own name, version and transform."""

    name = "own"
    version = "3"
    transform = TINY

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout())
        self.head = nn.Linear(4, 2)

    def forward(self, images):
        return self.head(self.body(images).mean((2, 3)))


def test_a_module_brings_its_name_version_and_transform():
    spec = as_backbone(Own()).spec("penultimate")
    assert (spec.name, spec.version, spec.preprocessing) == ("own/penultimate", "3", TINY.to_dict())
    given = Backbone.from_module(Own(), name="mine", version="4", transform=TINY.with_size(16)).spec("body:gem")
    assert (given.name, given.version, given.preprocessing["crop"]) == ("mine/body:gem", "4", [16, 16])


def test_a_backbone_is_frozen_and_in_eval_mode():
    backbone = as_backbone(Own().train())
    assert not any(module.training for module in backbone.model.modules())
    assert not any(parameter.requires_grad for parameter in backbone.model.parameters())


@pytest.mark.parametrize("missing", ["name", "version", "transform"])
def test_a_module_without_name_version_or_transform_is_refused(missing):
    given = {"name": "mine", "version": "1", "transform": TINY}
    with pytest.raises(BackboneError, match="needs a name, a version and a transform"):
        Backbone.from_module(nn.Linear(2, 2), **{**given, missing: None})


def test_what_is_no_backbone_is_refused():
    with pytest.raises(BackboneError, match="a int is no backbone"):
        as_backbone(3)
    backbone = as_backbone(Own())
    assert as_backbone(backbone) is backbone


def fingerprint(layer="body", store="float16", change=None, **options):
    module = Own()
    if change:
        change(module)
    return Backbone.from_module(module, **options).spec(layer, store=store).fingerprint


def nudge(module):
    module.head.bias.data[0] += 1e-6


def test_the_same_module_gives_the_same_fingerprint():
    assert fingerprint() == fingerprint()


@pytest.mark.parametrize(
    "change",
    [
        {"change": nudge},
        {"layer": "body.0"},
        {"layer": "body:max"},
        {"store": "float32"},
        {"version": "4"},
        {"name": "mine"},
        {"transform": TINY.with_size(16)},
        {"transform": Preprocessing(9, (8, 8), "bilinear", (0.5,) * 3, (0.5,) * 3)},
        {"transform": Preprocessing(8, (8, 8), "bicubic", (0.5,) * 3, (0.5,) * 3)},
        {"transform": Preprocessing(8, (8, 8), "bilinear", (0.5,) * 3, (0.6,) * 3)},
        {"transform": Preprocessing(8, (8, 8), "bilinear", (0.5,) * 3, (0.5,) * 3, "squash")},
        {"transform": transforms.Compose([transforms.Resize((8, 8)), transforms.ToTensor()])},
    ],
    ids=[
        "weights",
        "layer",
        "pool",
        "store",
        "version",
        "name",
        "size",
        "resize",
        "interpolation",
        "std",
        "mode",
        "callable",
    ],
)
def test_whatever_changes_the_numbers_changes_the_fingerprint(change):
    assert fingerprint(**change) != fingerprint()


def test_buffers_are_part_of_the_weights():
    def shift(module):
        module.body[1].running_mean += 1

    assert fingerprint(change=shift) != fingerprint()


def test_the_weights_digest_ignores_the_order_of_tensors_and_sees_names_shapes_dtypes_and_bits():
    state = {
        "a": torch.arange(6.0).view(2, 3),
        "b": torch.tensor(1),
        "c": torch.zeros(0, 2),
        "d": torch.ones(2, dtype=torch.bfloat16),
    }
    digest = state_digest(state)
    assert digest == state_digest(dict(reversed(state.items())))
    assert digest == state_digest({**state, "a": torch.arange(6.0).view(3, 2).T.contiguous().T.reshape(2, 3)})
    others = [
        {**state, "a": state["a"].view(3, 2)},
        {**state, "a": state["a"].double()},
        {**state, "a": state["a"].nextafter(torch.tensor(9.0))},
        {**state, "c": torch.zeros(2, 0)},
        {"x" if name == "a" else name: tensor for name, tensor in state.items()},
    ]
    assert len({digest, *map(state_digest, others)}) == 6


class TwoHeads(nn.Module):
    """Two heads of 10 classes, with a tensor at the root."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 10))
        self.body = nn.BatchNorm2d(4)
        self.head, self.twin = nn.Linear(4, 10), nn.Linear(4, 10, bias=False)


@pytest.mark.parametrize(
    ("shapes", "classes"),
    [
        ({}, None),
        ({"head.weight": (7, 4), "head.bias": (7,)}, 7),
        ({"head.weight": (7, 4), "head.bias": (7,), "twin.weight": (7, 4)}, 7),
        ({"head.weight": (11, 4), "head.bias": (11,), "of_another": (3, 3)}, 11),
        ({"twin.weight": (0, 4)}, 0),
        ({"head.weight": (7, 4), "head.bias": (7,), "twin.weight": (8, 4)}, None),
        ({"head.weight": (7, 4), "head.bias": (8,)}, None),
        ({"head.weight": (7, 4), "head.bias": None}, None),
        ({"head.weight": (7, 4)}, None),
        ({"head.weight": (7, 5), "head.bias": (7,)}, None),
        ({"head.weight": (7, 4), "head.bias": (7, 1)}, None),
        ({"head.weight": (7, 4), "head.bias": ()}, None),
        ({"token": (1, 11)}, None),
        ({"body.num_batches_tracked": (7,)}, None),
    ],
    ids=str,
)
def test_the_number_of_classes_is_the_length_that_whole_heads_agree_on(shapes, classes):
    model = TwoHeads()
    state = {**model.state_dict(), **{name: torch.zeros(shape) for name, shape in shapes.items() if shape is not None}}
    found = {name: tuple(tensor.shape) for name, tensor in state.items() if shapes.get(name, ()) is not None}
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    classifier = "twin" if list(shapes) == ["twin.weight"] else "head"
    assert entries.classes_in(found, entries.Own(own, classifier))[0] == classes


def test_a_callable_transform_is_described_by_its_text_and_size():
    pipeline = transforms.Compose([transforms.Resize(10), transforms.CenterCrop(8), transforms.ToTensor()])
    spec = Backbone.from_module(Own(), transform=pipeline).spec("body")
    assert spec.preprocessing["crop"] == [8, 8]
    assert "CenterCrop" in spec.preprocessing["transform"]


def to_tensor(image):
    return transforms.functional.to_tensor(image.resize((8, 8)))


def test_a_functions_address_is_no_part_of_the_fingerprint():
    spec = Backbone.from_module(Own(), transform=to_tensor).spec("body")
    assert spec.preprocessing == {"transform": "to_tensor", "crop": [8, 8]}


def test_a_transform_that_gives_no_image_tensor_is_refused(noise):
    backbone = Backbone.from_module(Own(), transform=np.asarray)
    with pytest.raises(BackboneError, match="expected a float tensor"):
        backbone.prepare(noise(9, 7))


def test_a_transform_that_gives_several_sizes_is_refused(noise):
    backbone = Backbone.from_module(Own(), transform=transforms.Compose([transforms.Resize(8), transforms.ToTensor()]))
    assert backbone.prepare(noise(20, 20)).shape == (3, 8, 8)
    with pytest.raises(BackboneError, match="the transform gave 8x16, and 8x8 before"):
        backbone.prepare(noise(20, 10))


def test_a_network_that_does_not_take_the_size_of_its_transform_says_so():
    with pytest.raises(LayerError, match="does not take 2x2 images"):
        _ = Backbone.from_module(Own(), transform=TINY.with_size(2)).layers
