"""A table of out-of-fold predictions as safetensors: numbers as they are, everything else as codes into its values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurebank.errors import CorruptError
from featurebank.images.dataframes import pd

_HEADER = "columns"


def encode_table(frame: pd.DataFrame) -> bytes:
    """Return a table as safetensors: a column a tensor, and a header in JSON that names them.

    No value may stand in several columns of objects as anything but text, a number, a truth value, or missing.
    """
    from safetensors.numpy import save

    tensors: dict[str, Any] = {}
    header = []
    for number, name in enumerate(frame):
        column, values = frame[name], None
        if column.dtype.kind not in "fiu":
            codes, distinct = pd.factorize(column)
            column, values = codes.astype(np.int32), distinct.tolist()
        tensors[str(number)] = np.ascontiguousarray(column)
        header.append({"name": str(name), "values": values})
    return save({_HEADER: np.frombuffer(json.dumps(header).encode("ascii"), np.uint8), **tensors})


def decode_columns(data: bytes, limits: Mapping[str, int]) -> dict[str, NDArray[Any]]:
    """Return the columns of the table that `encode_table` wrote.

    Parameters
    ----------
    data : bytes
        They need not be trusted.
    limits : mapping of str to int
        Columns that there must be, and what their numbers must stay below.

    Raises
    ------
    CorruptError
        When they are no such table.
    """
    from safetensors.numpy import load

    tensors = load(data)
    header = json.loads(tensors.pop(_HEADER).tobytes())
    arrays = [tensors.pop(str(number)) for number in range(len(header))]
    shapes = {each.shape for each in arrays}
    if tensors or len(shapes) != 1 or len(next(iter(shapes))) != 1:
        raise CorruptError("its out-of-fold predictions are no table")
    columns = {str(each["name"]): _column(array, each["values"]) for each, array in zip(header, arrays, strict=True)}
    if len(columns) != len(header):
        raise CorruptError("its out-of-fold predictions name a column twice")
    for name, limit in limits.items():
        _check_codes(columns[name], 0, limit)
    return columns


def _column(array: Any, values: Any) -> Any:
    if values is None:
        if array.dtype.kind not in "fiu":
            raise CorruptError(f"its out-of-fold predictions have a column of {array.dtype}")
        return array
    if not isinstance(values, list) or not all(isinstance(each, str | int | float) for each in values):
        raise CorruptError("its out-of-fold predictions have values that are neither text nor numbers")
    _check_codes(array, -1, len(values))
    return np.array([*values, None], object)[array]  # the last one is what -1 stands for


def _check_codes(array: Any, least: int, limit: int) -> None:
    if array.dtype.kind not in "iu" or (len(array) and not (least <= array.min() and array.max() < limit)):
        raise CorruptError(f"its out-of-fold predictions name a value beyond the {limit} that there are")
