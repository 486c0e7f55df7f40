"""An approximate index for a million rows and more, by faiss, kept in the cache folder."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurebank.bank.bank import ROWS_AT_ONCE, Bank
from featurebank.bank.features import as_keys
from featurebank.bank.neighbours import unit_rows
from featurebank.bank.samples import SampleTable
from featurebank.bank.spec import digest_of
from featurebank.errors import NotInstalledError
from featurebank.storage import files

LISTS, PROBED = 4, 32
"""The index has `LISTS` times the square root of n lists, and a search reads `PROBED` of them."""
LEARNED = 64
"""Rows a list that its centres are learned from."""
CANDIDATES = 10
"""Candidates for each result, whose cosines are then computed exactly."""


def search(
    bank: Bank, names: Sequence[str], table: SampleTable, query: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the rows of a bank that are most similar to a query, nearly always, and their cosines.

    Parameters
    ----------
    bank : Bank
    names : sequence of str
        Feature sets.
    table : SampleTable
        All samples of the bank, from `Bank.select`.
    query : ndarray of float32, shape (d,)
    k : int

    Returns
    -------
    rows : ndarray of int64, shape (at most k,)
    cosines : ndarray of float32, of the same shape
        From the largest.

    Raises
    ------
    NotInstalledError
        When faiss is not installed.
    """
    if find_spec("faiss") is None:
        raise NotInstalledError("an approximate search needs faiss: pip install 'featurebank[faiss]'")
    import faiss

    path = _path(bank, names, table)
    if path.is_file():
        index: Any = faiss.deserialize_index(np.frombuffer(path.read_bytes(), np.uint8))
    else:
        index = _make(bank, names, len(table))
        files.make_folder(path.parent)
        files.commit(path, faiss.serialize_index(index).tobytes())
    index.nprobe = PROBED
    _, (found,) = index.search(unit_rows(query[None]), min(CANDIDATES * k, len(table)))
    rows = np.sort(found[found >= 0])
    cosines = unit_rows(bank.features(names, table.take(rows))) @ unit_rows(query[None])[0]
    order = np.argsort(-cosines, kind="stable")[:k]
    return rows[order], cosines[order]


def _path(bank: Bank, names: Sequence[str], table: SampleTable) -> Path:
    """Return where the index of just these rows lies."""
    contents = hashlib.sha256(as_keys(table.rows["digest"]).tobytes()).hexdigest()
    sets = [bank.feature_set(name).fingerprint for name in names]
    return files.cache_folder() / "faiss" / f"{digest_of({'sets': sets, 'rows': contents})}.index"


def _make(bank: Bank, names: Sequence[str], n: int) -> Any:
    """Make an inverted file over rows at length 1, each value in a byte."""
    import faiss

    lists = max(1, min(int(LISTS * n**0.5), n // LEARNED))
    learned = next(bank.iter_batches(names, batch_size=min(n, LEARNED * lists), shuffle=True))
    index = faiss.index_factory(learned.shape[1], f"IVF{lists},SQ8", faiss.METRIC_INNER_PRODUCT)
    index.train(unit_rows(learned))
    for X in bank.iter_batches(names, batch_size=ROWS_AT_ONCE):
        index.add(unit_rows(X))
    return index
