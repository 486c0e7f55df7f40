"""The image source: its samples, listed before any image is read."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurebank.errors import ImageError, SourceError, counted
from featurebank.images import formats
from featurebank.images.dataframes import pd
from featurebank.images.listing import Entry, read_file, read_image
from featurebank.storage.files import AnyPath


@dataclass(frozen=True)
class Source:
    """The samples of one image source, before any image is read.

    Attributes
    ----------
    name : str
        Key of the source: the absolute path or the address of the folder, manifest or shards, or a name for images in
        memory.
    root : str
        Folder that the paths are relative to now.
    paths : list of bytes
        Path of each sample, as the file system's bytes, or its id.
    sizes, mtimes : ndarray of int64, shape (n,)
        Bytes and modification time (ns) of each file.
    columns : DataFrame
        The user's columns, aligned with `paths`.
    problems : dict of int to str
        Why a sample cannot be read, by its position.
    whole : bool
        Whether `paths` is all of the source, so that a sample that is not in it is gone.
    ignored : dict of str to int
        Files left out because their suffix is not that of an image, counted by suffix; folders left out because a
        system made them, by their name and a slash.
    notes : list of str
        What was understood of the source that its user may not expect, a sentence each.
    class_folders : bool
        Whether the column ``label`` is the name of a folder that an image lies in.
    earlier : DataFrame, optional
        The columns as releases before this one read them, where they differ: what a bank has of them is no correction.
    named_options : dict of str to str
        What the user had to name so that a table is read, by option of ``featurebank extract`` (``--path-column``).
    get_image : callable, optional
        Position to what `read_image` takes, for images in memory.

    See Also
    --------
    featurebank.scan : Make one.

    Examples
    --------
    >>> from featurebank import scan
    >>> len(scan("photos/").paths)
    24
    """

    name: str
    root: str
    paths: list[bytes]
    sizes: NDArray[np.int64]
    mtimes: NDArray[np.int64]
    columns: pd.DataFrame
    problems: dict[int, str] = field(default_factory=dict)
    whole: bool = False
    ignored: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    class_folders: bool = False
    earlier: pd.DataFrame | None = None
    named_options: dict[str, str] = field(default_factory=dict)
    get_image: Callable[[int], Any] | None = None

    def read(self, position: int) -> tuple[bytes, Callable[..., Any]]:
        """Read one sample once: its content digest, and a function that decodes what was read (`images.decode`).

        With ``on_gpu=True`` the function leaves to the GPU what it can decode (`images.find_jpeg`).

        Raises
        ------
        ImageError
            When the file cannot be read.
        """
        return read_image(self.item(position))

    def item(self, position: int) -> Any:
        """Return the bytes of a sample's file, or the image in memory that it is.

        Raises
        ------
        ImageError
            When it cannot be read.
        """
        if position in self.problems:
            raise ImageError(self.problems[position])
        if self.get_image is not None:
            return self.get_image(position)
        return read_file(self._file(position))

    def place(self, position: int) -> str | None:
        """Return the path or the address that any process can read a sample by, None for one that has none."""
        return None if position in self.problems or self.get_image is not None else self._file(position)

    def path(self, position: int) -> bytes:
        """Return the path of a sample, or its id."""
        return self.paths[position]

    def _file(self, position: int) -> str:
        return os.fsdecode(os.path.join(os.fsencode(self.root), self.paths[position]))

    def take(self, positions: Sequence[int] | NDArray[np.int64]) -> Source:
        """Return the samples at these positions as a source of the same name, which is then not whole."""
        where, get_image = list(map(int, positions)), self.get_image
        return replace(
            self,
            paths=[self.paths[i] for i in where],
            sizes=self.sizes[where],
            mtimes=self.mtimes[where],
            columns=self.columns.iloc[where].reset_index(drop=True),
            earlier=None if self.earlier is None else self.earlier.iloc[where].reset_index(drop=True),
            problems={new: self.problems[old] for new, old in enumerate(where) if old in self.problems},
            whole=False,
            ignored={},
            notes=[],
            get_image=None if get_image is None else lambda position: get_image(where[position]),
        )


def about_ignored(ignored: Mapping[str, int]) -> str:
    """Say which files and folders of a source were left out, the most frequent first; see `Source`.

    Examples
    --------
    >>> about_ignored({".txt": 3, "": 1, ".psd": 1, ".png": 1, "@eaDir/": 2})
    'left out by their suffix: 3 .txt, 1 without, 1 .psd; hidden: 1 .png; made by systems: @eaDir'
    >>> about_ignored({".dcm": 3})
    "left out by their suffix: 3 .dcm; export PNG or 16-bit TIFF from DICOM (pydicom, DCMTK's dcm2img)"
    """
    kinds: dict[str, list[str]] = {"left out by their suffix": [], "hidden": [], "made by systems": []}
    for name, count in sorted(ignored.items(), key=lambda item: -item[1]):
        if name.endswith("/"):
            kinds["made by systems"].append(name[:-1])
        else:
            kind = "hidden" if name in formats.SUFFIXES else "left out by their suffix"
            kinds[kind].append(f"{count} {name or 'without'}")
    said = [f"{kind}: {', '.join(found)}" for kind, found in kinds.items() if found]
    ways = dict.fromkeys(formats.CONVERSIONS[name] for name in ignored if name in formats.CONVERSIONS)
    tables = [name for name in (".csv", ".tsv", ".jsonl") if ignored.get(name)]
    hint = "labels in a table: name it as the source, or `featurebank label BANK TABLE`"
    return "; ".join([*said, *ways, *[hint] * bool(tables)])


def no_images(place: str, ignored: Mapping[str, int], kind: str) -> SourceError:
    """Return the error of a place that holds no images, with what it holds."""
    left_out = f" ({about_ignored(ignored)})" if ignored else ""
    return SourceError(
        f"no images in {place!r}{left_out}; expected {kind} ending in {', '.join(sorted(formats.SUFFIXES))}"
    )


def key_of(path: AnyPath) -> str:
    """Return the name that stands for a path or an address everywhere."""
    return os.path.abspath(path) if isinstance(path, Path) else str(path)


def of_files(name: str, root: str, entries: Sequence[Entry], columns: pd.DataFrame, **facts: Any) -> Source:
    """Return a source of listed files."""
    paths, sizes, mtimes, problems = zip(*entries, strict=True)
    unusable = {i: problem for i, problem in enumerate(problems) if problem}
    numbers = np.array(sizes, np.int64), np.array(mtimes, np.int64)
    return Source(name, root, list(paths), *numbers, columns, unusable, **facts)


def refuse_repeats(manifest: AnyPath, paths: list[bytes]) -> None:
    """Raise a `SourceError` when a source names a path twice."""
    repeats = [path for path, count in Counter(paths).items() if count > 1]
    if repeats:
        first, such = os.fsdecode(repeats[0]), counted(len(repeats), "such path")
        raise SourceError(f"{str(manifest)!r} names {first!r} more than once ({such}); expected one row an image")
