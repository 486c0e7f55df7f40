"""The layout of a folder of images: which level of folders names the classes, which a split, and which says nothing."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from featurebank.errors import counted
from featurebank.images.dataframes import pd
from featurebank.images.splits import PARTS, SPLIT, is_plain, parts_of

Folders = tuple[str, ...]
"""The folders that an image lies in, from the top."""
_SHOWN = 6


def read_layout(paths: Sequence[bytes]) -> tuple[pd.DataFrame, list[str]]:
    """Return the columns that the folders of images give, and a sentence on each level that is not a class.

    Classes are the folders at the top; below parts of a split (``train/cat/1.jpg``) those in there, and then the
    column ``split`` has the part, as it has where each class has its parts (``cat/train/1.jpg``). One folder that has
    all the others in it is seen through.

    Parameters
    ----------
    paths : sequence of bytes
        Relative paths of the images.

    Returns
    -------
    columns : DataFrame
        ``label`` where there are class folders, ``split`` where there are parts; aligned with `paths`.
    notes : list of str

    Examples
    --------
    >>> columns, notes = read_layout([b"Train/cat/1.jpg", b"Train/dog/2.jpg", b"Val/cat/3.jpg"])
    >>> columns.to_dict("list")
    {'label': ['cat', 'dog', 'cat'], 'split': ['train', 'train', 'val']}
    """
    names = [path.rpartition(b"/")[0] for path in paths]
    counts = Counter(names)
    folders = {name: tuple(os.fsdecode(name).split("/")) if name else () for name in counts}
    around = _wrapper(folders.values())
    folders = {name: each[len(around) :] for name, each in folders.items()}
    notes = [f"seen through {'/'.join(around)!r}, the one folder that all others lie in"] * bool(around)
    tops = _by_top(folders.values())
    parts, inner = parts_of(tops), _inner_parts(tops)
    levels = _class_levels(tops, parts)
    if _is_split(tops, parts, levels):
        labels = {name: each[levels[each[0]]] if _has_class(each, levels) else None for name, each in folders.items()}
        splits = {name: parts.get(each[0]) if each else None for name, each in folders.items()}
        where = "the folders in them are the classes" if any(labels.values()) else "there are no class folders in them"
        notes.append(_about_split(parts, _count(splits, counts), where))
    elif inner:
        labels, splits = _classes(folders), {name: inner[each[1]] if each else None for name, each in folders.items()}
        notes.append(_about_split(inner, _count(splits, counts), "the folders around them are the classes"))
    else:
        labels, splits = _classes(folders), {}
        notes += [_about_classes(tops, parts)] * (len(set(parts.values())) > 1)
    given = {
        column: pd.Series([cells[name] for name in names], dtype=object)
        for column, cells in (("label", labels), (SPLIT, splits))
        if any(cells.values())
    }
    return pd.DataFrame(given, index=range(len(paths))), notes


def top_folders(paths: Sequence[bytes]) -> pd.DataFrame:
    """Return the column that releases before this one read of folders: ``label``, the top folder of each image."""
    tops = [os.fsdecode(path.partition(b"/")[0]) if b"/" in path else None for path in paths]
    return pd.DataFrame({"label": pd.Series(tops, dtype=object)} if any(tops) else {}, index=range(len(paths)))


def _wrapper(folders: Iterable[Folders]) -> Folders:
    """Return the folders from the top that are alone on their level and have folders in them, not just images."""
    tops = _by_top(folders)
    below = next(iter(tops.values()), [])
    inside = [each for each in below if each]
    if len(tops) != 1 or not inside:
        return ()
    around = _wrapper(inside)
    is_class = len(below) > len(inside) and len(_by_top(each[len(around) :] for each in inside)) < 2
    return () if is_class else (next(iter(tops)), *around)


def _by_top(folders: Iterable[Folders]) -> dict[str, list[Folders]]:
    """Return what lies below each folder at the top."""
    tops: dict[str, list[Folders]] = {}
    for each in dict.fromkeys(folders):
        if each:
            tops.setdefault(each[0], []).append(each[1:])
    return tops


def _classes(folders: Mapping[bytes, Folders]) -> dict[bytes, str | None]:
    """Return the top folder of each; none where it is the only one, and no name of a class."""
    tops = _by_top(folders.values())
    is_class = len(tops) > 1 or not all(map(is_plain, tops))
    return {name: each[0] if each and is_class else None for name, each in folders.items()}


def _about_classes(tops: Collection[str], parts: Collection[str]) -> str:
    others = [name for name in tops if name not in parts]
    return f"{_listed(parts)} beside {_listed(others)}: all taken as classes, not as parts of a split"


# --- splits ------------------------------------------------------------------------------------------------


def _class_levels(tops: Mapping[str, list[Folders]], parts: Collection[str]) -> dict[str, int]:
    """Return on which level, counted from the top, the class folders below each part lie."""
    depths = {name: len(_wrapper(tops[name])) for name in parts}
    if not all(depths.values()):  # one folder with all the others in it: in one part alone, it may be its only class
        depths = {name: len(_repeats(name, tops)) for name in tops}
    return {name: 1 + depths[name] for name in parts}


def _repeats(name: str, tops: Mapping[str, list[Folders]]) -> Folders:
    """Return the folders alone on their level below a part that have its own name again, or are no name of a class."""
    classes = {each[0] for other, below in tops.items() if other != name for each in below if each}
    inside, around = tops[name], Folders()
    while True:
        only = next(iter(_by_top(inside)), "")
        is_alone = len(_by_top(inside)) == 1 and () not in inside
        if not is_alone or only in classes or not (only == name or is_plain(only)):
            return around
        inside, around = _by_top(inside)[only], (*around, only)


def _is_split(tops: Mapping[str, list[Folders]], parts: Mapping[str, str], levels: Mapping[str, int]) -> bool:
    """Say whether folders called train, val or test are parts of a split, and not classes themselves.

    Beside parts there may be a folder of images without a class, or one with classes of the parts in it; beside other
    folders, ``train`` is a vehicle.
    """
    if len(set(parts.values())) < 2:
        return False
    classes = [{each[levels[name] - 1] for each in tops[name] if len(each) >= levels[name]} for name in parts]
    others = {name: below for name, below in tops.items() if name not in parts}
    has_classes = any(len(each) > len(_repeats(name, tops)) for name, below in others.items() for each in below)
    is_shared = len(set().union(*classes)) < sum(map(len, classes))
    return not others or is_shared or (any(classes) and not has_classes)


def _inner_parts(tops: Mapping[str, list[Folders]]) -> dict[str, str]:
    """Return the parts of a split that the folders in the classes are; none where one is no part, or is not the last.

    Examples
    --------
    >>> _inner_parts({"cat": [("train",), ("test",)], "dog": [("train",)]})
    {'test': 'test', 'train': 'train'}
    """
    inside = [each for below in tops.values() for each in below]
    names = sorted({each[0] for each in inside if each})
    parts = parts_of(names)
    is_split = len(tops) > 1 and len(set(parts.values())) > 1 and len(parts) == len(names)
    return parts if is_split and all(len(each) == 1 for each in inside) else {}


def _count(splits: Mapping[bytes, str | None], counts: Mapping[bytes, int]) -> Counter[str | None]:
    """Return how many images each part has."""
    images = Counter[str | None]()
    for name, part in splits.items():
        images[part] += counts[name]
    return images


def _has_class(folders: Folders, levels: Mapping[str, int]) -> bool:
    return bool(folders) and len(folders) > levels.get(folders[0], len(folders))


def _about_split(parts: Mapping[str, str], images: Mapping[str | None, int], where: str) -> str:
    names = sorted(parts, key=lambda name: (PARTS.index(parts[name]), name))
    counts = ", ".join(f"{part} {images[part]}" for part in PARTS if part in images)
    rest = f"; {counted(images[None], 'image outside has', 'images outside have')} neither" if images.get(None) else ""
    return f"{_listed(names)} are the parts of a split (column {SPLIT}: {counts}), {where}{rest}"


def _listed(names: Collection[str]) -> str:
    return ", ".join(map(repr, list(names)[:_SHOWN])) + ", …" * (len(names) > _SHOWN)
