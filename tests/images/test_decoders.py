"""The ways to decode and resize: the default is exact, the others are near it and kept apart from it."""

import numpy as np
import pytest
from pictures import encode, jpeg
from PIL import Image, ImageFilter

from featurebank import Bank, FeatureExtractor, Predictor, extract
from featurebank.backbones.base import Backbone
from featurebank.backbones.preprocessing import Preprocessing
from featurebank.errors import BackboneError, BankError
from featurebank.fitting.fit import fit
from featurebank.images import decoding

PLAIN = Preprocessing(64, (56, 56), "bicubic", (0.5,) * 3, (0.5,) * 3)
NET = {"backbone": "resnet18", "weights": "random:0", "size": 64}


def prepared(data, decoder):
    preprocessing = Preprocessing(64, (56, 56), "bicubic", (0.5,) * 3, (0.5,) * 3, decoder=decoder)
    return preprocessing(decoding.decode(data, preprocessing.least_side)).astype(int)


def test_the_tensor_filter_is_within_two_levels(photo):
    assert 0 < np.abs(prepared(jpeg(photo), "tensor") - prepared(jpeg(photo), "pil")).max() <= 2


def test_a_reduced_jpeg_is_near_and_other_formats_are_the_same(photo):
    difference = np.abs(prepared(jpeg(photo), "reduced") - prepared(jpeg(photo), "pil"))
    assert 0 < difference.mean() < 2  # fine texture at 64 pixels: the worst case
    assert np.array_equal(prepared(encode(photo), "reduced"), prepared(encode(photo), "pil"))


@pytest.mark.parametrize(("least", "size"), [(0, (640, 427)), (400, (640, 427)), (200, (320, 214)), (64, (160, 107))])
def test_no_side_falls_below_what_is_asked_for(photo, least, size):
    assert decoding.decode(jpeg(photo), least).size == size


def test_a_reduced_jpeg_keeps_its_exif_rotation(photo):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by a quarter
    assert decoding.decode(encode(photo, "JPEG", exif=exif), 64).size == (107, 160)


def test_a_decoder_is_part_of_the_fingerprint_and_the_default_is_what_it_was():
    assert "decoder" not in PLAIN.to_dict()
    assert Preprocessing.from_dict(PLAIN.to_dict()) == PLAIN
    other = Preprocessing.from_dict({**PLAIN.to_dict(), "decoder": "reduced"})
    assert other.to_dict()["decoder"] == "reduced"
    assert (other.least_side, PLAIN.least_side) == (128, 0)
    with pytest.raises(BackboneError, match="one of pil, tensor, reduced"):
        Preprocessing.from_dict({**PLAIN.to_dict(), "decoder": "magic"})


def test_a_transform_of_ones_own_takes_whole_images():
    import torch

    own = Backbone.from_module(
        torch.nn.Flatten(), name="own", version="1", transform=lambda image: torch.zeros(3, 8, 8)
    )
    assert own.with_decoder("pil") is own
    with pytest.raises(BackboneError, match="decoder 'reduced' does not go with a transform of your own"):
        own.with_decoder("reduced")


def test_each_decoder_has_its_own_feature_set_through_bank_extractor_and_predictor(tmp_path, photo, distance):
    folder = tmp_path / "photos"
    for number in range(12):
        path = folder / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = photo.rotate(3 * number).filter(ImageFilter.GaussianBlur(4 * (number % 2)))
        path.write_bytes(jpeg(image))
    bank = tmp_path / "a.bank"
    for decoder in ("pil", "reduced"):
        extract(folder, bank, decoder=decoder, store="float32", **NET)
    sets = {each.spec.preprocessing.get("decoder", "pil"): each.name for each in Bank(bank).feature_sets}
    assert set(sets) == {"pil", "reduced"}
    X = {decoder: Bank(bank).load(name) for decoder, name in sets.items()}
    assert 1e-4 < distance(X["reduced"], X["pil"]) < 0.1

    paths = [folder / path for path in Bank(bank).load(sets["pil"], return_paths=True)[1]]
    alone = FeatureExtractor(decoder="reduced", store="float32", **NET).transform(paths)
    assert distance(alone, X["reduced"]) < 1e-5

    fit(Bank(bank), features=[sets["reduced"]], models=["ridge"], folds=2).save(tmp_path / "a.featurebank")
    assert distance(Predictor.load(tmp_path / "a.featurebank").embed(paths), X["reduced"]) < 1e-5


def test_an_unknown_decoder_is_refused(tmp_path):
    with pytest.raises(BankError, match="decoder 'turbo'; expected one of pil, tensor, reduced"):
        extract([np.zeros((8, 8, 3), np.uint8)], tmp_path / "a.bank", ids=["a"], decoder="turbo", **NET)
