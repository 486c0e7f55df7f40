import io
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from featurebank import Backbone, FeatureExtractor, Preprocessing, load_backbone
from featurebank.backbones.engine import Engine
from featurebank.backbones.framing import MOST_TILES, tile_starts
from featurebank.backbones.preview import preview
from featurebank.backbones.request import Request
from featurebank.bank.request import StoredRequest
from featurebank.errors import BackboneError, BankError, LayerError

HOW = Preprocessing(40, (32, 32), "bilinear", (0.4, 0.5, 0.6), (0.2, 0.2, 0.2))
NET = {"backbone": "resnet18", "weights": "random:0", "size": 32, "store": "float32", "engine": "eager"}


@pytest.fixture(scope="module")
def resnet():
    return load_backbone("resnet18", "random:0", 32)


def framed(framing, **changes):
    return replace(HOW, framing=framing, **changes)


def test_crop_is_the_default_and_leaves_every_fingerprint_as_it_was(resnet):
    assert "framing" not in HOW.to_dict()
    assert framed("pad").to_dict() == {**HOW.to_dict(), "framing": "pad"}
    assert Preprocessing.from_dict(framed("tiles").to_dict()) == framed("tiles")
    assert resnet.with_framing("crop").spec("layer1") == resnet.with_framing(None).spec("layer1")
    prints = {resnet.with_framing(each).spec("layer1").fingerprint for each in ("crop", "squash", "pad", "tiles")}
    assert len(prints) == 4
    # of the last version without a choice
    assert resnet.spec("penultimate").preprocessing == {
        "resize": 37,
        "crop": [32, 32],
        "interpolation": "bilinear",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "mode": "center",
    }


def test_squash_is_the_whole_image_at_the_input_size(noise):
    image = noise(90, 50)
    assert (framed("squash")(image) == np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR))).all()


def test_pad_is_the_whole_image_in_the_middle_of_the_mean_colour(noise):
    image = noise(96, 48)
    seen = framed("pad")(image)
    assert (seen[8:24] == np.asarray(image.resize((32, 16), Image.Resampling.BILINEAR))).all()
    assert (seen[:8] == [102, 128, 153]).all()  # 255 times the mean, so that the network is given zeros
    assert (seen[24:] == [102, 128, 153]).all()
    assert (framed("pad")(noise(32, 32)) == np.asarray(noise(32, 32))).all()


def test_tiles_are_overlapping_crops_that_leave_nothing_out(noise):
    image = noise(120, 60)
    tiles = framed("tiles")(image)
    resized = np.asarray(image.resize((80, 40), Image.Resampling.BILINEAR))
    places = [(top, left) for top in (0, 8) for left in (0, 24, 48)]
    assert tiles.shape == (6, 32, 32, 3)
    for tile, (top, left) in zip(tiles, places, strict=True):
        assert (tile == resized[top : top + 32, left : left + 32]).all()


@pytest.mark.parametrize("length", [*range(32, 300, 7), 1000])
def test_tiles_cover_a_side_and_share_an_eighth(length):
    starts = tile_starts(length, 32)
    assert (starts[0], starts[-1]) == (0, length - 32)
    assert all(0 < second - first <= 28 for first, second in pairwise(starts))


@pytest.mark.parametrize("size", [(4000, 20), (20, 4000), (1, 1), (3, 100000)])
def test_however_long_an_image_is_there_are_few_tiles(size):
    tiles = framed("tiles")(Image.new("RGB", size, "red"))
    assert len(tiles) <= 2 * MOST_TILES
    assert (tiles == [255, 0, 0]).all()


@pytest.mark.parametrize("framing", ["squash", "pad", "tiles"])
@pytest.mark.parametrize("decoder", ["tensor", "reduced"])
def test_other_decoders_frame_alike(noise, framing, decoder):
    image = noise(120, 70)
    found, expected = framed(framing, decoder=decoder)(image), framed(framing)(image)
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= 2


@pytest.mark.parametrize("framing", ["crop", "squash", "pad"])
@pytest.mark.parametrize("size", [(120, 70), (51, 91)])
def test_what_is_framed_on_a_device_is_the_same(noise, framing, size):
    image = noise(*size)
    pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None]
    found = framed(framing).on_tensor(pixels)[0].numpy()
    assert np.abs(found.astype(int) - framed(framing)(image)).max() <= 2


def test_the_share_that_is_never_seen_is_that_of_the_area():
    assert HOW.unseen((400, 400)) == pytest.approx(1 - 0.8**2)
    assert HOW.unseen((800, 400)) == pytest.approx(1 - 0.8**2 / 2)
    assert [framed(each).unseen((800, 400)) for each in ("squash", "pad", "tiles")] == [0, 0, 0]
    assert framed("pad").window((800, 400)) == (0, -200, 800, 600)


@pytest.mark.parametrize("views", ["none", "hflip"])
def test_features_of_tiles_are_the_mean_over_them_for_each_view(resnet, noise, views):
    images = [noise(60, 60), noise(150, 60), noise(60, 61, seed=1)]
    tiled = resnet.with_framing("tiles")
    prepared = [each for image in images for each in tiled.prepare_views(image, views, b"")]
    specs = [tiled.spec(layer, views=views) for layer in ("layer1", "layer4:gem", "penultimate")]
    found = Engine(tiled, specs, engine="eager", batch_size=4).embed_views(prepared)
    plain = Engine(resnet, [replace(spec, views="none") for spec in specs], engine="eager")
    assert [len(each) for each in prepared[:: len(prepared) // 3]] == [4, 8, 4]
    for number, own in enumerate(found):
        expected = np.stack([plain(list(each))[number].mean(axis=0) for each in prepared])
        np.testing.assert_allclose(own.reshape(len(prepared), -1), expected, rtol=1e-4, atol=1e-5)


def test_a_row_of_tiles_does_not_depend_on_its_neighbours(noise):
    extractor = FeatureExtractor(**NET, framing="tiles", batch_size=3)
    together = extractor.transform([noise(40, 40), noise(40, 90), noise(70, 40)])
    alone = extractor.transform([noise(40, 90)])
    assert (together[1] == alone[0]).all()


@pytest.mark.parametrize(("framing", "is_seen"), [(None, False), ("squash", True), ("pad", True), ("tiles", True)])
def test_a_defect_at_the_border_is_seen_by_all_but_the_crop(framing, is_seen):
    plain = np.full((200, 200, 3), 90, np.uint8)
    spoilt = plain.copy()
    spoilt[:8], spoilt[:, -8:] = 255, 0
    rows = FeatureExtractor(**NET, framing=framing).transform([plain, spoilt])
    assert (np.linalg.norm(rows[0] - rows[1]) > 1e-3 * np.linalg.norm(rows[0])) is np.bool_(is_seen)


def test_a_request_is_kept_with_its_framing_and_asked_for_again():
    request = Request("resnet18", weights="random:0", size=32, framing="pad")
    assert request.command("photos", "a.bank").endswith("--size 32 --fit pad --layer penultimate")
    again = StoredRequest.of_set(request.to_dict("penultimate"), request.spec("penultimate"))
    assert (again.framing, again.options()) == ("pad", request.options())
    assert Request("resnet18", framing="crop").framing is None


def test_what_does_not_go_together_is_refused_in_one_line(resnet):
    with pytest.raises(BankError, match="framing 'whole'; expected one of crop, squash, pad, tiles"):
        Request("resnet18", framing="whole")
    with pytest.raises(BackboneError, match="makes no tiles"):
        Request("resnet18", decoder="nvjpeg", framing="tiles")
    with pytest.raises(BackboneError, match="makes no tiles"):
        framed("tiles", decoder="nvjpeg")
    with pytest.raises(BackboneError, match="framing 'whole'"):
        framed("whole")
    with pytest.raises(LayerError, match="cannot be averaged; name a pool"):
        resnet.with_framing("tiles").spec("layer1:none")
    own = Backbone.from_module(torch.nn.Identity(), name="own", version="1", transform=lambda image: None)
    with pytest.raises(BackboneError, match="a transform of your own, which frames itself"):
        own.with_framing("pad")


def test_the_preview_fades_what_is_never_seen_and_shows_the_input(resnet):
    red = Image.new("RGB", (400, 200), (255, 0, 0))
    shown = np.asarray(Image.open(io.BytesIO(preview(resnet, red))))
    assert shown.shape == (448, 896 + 8 + 32, 3)
    assert shown[10, 10].tolist() == [255, 178, 178]  # faded
    assert shown[224, 448].tolist() == [255, 0, 0]
    assert (shown[:32, 904:] == [255, 0, 0]).all()
    tiles = np.asarray(Image.open(io.BytesIO(preview(resnet.with_framing("tiles"), red))))
    assert tiles.shape == (448, 896 + 8 + 3 * 40 - 8, 3)
    assert (tiles[10, 10] == [255, 0, 0]).all()
