"""What a user says of a table of samples, in Python and on the command line."""

from __future__ import annotations

from dataclasses import dataclass

from featurebank.errors import SourceError, near_names

OF_TABLES = ("--path-column", "--separator", "--encoding", "--labels-as")
"""Options of ``featurebank extract`` that say how a table is read, and that a bank keeps."""
LABELS_AS = ("auto", "text", "numbers")


@dataclass(frozen=True)
class TableOptions:
    """What a user says of a table; by default all of it is found.

    Attributes
    ----------
    separator : str, optional
        Of a table of text: ``comma``, ``semicolon``, ``tab``, ``pipe``, ``space``, or a character.
    encoding : str, optional
        Of a table of text, as Python calls it (``cp1252``).
    labels_as : str, default "auto"
        ``"auto"`` makes numbers of a column of text where that loses nothing; ``"text"`` makes text of all columns;
        ``"numbers"`` also makes numbers of what loses its spelling (``007``).
    """

    separator: str | None = None
    encoding: str | None = None
    labels_as: str = "auto"

    def __post_init__(self) -> None:
        if self.labels_as not in LABELS_AS:
            raise SourceError(f"no labels_as {self.labels_as!r}; {near_names(self.labels_as, LABELS_AS)}")

    def named(self, path_column: str | None = None) -> dict[str, str]:
        """Return the options of a command that say this and which column has the paths, those alone that are needed.

        Examples
        --------
        >>> TableOptions("tab").named("file")
        {'--path-column': 'file', '--separator': 'tab'}
        """
        told = (path_column, self.separator, self.encoding, None if self.labels_as == "auto" else self.labels_as)
        return {option: value for option, value in zip(OF_TABLES, told, strict=True) if value is not None}
