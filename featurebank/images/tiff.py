"""TIFF files: their pages and layouts by their headers, and what Pillow reads wrongly or not at all, by tifffile.

The headers are read here, a bounded number of them and without decoding anything, so that a layout can be named, and
refused where it has to be, with or without tifffile.
"""

from __future__ import annotations

import io
import json
import logging
import mmap
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurebank.errors import ImageError, install_hint
from featurebank.images.pixels import PixelRules

Data = bytes | mmap.mmap
"""A file's bytes, or a file that is looked into without being read."""
MAX_PAGES = 10_000
MOST_BYTES_A_PIXEL = 8
"""Of one page: enough for RGB in 16 bits, or floating point in 64."""
MOST_READ = 16
"""Times the most pixels of an image that the pages of one stack may have together where all are read."""
_BEGINNINGS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 6: 1, 7: 1, 8: 2, 9: 4, 13: 4, 16: 8, 17: 8, 18: 8}
_CODES = {1: "B", 2: "s", 3: "H", 4: "I", 6: "b", 7: "s", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_MOST_VALUES = 4096
_MOST_TEXT = 1 << 22
_FLAGS, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _COLOURS = 254, 256, 257, 258, 259, 262
_DESCRIPTION, _ORIENTATION, _SAMPLES, _LARGEST, _PLANES, _EXTRA, _FORMAT = 270, 274, 277, 281, 284, 338, 339
_WANTED = frozenset(
    (_FLAGS, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _COLOURS, _ORIENTATION, _SAMPLES, _LARGEST, _PLANES, _EXTRA, _FORMAT)
)
_REDUCED, _MASK = 1, 4
_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB, _PALETTE, _CMYK = 0, 1, 2, 3, 5
_COLOUR_NAMES = {_RGB: "RGB", _PALETTE: "palette", _CMYK: "CMYK", 6: "YCbCr", 8: "CIELab", 32803: "raw camera"}
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
        colours = _COLOUR_NAMES.get(self.first(_COLOURS, 1), "grey" if self.samples == 1 else f"{self.samples}-channel")
        inverted = ", white is 0" if self.first(_COLOURS, 1) == _MIN_IS_WHITE else ""
        planes = ", plane by plane" if self.samples > 1 and self.first(_PLANES, 1) == 2 else ""
        return f"a TIFF of {self.bits}-bit {_KINDS.get(self.kind, 'unknown ')}{colours}{inverted}{planes}"


@dataclass(frozen=True)
class Stack:
    """What a TIFF file holds.

    Attributes
    ----------
    pages : list of Page
        The first, and those of its size that follow, without thumbnails and masks.
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
        When they are damaged, or there are more than `MAX_PAGES`.
    """
    try:
        pages, text = _read_pages(data)
    except ImageError:
        raise
    except (struct.error, ValueError, IndexError, OverflowError) as error:
        raise ImageError("cannot be decoded: the TIFF file's headers are damaged") from error
    if not pages:
        raise ImageError("cannot be decoded: the TIFF file has no page")
    first = pages[0]
    alike = [page for page in pages if page is first or (_fits(page, first) and not page.is_extra)]
    axes, sizes, stated = _described(text, len(alike))
    return Stack(alike, axes, sizes, first.stated_bits or stated)


def _fits(page: Page, first: Page) -> bool:
    """Say whether a page is one of a stack: of the first page's size and kind."""
    return (page.size, page.samples, page.bits, page.kind) == (first.size, first.samples, first.bits, first.kind)


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


def _described(text: str, count: int) -> tuple[tuple[str, ...], tuple[int, ...], int | None]:
    """Return the axes and sizes of a stack's pages and the bits in use, as ImageJ, OME or tifffile describe them."""
    stated, sizes = None, {}
    if text.startswith("ImageJ="):
        facts = dict(re.findall(r"^(\w+)=(\d+)\s*$", text, re.MULTILINE))
        sizes = {axis: int(facts.get(name, 1)) for axis, name in (("T", "frames"), ("Z", "slices"), ("C", "channels"))}
    elif "<OME" in text[:4096]:
        facts = dict(re.findall(r'\b(SizeC|SizeZ|SizeT|DimensionOrder|SignificantBits)="(\w+)"', text[:_MOST_TEXT]))
        order = facts.get("DimensionOrder", "XYCZT")[:1:-1]
        sizes = {axis: int(facts.get(f"Size{axis}", "1")) for axis in order if axis in "CZT"}
        stated = int(facts["SignificantBits"]) if facts.get("SignificantBits", "x").isdecimal() else None
    elif text.startswith("{") and '"axes"' in text:
        sizes = _shaped(text)
    named = {axis: size for axis, size in sizes.items() if size > 1}
    if count < 2 or int(np.prod(list(named.values()) or [1], dtype=object)) != count:
        named = {"I": count}
    return tuple(named), tuple(named.values()), stated if stated in range(2, 16) else None


def _shaped(text: str) -> dict[str, int]:
    """Return the axes and sizes that tifffile describes in JSON."""
    try:
        facts = json.loads(text)
        pairs = zip(str(facts["axes"]), facts["shape"], strict=True)
        return {axis: int(size) for axis, size in pairs if axis not in "YXS"}
    except (ValueError, KeyError, TypeError):
        return {}


# --- values ------------------------------------------------------------------------------------------------


def pillow_reads(page: Page) -> bool:
    """Say whether Pillow reads a page rightly; measured for every layout that tifffile writes (`tests/images`)."""
    bits, colours = set(page.tags.get(_BITS, (1,))), page.first(_COLOURS, 1)
    if page.is_big_tiff and not page.is_little:
        return False
    is_grey = colours in (_MIN_IS_WHITE, _MIN_IS_BLACK)
    if page.kind == 1 and len(bits) == 1 and page.bits <= 8:
        return not is_grey or page.samples == 1 or (page.samples == 2 and page.has_alpha)
    if page.samples == 1 and colours == _MIN_IS_BLACK:
        values = (page.kind, page.bits)
        return values in ((1, 16), (1, 12)) or (page.is_little and values in ((2, 16), (1, 32), (2, 32), (3, 32)))
    is_whole = page.first(_PLANES, 1) == 1 or page.first(_COMPRESSION, 1) != 1
    return (page.kind, bits) == (1, {16}) and colours in (_RGB, _CMYK) and page.samples in (3, 4) and is_whole


def not_read(page: Page) -> ImageError:
    """Return what is said of a layout that nothing here reads."""
    return ImageError(f"{page}, which is not read: save it as grey or RGB of 8 or 16 bits")


def needs_tifffile(stack: Stack, rules: PixelRules) -> bool:
    """Say whether the values of a file have to come from tifffile by some rules."""
    first = stack.pages[0]
    several = len(stack.pages) > 1 and (rules.pages in ("mean", "max") or rules.channels is not None)
    channels = rules.channels is not None and first.samples not in (1, 3)
    colours = rules.range is not None and first.is_deep and first.samples > 1
    return several or channels or colours or not pillow_reads(first)


def read_values(data: bytes, stack: Stack, rules: PixelRules, most: int) -> NDArray[Any]:
    """Return the values of a TIFF file through tifffile; 0 is black in all of them.

    Parameters
    ----------
    data : bytes
    stack : Stack
        From `look`.
    rules : PixelRules
        Which pages are read, and whether pages are channels.
    most : int
        The most pixels that a page may have.

    Returns
    -------
    ndarray, shape (height, width, channels)

    Raises
    ------
    ImageError
        When it is too large, of a layout that is not read, or tifffile is not installed.
    """
    first, rows = stack.pages[0], _chosen(stack, rules)
    _check_size(first, rows.size, most)
    if first.first(_COLOURS, 1) not in (_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB):
        raise not_read(first)
    opened = _tifffile(first).TiffFile(io.BytesIO(data))
    with opened as file:
        planes = [_reduced((_read_page(file, stack.pages[i], data) for i in row), rules.pages) for row in rows]
    values = np.concatenate(planes, axis=2)
    if first.first(_COLOURS, 1) == _MIN_IS_WHITE and values.dtype.kind == "u":
        values = np.asarray((1 << first.bits) - 1 - values.astype(np.int64)).astype(values.dtype)
    return values


def _chosen(stack: Stack, rules: PixelRules) -> NDArray[np.int64]:
    """Return the numbers of the pages that are read, shape (channels, pages)."""
    count, first = len(stack.pages), stack.pages[0]
    grid = np.arange(count).reshape(stack.sizes or (1,))
    if rules.channels is None:
        rows = grid.reshape(1, -1)
    elif "C" in stack.axes:
        rows = np.moveaxis(grid, stack.axes.index("C"), 0).reshape(stack.channels, -1)
    else:  # where nothing else is said, pages of one sample are the channels that are asked for
        rows = grid.reshape(-1, 1) if rules.pages is None and first.samples == 1 else grid.reshape(1, -1)
    return rows if rules.pages in ("mean", "max") else rows[:, :1]


def _check_size(page: Page, count: int, most: int) -> None:
    pixels = page.size[0] * page.size[1]
    if pixels > most or pixels * page.samples * -(-page.bits // 8) > MOST_BYTES_A_PIXEL * most:
        raise ImageError(f"declares more than {most} pixels; expected at most that: make it smaller")
    if pixels * count > MOST_READ * most:
        raise ImageError(f"{count} pages of {pixels} pixels are more than {MOST_READ} times {most}: read fewer pages")


def _tifffile(page: Page) -> Any:
    try:
        import tifffile
    except ImportError as error:
        raise ImageError(f"{page}, which needs tifffile: {install_hint('microscopy')}") from error
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it says there what it raises as well
    return tifffile


def _read_page(file: Any, page: Page, data: bytes) -> NDArray[Any]:
    """Return one page, shape (height, width, samples)."""
    found = file.pages[page.number]
    if any(start + count > len(data) for start, count in zip(found.dataoffsets, found.databytecounts, strict=False)):
        raise ImageError("cannot be decoded: the file is cut short")
    values = found.asarray(maxworkers=1).reshape(found.shaped)  # (planes, depth, height, width, samples)
    width, height = page.size
    if values.shape[1] != 1 or values.shape[2:4] != (height, width) or values.dtype.kind not in "uif":
        raise not_read(page)
    return np.asarray(values[:, 0].transpose(1, 2, 3, 0).reshape(height, width, -1))


def _reduced(pages: Iterator[NDArray[Any]], how: str | None) -> NDArray[Any]:
    """Return the mean or the maximum over pages in their own type, one page at a time in memory."""
    first = next(pages)
    if how == "max":
        return reduce(np.maximum, pages, first)
    total, count = first.astype(np.float64), 1
    for page in pages:
        total += page
        count += 1
    return np.asarray(total / count if first.dtype.kind == "f" else np.rint(total / count).astype(first.dtype))
