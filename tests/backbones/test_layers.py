import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from featurebank.backbones.capture import Capture, pool_tensor
from featurebank.backbones.layers import find_layers, get_layer, probe
from featurebank.bank.spec import split_pool
from featurebank.errors import LayerError

IMAGES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def net(seed=0):
    """A small network with in-place activations after the layers of interest."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 6, 3),
        nn.Hardswish(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 5),
        nn.ReLU(inplace=True),
        nn.Linear(5, 2),
    ).eval()


def capture(model, *names, images=IMAGES):
    layers = find_layers(model, images)
    wanted = [get_layer(layers, *name.split(":")) for name in names]
    with torch.inference_mode():
        return Capture(model, wanted)(images)


# --- what is captured --------------------------------------------------------------------------------------


def test_an_in_place_activation_does_not_corrupt_the_layer_before_it():
    model = net()
    before, hidden, penultimate = capture(model, "0:none", "6", "penultimate")
    with torch.inference_mode():
        assert torch.equal(before, model[0](IMAGES))
        assert torch.equal(hidden, model[:7](IMAGES))
        assert torch.equal(penultimate, model[:8](IMAGES))
    assert before.min() < 0
    assert hidden.min() < 0
    assert penultimate.min() == 0


def test_all_layers_come_from_one_pass_in_the_order_asked_for():
    model = net()
    outputs = capture(model, "logits", "2:none", "penultimate", "0:max")
    with torch.inference_mode():
        assert torch.equal(outputs[0], model(IMAGES))
        assert torch.equal(outputs[1], model[:3](IMAGES))
        assert torch.equal(outputs[2], model[:8](IMAGES))
        assert torch.equal(outputs[3], model[0](IMAGES).amax((2, 3)))


def test_one_layer_can_be_pooled_in_several_ways_at_once():
    model = net()
    mean, largest, both = capture(model, "2:avg", "2:max", "2:avgmax")
    assert torch.equal(both, torch.cat([mean, largest], 1))


class Bomb(nn.Module):
    """Counts its calls."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, images):
        self.calls += 1
        return images


def test_the_pass_ends_after_the_deepest_layer():
    bomb = Bomb()
    model = nn.Sequential(*net(), bomb).eval()
    layers = find_layers(model, IMAGES)
    bomb.calls = 0
    for name in ("0", "2", "penultimate"):
        Capture(model, [get_layer(layers, name)])(IMAGES)
        assert bomb.calls == 0
    Capture(model, [get_layer(layers, "0"), get_layer(layers, "logits")])(IMAGES)
    assert bomb.calls == 1


def test_the_classifier_itself_is_not_computed_for_the_penultimate_layer():
    model = net()
    layers = find_layers(model, IMAGES)
    model[8].weight.data = torch.zeros(2, 7)  # its call would fail
    assert Capture(model, [get_layer(layers, "penultimate")])(IMAGES)[0].shape == (2, 5)


def test_capturing_leaves_no_hooks_behind():
    model = net()
    capture(model, "0", "penultimate", "logits")
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.block = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 2)

    def forward(self, images):
        first = self.block(images.mean((2, 3)).repeat(1, 2)[:, :4])
        self.norm(first)
        return self.head(self.block(first) + 1)


def test_a_module_called_twice_gives_its_last_call():
    torch.manual_seed(0)
    model = Twice().eval()
    (found,) = capture(model, "block")
    with torch.inference_mode():
        expected = model.block(model.block(IMAGES.mean((2, 3)).repeat(1, 2)[:, :4]))
    assert torch.equal(found, expected)


class Named(nn.Module):
    """Calls its modules with named arguments, as transformers do."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4, 2)

    def forward(self, images):
        return self.head(input=self.conv(input=images).mean((2, 3)))


def test_modules_called_with_named_arguments_are_captured():
    torch.manual_seed(0)
    model = Named().eval()
    conv, penultimate = capture(model, "conv", "penultimate")
    assert penultimate.shape == (2, 4)
    assert torch.allclose(conv, penultimate)


class Branches(nn.Module):
    """Computes `late` only for bright images."""

    def __init__(self):
        super().__init__()
        self.late = nn.Flatten()
        self.head = nn.Linear(3, 2)

    def forward(self, images):
        if images.mean() > 0.5:
            self.late(images)
        return self.head(images.mean((2, 3)))


def test_a_layer_that_is_not_computed_for_an_input_is_an_error_that_names_it():
    model = Branches().eval()
    layers = find_layers(model, torch.ones(2, 3, 4, 4))
    assert "late" not in find_layers(model, torch.zeros(2, 3, 4, 4))
    with pytest.raises(LayerError, match="'late'"):
        Capture(model, [get_layer(layers, "late")])(torch.zeros(2, 3, 4, 4))


# --- what is listed ----------------------------------------------------------------------------------------


def test_layers_are_listed_in_order_with_shapes_and_layouts():
    layers = find_layers(net(), IMAGES)
    found = [(name, layer.shape, layer.layout) for name, layer in layers.items()]
    assert found == [
        ("0", (4, 6, 6), "NCHW"), ("1", (4, 6, 6), "NCHW"), ("2", (6, 4, 4), "NCHW"), ("3", (6, 4, 4), "NCHW"),
        ("4", (6, 1, 1), "NCHW"), ("5", (6,), "vector"), ("6", (5,), "vector"), ("7", (5,), "vector"),
        ("8", (2,), "vector"), ("logits", (2,), "vector"), ("penultimate", (5,), "vector"),
    ]  # fmt: skip


def test_the_penultimate_layer_is_the_input_of_the_last_linear_or_1x1_classifier():
    linear = find_layers(net(), IMAGES)["penultimate"]
    assert (linear.module, linear.takes_input) == ("8", True)
    conv = nn.Sequential(
        nn.Conv2d(3, 7, 3), nn.ReLU(), nn.Conv2d(7, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).eval()
    layer = find_layers(conv, IMAGES)["penultimate"]
    assert (layer.module, layer.shape, layer.default_pool) == ("2", (7, 6, 6), "avg")


def test_a_named_classifier_decides_the_penultimate_layer():
    layer = find_layers(net(), IMAGES, classifier="6")["penultimate"]
    assert (layer.module, layer.shape) == ("6", (6,))


def test_without_a_classifier_the_penultimate_layer_is_the_output():
    model = nn.Sequential(nn.Conv2d(3, 7, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    penultimate, logits = capture(model, "penultimate", "logits")
    assert torch.equal(penultimate, logits)
    with torch.inference_mode():
        assert torch.equal(logits, model(IMAGES))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.embed = nn.Conv2d(3, 4, 2, 2)
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 2)

    def forward(self, images):
        tokens = self.embed(images).flatten(2).transpose(1, 2)
        return self.head(self.norm(self.attention(tokens, tokens, tokens)[0]).mean(1))


def test_attention_modules_that_return_tuples_are_left_out():
    layers = find_layers(Attention().eval(), IMAGES)
    assert set(layers) == {"embed", "norm", "head", "logits", "penultimate"}
    assert (layers["norm"].layout, layers["norm"].shape) == ("tokens", (16, 4))


class Mixer(nn.Module):
    """Its `windows` turn two images into eight rows, its `whole` into one number, its `count` into integers."""

    def __init__(self):
        super().__init__()
        self.windows, self.whole, self.count, self.head = (nn.Identity() for _ in range(4))

    def forward(self, images):
        self.windows(images.reshape(8, 3, 4, 4))
        self.whole(images.mean())
        self.count(images.argmax(1))
        return self.head(images.mean((2, 3)))


def test_modules_whose_output_is_not_one_float_row_an_image_are_left_out():
    assert set(find_layers(Mixer().eval(), IMAGES)) == {"head", "logits", "penultimate"}


def test_a_network_without_one_tensor_as_output_is_refused():
    class Pair(nn.Module):
        def forward(self, images):
            return images, images

    with pytest.raises(LayerError, match="not one tensor with a row an image"):
        find_layers(Pair().eval(), IMAGES)


def test_images_of_a_size_the_network_does_not_take_are_refused_in_one_line():
    with pytest.raises(LayerError, match="does not take 2x2 images") as caught:
        probe(net(), (2, 2))
    assert "\n" not in str(caught.value)


# --- looking one up ----------------------------------------------------------------------------------------


def test_an_unknown_layer_suggests_near_names():
    layers = find_layers(torchvision.models.resnet18().eval(), torch.zeros(2, 3, 32, 32))
    with pytest.raises(LayerError, match=r"no layer 'layer33'.*did you mean .*layer3"):
        get_layer(layers, "layer33")
    with pytest.raises(LayerError, match="`featurebank layers BACKBONE` lists them"):
        get_layer(layers, "zzzzzzzzzz")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("layer3:avgmx", "no pooling 'avgmx' of 'layer3'; did you mean avgmax?"),
        ("layer3:sum", "no pooling 'sum' of 'layer3'; expected one of avg, max, avgmax, gem, none"),
        ("penultimate:avgmx", "no pooling 'avgmx' of 'penultimate'; expected one of none"),
    ],
)
def test_an_unknown_pooling_is_not_taken_for_a_layer(name, message):
    layers = find_layers(torchvision.models.resnet18().eval(), torch.zeros(2, 3, 32, 32))
    with pytest.raises(LayerError) as caught:
        get_layer(layers, *split_pool(name))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("name", "pool", "message"),
    [
        ("6", "avg", "expected one of none"),
        ("0", "cls", "expected one of avg, max, avgmax, gem, none"),
        ("0", "sum", "pool 'sum'"),
    ],
)
def test_a_pool_that_does_not_fit_is_refused(name, pool, message):
    with pytest.raises(LayerError, match=message):
        get_layer(find_layers(net(), IMAGES), name, pool)


# --- pooling -----------------------------------------------------------------------------------------------

# two cells of one image with three channels: (1, 2, 3) and (3, -2, 5)
CELLS = np.array([[1, 2, 3], [3, -2, 5]], np.float32)
GEM = [((1 + 27) / 2) ** (1 / 3), (8 / 2) ** (1 / 3), ((27 + 125) / 2) ** (1 / 3)]
POOLED = {"avg": [2, 0, 4], "max": [3, 2, 5], "avgmax": [2, 0, 4, 3, 2, 5], "gem": GEM}


@pytest.mark.parametrize("pool", POOLED)
@pytest.mark.parametrize(
    ("layout", "prefix", "tensor"),
    [
        ("NCHW", 0, CELLS.T.reshape(1, 3, 1, 2)),
        ("NHWC", 0, CELLS.reshape(1, 2, 1, 3)),
        ("tokens", 0, CELLS.reshape(1, 2, 3)),
        ("cls-tokens", 1, np.concatenate([[[99, 99, 99]], CELLS])[None]),
        ("tokens", 3, np.concatenate([[[99, 99, 99]] * 3, CELLS])[None]),
    ],
    ids=["NCHW", "NHWC", "tokens", "class token", "registers"],
)
def test_pools_equal_hand_computed_values_in_every_layout(layout, prefix, tensor, pool):
    pooled = pool_tensor(torch.tensor(tensor), layout, prefix, pool)
    assert pooled.shape == (1, len(POOLED[pool]))
    assert np.allclose(pooled[0], POOLED[pool], rtol=1e-6)


def test_cls_is_the_first_token_and_none_keeps_everything_as_copies():
    tokens = torch.arange(12.0).view(1, 4, 3)
    cls = pool_tensor(tokens, "cls-tokens", 1, "cls")
    whole = pool_tensor(tokens, "cls-tokens", 1, "none")
    tokens.zero_()
    assert cls.tolist() == [[0, 1, 2]]
    assert whole.tolist() == torch.arange(12.0).view(1, 4, 3).tolist()


@pytest.mark.parametrize("pool", ["avg", "max", "avgmax", "gem", "none"])
def test_pooled_values_are_float32_copies(pool):
    maps = torch.rand(2, 3, 1, 1, dtype=torch.float64)
    pooled = pool_tensor(maps, "NCHW", 0, pool)
    before = pooled.clone()
    maps.zero_()
    assert pooled.dtype == torch.float32
    assert torch.equal(pooled, before)


# --- real networks -----------------------------------------------------------------------------------------


def test_swin_maps_are_channels_last_and_average_over_height_and_width():
    torch.manual_seed(0)
    model = torchvision.models.SwinTransformer([4, 4], 16, depths=[1, 2], num_heads=[2, 4], window_size=[4, 4]).eval()
    images = torch.rand(2, 3, 64, 64)
    layer, pool = get_layer(find_layers(model, images), "features.3")
    assert (layer.layout, layer.shape, pool) == ("NHWC", (8, 8, 32), "avg")
    with torch.inference_mode():
        (found,) = Capture(model, [(layer, pool)])(images)
        expected = model.features[:4](images).mean((1, 2))
    assert torch.allclose(found, expected, atol=1e-6)


def test_torchvision_vit_tokens_have_a_class_token_that_averages_leave_out():
    torch.manual_seed(0)
    model = torchvision.models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=16
    ).eval()
    images = torch.rand(2, 3, 32, 32)
    layers = find_layers(model, images)
    assert {layers[f"encoder.layers.encoder_layer_{i}"].layout for i in range(2)} == {"cls-tokens"}
    assert layers["encoder.ln"].shape == (17, 8)
    assert layers["conv_proj"].layout == "NCHW"
    with torch.inference_mode():
        wanted = [get_layer(layers, "encoder.ln", pool) for pool in ("cls", "avg", "none")]
        cls, mean, whole = Capture(model, wanted)(images)
    assert torch.equal(cls, whole[:, 0])
    assert torch.allclose(mean, whole[:, 1:].mean(1))
    assert not any(name.endswith("self_attention") for name in layers)
