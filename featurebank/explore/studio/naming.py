"""Names of classes as a page sends them."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection
from typing import Any

from featurebank.errors import BankError

LONGEST = 200
"""Characters of a class's name."""


def class_name(label: Any, known: Collection[str]) -> str | None:
    """Return a label if it is a class that the bank has, as it is there, or a name that can be read.

    Raises
    ------
    BankError
        When it is empty, too long, or no text.

    Examples
    --------
    >>> class_name(" cat ", []), class_name(" cat ", [" cat "]), class_name(None, [])
    ('cat', ' cat ', None)
    """
    if label is None or (isinstance(label, str) and label in known):
        return label
    if not isinstance(label, str) or not is_readable(label.strip()) or len(label) > LONGEST:
        shown = repr(label)[:60]
        raise BankError(f"{shown} is no name of a class; expected a line of 1 to {LONGEST} characters: type a name")
    return label.strip()


def is_readable(text: str) -> bool:
    r"""Say whether text has something to see and no line ends or other controls; what joins characters may be there.

    Examples
    --------
    >>> [is_readable(each) for each in ("Übergröße", "\N{MAN}\u200d\N{WOMAN}", "", "\u200d", "a\nb")]
    [True, True, False, False, False]
    """
    plain = "".join(each for each in text if unicodedata.category(each) not in ("Cf", "Zs"))
    return plain != "" and plain.isprintable()


def seen_class(label: Any) -> str | None:
    """Return what a tab believed to be there.

    Raises
    ------
    BankError
        When it is no text.
    """
    if label is not None and not isinstance(label, str):
        raise BankError("what was seen has to be a label or nothing; load the page again")
    return label
