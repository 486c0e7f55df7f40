"""What lies beside the images of shards, as columns."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from featurebank.errors import one_line
from featurebank.images.columns import parse_text, tidy
from featurebank.images.shard_names import split_name
from featurebank.images.shards import Index

_COLUMNS = {"cls": "label", "txt": "text"}


def columns_of(indexes: list[Index]) -> tuple[pd.DataFrame, dict[int, str]]:
    """Return what lies beside the images of shards as columns, and the problems of those it cannot be read of.

    ``.cls`` is the column ``label``, ``.txt`` the column ``text``, and each key of ``.json`` one of its own name;
    lists and the like are kept as JSON.
    """
    problems: dict[int, str] = {}
    rows: list[dict[str, Any]] = []
    for index in indexes:
        for member in index.members:
            notes = index.notes.get(split_name(member.name)[0], {})
            try:
                rows.append(_row(notes))
            except ValueError as error:
                problems[len(rows)] = f"the .json beside it cannot be read: {one_line(error)}"
                rows.append({})
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = {name: pd.Series([row.get(name) for row in rows], dtype=object) for name in names}
    columns = tidy(pd.DataFrame(cells, index=range(len(rows))))
    if any("cls" in note for index in indexes for note in index.notes.values()):
        columns["label"] = parse_text(columns[["label"]])["label"]  # class numbers are written as text
    return columns, problems


def _row(notes: dict[str, str]) -> dict[str, Any]:
    """Return the cells that the texts beside an image make."""
    row: dict[str, Any] = {}
    if "json" in notes:
        facts = json.loads(notes["json"])
        if not isinstance(facts, dict):
            raise ValueError(f"it holds a {type(facts).__name__}, expected an object")
        row = {name: json.dumps(value) if isinstance(value, (list, dict)) else value for name, value in facts.items()}
    return row | {_COLUMNS[note]: notes[note].strip() for note in ("cls", "txt") if note in notes}
