"""From a bank to one portable file, a batch of rows at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featurebank.bank.bank import Bank, BankLike
from featurebank.bank.defaults import candidate_features
from featurebank.bank.features import FeatureSet, as_keys
from featurebank.bank.formats import FORMATS
from featurebank.bank.formats.collection import Collection, Stream, Values, counting, spans
from featurebank.bank.repair_hints import missing_rows
from featurebank.bank.samples import SampleTable, column_of
from featurebank.errors import BankError, StorageError, near_names
from featurebank.images.reading import Progress
from featurebank.storage import files


def export_bank(
    bank: BankLike,
    path: str | os.PathLike[str],
    *,
    to: str | None = None,
    features: str | Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write feature sets with the samples and their columns as one file for other tools.

    All readable samples are written, in the order of `Bank.load`. `import_features` reads the file back as it was:
    dtypes, views, names that are not UTF-8, missing values, specs.

    Parameters
    ----------
    bank : path-like or Bank
    path : path-like
        The file; it is replaced whole or not at all.
    to : str, optional
        ``"hdf5"``, ``"npz"``, ``"parquet"``, ``"h5ad"`` or ``"safetensors"``; by default what the suffix says.
    features : str or sequence of str, optional
        Feature sets; by default every pooled one.
    columns : sequence of str, optional
        The user's columns to write; by default all.
    progress : callable, optional
        Called with (rows done, rows in all).

    Returns
    -------
    dict
        ``file``, ``format``, ``samples``, ``bytes``, and of each of ``feature_sets`` its ``name``, ``shape`` and
        ``dtype``.

    Raises
    ------
    BankError
        When the format is unknown, there is no sample, or one has no row in a feature set.
    FeatureSetError, ColumnError
        When a name or a column is not in the bank.
    StorageError
        When the file system refuses.

    See Also
    --------
    import_features : The way back.
    export_predictor : The predictor, as ONNX.

    Examples
    --------
    >>> import tempfile
    >>> from featurebank import extract
    >>> pixels = np.random.default_rng(0).integers(0, 255, (3, 40, 40, 3), dtype="uint8")
    >>> folder = tempfile.mkdtemp()
    >>> bank = extract(list(pixels), folder + "/a.bank", ids=["a", "b", "c"], weights="random:0")
    >>> export_bank(bank, folder + "/a.npz")["samples"]
    3
    >>> np.load(folder + "/a.npz")["efficientnet_lite0/penultimate"].shape
    (3, 1, 1280)
    """
    bank, file = Bank.of(bank), Path(path)
    form = format_of(file, to)
    collection = collect(bank, features, columns)
    advance = counting(progress, len(collection) * len(collection.streams))
    if not file.parent.is_dir():
        raise StorageError(f"no folder {str(file.parent)!r}; make it, or name another with -o")
    module = import_module(f"featurebank.bank.formats.{form}")
    with files.committing(file) as buffer:
        module.write(buffer, collection, advance)
    return {
        "file": str(file),
        "format": form,
        "samples": len(collection),
        "bytes": file.stat().st_size,
        "feature_sets": [
            {"name": stream.name, "shape": list(stream.shape), "dtype": stream.dtype} for stream in collection.streams
        ],
    }


def format_of(file: Path, to: str | None) -> str:
    """Return the format of a file that is to be written.

    Examples
    --------
    >>> format_of(Path("a.pq"), None), format_of(Path("a"), "npz")
    ('parquet', 'npz')
    """
    if to is not None and to not in FORMATS:
        raise BankError(f"no format {to!r}; {near_names(to, FORMATS)}")
    found = to or next((name for name, ends in FORMATS.items() if file.suffix.lower() in ends), None)
    if found is None:
        ends = ", ".join(each for suffixes in FORMATS.values() for each in suffixes)
        raise BankError(f"{str(file)!r} ends in none of {ends}; expected one of them, or --to {'|'.join(FORMATS)}")
    return found


def collect(bank: Bank, features: str | Sequence[str] | None, columns: Sequence[str] | None) -> Collection:
    """Return the samples of a bank and the streams of its feature sets; no row is read yet."""
    names = [name for candidate in candidate_features(bank, features) for name in candidate]
    table = bank.select()
    if not len(table):
        raise BankError(f"{str(bank.path)!r} has no readable sample; run `featurebank extract` first")
    chosen = table.columns if columns is None else _chosen(table, columns)
    rows = table.rows
    streams = [_stream(bank, name, table) for name in dict.fromkeys(names)]
    return Collection(list(rows["path"]), chosen, streams, sources=list(rows["source"]), digests=list(rows["digest"]))


def _chosen(table: SampleTable, columns: Sequence[str]) -> pd.DataFrame:
    for name in columns:
        column_of(table, name)  # its error names those that there are
    return table.columns[[name for name in dict.fromkeys(columns) if name in table.columns]]


def _stream(bank: Bank, name: str, table: SampleTable) -> Stream:
    each = bank.feature_set(name)
    lacking = missing_rows(bank, each, table)
    if lacking:
        raise BankError(lacking)
    found = each.find(as_keys(table.rows["digest"]))
    batches = partial(_batches, each, found)
    return Stream(each.name, each.shape, each.dtype, batches, each.spec, bank.requests_of(each.spec))


def _batches(each: FeatureSet, found: NDArray[np.int64], size: int) -> Iterator[Values]:
    """Yield rows in their stored dtype: what float32 makes of a float16 is that number again."""
    for some in spans(len(found), size):
        rows = each.gather(found[some], "all")
        yield rows.astype(each.dtype).reshape(len(rows), *each.shape)
