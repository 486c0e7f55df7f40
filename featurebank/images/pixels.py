"""Pixel rules: how values of more than 8 bits, stacks of pages and many channels become the RGB that a network sees.

An image of 8 bits has its grey levels; one of 16 bits or of floating point has only values, and what is black and what
is white among them is said here, once for all images of a feature set, so that their brightness stays comparable.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from featurebank.errors import ImageError, near_names

PAGES = ("first", "mean", "max", "each")
MAX_CHANNEL = 4095
_RANGE = re.compile(r"\s*([-+.\deE]+)\s*\.\.\s*([-+.\deE]+)\s*")
Limits = tuple[float, float]


@dataclass(frozen=True)
class PixelRules:
    """What of an image's values, pages and channels is seen, and how; the default is what it was before one could say.

    Parameters
    ----------
    range : tuple of float, "auto" or None, default None
        The values that become black and white in images of more than 8 bits. None: 0 and 65535, which floating point
        does not have. ``"auto"``: still to be decided (`featurebank.images.ranges`); no image is decoded by it.
    pages : str or None, default None
        Of a stack: ``"first"``, or the ``"mean"`` or ``"max"`` over its pages; None is the first, and said to be.
        ``"each"`` makes a sample of each page (`featurebank.scan`).
    channels : tuple of int, "mean" or None, default None
        One to three channels that are grey, red and green, or red, green and blue; or the mean of all.

    Raises
    ------
    ImageError
        When one of them is none of these.

    Examples
    --------
    >>> PixelRules(range=(0, 4095), channels=(0, 2)).to_dict()
    {'range': [0, 4095], 'channels': [0, 2]}
    >>> bool(PixelRules()), bool(PixelRules(pages="mean"))
    (False, True)
    """

    range: Limits | Literal["auto"] | None = None
    pages: str | None = None
    channels: tuple[int, ...] | Literal["mean"] | None = None

    def __post_init__(self) -> None:
        if self.pages not in (None, *PAGES):
            raise ImageError(f"pages {self.pages!r:.40}; {near_names(str(self.pages), PAGES)}")
        if isinstance(self.range, tuple):
            object.__setattr__(self, "range", _limits(self.range))
        elif self.range not in (None, "auto"):
            raise _no_range(self.range)
        if self.channels is not None and self.channels != "mean":
            object.__setattr__(self, "channels", _indices(self.channels))

    def __bool__(self) -> bool:
        return bool(self.to_dict())

    @classmethod
    def parse(
        cls,
        range: str | Sequence[float] | None = None,
        pages: str | None = None,
        channels: str | Sequence[int] | None = None,
    ) -> PixelRules:
        """Return the rules that a user names.

        Parameters
        ----------
        range : str or pair of float, optional
            ``"full"``, ``"auto"``, ``"LOW..HIGH"`` or (LOW, HIGH).
        pages : str, optional
            One of `PAGES`.
        channels : str or sequence of int, optional
            ``"0,1,2"``, ``"mean"`` or a sequence of numbers, the first channel being 0.

        Raises
        ------
        ImageError
            When one of them is none of these.

        Examples
        --------
        >>> PixelRules.parse("0..4095", channels="0,2")
        PixelRules(range=(0, 4095), pages=None, channels=(0, 2))
        """
        return cls(_parse_range(range), pages, _parse_channels(channels))

    @property
    def limits(self) -> Limits | None:
        """What is black and what is white, or None for the full range of 16 bits."""
        assert self.range != "auto", "the range is still to be decided"
        return self.range

    def options(self) -> dict[str, str | None]:
        """Return the options of ``featurebank extract`` that ask for these rules, None for those by default."""
        named = ",".join(map(str, self.channels)) if isinstance(self.channels, tuple) else self.channels
        limits = None if self.limits is None else as_text(self.limits)
        return {"--range": limits, "--pages": self.pages, "--channels": named}

    def with_range(self, limits: Limits | None) -> PixelRules:
        """Return the same rules for another range."""
        return replace(self, range=limits)

    def to_dict(self) -> dict[str, Any]:
        """Return what differs from the default, as it stands in a feature spec."""
        assert self.range != "auto", "the range is still to be decided"
        said: dict[str, Any] = {} if self.range is None else {"range": list(self.range)}
        if self.pages in ("mean", "max"):  # the others read one page: a choice or none, the pixels are the same
            said["pages"] = self.pages
        if self.channels is not None:
            said["channels"] = self.channels if self.channels == "mean" else list(self.channels)
        return said

    @classmethod
    def from_dict(cls, values: Any) -> PixelRules:
        """Build rules from `to_dict`'s dictionary.

        Raises
        ------
        ImageError
            When it is none: the file that it is from was made by another version, or damaged.
        """
        if not isinstance(values, dict) or not set(values) <= {"range", "pages", "channels"}:
            raise ImageError(f"pixel rules that this version does not know: {values!r:.80}")
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
        }
        return cls(**fields)


PLAIN = PixelRules()


def as_text(limits: Limits | None) -> str:
    """Return a range as the option takes it.

    Examples
    --------
    >>> as_text((0, 4095)), as_text(None)
    ('0..4095', 'full')
    """
    return "full" if limits is None else f"{limits[0]!r}..{limits[1]!r}"


def _parse_range(text: str | Sequence[float] | None) -> Any:
    if text is None or text == "full":
        return None
    if not isinstance(text, str):
        return tuple(text)
    match = _RANGE.fullmatch(text)
    try:
        return text if match is None else (float(match[1]), float(match[2]))
    except ValueError as error:
        raise _no_range(text) from error


def _parse_channels(text: str | Sequence[int] | None) -> Any:
    if text is None or text == "mean" or not isinstance(text, str):
        return tuple(text) if isinstance(text, (list, tuple)) else text
    numbers = [part.strip() for part in text.split(",")]
    return tuple(int(part) for part in numbers) if all(part.isdecimal() for part in numbers) else text


def _limits(given: Sequence[Any]) -> Limits:
    """Return a range with whole numbers as such, so that it has one JSON text."""
    is_number = [isinstance(each, (int, float)) and not isinstance(each, bool) for each in given]
    if len(given) != 2 or not all(is_number) or not all(map(math.isfinite, given)) or not given[0] < given[1]:
        raise _no_range(given)
    low, high = (int(each) if float(each).is_integer() else float(each) for each in given)
    return low, high


def _indices(given: Any) -> tuple[int, ...]:
    is_index = isinstance(given, tuple) and all(type(each) is int and 0 <= each <= MAX_CHANNEL for each in given)
    if not is_index or not 1 <= len(given) <= 3:
        raise ImageError(f"channels {given!r:.40}; expected one to three numbers from 0 on, e.g. 0,1,2, or mean")
    return tuple(given)


def _no_range(given: Any) -> ImageError:
    return ImageError(f"range {given!r:.40}; expected full, auto, or LOW..HIGH with LOW below HIGH, e.g. 0..4095")
