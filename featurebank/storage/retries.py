"""Requests to a store through fsspec: repeated when they fail, several at once."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, TypeVar

from featurebank.errors import StorageError, install_hint, one_line

LIBRARIES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "memory": "fsspec"}
"""The kinds of storage whose puts are atomic and, if asked, conditional; and the library for each."""
FORGOTTEN = ("memory",)
"""Those that end with the process: for tests."""
TRIES = 10
TOLD_AFTER = 3
"""Tries that fail before it is said that they do: a store's hiccup is no news, a minute of silence is."""
FIRST_DELAY = 0.2
LONGEST_DELAY = 20.0
AT_ONCE = 16
"""Requests under way at once."""
_FINAL = (FileNotFoundError, FileExistsError, PermissionError, NotImplementedError, ImportError, TypeError, ValueError)
_FINAL_NAMES = {"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "DefaultCredentialsError"}
_FINAL_NAMES |= {"ParamValidationError", "InvalidRegionError", "UnknownRegionError"}
_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")
_R = TypeVar("_R")


@lru_cache
def filesystem(protocol: str, process: int) -> Any:
    """Return fsspec's file system of a protocol, one a process: connections do not survive a fork.

    Raises
    ------
    StorageError
        When the library for it is not installed.
    """
    try:
        import fsspec

        files = fsspec.filesystem(protocol, use_listings_cache=False, skip_instance_cache=True)
    except ImportError as error:
        library = LIBRARIES[protocol]
        how = install_hint("cloud") if library in ("s3fs", "fsspec") else f"pip install {library}"
        raise StorageError(f"{protocol}:// needs {library}, which is not installed: {how}") from error
    if LIBRARIES[protocol] == "s3fs":  # it and botocore repeat requests too: a store that is down would take an hour
        files.retries = 1
        files.config_kwargs = {"retries": {"max_attempts": 0}, **files.config_kwargs}
    return files


def tried(action: str, address: object, call: Callable[[], _T]) -> _T:
    """Return what a request gives; one that fails is repeated, each time after a longer wait.

    Raises
    ------
    FileNotFoundError, FileExistsError
        As the request did.
    StorageError
        When it is refused, or has failed `TRIES` times.
    """
    for number in range(TRIES):
        try:
            return call()
        except (FileNotFoundError, FileExistsError, StorageError):
            raise
        except Exception as error:  # every store's library has kinds of its own for a request that failed on the way
            final = isinstance(error, _FINAL) or type(error).__name__ in _FINAL_NAMES
            if final or number == TRIES - 1:
                tries = "" if final else f" ({TRIES} tries)"
                raise StorageError(
                    f"cannot {action} {str(address)!r}: {one_line(error) or type(error).__name__}{tries}; check the "
                    "address, the credentials and the network"
                ) from error
            if number == TOLD_AFTER - 1:
                _tell(f"requests to {'/'.join(str(address).split('/')[:3])} fail ({one_line(error)})")
        time.sleep(_delay(number) * random.uniform(0.5, 1.5))
    raise AssertionError("the last try returns or raises")


def _delay(number: int) -> float:
    """Return the seconds to wait after a try."""
    return min(FIRST_DELAY * 2**number, LONGEST_DELAY)


@lru_cache
def _tell(what: str) -> None:
    """Say that requests fail, each kind once."""
    left = sum(map(_delay, range(TOLD_AFTER - 1, TRIES - 1)))
    _LOG.warning("%s; they are repeated for up to %.0f seconds", what, left)


def at_once(call: Callable[[_T], _R], items: Iterable[_T]) -> list[_R]:
    """Return what a function gives for each item, in their order, several requests under way at once."""
    with ThreadPoolExecutor(AT_ONCE, "featurebank-request") as pool:
        return list(pool.map(call, items))
