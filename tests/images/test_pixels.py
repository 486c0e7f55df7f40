"""Pixel rules: values worked out by hand become the grey levels that they should."""

import io

import numpy as np
import pytest
import tifffile
from pictures import encode
from PIL import Image, PngImagePlugin

from featurebank.bank.spec import FeatureSpec
from featurebank.errors import CorruptError, ImageError
from featurebank.images import decode
from featurebank.images.listing import read_image
from featurebank.images.pixels import PixelRules, as_text
from featurebank.images.ranges import measure_range, read_deep
from featurebank.images.scanning import scan
from featurebank.images.values import pick_channels, to_levels

TWELVE = PixelRules(range=(0, 4095))


def png(values, **options):
    return encode(Image.fromarray(values), **options)


def colours_png(values):
    import imagecodecs

    return imagecodecs.png_encode(np.array(values, "u2"))


def levels(data, rules=TWELVE):
    return np.asarray(decode(data, pixels=rules)).tolist()


# --- the record --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (("full",), {}),
        (("0..4095",), {"range": [0, 4095]}),
        (("-0.5..1e3",), {"range": [-0.5, 1000]}),
        (((0.0, 4095.0),), {"range": [0, 4095]}),
        ((None, "first"), {}),
        ((None, "each"), {}),
        ((None, "mean", "mean"), {"pages": "mean", "channels": "mean"}),
        ((None, None, "2, 0"), {"channels": [2, 0]}),
        ((None, None, [1]), {"channels": [1]}),
    ],
)
def test_rules_are_kept_as_what_differs_from_the_default(given, expected):
    rules = PixelRules.parse(*given)
    assert rules.to_dict() == expected
    assert PixelRules.from_dict(expected).to_dict() == expected
    assert bool(rules) == bool(expected)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("12",), "expected full, auto, or LOW..HIGH"),
        (("9..3",), "LOW below HIGH"),
        (("-..3",), "LOW below HIGH"),
        (((0, float("inf")),), "LOW below HIGH"),
        ((None, "third"), "third"),
        ((None, None, "0,1,2,3"), "one to three numbers"),
        ((None, None, "red"), "one to three numbers"),
    ],
)
def test_other_rules_are_refused_in_one_line(given, said):
    with pytest.raises(ImageError, match=said) as caught:
        PixelRules.parse(*given)
    assert "\n" not in str(caught.value)


def test_a_spec_with_rules_that_are_none_is_damaged():
    fields = ["net", "", "00", "fc", "vector", 0, "none", {}, 1, "none", "fp32", "float16"]
    spec = FeatureSpec(*fields)
    assert spec.pixels == PixelRules()
    for pixels in ({"range": [1]}, {"range": "auto..", "x": 1}, 7):
        with pytest.raises(CorruptError, match="a feature spec with"):
            FeatureSpec.from_dict({**spec.to_dict(), "preprocessing": {"pixels": pixels}})


def test_the_text_of_a_range_is_what_the_option_takes():
    for limits in ((0, 4095), (-0.25, 1.5), None):
        assert PixelRules.parse(as_text(limits)).limits == limits


# --- values ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["u2", ">u2", "i2", "u4", "i4", "f4", "f8"])
def test_a_range_is_stretched_over_the_grey_levels(dtype):
    values = np.array([[0, 1024, 2048, 4095, 5000]], dtype)  # 1024 * 255 / 4095 = 63.77, 2048 … = 127.53
    assert to_levels(values, (0, 4095)).tolist() == [[0, 64, 128, 255, 255]]


def test_what_is_no_number_is_black_and_what_is_infinite_is_clipped():
    assert to_levels(np.array([[np.nan, np.inf, -np.inf, 0.5]]), (0, 1)).tolist() == [[0, 255, 0, 128]]


def test_eight_bits_are_never_touched():
    grey, rgb = np.arange(256, dtype="u1")[None], np.arange(12, dtype="u1").reshape(1, 4, 3)
    for values in (grey, rgb):
        assert np.array_equal(np.asarray(decode(png(values), pixels=TWELVE)), np.asarray(decode(png(values))))


def test_the_full_range_of_16_bits_is_as_before_there_was_a_choice():
    every = np.arange(65536, dtype="u2").reshape(256, 256)
    grey = np.asarray(decode(png(every)))[..., 0]
    assert np.array_equal(grey, np.floor(every / 257 + 0.5))
    assert levels(colours_png([[[65535, 32768, 255]]]), PixelRules()) == [[[255, 128, 0]]]  # the high byte


def test_twelve_bits_in_a_png_have_all_grey_levels():
    assert levels(png(np.array([[0, 1024, 4095]], "u2"))) == [[[0] * 3, [64] * 3, [255] * 3]]
    assert levels(colours_png([[[0, 1024, 4095], [2048, 4095, 0]]])) == [[[0, 64, 255], [128, 255, 0]]]


def test_transparent_colours_of_16_bits_are_put_on_white():
    assert levels(colours_png([[[0, 1024, 4095, 65535], [0, 0, 0, 0]]])) == [[[0, 64, 255], [255, 255, 255]]]


def test_a_deep_png_is_turned_as_its_exif_block_asks():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert levels(png(np.array([[0, 4095]], "u2"), exif=exif)) == [[[0] * 3], [[255] * 3]]


def test_floating_point_needs_a_range():
    data = encode(Image.fromarray(np.array([[0.0, 0.5, 1.0]], "f4")), "TIFF")
    with pytest.raises(ImageError, match=r"floating-point pixels have no fixed range: .*--range auto or LOW\.\.HIGH"):
        decode(data)
    assert levels(data, PixelRules(range=(0, 1))) == [[[0] * 3, [128] * 3, [255] * 3]]


def test_channels_are_picked_or_have_to_be():
    five = np.arange(5, dtype="u1").reshape(1, 1, 5)
    with pytest.raises(ImageError, match="5 channels; expected one or three: choose with --channels"):
        pick_channels(five, None)
    with pytest.raises(ImageError, match="no channel 5 among 5"):
        pick_channels(five, (5,))
    assert pick_channels(five, (4, 0, 2)).tolist() == [[[4, 0, 2]]]
    rgb = png(np.array([[[10, 20, 30]]], "u1"))
    assert levels(rgb, PixelRules(channels=(2,))) == [[[30, 30, 30]]]
    assert levels(rgb, PixelRules(channels=(2, 1))) == [[[30, 20, 0]]]
    assert levels(rgb, PixelRules(channels="mean")) == [[[20, 20, 20]]]


@pytest.mark.parametrize("make", [np.asarray, Image.fromarray])
def test_images_in_memory_obey_the_range_and_keep_one_digest(make):
    item = make(np.array([[0, 1024, 4095]], "u2"))
    digest, decoded = read_image(item)
    assert np.asarray(decoded(pixels=TWELVE))[0, :, 0].tolist() == [0, 64, 255]
    assert np.asarray(decoded())[0, :, 0].tolist() == [0, 4, 16]
    other, _ = read_image(make(np.array([[1, 1024, 4095]], "u2")))  # one value apart: the same 8 bits at the full range
    assert digest != other


# --- measuring ---------------------------------------------------------------------------------------------


def measured(tmp_path, arrays, write=lambda path, values: tifffile.imwrite(path, values)):
    for number, values in enumerate(arrays):
        write(tmp_path / f"{number}.tif", values)
    return measure_range(scan(tmp_path), PixelRules(), workers=1)


def test_the_range_is_what_nearly_all_values_of_the_source_lie_in(tmp_path):
    ramp = np.arange(100, 1000, dtype="u2").reshape(30, 30)
    found = measured(tmp_path, [ramp, ramp + 1000])
    assert (found.limits, found.deep, found.is_stated) == ((100, 1999), 2, False)
    assert str(found).startswith("range: 100 is black and 1999 white in images of more than 8 bits, measured on 2")


def test_one_hot_pixel_in_many_does_not_decide_the_range(tmp_path):
    values = np.tile(np.arange(1000, dtype="u2"), 66)[:65536].reshape(256, 256)
    values[0, 0] = 60000
    assert measured(tmp_path, [values]).limits == (0, 999)


def test_a_few_bright_spots_on_black_decide_the_range(tmp_path):
    values = np.zeros((256, 256), "u2")
    values[7, 9], values[100, 3] = 3000, 4000
    assert measured(tmp_path, [values]).limits == (0, 4000)


def test_values_that_use_the_highest_bit_have_the_full_range(tmp_path):
    found = measured(tmp_path, [np.arange(0, 65536, 16, dtype="u2").reshape(64, 64)])
    assert found.limits is None
    assert "range: full" in str(found)


def test_opacity_does_not_decide_the_range(tmp_path):
    colours = np.dstack([np.arange(4096, dtype="u2").reshape(64, 64)] * 3 + [np.full((64, 64), 65535, "u2")])
    (tmp_path / "a.png").write_bytes(colours_png(colours))
    (tmp_path / "b.png").write_bytes(colours_png(colours[:, :, 2:]))
    options = {"photometric": "rgb", "extrasamples": ["unassalpha"]}
    tifffile.imwrite(tmp_path / "c.tif", colours, **options)
    found = measure_range(scan(tmp_path), PixelRules(), workers=1)
    assert (found.limits, found.deep) == ((0, 4095), 3)
    for name in ("a.png", "b.png", "c.tif"):
        assert levels((tmp_path / name).read_bytes())[8][0] == [32, 32, 32]  # 512 of 4095


def test_the_channels_that_are_seen_decide_the_range(tmp_path):
    planes = np.dstack([np.arange(4096, dtype="u2").reshape(64, 64), np.full((64, 64), 60000, "u2")])
    tifffile.imwrite(tmp_path / "a.tif", planes, photometric="minisblack", planarconfig="contig")
    assert measure_range(scan(tmp_path), PixelRules(channels=(0,)), workers=1).limits == (0, 4095)


def test_a_narrow_part_at_the_top_of_16_bits_is_stretched(tmp_path):
    ramp = np.arange(4096, dtype="u2").reshape(64, 64)  # where white is 0, black is 4095 of 65535
    found = measured(tmp_path, [ramp], lambda path, values: tifffile.imwrite(path, values, photometric="miniswhite"))
    assert found.limits == (65535 - 4095, 65535)


def test_floating_point_is_measured(tmp_path):
    assert measured(tmp_path, [np.linspace(-1, 3, 90001, dtype="f4").reshape(1, -1)]).limits == pytest.approx(
        (-1, 3), abs=2e-3
    )


def test_the_bits_that_headers_state_are_the_range(tmp_path):
    def stated(path, values):
        tifffile.imwrite(path, values, extratags=[(281, 3, 1, 4095, True)])

    found = measured(tmp_path, [np.full((4, 4), 9, "u2"), np.full((4, 4), 99, "u2")], stated)
    assert (found.limits, found.is_stated) == ((0, 4095), True)
    assert "as the files' headers say" in str(found)


def test_significant_bits_of_png_and_ome_are_read():
    info = PngImagePlugin.PngInfo()
    info.add(b"sBIT", bytes([10]))
    assert read_deep(png(np.zeros((2, 2), "u2"), pnginfo=info), PixelRules())[1] == 10
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((4, 4), "u2"), ome=True, metadata={"axes": "YX", "SignificantBits": 12})
    assert read_deep(file.getvalue(), PixelRules())[1] == 12


def test_nothing_is_chosen_where_no_image_is_deep_or_all_are_blank(tmp_path):
    Image.new("L", (4, 4), 7).save(tmp_path / "a.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "b.jpg")
    tifffile.imwrite(tmp_path / "c.tif", np.full((4, 4), 300, "u2"))
    (tmp_path / "d.tif").write_bytes(b"II*\0")
    found = measure_range(scan(tmp_path), PixelRules(), workers=1)
    assert (found.limits, str(found), found.looked_at) == (None, "", 3)


def test_a_header_that_states_fewer_bits_than_there_are_is_not_believed(tmp_path):
    def stated(path, values):
        tifffile.imwrite(path, values, extratags=[(281, 3, 1, 255, True)])

    found = measured(tmp_path, [np.arange(400, dtype="u2").reshape(20, 20)], stated)
    assert (found.limits, found.is_stated) == ((0, 399), False)


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP"])
def test_an_animation_is_noted_and_a_still_image_is_not(format):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    moving = encode(frames[0], format, save_all=True, append_images=frames[1:])
    assert decode(moving).info["featurebank"] == {"frames": True}
    assert not decode(encode(frames[0], format)).info["featurebank"]
