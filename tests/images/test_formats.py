import io
import subprocess
import sys

import numpy as np
import pytest
from pictures import encode
from PIL import Image, features

import featurebank
from featurebank.errors import ImageError
from featurebank.images import decode, decoding, formats
from featurebank.images.pixels import PixelRules
from featurebank.images.ranges import measure_range
from featurebank.images.scanning import scan

RGB = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
SMOOTH = np.stack([np.add.outer(np.arange(48) * 2, np.arange(64) * 2)] * 3, -1).astype(np.uint8) // [1, 2, 3]


def heic(values, bits=8):
    heif = pytest.importorskip("pillow_heif")
    height, width = values.shape[:2]
    mode = {(8, 3): "RGB", (8, 2): "L", (10, 2): "L;16"}[bits, values.ndim]
    file = io.BytesIO()
    heif.encode(mode, (width, height), values.tobytes(), file, quality=-1, chroma=444)
    return file.getvalue()


def grey(data):
    """Decode under the policy and return the one channel of a grey image."""
    shown = np.asarray(decoding.decode(data))
    assert (shown == shown[..., :1]).all()
    return shown[..., 0].tolist()


@pytest.mark.parametrize(("format", "options"), [("PPM", {}), ("JPEG2000", {"irreversible": False})])
def test_lossless_formats_keep_every_pixel(format, options):
    data = encode(Image.fromarray(RGB), format, **options)
    assert (np.asarray(decoding.decode(data)) == RGB).all()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"P5 3 1 255\n\x00\x07\xff", [[0, 7, 255]]),
        (b"P2 3 1 255 0 7 255", [[0, 7, 255]]),
        (b"P5 3 1 4095\n\x00\x00\x08\x00\x0f\xff", [[0, 128, 255]]),  # 2048 / 4095 * 255 = 127.53
        (b"P5 3 1 65535\n\x00\x00\x30\x39\xff\xff", [[0, 48, 255]]),  # 12345 / 65535 * 255 = 48.04
        (b"P5 3 1 100\n\x00\x32\x64", [[0, 128, 255]]),  # 50 / 100 * 255 = 127.5
        (b"P4 8 1\n\xa0", [[0, 255, 0, 255, 255, 255, 255, 255]]),  # a one is black
        (b"P1 3 1 1 0 1", [[0, 255, 0]]),
    ],
    ids=["pgm", "plain pgm", "12 bits", "16 bits", "percent", "pbm", "plain pbm"],
)
def test_portable_grey_maps_are_scaled_by_their_own_largest_value(data, expected):
    assert grey(data) == expected


def test_portable_colour_maps_of_16_bits_obey_the_range(tmp_path):
    values = (np.arange(27) * 100).astype(">u2").reshape(3, 3, 3)
    (tmp_path / "a.ppm").write_bytes(b"P6 # as written\n3 3\n65535\n" + values.tobytes())
    assert measure_range(scan(tmp_path), PixelRules(), workers=1).limits == (0, 2600)
    seen = decode((tmp_path / "a.ppm").read_bytes(), pixels=PixelRules(range=(0, 2600)))
    assert np.array_equal(np.asarray(seen), np.rint(values / 2600 * 255))


@pytest.mark.parametrize("bits", [12, 16])
def test_white_in_deep_colours_of_jpeg_2000_stays_white(bits):
    import imagecodecs

    largest = (1 << bits) - 1
    values = np.array([[[0, largest, largest // 2]]], "u2").repeat(16, 0).repeat(16, 1)
    data = imagecodecs.jpeg2k_encode(values, level=0, reversible=True, bitspersample=bits)
    assert np.asarray(decode(data))[3, 3].tolist() == [0, 255, 128]
    assert np.asarray(decode(data, pixels=PixelRules(range=(0, largest))))[3, 3].tolist() == [0, 255, 127]


@pytest.mark.parametrize(
    ("start", "said"), [(b"\xff\xc1", "a JPEG file of 12"), (b"\xff\xc3", "a lossless JPEG file of 12")]
)
def test_a_jpeg_file_that_pillow_does_not_open_is_named(start, said):
    data = b"\xff\xd8\xff\xe0\0\4ab" + start + b"\0\x0b\x0c\0\1\0\1\1\1\x11\0"
    with pytest.raises(ImageError, match=f"this is {said} bits, which is not read: save it as PNG or TIFF"):
        decode(data)


def test_16_bit_jpeg_2000_is_scaled_to_8_bits():
    values = np.array([[0, 257, 12345, 65535]] * 4, np.uint16)
    data = encode(Image.fromarray(values), "JPEG2000", irreversible=False)
    assert grey(data) == [[0, 1, 48, 255]] * 4


def test_avif_is_what_pillow_gives_and_near_what_was_written():
    data = encode(Image.fromarray(SMOOTH.astype(np.uint8)), "AVIF", quality=100, subsampling="4:4:4")
    shown = np.asarray(decoding.decode(data))
    assert (shown == np.asarray(Image.open(io.BytesIO(data)))).all()
    assert np.abs(shown.astype(int) - SMOOTH).max() <= 3


def test_heic_is_near_what_was_written_and_opens_without_registering_anything():
    data = heic(SMOOTH.astype(np.uint8))
    shown = np.asarray(decoding.decode(data))
    assert np.abs(shown.astype(int) - SMOOTH).max() <= 4
    with pytest.raises(Image.UnidentifiedImageError):  # Pillow itself is as it was
        Image.open(io.BytesIO(data))


def test_10_bit_heic_keeps_its_range():
    values = np.repeat(np.arange(0, 1024, 16, dtype=np.uint16)[None], 64, 0)
    shown = np.array(grey(heic(values << 6, bits=10)))
    assert np.abs(shown - values / 1023 * 255).max() <= 1.5


@pytest.mark.parametrize("kind", ["HEIC", "AVIF", "JPEG2000", "PPM"])
def test_the_pixel_limit_is_looked_at_before_anything_is_decoded(kind, monkeypatch):
    data = heic(RGB) if kind == "HEIC" else encode(Image.fromarray(RGB), kind)
    monkeypatch.setattr(decoding, "MAX_PIXELS", 12 * 16)
    assert decoding.decode(data).size == (16, 12)
    monkeypatch.setattr(decoding, "MAX_PIXELS", 12 * 16 - 1)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(ImageError, match="declares more than 191 pixels"):
        decoding.decode(data)


@pytest.mark.parametrize("kind", ["HEIC", "AVIF", "JPEG2000", "PPM"])
def test_a_file_that_is_cut_short_is_refused_in_one_line(kind):
    data = heic(RGB) if kind == "HEIC" else encode(Image.fromarray(RGB), kind)
    with pytest.raises(ImageError) as caught:
        decoding.decode(data[: len(data) * 3 // 4])
    assert "\n" not in str(caught.value)


FTYP = b"\0\0\0\x1cftyp"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (bytes(5000), "this is nothing but zeros, as an interrupted copy leaves, not an image; expected JPEG"),
        (b"PK\3\4" + bytes(40), r"a ZIP archive \(unpack it\)"),
        (b"\xff\x0a" + bytes(40), "a JPEG XL file, whatever its name ends in; nothing here reads it safely: convert"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40), "a JPEG XL file"),
        (FTYP + b"isom\0\0\0\0isommp42", "this is a video, not an image; expected JPEG, PNG"),
        (FTYP + b"crx \0\0\0\1crx isom", "a camera's raw file"),
        (b"%PDF-1.7\n", "a PDF document"),
        (b"\n<!DOCTYPE HTML><p>404", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
    ],
)
def test_a_file_of_another_kind_is_named(data, message):
    with pytest.raises(ImageError, match=message):
        decoding.decode(data)


@pytest.mark.parametrize("brands", [b"heic\0\0\0\0mif1heic", b"mif1\0\0\0\0mif1heic", b"msf1\0\0\0\0hevcmsf1"])
def test_a_heic_file_without_its_plug_in_is_named_with_the_extra(brands, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # as if it were not installed
    with pytest.raises(
        ImageError, match=r"a HEIC file, whatever its name ends in; pip install 'featurebank\[phones\]'"
    ):
        decoding.decode(FTYP + brands + bytes(8))


def test_what_this_pillow_was_built_without_is_named(monkeypatch):
    monkeypatch.setattr(features, "get_supported", lambda: ["jpg"])
    formats.pillow_formats.cache_clear()
    try:
        for kind in ("AVIF", "JPEG2000"):
            with pytest.raises(ImageError, match="this Pillow was built without"):
                decoding.decode(encode(Image.fromarray(RGB), kind))
    finally:
        formats.pillow_formats.cache_clear()


def test_a_reduced_decoder_takes_no_thumbnail_of_a_heic_file():
    assert decoding.decode(heic(RGB), least=2).size == (16, 12)


def test_every_format_is_a_sample_of_a_folder_and_the_plug_in_waits_for_its_first_file(tmp_path):
    for name, kind in {"a.ppm": "PPM", "b.avif": "AVIF", "c.JP2": "JPEG2000", "d.apng": "PNG"}.items():
        (tmp_path / name).write_bytes(encode(Image.fromarray(RGB), kind))
    (tmp_path / "e.jxl").write_bytes(b"\xff\x0a" + bytes(40))
    (tmp_path / "f.txt").write_bytes(b"no image")
    found = featurebank.scan(tmp_path)
    assert found.paths == [b"a.ppm", b"b.avif", b"c.JP2", b"d.apng", b"e.jxl"]
    assert found.ignored == {".txt": 1}
    code = "import sys; from featurebank.images import decode; decode(open(sys.argv[1], 'rb').read());"
    code += "assert 'pillow_heif' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "b.avif")], check=True)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"ZISRAWFILE" + bytes(200), "this is a CZI file, whatever its name ends in; export it as OME-TIFF"),
        (b"\xda\xce\xbe\x0a" + bytes(200), "this is an ND2 file, .* OME-TIFF"),
        (b"p\0\0\0" + bytes(200), "this is a LIF file, .* OME-TIFF"),
        (bytes(128) + b"DICM" + bytes(200), "this is a DICOM file, .* PNG or TIFF of 16 bits"),
    ],
    ids=["CZI", "ND2", "LIF", "DICOM"],
)
def test_files_of_microscopes_and_scanners_say_how_to_convert_them(data, said):
    with pytest.raises(ImageError, match=said):
        decoding.decode(data)
