"""Stacks -> a sample a page: each page of a TIFF file is an image of its own, by the path ``file.tif#page=3``."""

from __future__ import annotations

import mmap
import os
import re
from dataclasses import replace

import numpy as np

from featurebank.errors import ImageError, SourceError, counted
from featurebank.images.content import PAGE, read_file
from featurebank.images.sources import Source
from featurebank.images.tiff_pages import Data, is_tiff, look
from featurebank.storage.objects import is_address

COLUMN = "stack"
_SUFFIXES = re.compile(rb"\.tiff?$", re.IGNORECASE)


def each_page(source: Source) -> Source:
    """Return a source with a sample for each page of each stack, and its file's path in the column ``stack``.

    Only the headers of TIFF files are read. A file of one page, or of another format, stays what it is.

    Raises
    ------
    SourceError
        When the images are in memory, or there is such a column.
    """
    if source.get_image is not None:
        raise SourceError("images in memory have no pages; give each as an image of its own")
    if COLUMN in source.columns:
        raise SourceError(f"the source has a column {COLUMN!r}, which says whose the pages are: rename it")
    root = os.fsencode(source.root)
    sizes = [
        (1, 1) if position in source.problems else _count(os.fsdecode(os.path.join(root, path)))
        for position, path in enumerate(source.paths)
    ]
    pages = [count for count, _ in sizes]
    rows = np.repeat(np.arange(len(pages)), np.maximum(pages, 1))
    names = [os.fsdecode(path) for path in source.paths]
    paths = [
        path + f"#{PAGE}={number}".encode() if count > 1 else path
        for path, count in zip(source.paths, pages, strict=True)
        for number in range(1, max(count, 1) + 1)
    ]
    some = source.take(rows)
    stacks, made = sum(count > 1 for count in pages), sum(count for count in pages if count > 1)
    what = counted(stacks, "stack is", "stacks are")
    mixed = sum(channels > 1 for _, channels in sizes)
    own = f" (of one channel, where {mixed} have several; --channels 0,1 without --pages makes these colours)"
    together = f"`fit --groups {COLUMN}` keeps those of a stack together"
    said = f"{what} {made} samples, a page each{own if mixed else ''}; {together}"
    return replace(
        some,
        paths=paths,
        columns=some.columns.assign(**{COLUMN: [names[row] for row in rows]}),
        whole=source.whole,
        ignored=source.ignored,
        notes=[*source.notes, said] if stacks else source.notes,
    )


def pages_of(path: str) -> list[str]:
    """Return the paths of a file's pages (``file.tif#page=3``); a file of one page is its own."""
    count, _ = _count(path)
    return [f"{path}#{PAGE}={number}" for number in range(1, count + 1)] if count > 1 else [path]


def _count(path: str) -> tuple[int, int]:
    """Return how many pages of one size a file has, and of how many channels these are.

    What cannot be read is one sample, which says why.
    """
    if not _SUFFIXES.search(os.fsencode(path)):
        return 1, 1
    try:
        if is_address(path) or not os.path.isfile(path):  # on a store, or packed with others
            return _counted(read_file(path))
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            return _counted(mapped)
    except (ImageError, OSError, ValueError):  # said when it is embedded
        return 1, 1


def _counted(data: Data) -> tuple[int, int]:
    stack = look(data) if is_tiff(data) else None
    return (1, 1) if stack is None else (len(stack.pages), stack.channels)
