"""The formats of image files: which are read, by what, and what a file is that is not.

A file's content decides, never its name. Pillow opens most formats, some only where it was built with their library;
HEIC needs the plug-in of the extra ``phones``, which is imported when the first such file is met. A decoder has to say
how large an image is before it decodes it; the one for JPEG XL does not, so that such files are refused.
"""

from __future__ import annotations

import io
import re
from functools import cache

from PIL import Image, features

from featurebank.errors import ImageError, install_hint

_COMMON = (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".bmp", ".tif", ".tiff", ".webp", ".gif")
_RARER = (".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".jxl")
_PHONES = (".avif", ".avifs", ".heic", ".heics", ".heif", ".heifs", ".hif")
SUFFIXES = frozenset((*_COMMON, *_RARER, *_PHONES))
"""Endings of the files of a folder that are samples; what cannot be read of them fails with the reason."""
SHARD, PARQUET = ".tar", (".parquet", ".pq")
PACKED = (SHARD, *PARQUET)
"""Endings of files that hold many images."""
_MICROSCOPES = (".czi", ".lif", ".nd2", ".oib", ".oif", ".oir", ".vsi", ".lsm", ".ims")
CONVERSIONS = dict.fromkeys(_MICROSCOPES, "export OME-TIFF from microscopes' files (Fiji, bioio-conversion)")
CONVERSIONS |= dict.fromkeys((".dcm", ".dicom"), "export PNG or 16-bit TIFF from DICOM (pydicom, DCMTK's dcm2img)")
"""How images come out of files that are not read here, by the ends of their names."""
_ALWAYS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF", "PPM")
_BY_LIBRARY = {"jpg_2000": "JPEG2000", "avif": "AVIF"}
_HEIC_BRANDS = frozenset(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"mif2", b"msf1")
)
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_LOSSLESS = frozenset((0xC3, 0xC7, 0xCB, 0xCF))
"""Markers of a JPEG file's frame."""
_EXIF_ITEM = re.compile(rb"(infe[\x02\x03].{3}.{4,6})Exif", re.DOTALL)
_BEGINNINGS = {
    b"\xff\x0a": "a JPEG XL file",
    b"\0\0\0\x0cjxl \r\n\x87\n": "a JPEG XL file",
    b"\0\0\0\x0cjp  \r\n\x87\n": "a JPEG 2000 file",
    b"\xff\x4f\xff\x51": "a JPEG 2000 file",
    b"zisrawfile": "a CZI file",
    b"\xda\xce\xbe\x0a": "an ND2 file",
    b"p\0\0\0": "a LIF file",
    b"%pdf": "a PDF document",
    b"pk\3\4": "a ZIP archive (unpack it)",
    b"\x1f\x8b": "a gzip archive (unpack it)",
    b"\x93numpy": "a NumPy file",
    b"\x89hdf": "an HDF5 file",
    b"simple  =": "a FITS file",
    b"v/1\1": "an OpenEXR file",
    b"\x1ae\xdf\xa3": "a video",
    b"\0\5\x16\7": "what macOS keeps beside a file of this name",
    b"8bps": "a Photoshop file",
    b"\0\0\x01\0": "an icon",
    b"version https://git-lfs": "a Git LFS pointer in the place of a file that was not fetched (git lfs pull)",
    b"<!doctype html": "a web page",
    b"<html": "a web page",
    b"<svg": "an SVG drawing",
    b"<?xml": "an XML file",
}
"""How files begin, in small letters."""
_TO_OME = "export it as OME-TIFF, e.g. with Fiji's Bio-Formats or bioio-conversion"
_REMEDIES = {
    "a CZI file": _TO_OME,
    "an ND2 file": _TO_OME,
    "a LIF file": _TO_OME,
    "a DICOM file": "export it as PNG or TIFF of 16 bits, e.g. with pydicom or DCMTK's dcm2img",
    "a HEIC file": install_hint("phones"),
    "an AVIF file": "this Pillow was built without AVIF: pip install --upgrade pillow",
    "a JPEG 2000 file": "this Pillow was built without OpenJPEG: pip install --upgrade pillow",
    "a JPEG XL file": "nothing here reads it safely: convert it to PNG or JPEG, e.g. with djxl",
}


@cache
def pillow_formats() -> tuple[str, ...]:
    """Return the names of the formats that the installed Pillow opens."""
    built_with = features.get_supported()
    return _ALWAYS + tuple(name for library, name in _BY_LIBRARY.items() if library in built_with)


def open_format(data: bytes) -> Image.Image:
    """Open an image file by its content; its size is known then, its pixels are not decoded.

    Raises
    ------
    ImageError
        When it is of no format that is read here; the message names what it is, where its first bytes tell.
    """
    kind = kind_of(data)
    if kind == "a HEIC file":
        return _open_heic(data)
    try:
        return _open_avif(data) if kind == "an AVIF file" else _open(data)
    except Image.UnidentifiedImageError as error:
        raise ImageError(_refusal(kind)) from error


def kind_of(data: bytes) -> str:
    """Return what a file is by its first bytes, with its article; an empty text where they do not tell.

    Examples
    --------
    >>> kind_of(b"%PDF-1.7"), kind_of(b"BM")
    ('a PDF document', '')
    """
    if data[4:8] == b"ftyp":
        return _kind_of_box(data)
    if data[128:132] == b"DICM":
        return "a DICOM file"
    if data[:3] == b"\xff\xd8\xff":
        return _kind_of_jpeg(data)
    if data and not any(data[:4096]):
        return "nothing but zeros, as an interrupted copy leaves"
    start = data[:32].lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    return next((kind for begin, kind in _BEGINNINGS.items() if start.startswith(begin)), "")


def _kind_of_box(data: bytes) -> str:
    """Return what a file of the ISO family is: its first box lists the brands that it is compatible with."""
    box = data[: min(int.from_bytes(data[:4], "big"), 256)]
    brands = {box[8:12]} | {box[start : start + 4] for start in range(16, len(box), 4)}
    if brands & {b"avif", b"avis"}:
        return "an AVIF file"
    if brands & _HEIC_BRANDS:
        return "a HEIC file"
    return "a camera's raw file" if b"crx " in brands else "a video"


def _kind_of_jpeg(data: bytes) -> str:
    """Return what kind of JPEG file it is that Pillow does not open, by the header of its frame."""
    at = 2
    while data[at : at + 1] == b"\xff" and at + 5 <= len(data):
        marker = data[at + 1]
        if marker in _FRAMES:
            how = "a lossless" if marker in _LOSSLESS else "a"
            return f"{how} JPEG file of {data[at + 4]} bits"
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return "a JPEG file with damaged headers"


def _open(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data), formats=pillow_formats())


def _open_avif(data: bytes) -> Image.Image:
    """Open an AVIF file; its own boxes say how it is turned, so that an EXIF block which Pillow refuses is left out."""
    try:
        return _open(data)
    except Image.DecompressionBombError:
        raise
    except Exception:  # Pillow writes the block anew, and raises what that raises
        return _open(_EXIF_ITEM.sub(rb"\1skip", data, count=1))


def _open_heic(data: bytes) -> Image.Image:
    """Open a HEIC file; the plug-in turns it as the file asks for, and 10 bits become 8."""
    try:
        from pillow_heif import HeifImageFile
    except ImportError as error:
        raise ImageError(_refusal("a HEIC file")) from error
    opened: Image.Image = HeifImageFile(io.BytesIO(data))
    return opened


def _refusal(kind: str) -> str:
    """Return why a file of a kind is not read."""
    if "JPEG file of" in kind:
        return f"this is {kind}, which is not read: save it as PNG or TIFF of 8 or 16 bits"
    if kind in _REMEDIES:
        return f"this is {kind}, whatever its name ends in; {_REMEDIES[kind]}"
    read = ", ".join((*pillow_formats(), "HEIC"))
    return f"this is {kind}, not an image; expected {read}" if kind else f"not a readable image; expected {read}"
