"""Backbones that are named by a file: packages above this one add the kinds of file that they read.

This module loads nothing of the others, so that it costs nothing to add a source when a package is imported.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from featurebank.backbones.base import Backbone


class FileSource(NamedTuple):
    """What makes a backbone of a file: called with the file's name, the weights, the size, and whether to download."""

    load: Callable[[str, str, int | None, bool], Backbone]
    PACKAGES: tuple[str, ...]
    """Libraries whose versions decide what is made."""


_sources: dict[str, FileSource] = {}


def add_source(suffix: str, source: FileSource) -> None:
    """Have files that end in a suffix loaded by a source."""
    _sources[suffix] = source


def file_source(name: str) -> FileSource | None:
    """Return the source of the backbone that a file's name asks for, None for any other name."""
    return next((source for suffix, source in _sources.items() if name.endswith(suffix)), None)
