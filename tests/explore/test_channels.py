import numpy as np
import pytest
import torch
from PIL import Image

from featurebank import Backbone, Preprocessing, load_backbone, scan
from featurebank.errors import ImageError, LayerError, NotInstalledError
from featurebank.explore import channels, draw_channels, top_patches
from featurebank.explore.channels import effective_field


@pytest.fixture(scope="module")
def backbone():
    """Its channels are the red, the green and the blue of 8x8 squares, and one that never answers."""
    conv = torch.nn.Conv2d(3, 4, 8, stride=8)
    torch.nn.init.zeros_(conv.weight)
    torch.nn.init.zeros_(conv.bias)
    with torch.no_grad():
        for colour in range(3):
            conv.weight[colour, colour] = 1 / 64
    net = torch.nn.Sequential(conv, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 2))
    preprocessing = Preprocessing(64, (64, 64), "bilinear", (0.0,) * 3, (1.0,) * 3)
    return Backbone("colours", net, preprocessing, "1")


@pytest.fixture(scope="module")
def spots(tmp_path_factory):
    """Ten images of 128x128, the n-th with a red and a green square of brightness 20 n in places of its own."""
    folder = tmp_path_factory.mktemp("spots")
    for number in range(10):
        image = Image.new("RGB", (128, 128))
        image.paste((20 * number, 0, 0), (16 * (number % 8), 0, 16 * (number % 8) + 16, 16))
        image.paste((0, 200 - 20 * number, 0), (0, 64, 16, 80))
        image.save(folder / f"{number}.png")
    return folder


def test_the_strongest_patches_come_first_and_show_what_the_channel_answers_to(backbone, spots):
    red, green = top_patches(scan(spots), backbone, "0", channels=[0, 1], count=4)
    assert (red.channel, green.channel) == (0, 1)
    assert red.paths == ["9.png", "8.png", "7.png", "6.png"]
    assert green.paths == ["0.png", "1.png", "2.png", "3.png"]
    np.testing.assert_allclose(red.values, np.array([180, 160, 140, 120]) / 255, atol=0.05)
    for number, box, patch in zip([9, 8, 7], red.boxes, red.patches, strict=False):
        left = 16 * (number % 8)
        np.testing.assert_allclose(box, (left, 0, left + 16, 16), atol=2)
        assert patch.size == (channels.SIDE, channels.SIDE)
        assert np.asarray(patch)[40:56, 40:56, 0].min() > 20 * number - 15
    np.testing.assert_allclose(green.boxes[0], (0, 64, 16, 80), atol=2)


def test_channels_that_never_answer_are_not_chosen(backbone, spots):
    found = top_patches(scan(spots), backbone, "0")
    assert {each.channel for each in found[:2]} == {0, 1}
    assert len(found) == 4


def test_the_batches_do_not_matter(backbone, spots, monkeypatch):
    expected = channels.describe(top_patches(scan(spots), backbone, "0", count=3))
    monkeypatch.setattr(channels, "_BATCH", 3)
    assert channels.describe(top_patches(scan(spots), backbone, "0", count=3)) == expected


def test_the_field_of_one_convolution_is_its_kernel(backbone):
    # nine tenths of the gradient of an even 8x8 kernel lie within its inner 7.6 pixels
    assert 7 / 64 <= effective_field(backbone, backbone.layers["0"]) <= 8 / 64


def test_fields_grow_with_depth():
    backbone = load_backbone("resnet18", "random:0", 64)
    sides = [effective_field(backbone, backbone.layers[name]) for name in ("conv1", "layer1", "layer2", "layer3")]
    assert sides == sorted(sides)
    assert sides[0] < 0.15 < sides[-1] <= 1


def test_tokens_have_places_too(spots):
    backbone = load_backbone("timm:vit_tiny_patch16_224", "random:0")
    (found,) = top_patches(scan(spots), backbone, "blocks.0", channels=[5], count=2)
    assert len(found.patches) == 2


def test_an_unreadable_image_is_told_or_an_error(backbone, spots, tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    (tmp_path / "b.png").write_bytes((spots / "9.png").read_bytes())
    with pytest.raises(ImageError, match=r"^'a\.png': not a readable image"):
        top_patches(scan(tmp_path), backbone, "0")
    told = []
    found = top_patches(scan(tmp_path), backbone, "0", channels=[0], on_error=told.append)
    assert [line.split(":")[0] for line in told] == ["'a.png'"]
    assert found[0].paths == ["b.png"]
    (tmp_path / "b.png").unlink()
    with pytest.raises(ImageError, match="no image of the source could be read"):
        top_patches(scan(tmp_path), backbone, "0", on_error=told.append)


@pytest.mark.parametrize(
    ("layer", "numbers", "message"),
    [
        ("9", None, "no layer '9'"),
        ("logits", None, "layer 'logits' gives a vector, which has no place in an image"),
        ("0", [0, 4], "no channel 4 of '0'; expected 0 to 3"),
        ("0", [-1], "no channel -1 of '0'"),
    ],
)
def test_what_cannot_be_shown_is_an_error(backbone, spots, layer, numbers, message):
    with pytest.raises(LayerError, match=message):
        top_patches(scan(spots), backbone, layer, channels=numbers)


def test_the_picture_has_a_row_a_channel(backbone, spots, monkeypatch):
    found = top_patches(scan(spots), backbone, "0", channels=[1, 0], count=12)
    figure = draw_channels(found, "$x$")
    assert [ax.get_ylabel() for ax in figure.axes] == ["1", "0"]
    assert len({ax.images[0].get_array().shape for ax in figure.axes}) == 1
    monkeypatch.setattr("featurebank.explore.drawing.find_spec", lambda name: None)
    with pytest.raises(NotInstalledError):
        draw_channels(found)
