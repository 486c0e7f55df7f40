"""clip-retrieval's folders: ``img_emb/img_emb_0.npy``, ``text_emb/…``, ``metadata/metadata_0.parquet``, row by row."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from featurebank.bank.formats import parquet
from featurebank.bank.formats.collection import Collection, tidy_columns
from featurebank.bank.formats.npy import npy_stream
from featurebank.errors import SourceError

KINDS = ("img_emb", "text_emb")


def is_one(path: Path) -> bool:
    """Say whether a path is such a folder."""
    return any((path / kind).is_dir() for kind in KINDS)


def read(path: Path, *, path_column: str = "image_path", columns: Sequence[str] | None = None) -> Collection:
    """Read the embeddings of images, of their captions, or both; partition after partition.

    Parameters
    ----------
    path : Path
        The folder that ``clip-retrieval inference`` wrote.
    path_column : str, default "image_path"
        Column of the names: paths of files, or keys of a WebDataset.
    columns : sequence of str, optional
        Columns of the metadata to keep; by default all.
    """
    tables = _partitions(path / "metadata", "metadata", ".parquet")
    frames = [parquet.read_frame(file) for file in tables.values()]
    names, rest = parquet.named(pd.concat(frames, ignore_index=True), path_column, path / "metadata")
    counts, streams, files = [len(frame) for frame in frames], [], list(tables.values())
    for kind in [kind for kind in KINDS if (path / kind).is_dir()]:
        parts = _partitions(path / kind, kind, ".npy")
        if list(parts) != list(tables):
            odd = sorted(set(parts) ^ set(tables))[:3]
            raise SourceError(f"partitions {odd} of {str(path)!r} have not both {kind} and metadata: bring the rest")
        streams.append(npy_stream(kind, list(parts.values()), counts))
        files += parts.values()
    return Collection(names, tidy_columns(rest, columns, path / "metadata"), streams, files)


def _partitions(folder: Path, stem: str, suffix: str) -> dict[int, Path]:
    """Return the files of a folder by their numbers, in that order."""
    named = [(re.fullmatch(rf"{stem}_(\d+){re.escape(suffix)}", file.name), file) for file in folder.glob(f"*{suffix}")]
    found = {int(match[1]): file for match, file in named if match}
    if not found:
        raise SourceError(f"no {stem}_0{suffix} in {str(folder)!r}; expected a folder of clip-retrieval inference")
    return dict(sorted(found.items()))
