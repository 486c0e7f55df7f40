"""TIFF files: what Pillow reads wrongly or not at all, by tifffile."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurebank.errors import ImageError, install_hint
from featurebank.images.pixels import PixelRules
from featurebank.images.tiff_pages import CMYK, MIN_IS_BLACK, MIN_IS_WHITE, PLAIN, RGB, USUAL, Page, Stack

MOST_BYTES_A_PIXEL = 8
"""Of one page: enough for RGB in 16 bits, or floating point in 64."""
MOST_READ = 16
"""Times the most pixels of an image that the pages of one stack may have together where all are read."""


def pillow_reads(page: Page) -> bool:
    """Say whether Pillow reads a page rightly; measured for every layout that tifffile writes (`tests/images`)."""
    if (page.is_big_tiff and not page.is_little) or page.compression not in USUAL:
        return False
    is_grey = page.colours in (MIN_IS_WHITE, MIN_IS_BLACK)
    if page.kind == 1 and len(page.depths) == 1 and page.bits <= 8:
        return not is_grey or page.samples == 1 or (page.samples == 2 and page.has_alpha)
    if page.samples == 1 and page.colours == MIN_IS_BLACK:
        values = (page.kind, page.bits)
        return values in ((1, 16), (1, 12)) or (page.is_little and values in ((2, 16), (2, 32), (3, 32)))
    is_whole = not page.is_planar or page.compression != PLAIN
    is_colour = page.colours in (RGB, CMYK) and page.samples in (3, 4)
    return (page.kind, page.depths) == (1, {16}) and is_colour and is_whole


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
    if first.colours not in (MIN_IS_WHITE, MIN_IS_BLACK, RGB):
        raise not_read(first)
    opened = _tifffile(first).TiffFile(io.BytesIO(data))
    with opened as file:
        planes = [_reduced((_read_page(file, stack.pages[i], data) for i in row), rules.pages) for row in rows]
    values = np.concatenate(planes, axis=2)
    if first.colours == MIN_IS_WHITE and values.dtype.kind == "u":
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
