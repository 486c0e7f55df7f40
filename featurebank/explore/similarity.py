"""The samples of a bank that are most similar to an image."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featurebank.bank.bank import Bank, BankLike
from featurebank.bank.features import as_keys
from featurebank.bank.loading import ROWS_AT_ONCE
from featurebank.bank.neighbours import unit_rows
from featurebank.bank.samples import SampleTable
from featurebank.bank.spec import digest_of
from featurebank.errors import BankError, NotInstalledError, install_hint, near_names
from featurebank.explore.embedding import blocks_of, chosen_sets, embed_like, moments
from featurebank.images.listing import is_there
from featurebank.images.reading import ImageLike, image_digest
from featurebank.storage import files

if TYPE_CHECKING:
    from featurebank.backbones.base import Backbone

METRICS = ("cosine", "whitened")
LISTS, PROBED = 4, 32
"""The index has `LISTS` times the square root of n lists, and a search reads `PROBED` of them."""
LEARNED = 64
"""Rows a list that its centres are learned from."""
CANDIDATES = 10
"""Candidates for each result, whose cosines are then computed exactly."""


def similar(
    bank: BankLike,
    image: ImageLike,
    *,
    k: int = 12,
    features: str | Sequence[str] | None = None,
    metric: str = "cosine",
    approximate: bool = False,
    backbone: Backbone | None = None,
) -> pd.DataFrame:
    """Find the samples that are most similar to an image.

    Parameters
    ----------
    bank : path-like or Bank
    image : path-like, PIL image or uint8 array
        A path of the bank (its own row is left out then), or an image, which is embedded with the bank's backbone
        unless its content is in the bank.
    k : int, default 12
        How many.
    features : str or sequence of str, optional
        One feature set, or several side by side; by default the penultimate layer, or the first pooled set.
    metric : str, default "cosine"
        ``"cosine"`` of the embeddings as they are, or ``"whitened"``: of embeddings whose mean was taken off and whose
        columns were made uncorrelated and equally wide, which counts rare differences as much as common ones. The
        covariance is shrunk (Chen, Wiesel, Eldar and Hero 2010).
    approximate : bool, default False
        Search with an index of faiss in place of all rows, for a million rows and more: the index is made once, in
        minutes, and kept in the cache folder. It finds candidates, whose cosines are exact.
    backbone : Backbone, optional
        The custom module that made the feature sets.

    Returns
    -------
    DataFrame
        ``source, path, similarity`` (-1 to 1), the most similar first.

    Raises
    ------
    BankError
        When the image is neither a path of the bank nor a file, k is below 1, or the metric is unknown.
    ImageError
        When the image cannot be read.
    NotInstalledError
        When faiss is asked for and not installed.

    See Also
    --------
    duplicates : Pairs that are the same picture.
    outliers : What resembles nothing.

    Examples
    --------
    >>> similar("photos.bank", "new.jpg", features="penultimate", k=2)["path"].str[:3].tolist()
    ['dog', 'dog']
    """
    bank = Bank.of(bank)
    if k < 1:
        raise BankError(f"the {k} most similar; expected a number from 1 up")
    if metric not in METRICS:
        raise BankError(f"no metric {metric!r}; {near_names(metric, METRICS)}")
    names, table = chosen_sets(bank, features), bank.select()
    query, own = _query(bank, names, table, image, backbone)
    if approximate:
        if metric != "cosine":
            raise BankError(f"an approximate search for the metric {metric!r}; expected cosine, or an exact search")
        rows, values = approximate_search(bank, names, table, query, k + len(own))
    else:
        values = _similarities(bank, names, query, metric)
        rows = np.argsort(-values, kind="stable")
        values = values[rows]
    kept = ~np.isin(rows, own)
    return table.take(rows[kept][:k]).names().assign(similarity=values[kept][:k].astype(np.float64))


def _query(
    bank: Bank, names: Sequence[str], table: SampleTable, image: ImageLike, backbone: Backbone | None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the embedding of an image, shape (d,), and its own rows where it is named by its path in the bank."""
    nobody = np.empty(0, np.int64)
    if not isinstance(image, (str, os.PathLike)):
        return embed_like(bank, names, [image], backbone)[0], nobody
    paths = table.rows["path"].to_numpy()
    own = np.flatnonzero(paths == os.fsencode(image))
    if not len(own) and not is_there(files.as_path(image)):
        raise BankError(
            f"{str(image)!r} is neither a path of the bank nor a file; `featurebank info BANK --samples` lists them"
        )
    same = own if len(own) else np.flatnonzero(table.rows["digest"].to_numpy() == image_digest(Path(image)))
    if len(set(table.rows["digest"].iloc[own])) > 1:
        raise BankError(f"{str(image)!r} is in {len(own)} sources of the bank; expected one: name the file in full")
    if len(same):
        return bank.features(names, table.take(same[:1]))[0], own
    return embed_like(bank, names, [image], backbone)[0], nobody


def _similarities(bank: Bank, names: Sequence[str], query: NDArray[np.float32], metric: str) -> NDArray[np.float32]:
    """Return the similarity of every sample to a query, a bounded number of rows in memory at once, shape (n,)."""
    if metric == "cosine":
        one = unit_rows(query[None])[0]
        return np.concatenate([unit_rows(X) @ one for X in blocks_of(bank, names)])
    whitening = Whitening.of(blocks_of(bank, names))
    one = whitening(query[None])[0]
    return np.concatenate([whitening(X) @ one for X in blocks_of(bank, names)])


@dataclass(frozen=True)
class Whitening:
    """Takes embeddings to where their columns are uncorrelated and equally wide, and to length 1.

    It takes off the mean (d,) and turns by the inverse square root of the covariance (d, d).
    """

    mean: NDArray[np.float32]
    turn: NDArray[np.float32]

    @classmethod
    def of(cls, blocks: Iterator[NDArray[np.float32]]) -> Whitening:
        """Estimate it from rows that come in blocks."""
        n, mean, covariance = moments(blocks)
        values, vectors = np.linalg.eigh(shrunk(covariance, n))
        if values[-1] <= 0:
            raise BankError(f"{n} rows that are all the same cannot be whitened; use the metric cosine")
        return cls(mean.astype(np.float32), (vectors / np.sqrt(values)).astype(np.float32))

    def __call__(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return whitened rows at length 1, shape (n, d)."""
        return unit_rows((X - self.mean) @ self.turn)


def shrunk(covariance: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """Return the covariance of n rows drawn towards a multiple of the identity.

    The oracle approximating shrinkage of Chen, Wiesel, Eldar and Hero (2010), as in `sklearn.covariance.oas`, from the
    covariance in place of the rows.

    Examples
    --------
    >>> shrunk(np.diag([1.0, 3.0]), 99).round(2).tolist()
    [[1.13, 0.0], [0.0, 2.87]]
    """
    d = len(covariance)
    mean, square = np.trace(covariance) / d, (covariance**2).mean()
    above = (n + 1) * (square - mean**2 / d)
    share = 1.0 if above <= 0 else min((square + mean**2) / above, 1.0)
    found: NDArray[np.float64] = (1 - share) * covariance + share * mean * np.eye(d)
    return found


# --- an approximate index, kept in the cache folder ------------------------------------------------------------


def approximate_search(
    bank: Bank, names: Sequence[str], table: SampleTable, query: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the rows of a bank that are most similar to a query (d,), nearly always, and their cosines.

    The largest come first; `table` has all samples of the bank.
    """
    if find_spec("faiss") is None:
        raise NotInstalledError(f"an approximate search needs faiss: {install_hint('faiss')}")
    import faiss

    path = _index_path(bank, names, table)
    if path.is_file():
        index: Any = faiss.deserialize_index(np.frombuffer(path.read_bytes(), np.uint8))
    else:
        index = _make_index(bank, names, len(table))
        files.make_folder(path.parent)
        files.commit(path, faiss.serialize_index(index).tobytes())
    index.nprobe = PROBED
    _, (found,) = index.search(unit_rows(query[None]), min(CANDIDATES * k, len(table)))
    rows = np.sort(found[found >= 0])
    cosines = unit_rows(bank.features(names, table.take(rows))) @ unit_rows(query[None])[0]
    order = np.argsort(-cosines, kind="stable")[:k]
    return rows[order], cosines[order]


def _index_path(bank: Bank, names: Sequence[str], table: SampleTable) -> Path:
    """Return where the index of just these rows lies."""
    contents = hashlib.sha256(as_keys(table.rows["digest"]).tobytes()).hexdigest()
    sets = [bank.feature_set(name).fingerprint for name in names]
    return files.cache_folder() / "faiss" / f"{digest_of({'sets': sets, 'rows': contents})}.index"


def _make_index(bank: Bank, names: Sequence[str], n: int) -> Any:
    """Make an inverted file over rows at length 1, each value in a byte."""
    import faiss

    lists = max(1, min(int(LISTS * n**0.5), n // LEARNED))
    learned = next(bank.iter_batches(names, batch_size=min(n, LEARNED * lists), shuffle=True))
    index = faiss.index_factory(learned.shape[1], f"IVF{lists},SQ8", faiss.METRIC_INNER_PRODUCT)
    index.train(unit_rows(learned))
    for X in bank.iter_batches(names, batch_size=ROWS_AT_ONCE):
        index.add(unit_rows(X))
    return index
