"""Files that hold many images -> a source: tar shards, and Parquet."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence

import pyarrow as pa

from featurebank.errors import SourceError, StorageError, one_line
from featurebank.images import clutter, parquet
from featurebank.images.columns import concat_columns
from featurebank.images.dataframes import pd
from featurebank.images.listing import Entry
from featurebank.images.parquet import ImageColumn
from featurebank.images.shards import columns_of, expand, list_shards, root_of
from featurebank.images.sources import Source, key_of, no_images, of_files, refuse_repeats
from featurebank.images.splits import PARTS, SPLIT, parts_of
from featurebank.storage import files
from featurebank.storage.files import AnyPath

_NUMBERED = re.compile(r"-\d+-of-\d+$")


def scan_shards(pattern: AnyPath, root: AnyPath | None) -> Source:
    """List the images of tar shards; see `featurebank.scan`."""
    text = key_of(pattern)
    folder = root_of(text)
    names = [shard.removeprefix(f"{folder}/") for shard in expand(text)]
    where = root or files.as_path(folder)
    listed = list_shards([where / name for name in names])
    ignored = dict(sum((index.ignored for index, _ in listed), Counter()))
    if not any(index.members for index, _ in listed):
        raise no_images(text, ignored, "members")
    columns, unread = columns_of([index for index, _ in listed])
    members = (
        (f"{name}/{member.name}", member, status.st_mtime_ns)
        for name, (index, status) in zip(names, listed, strict=True)
        for member in index.members
    )
    entries = [
        (os.fsencode(name), member.size, mtime, member.problem or unread.get(number, ""))
        for number, (name, member, mtime) in enumerate(members)
    ]
    refuse_repeats(pattern, [path for path, *_ in entries])
    return of_files(text, key_of(where), entries, columns, whole=True, ignored=ignored)


def scan_parquet(pattern: AnyPath, root: AnyPath | None, column: str | None) -> Source | None:
    """List the images in Parquet files, or return None where they hold none; see `featurebank.scan`."""
    text = key_of(pattern)
    folder = root_of(text)
    names = [each.removeprefix(f"{folder}/") for each in expand(text)]
    where = files.as_path(folder) if root is None or not (root / names[0]).exists() else root
    return of_parquet(text, where, names, column)


def scan_parquet_folder(name: AnyPath, root: AnyPath, column: str | None = None) -> Source | None:
    """List the images in the Parquet files below a folder, or return None where there are none."""
    start = f"{key_of(root)}/"
    files_below = (path for path in root.rglob("*") if path.suffix.lower() in parquet.SUFFIXES)
    found = [key_of(path).removeprefix(start) for path in files_below]
    names = sorted(each for each in found if not clutter.is_clutter(each.split("/")))
    return of_parquet(key_of(name), root, names, column) if names else None


def of_parquet(name: str, root: AnyPath, names: Sequence[str], column: str | None) -> Source | None:
    """Return the images in Parquet files as a source; files without any are left out and counted."""
    entries: list[Entry] = []
    tables: dict[str, pd.DataFrame] = {}
    for each in names:  # one after the other: there may be more than the system lets be open at once
        images = _open(root / each, column, alone=len(names) == 1)
        if images is not None:
            entries += _entries(root, each, images)
            tables[each] = images.columns()
    if not entries:
        return None
    columns, notes = _with_split(tables)
    ignored = Counter(os.path.splitext(each)[1] for each in names if each not in tables)
    return of_files(name, key_of(root), entries, columns, whole=True, ignored=dict(ignored), notes=notes)


def _with_split(tables: dict[str, pd.DataFrame]) -> tuple[pd.DataFrame, list[str]]:
    """Stack tables, with a column that says which part of a split their file is where the files' names tell."""
    columns = concat_columns(list(tables.values()))
    stems = {name: _NUMBERED.sub("", os.path.splitext(os.path.basename(name))[0]) for name in tables}
    folders = {name: os.path.basename(os.path.dirname(name)) for name in tables}
    for words in (stems, folders):
        known = parts_of(dict.fromkeys(words.values()))
        parts = [known.get(words[name]) for name, table in tables.items() for _ in range(len(table))]
        if len(set(known.values())) > 1 and SPLIT not in columns:
            counts = ", ".join(f"{part} {parts.count(part)}" for part in PARTS if part in parts)
            return columns.assign(split=pd.Series(parts, dtype=object)), [
                f"the files' names say which part of a split they are (column {SPLIT}: {counts})"
            ]
    return columns, []


def _open(path: AnyPath, column: str | None, *, alone: bool) -> ImageColumn | None:
    """Return the images of a Parquet file; one alone that cannot be opened is left to the reader of tables."""
    try:
        return parquet.open_images(path, column, afresh=True)
    except (StorageError, SourceError):
        raise
    except (OSError, ValueError, pa.ArrowException) as error:
        if alone:
            return None
        reason = getattr(error, "strerror", None) or one_line(error)
        raise SourceError(f"{str(path)!r} cannot be read: {reason}; make it again, or leave it out") from error


def _entries(root: AnyPath, name: str, images: ImageColumn) -> Iterator[Entry]:
    """Yield the images of a Parquet file; those of a column that is not the file's own have its name in front."""
    path = root / name
    own, status = parquet.own_images(path), path.stat()
    head = name if own is not None and own.name == images.name else f"{name}/{images.name}"
    for row in images.rows:
        yield os.fsencode(f"{head}/{row}"), status.st_size, status.st_mtime_ns, ""
