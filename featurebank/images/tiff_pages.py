"""TIFF files: their pages and layouts by their headers.

A bounded number of them is read, without decoding anything, so that a layout can be named, and refused where it has to
be, with or without tifffile (`featurebank.images.tiff`).
"""

from __future__ import annotations

import json
import math
import mmap
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from featurebank.errors import ImageError

Data = bytes | mmap.mmap
"""A file's bytes, or a file that is looked into without being read."""
MAX_PAGES = 10_000
_BEGINNINGS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 6: 1, 7: 1, 8: 2, 9: 4, 13: 4, 16: 8, 17: 8, 18: 8}
_CODES = {1: "B", 2: "s", 3: "H", 4: "I", 6: "b", 7: "s", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_MOST_VALUES = 4096
_MOST_TEXT = 1 << 22
_FLAGS, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _COLOURS = 254, 256, 257, 258, 259, 262
_DESCRIPTION, _OFFSETS, _ORIENTATION, _SAMPLES = 270, 273, 274, 277
_LARGEST, _PLANES, _EXTRA, _FORMAT = 281, 284, 338, 339
_WANTED = frozenset(
    (
        *(_FLAGS, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _COLOURS, _OFFSETS, _ORIENTATION, _SAMPLES),
        *(_LARGEST, _PLANES, _EXTRA, _FORMAT),
    )
)
_LEAST_HEADER = 2 + 8 * 12 + 4
"""Bytes of a directory that has the tags which an image needs."""
_REDUCED, _MASK = 1, 4
MIN_IS_WHITE, MIN_IS_BLACK, RGB, PALETTE, CMYK = 0, 1, 2, 3, 5
_COLOUR_NAMES = {RGB: "RGB", PALETTE: "palette", CMYK: "CMYK", 6: "YCbCr", 8: "CIELab", 32803: "raw camera"}
PLAIN = 1
USUAL = frozenset((PLAIN, 2, 3, 4, 5, 6, 7, 8, 32773, 32946, 34925, 50000))
"""Compressions that Pillow reads: none, those for fax, LZW, JPEG, Deflate, PackBits, LZMA and Zstandard."""
_COMPRESSION_NAMES = {33003: "JPEG 2000", 33005: "JPEG 2000", 34712: "JPEG 2000", 34887: "LERC", 50001: "WebP"}
_COMPRESSION_NAMES |= {50002: "JPEG XL", 52546: "JPEG XL", 34892: "lossy JPEG", 34933: "PNG", 22610: "JPEG XR"}
_KINDS = {1: "", 2: "signed ", 3: "floating-point ", 5: "complex ", 6: "complex "}


@dataclass(frozen=True)
class Page:
    """One directory of a TIFF file; `number` counts all of them."""

    number: int
    tags: Mapping[int, tuple[Any, ...]]
    is_little: bool
    is_big_tiff: bool = False

    def first(self, tag: int, default: int = 0) -> int:
        """Return the first value of a tag."""
        return int(self.tags.get(tag, (default,))[0])

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.first(_WIDTH), self.first(_HEIGHT)

    @property
    def bits(self) -> int:
        """The most bits that a sample has."""
        return int(max(self.tags.get(_BITS, (1,))))

    @property
    def samples(self) -> int:
        """Samples of a pixel."""
        return self.first(_SAMPLES, 1)

    @property
    def kind(self) -> int:
        """1: unsigned, 2: signed, 3: floating point."""
        return self.first(_FORMAT, 1)

    @property
    def colours(self) -> int:
        """How its values are to be seen: `MIN_IS_WHITE` and so on."""
        return self.first(_COLOURS, MIN_IS_BLACK)

    @property
    def compression(self) -> int:
        """By its number in TIFF."""
        return self.first(_COMPRESSION, PLAIN)

    @property
    def is_planar(self) -> bool:
        """Whether its samples lie in planes, one after the other."""
        return self.samples > 1 and self.first(_PLANES, 1) == 2

    @property
    def depths(self) -> set[int]:
        """The bits that its samples have."""
        return set(map(int, self.tags.get(_BITS, (1,))))

    @property
    def orientation(self) -> int:
        """How it is turned, as EXIF has it."""
        return self.first(_ORIENTATION, 1)

    @property
    def is_deep(self) -> bool:
        """Whether its values are no grey levels: more than 8 bits, signed, or floating point."""
        return self.bits > 8 or self.kind != 1

    @property
    def has_alpha(self) -> bool:
        """Whether its last sample says how opaque a pixel is."""
        return self.samples in (2, 4) and self.tags.get(_EXTRA, ())[-1:] in ((1,), (2,))

    def keeps_alpha(self, values: NDArray[Any]) -> bool:
        """Say whether the last channel of what was read of it, shape (height, width, channels), is its opacity."""
        return self.has_alpha and values.shape[2] == self.samples

    @property
    def is_extra(self) -> bool:
        """Whether it is a thumbnail, a smaller copy or a mask of another page."""
        return bool(self.first(_FLAGS) & (_REDUCED | _MASK))

    @property
    def stated_bits(self) -> int | None:
        """The bits that are in use, where the file says that these are fewer than a sample has."""
        largest = max(self.tags.get(_LARGEST, (0,)))
        stated = largest.bit_length() if isinstance(largest, int) and largest > 0 else self.bits
        container = 8 if self.bits <= 8 else 16 if self.bits <= 16 else 32
        return stated if self.kind == 1 and container > 8 and stated < container else None

    def __str__(self) -> str:
        colours = _COLOUR_NAMES.get(self.colours, "grey" if self.samples == 1 else f"{self.samples}-channel")
        inverted = ", white is 0" if self.colours == MIN_IS_WHITE else ""
        planes = ", plane by plane" if self.is_planar else ""
        number = self.compression
        packed = "" if number in USUAL else f", compressed by {_COMPRESSION_NAMES.get(number, f'method {number}')}"
        return f"a TIFF of {self.bits}-bit {_KINDS.get(self.kind, 'unknown ')}{colours}{inverted}{planes}{packed}"


@dataclass(frozen=True)
class Stack:
    """What a TIFF file holds.

    Attributes
    ----------
    pages : list of Page
        The first that is no thumbnail, and those of its size that follow, without thumbnails and masks.
    axes, sizes : tuple
        Of the pages, the slowest first: ``C`` channels, ``Z`` depth, ``T`` time, ``I`` unknown.
    stated_bits : int or None
        The bits in use that its metadata state.
    """

    pages: list[Page]
    axes: tuple[str, ...]
    sizes: tuple[int, ...]
    stated_bits: int | None = None

    @property
    def channels(self) -> int:
        """How many channels lie in pages of their own; 1 where the file does not say so."""
        return self.sizes[self.axes.index("C")] if "C" in self.axes else 1


# --- headers -----------------------------------------------------------------------------------------------


def is_tiff(data: Data) -> bool:
    """Say whether a file begins like a TIFF file."""
    return data[:4] in _BEGINNINGS


def look(data: Data) -> Stack:
    """Return what the headers of a TIFF file say.

    Raises
    ------
    ImageError
        When they are damaged, there are more than `MAX_PAGES`, or pages have no header of their own.
    """
    try:
        pages, text = _read_pages(data)
    except ImageError:
        raise
    except (struct.error, ValueError, IndexError, OverflowError) as error:
        raise ImageError("cannot be decoded: the TIFF file's headers are damaged") from error
    if not pages:
        raise ImageError("cannot be decoded: the TIFF file has no page")
    first = next((page for page in pages if not page.is_extra), pages[0])
    alike = [page for page in pages if page is first or (_fits(page, first) and not page.is_extra)]
    named, stated = _described(text)
    count = math.prod(named.values())
    if len(alike) == 1 < count and _are_the_rest(data, first, count):
        raise ImageError(
            f"a stack of {count} pages of which the first alone has a header, as ImageJ writes those above 4 GB: save "
            "it as OME-TIFF, or its pages as images, e.g. with Fiji"
        )
    named = named if len(alike) > 1 and count == len(alike) else {"I": len(alike)}
    return Stack(alike, tuple(named), tuple(named.values()), first.stated_bits or stated)


def _are_the_rest(data: Data, page: Page, count: int) -> bool:
    """Say whether so many pages, not compressed, are the rest of a file, with no room for headers of their own."""
    size = page.size[0] * page.size[1] * page.samples * page.bits // 8
    left = len(data) - page.first(_OFFSETS) - count * size
    return page.compression == PLAIN and 0 <= left < (count - 1) * _LEAST_HEADER


def _fits(page: Page, first: Page) -> bool:
    """Say whether a page is one of a stack: of the first page's size and kind."""
    return (page.size, page.samples, page.bits, page.kind) == (first.size, first.samples, first.bits, first.kind)


def first_alone(data: bytes, stack: Stack) -> bytes:
    """Return a file that begins with the first page of a stack, where a thumbnail comes before that."""
    return page_alone(data, 1) if stack.pages[0].number else data


def page_alone(data: bytes, number: int) -> bytes:
    """Return a file whose only page is one of a stack, from 1 on; it lacks nothing that the page needs.

    Raises
    ------
    ImageError
        When it is no TIFF file, or has fewer pages.
    """
    pages = look(data).pages if is_tiff(data) else []
    if not 1 <= number <= len(pages):
        raise ImageError(f"no page {number}; the file has {len(pages)}: extract its source again")
    offset, end = _directories(data)[pages[number - 1].number]
    order, is_big = _form(data)
    code, at = ("Q", 8) if is_big else ("I", 4)
    alone = bytearray(data)
    struct.pack_into(order + code, alone, at, offset)
    if end + struct.calcsize(code) <= len(data):
        struct.pack_into(order + code, alone, end, 0)
    return bytes(alone)


def _form(data: Data) -> tuple[str, bool]:
    """Return the byte order as `struct` has it, and whether offsets have 64 bits."""
    return ("<" if data[:2] == b"II" else ">"), data[2:4] in (b"+\0", b"\0+")


def _directories(data: Data) -> list[tuple[int, int]]:
    """Return where each directory begins, and where the number stands that says where the next begins."""
    order, is_big = _form(data)
    count_code, entry, code = ("Q", 20, "Q") if is_big else ("H", 12, "I")
    found: list[tuple[int, int]] = []
    offset = struct.unpack_from(order + code, data, 8 if is_big else 4)[0]
    seen = set()
    while offset and offset not in seen:
        seen.add(offset)
        if len(found) >= MAX_PAGES:
            raise ImageError(f"the TIFF file has more than {MAX_PAGES} pages; expected at most that: split it")
        count = struct.unpack_from(order + count_code, data, offset)[0]
        end = offset + struct.calcsize(order + count_code) + entry * count
        found.append((offset, end))
        offset = struct.unpack_from(order + code, data, end)[0] if end + struct.calcsize(code) <= len(data) else 0
        offset = offset if offset < len(data) else 0  # cut short: what is there is read
    return found


def _read_pages(data: Data) -> tuple[list[Page], str]:
    """Return the pages, and what the first one's description says."""
    (order, is_big), text = _form(data), ""
    pages = []
    for number, (offset, end) in enumerate(_directories(data)):
        wanted = _WANTED | {_DESCRIPTION} if number == 0 else _WANTED
        tags = _read_tags(data, offset, end, wanted)
        text = str(tags.pop(_DESCRIPTION, ("",))[0]) if number == 0 else text
        pages.append(Page(number, tags, order == "<", is_big))
    return pages, text


def _read_tags(data: Data, offset: int, end: int, wanted: frozenset[int]) -> dict[int, tuple[Any, ...]]:
    order, is_big = _form(data)
    entry, code, room = (20, "Q", 8) if is_big else (12, "I", 4)
    tags: dict[int, tuple[Any, ...]] = {}
    for at in range(offset + (8 if is_big else 2), end, entry):
        tag, kind = struct.unpack_from(order + "HH", data, at)
        if tag not in wanted or kind not in _SIZES:
            continue
        count = struct.unpack_from(order + code, data, at + 4)[0]
        is_text = _CODES[kind] == "s"
        count = min(count, _MOST_TEXT if is_text else _MOST_VALUES)
        start = at + 4 + struct.calcsize(code)
        if _SIZES[kind] * count > room:
            start = struct.unpack_from(order + code, data, start)[0]
        if is_text:
            tags[tag] = (data[start : start + count].rstrip(b"\0").decode("utf-8", "replace"),)
        elif count:
            tags[tag] = struct.unpack_from(f"{order}{count}{_CODES[kind]}", data, start)
    return tags


def _described(text: str) -> tuple[dict[str, int], int | None]:
    """Return the axes of a stack's pages with their sizes, and the bits in use, as ImageJ, OME or tifffile say."""
    stated, sizes = None, {}
    if text.startswith("ImageJ="):
        facts = dict(re.findall(r"^(\w+)=(\d+)\s*$", text, re.MULTILINE))
        sizes = {axis: int(facts.get(name, 1)) for axis, name in (("T", "frames"), ("Z", "slices"), ("C", "channels"))}
        sizes = sizes if math.prod(sizes.values()) > 1 else {"I": int(facts.get("images", 1))}
    elif "<OME" in text[:4096]:
        facts = dict(re.findall(r'\b(SizeC|SizeZ|SizeT|DimensionOrder|SignificantBits)="(\w+)"', text[:_MOST_TEXT]))
        order = facts.get("DimensionOrder", "XYCZT")[:1:-1]
        sizes = {axis: int(facts.get(f"Size{axis}", "1")) for axis in order if axis in "CZT"}
        stated = int(facts["SignificantBits"]) if facts.get("SignificantBits", "x").isdecimal() else None
    elif text.startswith("{") and '"axes"' in text:
        sizes = _shaped(text)
    return {axis: size for axis, size in sizes.items() if size > 1}, stated if stated in range(2, 16) else None


def _shaped(text: str) -> dict[str, int]:
    """Return the axes and sizes that tifffile describes in JSON."""
    try:
        facts = json.loads(text)
        pairs = zip(str(facts["axes"]), facts["shape"], strict=True)
        return {axis: int(size) for axis, size in pairs if axis not in "YXS"}
    except (ValueError, KeyError, TypeError):
        return {}
