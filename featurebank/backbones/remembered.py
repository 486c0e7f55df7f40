"""Which feature spec a request led to, kept in the user's cache: the next bank's is known without loading a network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from featurebank import __version__
from featurebank.bank.spec import FeatureSpec, digest_of
from featurebank.errors import CorruptError, StorageError
from featurebank.images.decoding import PIXEL_POLICY
from featurebank.storage import files

_CHOSEN = ("store", "views")
"""What a request says and no network is needed for."""


def remember(asked: Mapping[str, Any], spec: FeatureSpec) -> None:
    """Keep what a request led to; a cache that cannot be written keeps nothing."""
    path = _path(asked)
    with suppress(StorageError):
        files.make_folder(path.parent)
        files.commit(path, json.dumps(spec.to_dict()).encode("ascii"))


def recall(asked: Mapping[str, Any]) -> FeatureSpec | None:
    """Return the spec that a request led to before, with these libraries and an unchanged file of weights.

    Parameters
    ----------
    asked : mapping
        What a bank keeps of a request (`featurebank.backbones.request.Request.to_dict`).
    """
    try:
        spec = FeatureSpec.from_dict(json.loads(_path(asked).read_bytes()))
    except (OSError, ValueError, CorruptError):
        return None
    if spec.pixel_policy != PIXEL_POLICY:
        return None
    return replace(spec, **{name: asked[name] for name in _CHOSEN})


def _path(asked: Mapping[str, Any]) -> Path:
    key = {**asked, **dict.fromkeys(_CHOSEN), "featurebank": __version__}
    return files.cache_folder() / "specs" / f"{digest_of(key)}.json"
