"""The words for the parts of a split: train, val and test, as folders and tables spell them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from featurebank.images.dataframes import pd

SPLIT = "split"
"""The column that folders' parts go into, and that `fit` looks for."""
TRAIN, VAL, TEST = PARTS = ("train", "val", "test")
_WORDS = {
    TRAIN: {"train", "training", "trainset", "trainval"},
    VAL: {"val", "valid", "validation", "valset", "dev", "devset"},
    TEST: {"test", "testing", "testset", "holdout"},
}
_PART = {word: part for part, words in _WORDS.items() for word in words}
_EITHER = {"eval", "evaluation"}
"""Validation beside a test part, and test where there is none."""
_PLAIN = {"set", "data", "dataset", "split", "part", "subset", "folder", "dir", "photos", "pictures"} | {
    *("images", "image", "imgs", "img")
}


def parts_of(names: Iterable[str]) -> dict[str, str]:
    """Return the part of a split, ``train``, ``val`` or ``test``, that each name stands for; others are left out.

    A name may also hold numbers, plain words like ``images``, and what all of them share.

    Examples
    --------
    >>> parts_of(["Training", "valid", "docs"])
    {'Training': 'train', 'valid': 'val'}
    >>> parts_of(["seg_train", "seg_test", "seg_pred"])
    {'seg_train': 'train', 'seg_test': 'test'}
    >>> parts_of(["train", "eval", "test"]), parts_of(["train2017", "eval"])
    ({'train': 'train', 'eval': 'val', 'test': 'test'}, {'train2017': 'train', 'eval': 'test'})
    """
    words, rests = {}, {}
    for name in names:
        tokens = _tokens(name)
        known = [token for token in tokens if token in _PART or token in _EITHER]
        if len(known) == 1:
            words[name], rests[name] = known[0], [token for token in tokens if token != known[0]]
    if any(rest != next(iter(rests.values())) for rest in rests.values()):
        words = {name: word for name, word in words.items() if not rests[name]}
    has_test = any(_PART.get(word) == TEST for word in words.values())
    return {name: _PART.get(word, VAL if has_test else TEST) for name, word in words.items()}


def holds_split(columns: pd.DataFrame) -> bool:
    """Say whether there is a column ``split`` of words for parts alone, at least two of them.

    Examples
    --------
    >>> holds_split(pd.DataFrame({"split": ["train", None, "test"]})), holds_split(pd.DataFrame({"split": [1, 2]}))
    (True, False)
    """
    words = set(map(str, columns[SPLIT].dropna())) if SPLIT in columns else set()
    parts = parts_of(words)
    return parts.keys() == words and len(set(parts.values())) > 1


def is_plain(name: str) -> bool:
    """Say whether a folder's name says nothing of what is in it, as ``images`` or ``train``, so that it is no class.

    Examples
    --------
    >>> [name for name in ("images", "Test", "training_set", "cat") if is_plain(name)]
    ['images', 'Test', 'training_set']
    """
    return bool(_tokens(name, _PLAIN)) and bool(parts_of([name]) or not _tokens(name))


def _tokens(name: str, kept: Iterable[str] = ()) -> list[str]:
    """Return the words of a name in small letters, less those that are plain."""
    words = [word.casefold() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+|[^\W\d_a-zA-Z]+", name)]
    return [word for word in words if word not in _PLAIN or word in kept]
