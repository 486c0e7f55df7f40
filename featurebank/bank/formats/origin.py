"""Where imported features came from: what wrote the files, their URL, and a digest of their bytes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from featurebank.bank.spec import digest_of
from featurebank.errors import SourceError


def origin_of(kind: str, path: Path, files: Sequence[Path]) -> dict[str, str]:
    """Return the origin that stands in the spec of imported features.

    Parameters
    ----------
    kind : str
        What wrote the files.
    path : Path
        The file or folder that was named.
    files : sequence of Path
        The files that are read.

    Returns
    -------
    dict
        ``format``; ``url``, as fsspec takes it; ``sha256``: that of the file, of several files that of their names and
        digests in canonical JSON.

    Raises
    ------
    SourceError
        When a file cannot be read.
    """
    digests = [_sha256(file) for file in files]
    names = [os.fsdecode(os.path.relpath(file, path.parent)) for file in files]
    whole = digests[0] if len(files) == 1 else digest_of(sorted(zip(names, digests, strict=True)))
    return {"format": kind, "url": path.absolute().as_uri(), "sha256": whole}


def _sha256(file: Path) -> str:
    try:
        with open(file, "rb", buffering=0) as raw:
            return hashlib.file_digest(raw, "sha256").hexdigest()
    except OSError as error:
        raise SourceError(f"{str(file)!r} cannot be read: {error.strerror}; make it readable") from error
