"""Slides in HDF5, as TRIDENT and CLAM write them: a file a slide, ``features`` (n, d) beside ``coords`` (n, 2).

TRIDENT puts (1, n, d) there too, and (d,) where a whole slide has one embedding; CLAM's files lie in ``h5_files/``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featurebank.bank.formats.collection import Collection, Stream, Values, spans, stored_dtype
from featurebank.bank.formats.hdf5 import dataset, opened
from featurebank.errors import BankError, SourceError
from featurebank.images.columns import tidy

SUFFIXES = (".h5", ".hdf5")
_DIGITS = 6


def slide_files(path: Path) -> list[Path]:
    """Return the files of slides: the file itself, those of a folder, or of its ``h5_files/``."""
    if path.is_file():
        return [path]
    folder = path / "h5_files" if (path / "h5_files").is_dir() else path
    return sorted(file for file in folder.glob("*") if file.suffix.lower() in SUFFIXES)


def read(path: Path) -> Collection:
    """Read the patches of slides, named ``SLIDE/000000`` and on, with the columns ``slide``, ``x`` and ``y``.

    A slide without patches has no row. Patches of a slide belong together: fit with ``--groups slide``.
    """
    files = slide_files(path)
    if not files:
        raise SourceError(f"no .h5 file in {str(path)!r}; expected one a slide, as TRIDENT and CLAM write them")
    heads = [_head(file) for file in files]
    first = next((head for head in heads if head[0]), None)
    if first is None:
        raise SourceError(f"no patch in the {len(files)} slides of {str(path)!r}; expected at least one")
    for file, (count, width, dtype) in zip(files, heads, strict=True):
        if count and (width, dtype) != first[1:]:
            raise BankError(f"{str(file)!r} has rows of {width} {dtype}, the first slide {first[1]} {first[2]}")
    counts = [count for count, _, _ in heads]
    stream = Stream("features", (1, first[1]), first[2], partial(_rows_of, files, counts))
    return Collection(*_names_and_columns(files, counts), [stream], files)


def _head(file: Path) -> tuple[int, int, str]:
    """Return the number of patches, the width and the dtype of a slide."""
    with opened(file) as slide:
        rows = dataset(file, slide, "features")
        count, width = _flat_shape(rows.shape, file)
        if "coords" in slide and rows.ndim > 1:
            coords = dataset(file, slide, "coords").shape
            if coords != (count, 2):
                raise BankError(f"{str(file)!r} has {count} rows and coordinates of {coords}; expected ({count}, 2)")
        return count, width, stored_dtype(rows.dtype, repr(str(file)))


def _flat_shape(shape: tuple[int, ...], file: Path) -> tuple[int, int]:
    """Return rows and width of (n, d), (1, n, d) or (d,)."""
    if len(shape) == 1:
        return 1, shape[0]
    if len(shape) == 2 or (len(shape) == 3 and shape[0] == 1):
        return shape[-2], shape[-1]
    raise BankError(f"features of {str(file)!r} have the shape {shape}; expected (n, d), (1, n, d) or (d,)")


def _names_and_columns(files: Sequence[Path], counts: Sequence[int]) -> tuple[list[bytes], pd.DataFrame]:
    digits = max(_DIGITS, len(str(max(counts))))
    names: list[bytes] = []
    slides: list[str] = []
    coords = [_coords(file, count) for file, count in zip(files, counts, strict=True)]
    for file, count, where in zip(files, counts, coords, strict=True):
        stem = os.fsencode(file.stem)
        is_whole = where is None and count == 1
        names += [stem if is_whole else stem + b"/%0*d" % (digits, row) for row in range(count)]
        slides += [file.stem] * count
    columns: dict[str, pd.Series] = {"slide": pd.Series(slides, dtype=object)}
    there = [where for where, count in zip(coords, counts, strict=True) if count]
    if all(where is not None for where in there):
        stacked = np.concatenate([where for where in there if where is not None])
        columns |= {"x": pd.Series(stacked[:, 0]), "y": pd.Series(stacked[:, 1])}
    return names, tidy(pd.DataFrame(columns))


def _coords(file: Path, count: int) -> NDArray[np.int64] | None:
    """Return where the patches of a slide lie, shape (n, 2); None where that is not said."""
    with opened(file) as slide:
        if "coords" not in slide or dataset(file, slide, "features").ndim == 1:
            return None
        return dataset(file, slide, "coords")[()].astype(np.int64).reshape(count, 2)


def _rows_of(files: Sequence[Path], counts: Sequence[int], size: int) -> Iterator[Values]:
    for file, count in zip(files, counts, strict=True):
        with opened(file) as slide:
            rows = dataset(file, slide, "features")
            for part in spans(count, size):
                yield _part(rows, part)


def _part(rows: h5py.Dataset, some: slice) -> Values:
    """Return some rows as (m, 1, d), in the dtype that a bank keeps."""
    part = rows[()][None] if rows.ndim == 1 else rows[some] if rows.ndim == 2 else rows[0, some]
    return part[:, None].astype(stored_dtype(rows.dtype, "features"), copy=False)
