"""TIFF layouts and stacks, checked against values worked out by hand and against tifffile's own."""

import io
import struct
from contextlib import suppress

import numpy as np
import pytest
import tifffile

from featurebank.errors import ImageError, SourceError
from featurebank.images import decode, decoding, tiff_pages
from featurebank.images.listing import read_file
from featurebank.images.pixels import PixelRules
from featurebank.images.scanning import scan
from featurebank.images.stacks import each_page

FULL = PixelRules(range=(0, 65535))
RGB = [[[65535, 257, 0], [0, 32896, 65535]], [[514, 771, 1028], [1285, 1542, 1799]]]
"""Multiples of 257, which are grey levels: 255 1 0, 0 128 255, 2 3 4, 5 6 7."""


def write(values, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, np.asarray(values), **options)
    return file.getvalue()


def seen(data, rules=PixelRules()):  # noqa: B008
    return np.asarray(decode(data, pixels=rules)).astype(int)


def refused(data, rules=PixelRules()):  # noqa: B008
    with pytest.raises(ImageError) as caught:
        decode(data, pixels=rules)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "lzw", "deflate"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("bits", [8, 16])
def test_colours_are_the_same_whole_or_plane_by_plane(bits, planar, compression, byteorder):
    values = np.array(RGB, "u2") if bits == 16 else (np.array(RGB) // 257).astype("u1")
    stored = values if planar == "contig" else np.moveaxis(values, 2, 0)
    data = write(stored, photometric="rgb", planarconfig=planar, compression=compression, byteorder=byteorder)
    expected = np.array(RGB) // 257
    assert np.array_equal(seen(data), expected)
    assert np.array_equal(seen(data, FULL), expected)


@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize(("dtype", "white"), [("u1", 255), ("u2", 65535)])
def test_where_white_is_0_the_picture_is_no_negative(dtype, white, byteorder, tile):
    ramp = np.linspace(0, white, 256).reshape(16, 16).astype(dtype)
    data = write(ramp, photometric="miniswhite", byteorder=byteorder, tile=tile)
    assert np.abs(seen(data)[..., 0] - (255 - np.arange(256).reshape(16, 16))).max() <= 1


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "deflate"])
@pytest.mark.parametrize("dtype", ["u2", "i2", "u4", "i4", "f2", "f4", "f8"])
def test_deep_grey_has_its_values_in_every_type(dtype, compression, byteorder):
    values = np.array([[0, 512], [1024, 2047]], dtype)
    data = write(values, photometric="minisblack", compression=compression, byteorder=byteorder)
    assert seen(data, PixelRules(range=(0, 2047)))[..., 0].tolist() == [[0, 64], [128, 255]]


def test_signed_eight_bits_need_a_range():
    data = write(np.array([[-128, 0, 127]], "i1"))
    assert "signed 8-bit pixels have no fixed range" in refused(data)
    assert seen(data, PixelRules(range=(-128, 127)))[0, :, 0].tolist() == [0, 128, 255]


def test_floating_colours_need_a_range():
    data = write(np.array([[[0, 0.5, 1]]], "f4"), photometric="rgb")
    assert "floating-point pixels have no fixed range" in refused(data)
    assert seen(data, PixelRules(range=(0, 1))).tolist() == [[[0, 128, 255]]]


def test_deep_transparency_is_put_on_white():
    data = write(np.array([[[0, 65535], [0, 0]]], "u2"), photometric="minisblack", extrasamples=("unassalpha",))
    assert seen(data)[0, :, 0].tolist() == [0, 255]


@pytest.mark.parametrize("count", [2, 4, 5])
@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_many_channels_are_named_and_can_be_chosen(dtype, count):
    values = np.arange(count, dtype=dtype).reshape(1, 1, count) * (1 if dtype == "u1" else 257)
    extra = ("unspecified",) * (count - 1)
    data = write(values, photometric="minisblack", planarconfig="contig", extrasamples=extra)
    assert f"{count} channels; expected one or three: choose with --channels" in refused(data)
    assert seen(data, PixelRules(range=None, channels=(1,))).tolist() == [[[1, 1, 1]]]
    assert f"no channel {count} among {count}" in refused(data, PixelRules(channels=(count,)))


def test_a_layout_that_nothing_reads_is_named():
    data = write(np.zeros((4, 2, 3), "u2"), photometric="separated", planarconfig="separate")
    assert (
        refused(data)
        == "a TIFF of 16-bit CMYK, plane by plane, which is not read: save it as grey or RGB of 8 or 16 bits"
    )


def test_a_page_is_turned_as_its_tag_asks():
    data = write(np.array([[0, 65535]], "u2"), photometric="miniswhite", extratags=[(274, 3, 1, 6, True)])
    assert seen(data)[..., 0].tolist() == [[255], [0]]


# --- stacks ------------------------------------------------------------------------------------------------

STACK = np.array([[[0, 0]], [[257, 514]], [[1028, 1285]]], "u2")
KINDS = {
    "plain": {"metadata": None},
    "depth of ImageJ": {"imagej": True, "metadata": {"axes": "ZYX"}},
    "time of OME": {"ome": True, "metadata": {"axes": "TYX"}},
    "depth of tifffile": {"metadata": {"axes": "ZYX"}},
    "big": {"bigtiff": True, "metadata": None},
}


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_of_a_stack_the_first_page_is_seen_and_others_are_noted(options):
    image = decode(write(STACK, photometric="minisblack", **options))
    assert np.asarray(image)[0, :, 0].tolist() == [0, 0]
    assert image.info["featurebank"]["pages"] == 3
    chosen = decode(write(STACK, photometric="minisblack", **options), pixels=PixelRules(pages="first"))
    assert "pages" not in chosen.info["featurebank"]


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_pages_are_put_together(options):
    data = write(STACK, photometric="minisblack", **options)
    assert seen(data, PixelRules(pages="mean"))[0, :, 0].tolist() == [2, 2]  # (0 + 1 + 4) / 3, (0 + 2 + 5) / 3
    assert seen(data, PixelRules(pages="max"))[0, :, 0].tolist() == [4, 5]
    assert seen(data, PixelRules(channels=(2, 0, 1))).tolist() == [[[4, 0, 1], [5, 0, 2]]]  # pages as channels


@pytest.mark.parametrize(
    "options",
    [
        {"imagej": True, "metadata": {"axes": "CYX"}},
        {"ome": True, "metadata": {"axes": "CYX"}},
        {"metadata": {"axes": "CYX"}},
    ],
    ids=["ImageJ", "OME", "tifffile"],
)
def test_channels_that_are_pages_have_to_be_chosen(options):
    data = write(STACK, photometric="minisblack", **options)
    assert "a stack of 3 channels, one a page; choose with --channels" in refused(data)
    assert seen(data, PixelRules(channels=(1,)))[0, :, 0].tolist() == [1, 2]
    assert seen(data, PixelRules(pages="first"))[0, :, 0].tolist() == [0, 0]


@pytest.mark.parametrize("axes", ["ZCYX", "CZYX"])
def test_channels_of_a_deep_stack_are_each_put_together(axes):
    values = np.arange(6, dtype="u2").reshape(3, 2, 1, 1) * 257  # (depth, channels, 1, 1)
    stored = values if axes == "ZCYX" else values.swapaxes(0, 1)
    data = write(stored, photometric="minisblack", ome=True, metadata={"axes": axes})
    assert seen(data, PixelRules(channels=(0, 1), pages="max")).tolist() == [[[4, 5, 0]]]
    assert seen(data, PixelRules(channels=(1,))).tolist() == [[[1, 1, 1]]]


def test_thumbnails_and_masks_are_no_pages():
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(np.full((8, 8), 9, "u1"), metadata=None)
        writer.write(np.zeros((8, 8), bool), metadata=None, subfiletype=4, photometric="minisblack")
        writer.write(np.zeros((4, 4), "u1"), metadata=None, subfiletype=1)
        writer.write(np.zeros((2, 2), "u1"), metadata=None)
    image = decode(file.getvalue())
    assert image.getpixel((0, 0)) == (9, 9, 9)
    assert "featurebank" not in image.info or not image.info["featurebank"]


@pytest.mark.parametrize("options", [{}, {"bigtiff": True}, {"byteorder": ">"}, {"bigtiff": True, "byteorder": ">"}])
def test_each_page_is_a_sample_that_can_be_read_again(tmp_path, options):
    tifffile.imwrite(tmp_path / "a.tif", STACK, photometric="minisblack", metadata=None, **options)
    tifffile.imwrite(tmp_path / "b.tif", STACK[1], photometric="minisblack")
    source = each_page(scan(tmp_path))
    assert source.paths == [b"a.tif#page=1", b"a.tif#page=2", b"a.tif#page=3", b"b.tif"]
    assert source.columns["stack"].tolist() == ["a.tif"] * 3 + ["b.tif"]
    assert source.whole
    assert "1 stack is 3 samples" in source.notes[-1]
    read = [source.read(position) for position in range(4)]
    assert [np.asarray(decoded())[0, :, 0].tolist() for _, decoded in read] == [[0, 0], [1, 2], [4, 5], [1, 2]]
    assert len({digest for digest, _ in read}) == 4
    assert seen(read_file(tmp_path / "a.tif#page=2"))[0, :, 0].tolist() == [1, 2]
    with pytest.raises(ImageError, match="no page 4; the file has 3"):
        read_file(tmp_path / "a.tif#page=4")


def test_a_column_of_the_users_is_not_taken_for_the_stack(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", STACK, photometric="minisblack")
    (tmp_path / "m.csv").write_text("path,stack\na.tif,x\n")
    with pytest.raises(SourceError, match="has a column 'stack'"):
        each_page(scan(tmp_path / "m.csv"))


# --- headers that say less, or more, than there is ---------------------------------------------------------


def test_a_thumbnail_before_the_image_is_not_taken_for_it():
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(np.zeros((1, 1, 3), "u1"), photometric="rgb", subfiletype=1)
        writer.write((np.array(RGB) // 257).astype("u1"), photometric="rgb")
    assert np.array_equal(seen(file.getvalue()), np.array(RGB) // 257)


def test_a_stack_with_one_header_is_refused_and_a_page_of_a_set_of_files_is_not():
    pages = np.arange(24, dtype="u2").reshape(3, 2, 4)
    short = write(pages, imagej=True, metadata={"axes": "ZYX"}, truncate=True, contiguous=True)
    assert "a stack of 3 pages of which the first alone has a header" in refused(short)
    assert "save it as OME-TIFF" in refused(
        write(pages, photometric="minisblack", truncate=True, metadata={"axes": "ZYX"})
    )
    one = write(pages[0], description="ImageJ=1.53\nimages=3\nslices=3\n", metadata=None)
    assert seen(one).shape == (2, 4, 3)


def test_compressions_that_pillow_has_not_are_read_or_named(monkeypatch):
    values = (np.arange(64) * 4).astype("u1").reshape(8, 8)
    data = write(values, compression="jpeg2000", compressionargs={"level": 0})
    assert np.array_equal(seen(data)[..., 0], values)
    odd = bytearray(data)
    at = odd.index(struct.pack("<HHI", 259, 3, 1))
    struct.pack_into("<H", odd, at + 8, 34892)
    monkeypatch.setitem(__import__("sys").modules, "tifffile", None)
    assert "a TIFF of 8-bit grey, compressed by lossy JPEG, which needs tifffile" in refused(bytes(odd))


def test_the_upper_half_of_32_bits_is_not_negative():
    values = np.array([[0, 1 << 31, (1 << 32) - 1]], "u4")
    assert seen(write(values), PixelRules(range=(0, (1 << 32) - 1)))[0, :, 0].tolist() == [0, 128, 255]


# --- hostile and damaged files -----------------------------------------------------------------------------


def test_the_pixel_cap_holds_before_anything_is_read(monkeypatch):
    monkeypatch.setattr(decoding, "MAX_PIXELS", 15)
    assert "declares more than 15 pixels" in refused(write(np.zeros((4, 4), "i1")), PixelRules(range=(0, 1)))
    stack = write(np.zeros((20, 3, 5), "u2"), photometric="minisblack", metadata=None)
    assert "20 pages of 15 pixels are more than 16 times 15" in refused(stack, PixelRules(pages="mean"))


def test_too_many_pages_and_rings_of_pages_end(monkeypatch):
    monkeypatch.setattr(tiff_pages, "MAX_PAGES", 2)
    assert "more than 2 pages" in refused(write(STACK, photometric="minisblack", metadata=None))
    ring = bytearray(write(STACK[:1], photometric="minisblack", metadata=None))
    (offset,) = struct.unpack_from("<I", ring, 4)
    (count,) = struct.unpack_from("<H", ring, offset)
    struct.pack_into("<I", ring, offset + 2 + 12 * count, offset)
    assert seen(bytes(ring))[0, :, 0].tolist() == [0, 0]


@pytest.mark.parametrize("dtype", ["i1", "u2", "f8"])
def test_a_file_that_is_cut_short_anywhere_is_refused_or_whole(dtype):
    rules = PixelRules(range=(0, 100))
    data = write(np.arange(64, dtype=dtype).reshape(8, 8), photometric="minisblack")
    whole = seen(data, rules)
    for end in range(0, len(data), 7):
        try:
            found = seen(data[:end], rules)
        except ImageError:
            continue
        assert np.array_equal(found, whole)


def test_damaged_bytes_are_an_image_error_or_an_image():
    random = np.random.default_rng(0)
    data = write(
        np.arange(64, dtype="i2").reshape(8, 8), photometric="minisblack", compression="deflate", byteorder=">"
    )
    for _ in range(200):
        damaged = bytearray(data)
        for at in random.integers(0, len(data), 3):
            damaged[at] = random.integers(0, 256)
        with suppress(ImageError):
            decode(bytes(damaged), pixels=PixelRules(range=(0, 100)))
