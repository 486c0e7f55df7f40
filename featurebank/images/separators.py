"""The separator of a table of text: what its first line says, or the only one that gives every row as many cells."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass

from featurebank.errors import SourceError

SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|", "space": " "}
"""Names of the separators, and what they are."""
_SAMPLE = 1 << 16


@dataclass(frozen=True)
class Dialect:
    """How a table of text is written.

    Attributes
    ----------
    separator : str
    start : int, default 0
        Lines before the header: Excel's ``sep=;``.
    has_spaces : bool, default False
        Whether spaces follow the separators.
    """

    separator: str
    start: int = 0
    has_spaces: bool = False

    @property
    def name(self) -> str:
        """The separator in words."""
        return next((name for name, sign in SEPARATORS.items() if sign == self.separator), repr(self.separator))


def find_dialect(text: str, separator: str | None, where: object) -> Dialect:
    """Return how a table is written.

    Parameters
    ----------
    text : str
    separator : str, optional
        A name of `SEPARATORS` or a character, where it is known.
    where : object
        The file, for messages.

    Raises
    ------
    SourceError
        When a separator is no character, or several could be meant.

    Examples
    --------
    >>> find_dialect("path;score\\n1.png;0,5\\n", None, "a.csv").name
    'semicolon'
    """
    sample = text[:_SAMPLE]
    told = re.match(r'"?sep=(.)"?[\s;,]*?(\r\n|\r|\n)', sample, re.IGNORECASE)
    rows = sample[told.end() :] if told else sample
    if separator is not None:
        sign = _sign(separator)
    else:
        sign = told.group(1) if told else _detect(rows, len(text) > _SAMPLE, where)
    header = re.split("[\r\n]", rows, maxsplit=1)[0]
    is_spaced = header.count(sign) == header.count(f"{sign} ") > 0 or f'{sign} "' in rows
    return Dialect(sign, int(told is not None), is_spaced and sign != " ")


def _sign(separator: str) -> str:
    """Return the character that a separator's name stands for."""
    sign = SEPARATORS.get(separator.lower(), "\t" if separator == "\\t" else separator)
    if len(sign) != 1 or sign in '"\r\n' or sign.isalnum():
        raise SourceError(f"no separator {separator!r}; expected {', '.join(SEPARATORS)}, or one character")
    return sign


def _detect(rows: str, is_cut: bool, where: object) -> str:
    """Return the separator of the header; of several that it holds, the one that all rows hold as often."""
    parsed = {sign: _cells(rows, sign) for name, sign in SEPARATORS.items() if name != "space"}
    possible = [sign for sign, cells in parsed.items() if cells and cells[0] > 1]
    if len(possible) > 1:
        even = [sign for sign in possible if len(set(parsed[sign][: len(parsed[sign]) - is_cut])) == 1]
        possible = even if len(even) == 1 else possible
    if len(possible) > 1:
        named = " and ".join(f"{name}s" for name, sign in SEPARATORS.items() if sign in possible)
        raise SourceError(
            f"the header of {str(where)!r} holds {named}, and each could separate its columns; name the separator with "
            "--separator comma, semicolon, tab or pipe"
        )
    return possible[0] if possible else ","


def _cells(rows: str, sign: str) -> list[int]:
    """Return the number of cells of each row, as Python's csv module reads them."""
    try:
        return [len(row) for row in csv.reader(io.StringIO(rows, newline=None), delimiter=sign) if row]
    except csv.Error:  # a cell of more than its limit, a stray carriage return
        return []
