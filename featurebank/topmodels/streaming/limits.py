"""What a fit that is read in batches cannot do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from featurebank.errors import TopModelError


def check_streamed(asked: Mapping[str, Any]) -> None:
    """Refuse what a fit that is read in batches cannot do.

    Parameters
    ----------
    asked : mapping
        By its name, whether something was asked for that needs all rows in memory.

    Raises
    ------
    TopModelError
        When something was.

    Examples
    --------
    >>> check_streamed({"nested": False})
    """
    found = [name for name, value in asked.items() if value]
    if found:
        remedy = "leave it out, or give the fit more memory"
        raise TopModelError(f"{found[0]} needs all rows in memory, which these do not fit into: {remedy}")
