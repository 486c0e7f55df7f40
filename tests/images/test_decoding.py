import hashlib
import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from pictures import encode
from PIL import Image

from featurebank.errors import ImageError
from featurebank.images import decoding

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def pixels(data):
    """Decode under the policy and return the pixels as a list of rows of tuples."""
    image = decoding.decode(data)
    assert image.mode == "RGB"
    return [[tuple(map(int, pixel)) for pixel in row] for row in np.asarray(image)]


def photo():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("orientation", "red", "blue"),
    [
        (1, "top left", "top right"),
        (2, "top right", "top left"),
        (3, "bottom right", "bottom left"),
        (4, "bottom left", "bottom right"),
        (5, "top left", "bottom left"),
        (6, "top right", "bottom right"),
        (7, "bottom right", "top right"),
        (8, "bottom left", "top left"),
    ],
)
def test_exif_orientation_of_a_jpeg_is_applied(orientation, red, blue):
    stored = Image.new("RGB", (48, 32), "white")
    stored.paste("red", (0, 0, 16, 16))
    stored.paste("blue", (32, 0, 48, 16))
    exif = Image.Exif()
    exif[0x0112] = orientation
    shown = decoding.decode(encode(stored, "JPEG", quality=95, subsampling=0, exif=exif))
    assert shown.size == ((48, 32) if orientation <= 4 else (32, 48))
    right, bottom = shown.width - 5, shown.height - 5
    corners = {"top left": (4, 4), "top right": (right, 4), "bottom left": (4, bottom), "bottom right": (right, bottom)}
    found = {name: np.array(shown.getpixel(corner)) for name, corner in corners.items()}
    expected = dict.fromkeys(corners, WHITE) | {red: RED, blue: BLUE}
    assert all(np.abs(found[name] - expected[name]).max() <= 3 for name in corners)


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_to_8_bits_and_rounded(format):
    values = np.array([[0, 1, 128, 129, 385, 386], [257, 12345, 32767, 32768, 65406, 65535]], np.uint16)
    data = encode(Image.fromarray(values), format)
    assert Image.open(io.BytesIO(data)).mode == "I;16"
    grey = [[0, 0, 0, 1, 1, 2], [1, 48, 127, 128, 254, 255]]
    assert grey == np.rint(values.astype(int) * 255 / 65535).astype(int).tolist()
    assert pixels(data) == [[(value,) * 3 for value in row] for row in grey]


def test_big_endian_16_bit_grey_is_read_as_the_same_values():
    little = np.array([[0, 257, 65535]], "<u2")
    data = encode(Image.frombytes("I;16B", (3, 1), little.astype(">u2").tobytes()), "TIFF")
    assert pixels(data) == [[(0,) * 3, (1,) * 3, (255,) * 3]]


def test_32_bit_integers_within_16_bits_are_scaled_alike():
    data = encode(Image.fromarray(np.array([[0, 257, 65535]], np.int32)), "TIFF")
    assert Image.open(io.BytesIO(data)).mode == "I"
    assert pixels(data) == [[(0,) * 3, (1,) * 3, (255,) * 3]]


@pytest.mark.parametrize("value", [-1, 65536, 2**31 - 1])
def test_32_bit_integers_outside_16_bits_are_refused(value):
    data = encode(Image.fromarray(np.array([[0, value]], np.int32)), "TIFF")
    with pytest.raises(ImageError, match=r"32-bit pixels outside 0\.\.65535"):
        decoding.decode(data)


def test_floating_point_tiff_is_refused():
    data = encode(Image.fromarray(np.array([[0.0, 0.5]], np.float32)), "TIFF")
    with pytest.raises(ImageError, match="floating-point"):
        decoding.decode(data)


@pytest.mark.parametrize(
    ("ink", "colour"),
    [((0, 0, 0, 0), WHITE), ((0, 255, 255, 0), RED), ((255, 255, 0, 0), BLUE), ((0, 0, 0, 255), (0, 0, 0))],
)
def test_cmyk_jpeg_becomes_rgb(ink, colour):
    data = encode(Image.new("CMYK", (8, 8), ink), "JPEG", quality=95)
    assert Image.open(io.BytesIO(data)).mode == "CMYK"
    assert np.abs(np.array(pixels(data)[4][4]) - colour).max() <= 3


def test_rgba_png_is_composited_on_white_and_hidden_colours_vanish():
    image = Image.new("RGBA", (3, 1))
    for x, pixel in enumerate([(255, 0, 0, 0), (200, 0, 100, 51), (10, 20, 30, 255)]):
        image.putpixel((x, 0), pixel)
    # 51/255 is a fifth: 200/5 + 255*4/5 = 244, 0 + 204, 100/5 + 204
    assert pixels(encode(image, "PNG")) == [[WHITE, (244, 204, 224), (10, 20, 30)]]


def test_grey_with_alpha_is_composited_on_white():
    image = Image.new("LA", (3, 1))
    for x, pixel in enumerate([(0, 0), (100, 51), (7, 255)]):
        image.putpixel((x, 0), pixel)
    assert pixels(encode(image, "PNG")) == [[WHITE, (224,) * 3, (7,) * 3]]


@pytest.mark.parametrize("format", ["PNG", "GIF"])
def test_a_palette_with_a_transparent_entry_is_composited_on_white(format):
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 0, 255, 10, 20, 30])
    for x in range(3):
        image.putpixel((x, 0), x)
    assert pixels(encode(image, format, transparency=1)) == [[RED, WHITE, (10, 20, 30)]]


def test_a_transparent_colour_of_an_rgb_png_is_composited_on_white():
    image = Image.new("RGB", (2, 1), (1, 2, 3))
    image.putpixel((1, 0), (1, 2, 4))
    assert pixels(encode(image, "PNG", transparency=(1, 2, 3))) == [[WHITE, (1, 2, 4)]]


def test_8_bit_and_1_bit_grey_become_rgb():
    grey = Image.fromarray(np.array([[0, 17, 255]], np.uint8))
    assert pixels(encode(grey, "PNG")) == [[(0,) * 3, (17,) * 3, (255,) * 3]]
    bits = Image.new("1", (2, 1))
    bits.putpixel((1, 0), 1)
    assert pixels(encode(bits, "PNG")) == [[(0,) * 3, (255,) * 3]]


@pytest.mark.parametrize(
    ("format", "options"),
    [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("WEBP", {"lossless": True})],
)
def test_lossless_formats_keep_every_rgb_pixel(format, options):
    image = photo()
    assert decoding.decode(encode(image, format, **options)).tobytes() == image.tobytes()


@pytest.mark.parametrize(("format", "options"), [("GIF", {}), ("WEBP", {"lossless": True})])
def test_an_animation_gives_its_first_frame(format, options):
    first, second = (Image.new("RGB", (4, 3), colour) for colour in (RED, BLUE))
    data = encode(first, format, save_all=True, append_images=[second], duration=100, **options)
    assert Image.open(io.BytesIO(data)).n_frames == 2
    assert pixels(data) == [[RED] * 4] * 3


def png_header(width, height):
    """Return a PNG whose header declares a size that its data does not have."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"just a text, whatever its file is called", "not a readable image"),
        (EPS, "not a readable image"),
        (encode(photo(), "PCX"), "not a readable image"),
        (encode(photo(), "JPEG")[:-500], "cannot be decoded: .*truncated"),
        (encode(photo(), "PNG")[:-500], "cannot be decoded: .*truncated"),
        (encode(photo(), "TIFF")[:-500], "cannot be decoded: .*truncated"),
        (encode(photo(), "GIF")[:-500], "cannot be decoded: .*truncated"),
        (encode(photo(), "WEBP")[:-500], "cannot be decoded"),
        (png_header(2**14 + 1, 2**13), "declares more than 134217728 pixels; expected at most that: make it smaller"),
        (png_header(2**14, 2**14), "declares more than 134217728 pixels"),
        (png_header(2**31 - 1, 2**31 - 1), "declares more than 134217728 pixels"),
    ],
    ids=["no bytes", "text", "eps", "pcx", "jpeg", "png", "tiff", "gif", "webp", "at the limit", "bomb", "huge bomb"],
)
def test_damaged_and_foreign_bytes_are_refused_in_one_line(data, message):
    with pytest.raises(ImageError, match=message) as caught:
        decoding.decode(data)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("error")
def test_the_largest_allowed_size_passes_the_header_check():
    with pytest.raises(ImageError, match="cannot be decoded"):
        decoding.decode(png_header(2**14, 2**13))


@pytest.mark.filterwarnings("error")
def test_a_valid_image_that_pillow_would_warn_of_is_read_in_silence():
    bits = Image.new("1", (9500, 9500))  # 90 megapixels in 11 kB
    bits.putpixel((9499, 9499), 1)
    assert Image.MAX_IMAGE_PIXELS < 9500 * 9500 < decoding.MAX_PIXELS
    shown = decoding.decode(encode(bits, "PNG"))
    assert (shown.mode, shown.size) == ("RGB", (9500, 9500))
    assert [shown.getpixel((x, 9499)) for x in (9498, 9499)] == [(0, 0, 0), WHITE]


FORMATS = [
    ("PNG", {}),
    ("JPEG", {}),
    ("BMP", {}),
    ("TIFF", {}),  # Pillow looks at its limit once more when it loads these two,
    ("TIFF", {"compression": "tiff_lzw"}),
    ("GIF", {"disposal": 2}),  # and before the size is known for these two
    ("WEBP", {"lossless": True}),
]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("format", "options"), FORMATS)
@pytest.mark.parametrize("pillows", [1, 48 * 64 - 1, None])
def test_no_limit_of_pillows_decides_what_is_read(monkeypatch, format, options, pillows):
    data = encode(photo(), format, **options)
    expected = decoding.decode(data).tobytes()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pillows)
    monkeypatch.setattr(decoding, "MAX_PIXELS", 48 * 64)
    assert decoding.decode(data).tobytes() == expected
    monkeypatch.setattr(decoding, "MAX_PIXELS", 48 * 64 - 1)
    with pytest.raises(ImageError, match="declares more than 3071 pixels; expected at most that: make it smaller"):
        decoding.decode(data)
    assert pillows == Image.MAX_IMAGE_PIXELS


def test_decoding_in_threads_leaves_pillows_limit_as_it_was(monkeypatch):
    data = encode(photo(), "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3072)
    with ThreadPoolExecutor(8) as pool:
        sizes = set(pool.map(lambda _: decoding.decode(data).size, range(400)))
    assert sizes == {(64, 48)}
    assert Image.MAX_IMAGE_PIXELS == 3072
    assert type(Image.MAX_IMAGE_PIXELS) is int


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        ([[0, 9]], [(0, 0, 0), (9, 9, 9)]),
        ([[[1, 2, 3], [4, 5, 6]]], [(1, 2, 3), (4, 5, 6)]),
        ([[[1, 2, 3, 0], [4, 5, 6, 255]]], [WHITE, (4, 5, 6)]),
    ],
    ids=["grey", "rgb", "rgba"],
)
def test_uint8_arrays_become_rgb(array, expected):
    image = decoding.from_array(np.array(array, np.uint8))
    assert [image.getpixel((x, 0)) for x in range(2)] == expected


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4), np.int64),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((0, 4), np.uint8),
        np.zeros(4, np.uint8),
    ],
    ids=["int64", "two channels", "no rows", "one dimension"],
)
def test_other_arrays_are_refused(array):
    with pytest.raises(ImageError, match="expected uint8"):
        decoding.from_array(array)


def test_the_content_digest_is_the_sha256_of_the_bytes():
    assert decoding.content_digest(b"abc") == hashlib.sha256(b"abc").digest()


def test_the_pixel_digest_tells_shapes_and_pixels_apart():
    base = Image.new("RGB", (2, 3))
    same, turned, other = Image.new("RGB", (2, 3)), Image.new("RGB", (3, 2)), Image.new("RGB", (2, 3), (0, 0, 1))
    digest = decoding.pixel_digest(base)
    assert decoding.pixel_digest(same) == digest
    assert digest not in (decoding.pixel_digest(turned), decoding.pixel_digest(other))


def test_decode_is_a_name_of_the_package():
    from featurebank.images import decode

    assert decode is decoding.decode
