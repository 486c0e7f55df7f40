"""Lists of paths, images in memory and Datasets -> a source."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from featurebank.errors import ImageError, SourceError, counted, one_line, printable
from featurebank.images import listing
from featurebank.images.columns import tidy
from featurebank.images.dataframes import pd
from featurebank.images.items import facts_of, picture_of, plain
from featurebank.images.locating import URL, is_url, match_lost
from featurebank.images.sources import Source, of_files
from featurebank.storage.objects import is_address

IN_MEMORY = "memory"
"""The name of lists of images in memory."""


def scan_list(paths: Sequence[Any], columns: Any, root: str | os.PathLike[str] = "") -> Source:
    """List images by their paths, matched below a root that is given; see `featurebank.scan`."""
    texts = [os.fspath(path).removeprefix("file://") for path in paths]
    if all(map(is_url, texts)):
        raise SourceError(f"none of the {len(texts)} paths is a file, the first is {printable(texts[0])!r}: {URL}")
    if any(is_address(text) and not is_url(text) for text in texts):
        raise SourceError("a list holds paths of files; give addresses as a folder, or as a manifest with root=")
    keys = [_key(text, root) for text in texts]
    if len(set(keys)) != len(keys):
        raise SourceError("the list names a path more than once; expected each image once")
    entries = [
        (key, 0, 0, URL) if is_url(text) else (key, *listing.stat_file(b"/" + key))
        for key, text in zip(keys, texts, strict=True)
    ]
    if root:
        entries = match_lost(entries, texts, Path(root))
    return of_files("files", "/", entries, tidy_columns(columns, len(keys)))


def _key(text: str, root: str | os.PathLike[str]) -> bytes:
    """Return the path from ``/``; an address as it is."""
    return os.fsencode(text if is_url(text) else os.path.abspath(os.path.join(root, text)).lstrip("/"))


def scan_memory(items: Any, ids: Sequence[Any] | None, columns: Any, name: str | None = None) -> Source:
    """List images in memory, or the items of a Dataset; see `featurebank.scan`."""
    is_dataset = not isinstance(items, (list, tuple, np.ndarray))
    if ids is None and not is_dataset:
        raise SourceError("images in memory have no names; give ids, one distinct string each")
    names = [str(each) for each in ids] if ids is not None else [str(i) for i in range(len(items))]
    if len(names) != len(items) or len(set(names)) != len(names):
        raise SourceError(
            f"{counted(len(names), 'id')} for {counted(len(items), 'image')}, {len(set(names))} of them different; "
            "expected one distinct id each (a table's are its index: reset_index() numbers the rows, or give ids=)"
        )
    table = tidy_columns(columns, len(items))
    if is_dataset:
        facts = _dataset_facts(items, known=set(table))
        table = pd.concat([table, facts.drop(columns=table.columns, errors="ignore")], axis=1)
    key = name or (type(items).__name__ if is_dataset else IN_MEMORY)
    entries = [(os.fsencode(each), 0, 0, "") for each in names]
    return of_files(key, "", entries, table, get_image=lambda position: _picture(items, position))


def _picture(items: Any, position: int) -> Any:
    """Return the picture of an item, loaded where it was opened lazily."""
    try:
        picture = picture_of(items[position])
        if isinstance(picture, Image.Image):
            picture.load()
        return picture
    except ImageError:
        raise
    except Exception as error:  # a lazily opened file, or the Dataset's own code: any kind
        raise ImageError(f"cannot be read: {one_line(error)}") from error


# --- what a Dataset says of its images ---------------------------------------------------------------------


def _dataset_facts(dataset: Any, known: set[str]) -> pd.DataFrame:
    """Return what the items of a Dataset say beside their images, as columns; nothing is read for known labels."""
    first = _facts(dataset, 0)
    targets = getattr(dataset, "targets", None)
    if not first or set(first) <= known:
        return pd.DataFrame(index=range(len(dataset)))
    if set(first) == {"label"} and targets is not None:  # torchvision's habit
        rows: list[dict[str, Any]] = [{"label": plain(each)} for each in targets]
    else:
        rows = [first, *(_facts(dataset, i) for i in range(1, len(dataset)))]
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = {name: [row.get(name) for row in rows] for name in names}
    if "label" in cells:
        cells["label"] = _named(cells["label"], _classes(dataset))
    # text that is not UTF-8 fits no other dtype
    return tidy(pd.DataFrame({name: pd.Series(column, dtype=object) for name, column in cells.items()}))


def _facts(dataset: Any, position: int) -> dict[str, Any]:
    """Return what an item says; nothing where it cannot be had, which its image will say."""
    try:
        return facts_of(dataset[position])
    except Exception:  # the Dataset's own code: any kind
        return {}


def _classes(dataset: Any) -> Sequence[str] | None:
    """Return the class names that a Dataset has, or the one that it is a part of."""
    is_part = hasattr(dataset, "indices") and hasattr(dataset, "dataset")  # torch.utils.data.Subset
    classes = getattr(dataset, "classes", None)
    return _classes(dataset.dataset) if classes is None and is_part else classes


def _named(labels: list[Any], names: Any) -> list[Any]:
    """Return the names of the classes that labels are the numbers of, or the labels."""
    is_index = isinstance(names, (list, tuple)) and all(type(each) is int and 0 <= each < len(names) for each in labels)
    return [names[label] for label in labels] if is_index else labels


def tidy_columns(columns: Any, count: int) -> pd.DataFrame:
    """Return columns that go with so many images as a bank stores them.

    Raises
    ------
    SourceError
        When they make no table, or one of other rows.
    """
    try:
        frame = tidy(pd.DataFrame(columns if columns is not None else {}))
    except ValueError as error:
        raise SourceError(f"columns do not make a table: {one_line(error)}; expected one value an image") from error
    if len(frame.columns) and len(frame) != count:
        raise SourceError(
            f"columns have {counted(len(frame), 'row')} for {counted(count, 'image')}; expected one row an image"
        )
    return frame if len(frame.columns) else pd.DataFrame(index=range(count))
