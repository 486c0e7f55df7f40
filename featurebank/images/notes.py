"""What was noted while images were decoded: pages and frames that nobody saw, and values that a range does not fit."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from typing import Any

from featurebank.errors import counted, printable
from featurebank.images.pixels import PixelRules, as_text

FEWEST_LEVELS = 64
"""Grey levels of 256 that an image of more than 8 bits should have at least."""
MOST_CLIPPED = 0.05
"""The share of an image's values that may lie outside of the range."""


class DecodingNotes:
    """Counts what `featurebank.images.decoding` noted of images.

    Examples
    --------
    >>> from PIL import Image
    >>> stack = Image.new("RGB", (4, 4))
    >>> stack.info["featurebank"] = {"pages": 5}
    >>> notes = DecodingNotes()
    >>> notes.take(stack.info["featurebank"], b"a.tif")
    >>> notes.lines(PixelRules())
    ['1 image is a stack of several pages (a.tif has 5): only the first page is seen; choose with --pages first, mean,
    max or each']
    """

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, str] = {}

    def take(self, noted: Mapping[str, Any], path: bytes) -> None:
        """Take what was noted of a decoded image (`featurebank.images.values.note_of`)."""
        if noted:
            self._count("pages", "pages" in noted, f"{os.fsdecode(path)} has {noted.get('pages')}")
            self._count("channels", "channels" in noted, f"{os.fsdecode(path)} has {noted.get('channels')}")
            self._count("frames", "frames" in noted, os.fsdecode(path))
            self._count("deep", "levels" in noted, "")
            self._count("dark", noted.get("levels", 256) < FEWEST_LEVELS, os.fsdecode(path))
            self._count("clipped", noted.get("clipped", 0.0) > MOST_CLIPPED, os.fsdecode(path))

    def _count(self, what: str, is_so: bool, example: str) -> None:
        if is_so:
            self._counts[what] += 1
            said = printable(example)
            self._examples[what] = min(self._examples.get(what, said), said)  # the same in every order

    def lines(self, rules: PixelRules) -> list[str]:
        """Return what the reader of the features should know, a line each; a few odd images are no news."""
        counts, example = self._counts, self._examples
        found = []
        if counts["pages"]:
            which = f"{_images(counts['pages'], 'a stack', 'stacks')} of several pages ({example['pages']})"
            found.append(f"{which}: only the first page is seen; choose with --pages first, mean, max or each")
        if counts["channels"]:
            which = f"{_images(counts['channels'], 'a stack', 'stacks')} of several channels ({example['channels']})"
            found.append(f"{which}: {_about_channels(rules)}")
        if counts["frames"]:
            which = f"{_images(counts['frames'], 'an animation', 'animations')} ({example['frames']})"
            found.append(f"{which}: only the first frame is seen")
        limits = "0..65535" if rules.range is None else as_text(rules.limits)
        for what, fault in (("dark", f"fewer than {FEWEST_LEVELS} of 256 grey levels"), ("clipped", "values outside")):
            if 2 * counts[what] > counts["deep"]:
                found.append(
                    f"{counts[what]} of {counts['deep']} images of more than 8 bits have {fault} with the range "
                    f"{limits} ({example[what]}); --range LOW..HIGH makes features of their own that fit"
                )
        return found


def _about_channels(rules: PixelRules) -> str:
    """Say what becomes of channels that lie in pages of their own where nobody chose some, and how one does."""
    apart = "" if rules.pages == "first" else f" --pages {rules.pages}"
    seen = "sees the first page of the first channel alone" if rules.pages == "first" else "takes them all for one"
    return f"--pages {rules.pages} {seen}; --channels 0,1{apart} makes them colours, --channels 0{apart} takes one"


def _images(count: int, one: str, many: str) -> str:
    return counted(count, f"image is {one}", f"images are {many}")
