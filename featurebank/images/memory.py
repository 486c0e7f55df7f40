"""Lists of paths, images in memory and Datasets -> a source."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from featurebank.errors import ImageError, SourceError, one_line
from featurebank.images import decoding, listing
from featurebank.images.columns import tidy
from featurebank.images.sources import Source, of_files
from featurebank.storage.objects import is_address


def scan_list(paths: Sequence[Any], ids: Sequence[str] | None, columns: Any) -> Source:
    """List images by their paths; see `featurebank.scan`."""
    if ids is not None:
        raise SourceError("ids go with images in memory; a list of paths is keyed by the paths")
    if any(is_address(os.fspath(path)) for path in paths):
        raise SourceError("a list holds paths of files; give addresses as a folder, or as a manifest with root=")
    keys = [os.fsencode(os.path.abspath(path)).lstrip(b"/") for path in paths]
    if len(set(keys)) != len(keys):
        raise SourceError("the list names a path more than once; expected each image once")
    entries = [(key, *listing.stat_file(b"/" + key)) for key in keys]
    return of_files("files", "/", entries, _tidy_columns(columns, len(keys)))


def scan_memory(items: Any, ids: Sequence[str] | None, columns: Any) -> Source:
    """List images in memory, or the items of a Dataset; see `featurebank.scan`."""
    is_dataset = not isinstance(items, (list, tuple, np.ndarray))
    if ids is None and not is_dataset:
        raise SourceError("images in memory have no names; give ids, one distinct string each")
    names = [str(name) for name in ids] if ids is not None else [str(i) for i in range(len(items))]
    if len(names) != len(items) or len(set(names)) != len(names):
        raise SourceError(f"{len(names)} ids for {len(items)} images; expected one distinct id each")
    table = _tidy_columns(columns, len(items))
    if is_dataset and "label" not in table and isinstance(items[0], (tuple, list)):
        labels = pd.Series(_dataset_labels(items), dtype=object)  # text that is not UTF-8 fits no other dtype
        table["label"] = tidy(labels.to_frame("label"))["label"]
    name = type(items).__name__ if is_dataset else "memory"
    entries = [(os.fsencode(each), 0, 0, "") for each in names]
    return of_files(name, "", entries, table, get_image=lambda position: _item_image(items, position))


def _item_image(items: Any, position: int) -> Any:
    try:
        image = decoding.unwrap(items[position])
        if isinstance(image, Image.Image):
            image.load()
        return image
    except ImageError:
        raise
    except Exception as error:  # a lazily opened file, or the Dataset's own code: any kind
        raise ImageError(f"cannot be read: {one_line(error)}") from error


def _dataset_labels(dataset: Any) -> list[Any]:
    """Return the labels of a Dataset: its ``targets`` (torchvision's habit), or the second of each item."""
    labels = getattr(dataset, "targets", None)
    labels = [dataset[i][1] for i in range(len(dataset))] if labels is None else list(labels)
    plain = [label.item() if hasattr(label, "item") else label for label in labels]
    names = getattr(dataset, "classes", None)
    is_index = names is not None and all(isinstance(label, int) and 0 <= label < len(names) for label in plain)
    return [names[label] for label in plain] if is_index and names is not None else plain


def _tidy_columns(columns: Any, count: int) -> pd.DataFrame:
    try:
        frame = tidy(pd.DataFrame(columns if columns is not None else {}))
    except ValueError as error:
        raise SourceError(f"columns do not make a table: {one_line(error)}; expected one value an image") from error
    if len(frame.columns) and len(frame) != count:
        raise SourceError(f"columns have {len(frame)} rows for {count} images; expected one row an image")
    return frame if len(frame.columns) else pd.DataFrame(index=range(count))
