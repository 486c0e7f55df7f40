"""Datasets of the library `datasets` -> a source; that library is not needed for it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from featurebank.images.arrow import choose_column, holds_bytes, user_columns
from featurebank.images.columns import overlay
from featurebank.images.frames import scan_frame
from featurebank.images.memory import scan_memory, tidy_columns
from featurebank.images.sources import Source

_HAS = ("features", "column_names", "select_columns", "with_format", "cast_column", "__len__", "__getitem__")


def is_dataset(source: Any) -> bool:
    """Say whether something is a `datasets.Dataset`, by what it has."""
    return all(hasattr(source, name) for name in _HAS)


def scan_dataset(
    dataset: Any,
    column: str | None,
    root: str | os.PathLike[str],
    ids: Sequence[Any] | None,
    columns: Any,
    name: str | None,
) -> Source:
    """List the images of a `datasets.Dataset`, by the bytes of their files; see `featurebank.scan`."""
    schema = dataset.features.arrow_schema
    pictures = [each.name for each in schema if _is_image(dataset.features[each.name]) or holds_bytes(each.type)]
    if not pictures or (column is not None and column not in pictures):
        return scan_frame(dataset.to_pandas(), column, root, ids, name, kind=_name(dataset))
    column = column or choose_column(pictures, "the Dataset")
    others = [each for each in dataset.column_names if each not in pictures]
    table = dataset.select_columns(others or [column]).with_format("arrow")[:]
    facts = user_columns(table.replace_schema_metadata(schema.metadata))
    facts = overlay(facts, tidy_columns(columns, len(dataset)))
    return scan_memory(_Items(dataset, column), ids, facts, name or _name(dataset))


def _is_image(feature: Any) -> bool:
    return type(feature).__name__ == "Image"


def _name(dataset: Any) -> str:
    """Return the name of the data set and the part of it that this is, as far as they are known."""
    known = (getattr(getattr(dataset, "info", None), "dataset_name", None), getattr(dataset, "split", None))
    return "/".join(str(each) for each in known if each) or type(dataset).__name__


class _Items:
    """The images of a Dataset as it keeps them, its files undecoded; as it gives them where the user changes them."""

    def __init__(self, dataset: Any, column: str):
        feature = dataset.features[column]
        self.column = column
        if dataset.format["type"] is None and _is_image(feature):
            dataset = dataset.select_columns([column]).cast_column(column, replace(feature, decode=False))
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, position: int) -> Any:
        return self.dataset[position][self.column]
