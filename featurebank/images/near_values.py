"""Values of a column that are probably another one, mistyped: one row of it, or other capitals, beside many."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from featurebank.errors import counted, nearest, printable
from featurebank.images.columns import is_missing, kind_of
from featurebank.images.dataframes import pd

OFTEN = 5
"""Rows from which a value is no slip itself, so that another may be meant for it."""
_SHOWN = 3
_VALUES_AT_MOST = 1000
_BETWEEN = re.compile(r"(?<=[^\W\d_])[\s_-]+(?=[^\W\d_])")
_WORD = re.compile(r"\d+|[^\W\d_]+")
_NUMERAL = re.compile(r"\d+|[ivx]+")


def notes_on_near_values(columns: pd.DataFrame, rows: Sequence[str]) -> list[str]:
    """Return a note for each class that is probably another one: the only row of it, or the same but for capitals.

    Parameters
    ----------
    columns : DataFrame
        Tidy columns.
    rows : sequence of str
        What each row goes by: a path, mostly.

    Examples
    --------
    >>> kinds = pd.DataFrame({"kind": [*["benign"] * 5, "benin", *["malign"] * 5]})
    >>> [note.partition(" `")[0] for note in notes_on_near_values(kinds, [f"{row}.png" for row in range(11)])]
    ["kind: 'benin' in 1 row (5.png) beside 'benign' in 5: did you mean benign?"]
    """
    notes = []
    for name in [each for each in columns if kind_of(columns[each]) == "str"]:
        found = _near_values([None if is_missing(cell) else str(cell) for cell in columns[name]])
        for value, row, count, near, others in found[:_SHOWN]:
            which = f"({'' if count == 1 else 'e.g. '}{printable(rows[row])})"
            what = f"{printable(value)!r} in {counted(count, 'row')} {which}"
            meant = f"{printable(near)!r} in {others:,}: did you mean {printable(near)}?"
            notes.append(f"{printable(name)}: {what} beside {meant} `featurebank label` corrects it")
    return notes


def _near_values(cells: Sequence[str | None]) -> list[tuple[str, int, int, str, int]]:
    """Return each value that another is meant for, its first row and count, and that other and its count."""
    counts = pd.Series(cells, dtype=object).value_counts()
    given = int(counts.sum())
    if not 2 <= len(counts) <= min(_VALUES_AT_MOST, max(3, given // 2)):
        return []  # names or remarks, which do not come back
    often = {str(value): int(count) for value, count in counts.items() if count >= OFTEN}
    found = []
    for value, count in counts.items():
        near = _meant(str(value), [each for each in often if often[each] > count], is_single=count == 1)
        if near is not None:
            found.append((str(value), cells.index(value), int(count), near, often[near]))
    return found


def _meant(value: str, often: Iterable[str], *, is_single: bool) -> str | None:
    """Return the frequent value that another was probably meant for.

    Examples
    --------
    >>> _meant("benin", ["malign", "benign"], is_single=True), _meant("Left_eye", ["left eye"], is_single=False)
    ('benign', 'left eye')
    >>> _meant("grade I", ["grade II"], is_single=True), _meant("normal", ["abnormal"], is_single=True)
    (None, None)
    """
    alike = [each for each in often if _letters(each) == _letters(value)]
    if alike or not is_single:
        return alike[0] if alike else None
    return nearest(value, [each for each in often if _marks(each) == _marks(value) and not _is_opposite(each, value)])


def _letters(value: str) -> str:
    """Return a value in small letters, without what is written between words."""
    return _BETWEEN.sub("", value.strip().casefold())


def _marks(value: str) -> list[str]:
    """Return what sets classes apart by one sign, as numbers and the I of grade I: they are never taken for slips."""
    return [word for word in _WORD.findall(value.casefold()) if len(word) <= 2 or _NUMERAL.fullmatch(word)]


def _is_opposite(one: str, other: str) -> bool:
    """Say whether one value is the other with more before it, as abnormal is."""
    one, other = one.casefold(), other.casefold()
    return one.endswith(other) or other.endswith(one)
