"""The bank as its user sees it: samples and labels as a DataFrame, embeddings as matrices, above a `BankReader`."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurebank.bank import merging, samples, upkeep
from featurebank.bank.display import as_html
from featurebank.bank.label_paths import meant_paths
from featurebank.bank.loading import BankReader
from featurebank.bank.repair_hints import missing_rows
from featurebank.bank.request import describe_set
from featurebank.bank.samples import SampleTable, positions_of
from featurebank.bank.spec import unique_names
from featurebank.bank.upkeep import GRACE
from featurebank.errors import BankError, ColumnError, FeatureBankError, counted, did_you_mean, printable
from featurebank.images.cells import describe
from featurebank.images.columns import kind_of, overlay, tidy
from featurebank.images.dataframes import pd
from featurebank.images.locating import rows_with_path
from featurebank.images.path_columns import path_column_hint

_LOG = logging.getLogger(__name__)
SETS_SHOWN = 3
COUNTED = 50_000
"""Rows of samples up to which `repr` reads them to tell how many there are."""


class Bank(BankReader):
    """A folder of embeddings and samples.

    Parameters
    ----------
    path : path-like or str
        A ``NAME.bank`` folder, or its address on object storage (``s3://bucket/NAME.bank``, ``gs://…``).

    Raises
    ------
    BankError
        When there is no bank at `path`, or it was written by a newer version.
    StorageError
        When the store of an address does not answer, or the library for it is not installed.

    See Also
    --------
    extract : Make a bank, or add to one.
    fit : Learn from a bank.
    export_bank : One file for other programs.

    Examples
    --------
    >>> import tempfile
    >>> bank = Bank.create(tempfile.mkdtemp() + "/photos.bank")
    >>> len(bank.samples), bank.feature_sets
    (0, [])
    """

    @classmethod
    def of(cls, bank: BankLike) -> Bank:
        """Return a bank that is one already, or open the one at a path."""
        return bank if isinstance(bank, Bank) else cls(bank)

    def __repr__(self) -> str:
        return f"Bank({str(self.path)!r}{self._outline()})"

    def _repr_html_(self) -> str:
        try:
            facts = [(each.name, each.rows, each.shape, each.dtype) for each in self.feature_sets]
        except FeatureBankError:
            facts = []
        return as_html(self, pd.DataFrame(facts, columns=["feature set", "rows", "shape", "dtype"]))

    def _outline(self) -> str:
        """Return how many samples and which feature sets there are; nothing for a damaged bank or one on a store."""
        if not isinstance(self.path, Path):
            return ""
        try:
            files = self.sample_segments()
            stored = sum(file.shape("stamp")[0] for file in files)
            count = counted(len(self.table_of(files)), "sample") if stored <= COUNTED else f"up to {stored:,} samples"
            names = unique_names(self._specs())
        except FeatureBankError:
            return ""
        more = f" and {len(names) - SETS_SHOWN} more" if len(names) > SETS_SHOWN else ""
        return f", {count}, {', '.join(names[:SETS_SHOWN]) or 'no feature set'}{more}"

    # --- samples -------------------------------------------------------------------------------------------

    @property
    def samples(self) -> pd.DataFrame:
        """The sample table as a DataFrame: one row a sample, the user's columns after featurebank's own.

        ``status`` is ``"ok"``, ``"failed"`` (see ``error``) or ``"gone"``; ``digest`` is hexadecimal. A user's
        column that shares a name with one of featurebank's gets a ``_`` behind it here.
        """
        table = self.table
        rows = table.rows
        frame = pd.DataFrame(
            {
                "source": rows["source"],
                "path": pd.Series(table.paths, dtype=object),
                "digest": pd.Series([digest.hex() for digest in rows["digest"].to_numpy()], dtype=object),
                "size": rows["size"],
                "mtime_ns": rows["mtime_ns"],
                "status": pd.Series([samples.STATUSES[code] for code in rows["status"]], dtype=object),
                "error": rows["error"],
            }
        )
        renamed = {name: name + "_" for name in table.columns if name in frame}
        return pd.concat([frame, table.columns.rename(columns=renamed)], axis=1)

    def label(self, frame: pd.DataFrame, *, path_column: str = "path") -> int:
        """Attach columns to samples, or correct them, without extracting anything.

        Parameters
        ----------
        frame : DataFrame
            A column of paths, the columns to set (a missing value leaves what is there), and a column ``source`` where
            a path is in several sources. Paths are relative; of one that was written elsewhere (``C:\\cat\\1.png``), or
            without a suffix, the one sample that it fits is meant. Rows without a path are left out.
        path_column : str, default "path"
            Its column of paths.

        Returns
        -------
        int
            Number of samples whose columns changed.

        Raises
        ------
        BankError
            When a path is not in the bank; nothing is written then.
        ColumnError
            When there is no such path column, or no other.
        """
        if path_column not in frame.columns or not set(frame.columns) - {path_column, "source"}:
            have = ", ".join(map(str, frame.columns))
            near = did_you_mean(path_column, frame.columns)
            hint = "" if path_column in frame.columns else f"; {near}{path_column_hint(frame)}"
            raise ColumnError(f"labels have the columns {have}; expected {path_column!r} and at least one more{hint}")
        frame = frame.iloc[rows_with_path(list(frame[path_column]))]
        named = ["source"] if "source" in frame.columns else []
        fresh = tidy(frame.drop(columns=[path_column, *named]))
        sources = [str(source) for source in frame["source"]] if named else None
        with self.locked():
            table = self.table
            paths = meant_paths(table, [str(path) for path in frame[path_column]], sources)
            where = positions_of(table, paths, sources)
            if len(set(where)) != len(where):
                raise BankError("labels name a path more than once; expected one row a sample")
            old = table.take(where)
            columns = overlay(old.columns, fresh)
            changed = _differs(old.columns, columns)
            self.add_samples(SampleTable(old.rows, columns).take(changed), newest=table.newest_stamp)
        _LOG.info("columns: %s%s", describe(columns[list(fresh)]), _kept_as_text(fresh, columns))
        return int(changed.sum())

    # --- the whole -----------------------------------------------------------------------------------------

    def info(self) -> dict[str, Any]:
        """Return what the bank holds: counts of samples, columns, feature sets, bytes on disk.

        ``sources`` and ``missing`` values are those of samples that are not gone; ``incomplete`` has a line, with
        what to do, for each feature set that lacks rows of readable samples.
        """
        table = self.table
        status = table.rows["status"]
        present = status != samples.GONE
        sets, readable = self.feature_sets, table.readable()
        return {
            "path": str(self.path),
            "samples": {word: int((status == code).sum()) for code, word in enumerate(samples.STATUSES)},
            "sources": sorted(set(table.rows["source"][present])),
            "columns": {
                name: {"kind": kind_of(column), "missing": int((column.isna() & present).sum())}
                for name, column in table.columns.items()
            },
            "feature_sets": [describe_set(self, each) for each in sets],
            "incomplete": [line for each in sets if (line := missing_rows(self, each, readable))],
            "bytes": sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file()),
        }

    def verify(self) -> list[dict[str, str]]:
        """Check every file of the bank, every byte.

        Returns
        -------
        list of dict
            ``file`` and ``problem`` (with what repairs it) of each damaged file; empty when all is well.
        """
        return upkeep.verify(self)

    def compact(self, *, grace: float = GRACE) -> dict[str, int]:
        """Merge small segments; see `featurebank.bank.upkeep.compact`."""
        return upkeep.compact(self, grace=grace)

    def merge(self, *others: str | os.PathLike[str] | Bank) -> dict[str, int]:
        """Copy what other banks hold into this one; see `featurebank.bank.merging.merge`."""
        return merging.merge(self, others)

    def prune(self, *, grace: float = GRACE, source: str | os.PathLike[str] | None = None) -> dict[str, int]:
        """Drop embeddings that no sample points at, a whole source first; see `featurebank.bank.upkeep.prune`."""
        return upkeep.prune(self, grace=grace, source=source)


BankLike = str | os.PathLike[str] | Bank
"""A bank, or the path or address of one."""


def _kept_as_text(fresh: pd.DataFrame, columns: pd.DataFrame) -> str:
    """Say which columns came as numbers and are text in the bank, whose empty cells leave what is there."""
    names = [name for name in fresh if kind_of(columns[name]) == "str" != kind_of(fresh[name])]
    if not names:
        return ""
    return f"; {', '.join(map(printable, names))}: text, as the bank has it already (numbers under another name)"


def _differs(old: pd.DataFrame, new: pd.DataFrame) -> NDArray[np.bool_]:
    """Return where a row of `new` is not the same as that of `old`, shape (n,)."""
    changed = np.zeros(len(new), bool)
    for name in new.columns:
        first = list(old[name]) if name in old else [None] * len(new)
        changed |= [
            not ((pd.isna(a) and pd.isna(b)) or (pd.notna(a) and pd.notna(b) and a == b))
            for a, b in zip(first, new[name], strict=True)
        ]
    return changed
