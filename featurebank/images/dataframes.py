"""pandas, imported when it is first used: to read images and to answer for them, none of it is needed."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__all__ = ["pd"]


class _WhenUsed:
    """A module that is imported when something of it is asked for."""

    def __init__(self, name: str):
        self._name = name

    def __getattr__(self, name: str) -> Any:
        found = getattr(importlib.import_module(self._name), name)
        setattr(self, name, found)
        return found


if TYPE_CHECKING:
    import pandas as pd
else:
    pd = _WhenUsed("pandas")
