import io
import struct
import zlib

import numpy as np
import pytest
from pictures import encode
from PIL import Image

from featurebank.images import decoding

ORIENTATION, X_RESOLUTION, WIDTH, UNIT, MAKE = 0x0112, 0x011A, 0x0100, 0x0128, 0x010F
PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8))
TURNED = np.asarray(PHOTO.transpose(Image.Transpose.ROTATE_270))


def block(entries, end=">", next_pointer=True, cut=None):
    """Return an EXIF block of (tag, type, count, value) entries, without the word Exif."""
    at, directory, body = 10 + 12 * len(entries) + 4 * next_pointer, struct.pack(f"{end}H", len(entries)), b""
    for tag, kind, count, value in sorted(entries):
        directory += struct.pack(f"{end}HHI", tag, kind, count)
        directory += value.ljust(4, b"\0") if len(value) <= 4 else struct.pack(f"{end}I", at + len(body))
        body += value if len(value) > 4 else b""
    head = {">": b"MM\0*", "<": b"II*\0"}[end] + struct.pack(f"{end}I", 8)
    return (head + directory + bytes(4) * next_pointer + body)[:cut]


def in_jpeg(exif):
    data = encode(PHOTO, "JPEG", quality=95, subsampling=0)
    exif = b"Exif\0\0" + exif
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]


def in_png(exif):
    data, chunk = encode(PHOTO, "PNG"), b"eXIf" + exif
    chunk = struct.pack(">I", len(exif)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return data[:33] + chunk + data[33:]


def in_webp(exif):
    data = encode(PHOTO, "WEBP", lossless=True, exif=b"Exif\0\0" + block([SIX]))
    data = data[: data.rindex(b"EXIF")] + b"EXIF" + struct.pack("<I", len(exif)) + exif + bytes(len(exif) % 2)
    return data[:4] + struct.pack("<I", len(data) - 8) + data[8:]


SIX = (ORIENTATION, 3, 1, struct.pack(">H", 6))
READABLE = {
    "big-endian": block([SIX]),
    "little-endian": block([(ORIENTATION, 3, 1, struct.pack("<H", 6))], "<"),
    "a long": block([(ORIENTATION, 4, 1, struct.pack(">I", 6))]),
    "a signed short": block([(ORIENTATION, 8, 1, struct.pack(">h", 6))]),
    "a byte": block([(ORIENTATION, 1, 1, b"\6")]),
    "two values": block([(ORIENTATION, 3, 2, struct.pack(">HH", 6, 1))]),
    "no pointer to a next directory": block([SIX], next_pointer=False),
    "cut short behind the tag": block([SIX, (X_RESOLUTION, 5, 1, bytes(8)), (UNIT, 3, 1, b"\0\2")], cut=22),
    "cut short in the next tag": block([SIX, (X_RESOLUTION, 5, 1, bytes(8))], cut=27),
    "a value outside before it": block([(MAKE, 2, 9999, b"\xff\xff\xff\xf0"), SIX]),
    "a resolution of -1/0": block([SIX, (X_RESOLUTION, 10, 1, struct.pack(">ii", -1, 0))]),
    "a resolution of -5/2": block([SIX, (X_RESOLUTION, 10, 1, struct.pack(">ii", -5, 2))]),
    "a width of floating point": block([SIX, (WIDTH, 11, 1, struct.pack(">f", 4000))]),
    "a rational width": block([SIX, (WIDTH, 5, 1, struct.pack(">II", 4000, 1))]),
    "a unit of -1": block([SIX, (UNIT, 8, 1, struct.pack(">h", -1))]),
}
UNREADABLE = {
    "text": block([(ORIENTATION, 2, 2, b"6\0")]),
    "out of range": block([(ORIENTATION, 3, 1, b"\0\x09")]),
    "no value": block([(ORIENTATION, 3, 0, b"\0\6")]),
    "no EXIF at all": b"nonsense, nonsense",
    "a head alone": b"MM\0*\0\0\0\x08",
    "a directory far outside": b"MM\0*\x7f\0\0\x08" + bytes(20),
    "nothing": b"",
}


@pytest.mark.filterwarnings("ignore")  # Pillow's, of what is odd
@pytest.mark.parametrize("within", [in_jpeg, in_png, in_webp])
@pytest.mark.parametrize("name", READABLE)
def test_a_photo_with_an_odd_but_readable_block_is_turned_once(within, name):
    shown = decoding.decode(within(READABLE[name]))
    assert np.abs(np.asarray(shown).astype(int) - TURNED).mean() < (5 if within is in_jpeg else 1e-9)
    assert decoding.as_image(shown).size == shown.size == (24, 32)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("within", [in_jpeg, in_png, in_webp])
@pytest.mark.parametrize("name", UNREADABLE)
def test_a_block_that_says_nothing_neither_turns_nor_fails(within, name):
    assert decoding.decode(within(UNREADABLE[name])).size == (32, 24)


@pytest.mark.parametrize(("kind", "value"), [(3, 6), (4, 6), (1, 6)])
def test_a_tiff_is_turned_once_whatever_the_type_of_its_tag(kind, value):
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    tags = ImageFileDirectory_v2()
    tags.tagtype[ORIENTATION] = kind
    tags[ORIENTATION] = bytes([value]) if kind == 1 else value
    shown = decoding.decode(encode(PHOTO, "TIFF", tiffinfo=tags))
    assert (np.asarray(shown) == TURNED).all()


XMP = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


@pytest.mark.parametrize("format", ["JPEG", "WEBP"])
def test_an_orientation_in_an_xmp_block_alone_turns_too(format):
    data = encode(PHOTO, format, xmp=XMP.encode())
    shown = decoding.decode(data)
    assert decoding.as_image(shown).size == shown.size == (24, 32)


def in_heic(exif):
    heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    heif.encode("RGB", PHOTO.size, PHOTO.tobytes(), file, quality=-1, exif=exif)
    return file.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["AVIF", "HEIC"])
def test_what_the_file_itself_turns_is_not_turned_twice(format, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = in_heic(exif.tobytes()) if format == "HEIC" else encode(PHOTO, "AVIF", quality=100, exif=exif.tobytes())
    expected = decoding.decode(in_jpeg(block([(ORIENTATION, 3, 1, struct.pack(">H", orientation))])))
    shown = decoding.decode(data)
    assert decoding.as_image(shown).size == shown.size == expected.size
    coarse = [np.asarray(each.resize((6, 6), Image.Resampling.BOX)).astype(int) for each in (shown, expected)]
    assert np.abs(coarse[0] - coarse[1]).mean() < 8


@pytest.mark.parametrize("damage", [b"\x01\x1a\x00\x0a\0\0\0\1", b"NONSENSE"])
def test_an_avif_file_with_a_block_that_pillow_refuses_is_turned_by_its_own_boxes(damage):
    exif = Image.Exif()
    exif[ORIENTATION], exif[X_RESOLUTION] = 6, 72.5
    data = encode(PHOTO, "AVIF", exif=exif)
    start = data.index(b"\x01\x1a\x00\x05\0\0\0\1") if damage[0] == 1 else data.index(b"MM\0*")
    data = data[:start] + damage + data[start + 8 :]
    if damage[0] == 1:  # a signed fraction, -1/0
        where = data.index(struct.pack(">II", 145, 2))
        data = data[:where] + struct.pack(">ii", -1, 0) + data[where + 8 :]
    with pytest.raises(Exception, match=r"cannot identify|Invalid Exif"):
        Image.open(io.BytesIO(data))
    assert decoding.decode(data).size == (24, 32)
