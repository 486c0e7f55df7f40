import numpy as np
import pytest
import torch
from torch import nn

from featurebank import Backbone, Preprocessing, load_backbone
from featurebank.backbones.capture import Capture
from featurebank.errors import LayerError
from featurebank.finetuning.cut import Tail, classifier_of, find_cut, layer_at

FAMILIES = [
    pytest.param("alexnet", "features.8", 64, marks=pytest.mark.slow),
    pytest.param("vgg16", "features.28", 32, marks=pytest.mark.slow),
    pytest.param("googlenet", "inception5a", 64, marks=pytest.mark.slow),
    pytest.param("inception_v3", "Mixed_7a", 96, marks=pytest.mark.slow),
    ("resnet18", "layer4", 32),
    ("resnet50", "layer3", 32),
    ("densenet121", "denseblock4", 32),
    ("efficientnet_lite0", "blocks.5", 64),
    ("timm:vit_tiny_patch16_224", "blocks.9", 32),
    ("swin_t", "features.5", 64),
    ("convnext_tiny", "features.5", 64),
    pytest.param("vit_b_16", "encoder_layer_9", None, marks=pytest.mark.slow),
]
HALF = (0.5, 0.5, 0.5)


def images_for(backbone, count=5):
    return torch.randn(count, 3, *backbone.input_size, generator=torch.Generator().manual_seed(1))


def activations(backbone, module, images):
    with torch.no_grad():
        return Capture(backbone.model, [(layer_at(backbone, module), "none")])(images)[0]


def own(module, size=8):
    return Backbone.from_module(
        module.eval(), name="own", version="1", transform=Preprocessing(size, (size, size), "bilinear", HALF, HALF)
    )


@pytest.mark.parametrize(("name", "cut", "size"), FAMILIES)
def test_from_the_cut_on_every_family_gives_what_the_whole_network_gives(name, cut, size):
    backbone = load_backbone(name, "random:0", size)
    module = find_cut(backbone, cut)
    tail = Tail(backbone, module)
    images = images_for(backbone, 3)  # another batch size than that of the probe
    given = activations(backbone, module, images)
    with torch.no_grad():
        expected = backbone.model(images)
        assert torch.equal(tail(given), expected)
        through_cache = tail(given.half().float())
    if name != "inception_v3":  # float16 does not hold what its random weights give
        np.testing.assert_allclose(through_cache, expected, atol=1e-3 * float(expected.abs().max()))
    assert given.shape[1:] == layer_at(backbone, module).shape


def test_only_what_lies_behind_the_cut_is_copied_under_its_own_names():
    backbone = load_backbone("resnet18", "random:0", 32)
    tail = Tail(backbone, "layer4")
    names = set(tail.network.state_dict())
    assert names == {name for name in backbone.model.state_dict() if name.startswith(("layer4.", "fc."))}
    with torch.no_grad():
        tail.network.fc.weight.zero_()
    assert backbone.model.fc.weight.abs().max() > 0


def test_all_of_the_network_and_its_head_are_cuts_too():
    backbone = load_backbone("resnet18", "random:0", 32)
    assert find_cut(backbone, "input") == ""
    assert find_cut(backbone, "head") == classifier_of(backbone) == "fc"
    images = images_for(backbone)
    with torch.no_grad():
        expected = backbone.model(images)
        assert torch.equal(Tail(backbone, "")(images), expected)
        assert torch.equal(Tail(backbone, "fc")(activations(backbone, "fc", images)), expected)
    assert layer_at(backbone, "fc").name == "penultimate"
    assert layer_at(backbone, "layer4").name == "layer4.input"


def test_gradients_reach_what_is_behind_the_cut_and_nothing_else():
    tail = Tail(load_backbone("vit_b_16", "random:0"), "encoder.layers.encoder_layer_11").requires_grad_()
    tail(torch.randn(1, 197, 768)).sum().backward()
    reached = {name for name, each in tail.network.named_parameters() if each.grad is not None}
    assert reached
    assert all(name.startswith(("encoder.layers.encoder_layer_11.", "encoder.ln.", "heads.")) for name in reached)


# --- refusals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "size", "cut", "message"),
    [
        ("resnet18", 32, "layer5", "no module 'layer5' to cut before; did you mean layer"),
        ("resnet18", 32, "zzz", "no module 'zzz' to cut before; `featurebank layers BACKBONE` lists them"),
        ("resnet18", 32, "conv2", "no module 'conv2' to cut before; did you mean layer1.0.conv2, layer1.1.conv2"),
        ("resnet18", 32, "layer3.0.relu", "layer3.0.relu does not take one tensor with a row an image, once; cut "
         "before layer3.0 or layer3"),
        ("densenet121", 32, "denseblock4.denselayer2", "cut before features.denseblock4 or features"),
    ],
)  # fmt: skip
def test_what_is_no_cut_is_refused_with_the_nearest_that_is(name, size, cut, message):
    with pytest.raises(LayerError) as caught:
        find_cut(load_backbone(name, "random:0", size), cut)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "cut"), [("resnet18", "layer3.0.conv2"), ("densenet121", "features.denseblock4.denselayer2.norm1")]
)
def test_a_cut_that_something_else_passes_is_refused(name, cut):
    backbone = load_backbone(name, "random:0", 32)
    with pytest.raises(LayerError, match="expected a module that all goes through"):
        Tail(backbone, find_cut(backbone, cut))


class Skip(nn.Module):
    """Adds what came before the second module to what it gives, without working in place."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
        self.head = nn.Linear(4, 2)

    def forward(self, images):
        first = self.first(images)
        return self.head((first + self.second(first)).mean((2, 3)))


def test_a_connection_that_skips_the_cut_is_noticed():
    with pytest.raises(LayerError, match=r"more than the input of 'second' goes on behind it"):
        Tail(own(Skip()), "second")


class Keywords(nn.Module):
    """Hands its modules their input by name, and gives two outputs before the cut."""

    class Two(nn.Module):
        def forward(self, images):
            return images[:, :1], {"count": 3}, [images.mean((2, 3))]

    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, *, x):
            return self.conv(x).mean((2, 3))

    def __init__(self):
        super().__init__()
        self.two, self.named, self.head = self.Two(), self.Named(), nn.Linear(4, 2)

    def forward(self, images):
        self.two(images)
        return self.head(self.named(x=images))


def test_an_input_by_name_is_replaced_by_name():
    backbone = own(Keywords())
    tail, images = Tail(backbone, "named"), images_for(backbone)
    with torch.no_grad():
        assert torch.equal(tail(activations(backbone, "named", images)), backbone.model(images))


def test_a_network_without_a_linear_classifier_has_no_head():
    backbone = own(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()))
    with pytest.raises(LayerError, match="own does not end in a linear classifier of one vector an image"):
        classifier_of(backbone)
