"""What the browser gets of each sample: places on the maps, columns as codes or numbers, pictures."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featurebank.report.thumbnails import ACROSS, SIDE, Pictures

FEW = 12
"""Whole numbers of at most so many values are classes, not numbers."""
STEPS = 65535


def encode_places(places: NDArray[Any]) -> str:
    """Return places on a map, scaled to 0..65535 with equal units on both axes, as base64 of uint16.

    Parameters
    ----------
    places : ndarray of float, shape (n, 2)

    Examples
    --------
    >>> np.frombuffer(base64.b64decode(encode_places(np.array([[0.0, 1.0], [2.0, 2.0]]))), "<u2").tolist()
    [0, 16384, 65535, 49151]
    """
    low, high = places.min(axis=0), places.max(axis=0)
    span = max(float((high - low).max()), np.finfo(float).tiny)
    unit = (places - (low + high) / 2) / span + 0.5
    return _base64(np.round(unit * STEPS).clip(0, STEPS).astype("<u2"))


def encode_column(name: str, values: pd.Series) -> dict[str, Any]:
    """Return a column as the page's script takes it.

    Parameters
    ----------
    name : str
    values : Series, shape (n,)

    Returns
    -------
    dict
        ``name`` and ``kind``. A ``"class"`` has ``names``, its distinct values as text, and ``codes``, base64 of
        uint32: 0 where the value is missing, else the number of its name plus 1. A ``"number"`` has ``values``,
        base64 of float64, NaN where missing.

    Examples
    --------
    >>> encode_column("site", pd.Series(["b", None, "a"]))["names"]
    ['a', 'b']
    """
    if is_number(values):
        numbers = pd.to_numeric(values).astype("Float64").to_numpy(np.float64, na_value=np.nan)
        return {"name": name, "kind": "number", "values": _base64(numbers.astype("<f8"))}
    codes, names = pd.factorize(values, sort=True)
    return {
        "name": name,
        "kind": "class",
        "names": [str(each) for each in names],
        "codes": _base64((codes + 1).astype("<u4")),
    }


def is_number(values: pd.Series) -> bool:
    """Say whether a column is shown on a scale rather than as classes."""
    if pd.api.types.is_bool_dtype(values) or not pd.api.types.is_numeric_dtype(values) or values.isna().all():
        return False
    return bool(pd.api.types.is_float_dtype(values) or values.nunique() > FEW)


def encode_points(
    sources: Sequence[str],
    paths: Sequence[str],
    maps: Mapping[str, NDArray[Any]],
    columns: Mapping[str, pd.Series],
    pictures: Pictures,
    cells: Mapping[str, NDArray[Any]] | None = None,
) -> dict[str, Any]:
    """Return everything the page's script needs to know of the samples, ready for JSON.

    Parameters
    ----------
    sources, paths : sequence of n str
    maps : mapping of str to ndarray of float, shape (n, 2)
        Places on each map.
    columns : mapping of str to Series, shape (n,)
        What points can be coloured and searched by, the first one first.
    pictures : Pictures
    cells : mapping, optional
        ``true`` and ``predicted``, ndarrays of int, shape (n,): the row and column of the confusion matrix that a
        sample is in, -1 for none.
    """
    codes, names = pd.factorize(np.array(sources, object))  # pandas' own text holds no undecodable bytes
    return {
        "sources": list(names),
        "source": _base64(codes.astype("<u4")),
        "paths": list(paths),
        "maps": [{"name": name, "places": encode_places(places)} for name, places in maps.items()],
        "columns": [encode_column(name, values) for name, values in columns.items()],
        "tile": _base64(pictures.tile.astype("<i4")),
        "sizes": _base64(pictures.sizes),
        "side": SIDE,
        "across": ACROSS,
        "cells": {name: _base64(codes.astype("<i4")) for name, codes in (cells or {}).items()},
    }


def encode_sheets(sheets: Sequence[bytes]) -> list[str]:
    """Return sheets as base64."""
    return [base64.b64encode(sheet).decode() for sheet in sheets]


def _base64(array: NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
