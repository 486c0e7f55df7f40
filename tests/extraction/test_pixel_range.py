"""The range of a bank: measured once, kept with the features, carried to predictors."""

import re
import warnings

import numpy as np
import pytest
import tifffile
from PIL import Image

from featurebank import Bank, FeatureExtractor, Predictor, extract, fit
from featurebank.errors import ImageError
from featurebank.extraction import pixel_range
from featurebank.images.pixels import PixelRules
from featurebank.images.scanning import scan
from featurebank.images.stacks import each_page

NET = {"backbone": "resnet18", "weights": "random:0", "size": 32}
EAGER = {**NET, "engine": "eager"}


def picture(seed, shift=0):
    return (np.random.default_rng(seed).integers(100, 1100, (36, 36)) + shift).astype("u2")


@pytest.fixture
def cells(tmp_path):
    """Two classes of 12-bit images in 16-bit files."""
    for number in range(8):
        label = "ab"[number % 2]
        (tmp_path / "cells" / label).mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(tmp_path / "cells" / label / f"{number}.tif", picture(number, 2000 * (number % 2)))
    return tmp_path / "cells"


def test_the_range_is_measured_once_and_goes_with_the_features(cells, tmp_path, monkeypatch):
    bank = extract(cells, tmp_path / "a.bank", **EAGER)
    (spec,) = [each.spec for each in bank.feature_sets]
    low, high = spec.preprocessing["pixels"]["range"]
    assert 100 <= low < 110
    assert 3090 < high < 3100
    tifffile.imwrite(cells / "a" / "later.tif", picture(9, 900))
    monkeypatch.setattr(pixel_range, "measure_range", None)  # it is not measured again
    again = extract(cells, tmp_path / "a.bank", **EAGER)
    assert [each.spec for each in again.feature_sets] == [spec]
    assert again.feature_sets[0].rows == 9
    rows = FeatureExtractor(bank=tmp_path / "a.bank", **EAGER).transform([cells / "a" / "0.tif"])
    assert np.array_equal(rows[0], again.load("penultimate", paths=["a/0.tif"])[0])


def test_a_predictor_sees_new_images_by_the_range_of_its_features(cells, tmp_path):
    bank = extract(cells, tmp_path / "a.bank", **EAGER)
    fit(bank, models=["centroid"], folds=2).predictor.save(tmp_path / "a.featurebank")
    loaded = Predictor.load(tmp_path / "a.featurebank")
    assert loaded.predict([picture(20), picture(21, 2000)]).tolist() == ["a", "b"]
    assert loaded.features[0].spec.pixels.limits == bank.feature_sets[0].spec.pixels.limits
    rows = loaded.embed([cells / "b" / "1.tif"])
    assert np.allclose(rows, bank.load("penultimate", paths=["b/1.tif"]), atol=2e-2)


def test_a_named_range_and_the_full_one_make_features_of_their_own(cells, tmp_path):
    with pytest.warns(UserWarning, match="fewer than 64 of 256 grey levels with the range 0..65535"):
        bank = extract(cells, tmp_path / "a.bank", range="full", **EAGER)
    extract(cells, bank, range="0..4095", **EAGER)
    extract(cells, bank, range=(0, 4095.0), **EAGER)
    said = sorted(str(each.spec.preprocessing.get("pixels")) for each in bank.feature_sets)
    assert said == ["None", "{'range': [0, 4095]}"]


def test_images_of_8_bits_have_the_fingerprints_that_they_had(tmp_path):
    Image.new("RGB", (40, 40), (9, 99, 199)).save(tmp_path / "a.png")
    bank = extract([tmp_path / "a.png"], tmp_path / "a.bank", **EAGER)
    assert "pixels" not in bank.feature_sets[0].spec.preprocessing


def test_floating_point_images_are_embedded_by_a_measured_range(tmp_path):
    images = [np.random.default_rng(seed).random((36, 36)) for seed in range(3)]
    bank = extract(images, tmp_path / "a.bank", ids=["a", "b", "c"], **EAGER)
    assert bank.samples["status"].tolist() == ["ok"] * 3
    assert bank.feature_sets[0].spec.pixels.limits == pytest.approx((0, 1), abs=0.01)
    with pytest.raises(ImageError, match="floating-point pixels have no fixed range"):
        extract(images, tmp_path / "b.bank", ids=["a", "b", "c"], range="full", **EAGER)


def test_a_stack_is_said_to_be_one_unless_its_pages_are_chosen(tmp_path):
    stacks = tmp_path / "stacks"
    stacks.mkdir()
    for number in range(2):
        pages = np.stack([picture(number), picture(number + 10), picture(number + 20)])
        tifffile.imwrite(stacks / f"{number}.tif", pages, photometric="minisblack", metadata={"axes": "ZYX"})
    with pytest.warns(UserWarning, match=r"2 images are stacks of several pages \(0.tif has 3\)"):
        extract(stacks, tmp_path / "a.bank", **EAGER)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        mean = extract(stacks, tmp_path / "b.bank", pages="mean", **EAGER)
        each = extract(stacks, tmp_path / "c.bank", pages="each", **EAGER)
    assert mean.feature_sets[0].spec.pixels.pages == "mean"
    assert each.samples["path"].tolist() == [f"{n}.tif#page={page}" for n in range(2) for page in (1, 2, 3)]
    assert each.samples["stack"].tolist() == ["0.tif"] * 3 + ["1.tif"] * 3
    assert each.feature_sets[0].rows == 6


@pytest.mark.parametrize(
    ("pages", "said"),
    [
        ("max", "--pages max takes them all for one; --channels 0,1 --pages max makes them colours"),
        ("first", "--pages first sees the first page of the first channel alone; --channels 0,1 makes them colours"),
    ],
)
def test_what_becomes_of_channels_in_pages_is_said_unless_they_are_chosen(tmp_path, pages, said):
    stacks = tmp_path / "stacks"
    stacks.mkdir()
    for number in range(2):
        values = np.stack([picture(number + page) for page in range(6)]).reshape(3, 2, *picture(0).shape)
        tifffile.imwrite(stacks / f"{number}.tif", values, imagej=True, metadata={"axes": "ZCYX"})
    with pytest.warns(UserWarning, match=re.escape(said)):
        extract(stacks, tmp_path / "a.bank", pages=pages, **EAGER)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        extract(stacks, tmp_path / "b.bank", pages=pages, channels="0,1", **EAGER)
    (note,) = each_page(scan(stacks)).notes
    assert note.startswith("2 stacks are 12 samples, a page each (of one channel, where 2 have several")


def test_rules_stand_in_the_command_that_asks_again(cells, tmp_path):
    from featurebank.backbones.request import Request

    bank = extract(cells, tmp_path / "a.bank", range="0..4095", channels="0", **EAGER)
    request = Request.last(Bank(bank.path), bank.feature_sets[0].spec)
    assert request.pixels == PixelRules(range=(0, 4095), channels=(0,))
    assert "--range 0..4095 --channels 0" in request.command("cells", "a.bank")
