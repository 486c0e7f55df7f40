"""The images of a bank's samples, read again from the files that they were extracted from."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pandas as pd
from PIL import Image

from featurebank.bank.samples import SampleTable
from featurebank.errors import ImageError, counted
from featurebank.images.reading import read_images
from featurebank.images.sources import Source

_Made = TypeVar("_Made")


def source_of(table: SampleTable) -> Source:
    """Return the files of a bank's samples as an image source without columns, by their full paths."""
    rows = table.rows
    names = zip(rows["root"], rows["path"].to_numpy(), strict=True)
    paths = [os.path.join(os.fsencode(root), path) for root, path in names]
    columns = pd.DataFrame(index=range(len(paths)))
    return Source("", "", paths, rows["size"].to_numpy(), rows["mtime_ns"].to_numpy(), columns)


def images_of(table: SampleTable, make: Callable[[Image.Image], _Made], **options: Any) -> Iterator[_Made | ImageError]:
    """Yield what a function makes of the image of each sample of a bank, if it is still what was embedded.

    Parameters
    ----------
    table : SampleTable
    make : callable
        Takes an RGB image; runs in a thread.
    **options
        Of `featurebank.images.reading.read_images`.
    """
    return read_images(source_of(table), make, digests=table.rows["digest"].tolist(), **options)


def all_images(table: SampleTable, make: Callable[[Image.Image], _Made], **options: Any) -> Iterator[_Made]:
    """Yield what a function makes of the image of each sample of a bank; see `images_of`.

    Raises
    ------
    ImageError
        When an image cannot be read, its file is no longer what it was, or it never had one.
    """
    in_memory = table.rows["source"][table.rows["root"] == ""]
    if len(in_memory):
        name = repr(in_memory.iloc[0])
        what = counted(len(in_memory), f"sample of {name} was an image", f"samples of {name} were images")
        raise ImageError(f"{what} in memory, which no file has; extract them from files to look at them again")
    for made in images_of(table, make, **options):
        if isinstance(made, ImageError):
            raise made
        yield made
