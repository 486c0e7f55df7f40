"""thingsvision's folders: ``features.npy`` or ``features.hdf5``, or parts of them, beside ``file_names.txt``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from featurebank.bank.formats.collection import Collection, Stream, Values, spans, stored_dtype
from featurebank.bank.formats.hdf5 import dataset, opened
from featurebank.bank.formats.npy import head_of, npy_stream, row_shape
from featurebank.errors import BankError, SourceError

NAMES = "file_names.txt"


def is_one(path: Path) -> bool:
    """Say whether a path is such a folder."""
    return (path / NAMES).is_file()


def read(path: Path) -> Collection:
    """Read the features of a folder; the names are the lines of ``file_names.txt``."""
    if not is_one(path):
        raise SourceError(f"no {NAMES} in {str(path)!r}; expected the names beside the features")
    names = [line.removesuffix(b"\r") for line in (path / NAMES).read_bytes().split(b"\n")]
    names = names[:-1] if names and not names[-1] else names
    files = sorted(path.glob("features*.npy"))
    if files:
        stream = npy_stream("features", files, _shares([head_of(file)[0][0] for file in files], len(names), path))
    else:
        files = sorted(path.glob("features.hdf5"))
        stream = _hdf5_stream(path, files, len(names))
    return Collection(names, pd.DataFrame(index=range(len(names))), [stream], [path / NAMES, *files])


def _shares(counts: list[int], names: int, path: Path) -> list[int]:
    if sum(counts) != names:
        raise BankError(f"the features of {str(path)!r} have {sum(counts)} rows for {names} names; expected as many")
    return counts


def _hdf5_stream(path: Path, files: list[Path], names: int) -> Stream:
    if not files:
        raise SourceError(
            f"no features.npy or features.hdf5 in {str(path)!r}; expected one: save_features(…, file_format='npy')"
        )
    with opened(files[0]) as file:
        parts = [dataset(files[0], file, part) for part in sorted(file)]
        shapes = {part.shape[1:] for part in parts}
        _shares([part.shape[0] for part in parts], names, path)
        if len(shapes) != 1:
            raise BankError(f"the parts of {str(files[0])!r} have rows of {sorted(shapes)}; expected one shape")
        dtype = stored_dtype(np.result_type(*(part.dtype for part in parts)), repr(os.fspath(files[0])))
        shape = row_shape(parts[0].shape, files[0])
    return Stream("features", shape, dtype, partial(_rows_of, files[0], dtype))


def _rows_of(path: Path, dtype: str, size: int) -> Iterator[Values]:
    with opened(path) as file:
        for name in sorted(file):
            part = dataset(path, file, name)
            for some in spans(len(part), size):
                yield part[some][:, None].astype(dtype, copy=False)
