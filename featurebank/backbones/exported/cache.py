"""The folder of exported networks: found by what they compute, shared by all processes, bounded in size.

A network is two files of one stem: ``STEM.onnx``, the graph with its weights, and ``STEM.npz``, what is known of it
(`featurebank.backbones.exported.record`). A record is written after its graph and names the graph's digest, so that
two writers, or one that is killed, leave a network that fits or one that is made again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from featurebank.backbones.exported.record import Record
from featurebank.bank.spec import FeatureSpec, digest_of
from featurebank.errors import EngineError, StorageError
from featurebank.storage import files

MOST_BYTES = 4 << 30
"""Networks that were used longest ago are removed where all of them take more."""
GRAPH, RECORD, LOCK, FAILED, NAME = ".onnx", ".npz", ".lock", ".failed", ".making"
ABANDONED = 3600.0
"""Seconds after which a file that is not whole is nobody's any more."""
_AFTER_THE_NETWORK = ("store", "views", "pixel_policy")
"""Fields of a feature spec that the network knows nothing of."""
_LAYER = ("layer", "layout", "prefix", "pool")
"""Fields in which the layers of one network differ."""


class Found(NamedTuple):
    """An exported network that gives the layers of some specs: its graph's file, its record, and which outputs."""

    path: Path
    record: Record
    outputs: list[int]


def folder() -> Path:
    """Return the folder of exported networks in the user's cache folder."""
    return files.cache_folder() / "onnx"


def path_of(specs: Sequence[FeatureSpec]) -> Path:
    """Return where the exported network of just these layers lies, or would lie."""
    return folder() / f"{network_of(specs[0])}-{digest_of(layers_of(specs))[:32]}{GRAPH}"


def network_of(spec: FeatureSpec) -> str:
    """Return the key that the layers of one network have in common."""
    network = {**spec.to_dict(), **dict.fromkeys((*_AFTER_THE_NETWORK, *_LAYER))}
    return digest_of({"network": network, "torch": version("torch")})[:32]


def layers_of(specs: Sequence[FeatureSpec]) -> list[list[str | int]]:
    """Return what tells the outputs of one network apart."""
    return [[getattr(spec, name) for name in _LAYER] for spec in specs]


def find(specs: Sequence[FeatureSpec], *, no_deeper: bool = False) -> Found | None:
    """Return an exported network that gives these layers, the one of the fewest others; None where there is none.

    Parameters
    ----------
    specs : sequence of FeatureSpec
        Of one network.
    no_deeper : bool, default False
        Take none that is computed further than these layers.
    """
    wanted, stem = layers_of(specs), network_of(specs[0])
    found: list[Found] = []
    for path in sorted(folder().glob(f"{stem}-*{GRAPH}")):
        with suppress(EngineError, FileNotFoundError):
            record = Record.read(path.with_suffix(RECORD))
            is_enough = all(layer in record.layers for layer in wanted)
            if is_enough and not (no_deeper and record.layers[record.deepest] not in wanted):
                found.append(Found(path, record, [record.layers.index(layer) for layer in wanted]))
    return min(found, key=lambda each: len(each.record.layers), default=None)


def read(specs: Sequence[FeatureSpec]) -> Found | None:
    """Return the exported network of just these layers; None where there is none."""
    path = path_of(specs)
    with suppress(EngineError, FileNotFoundError):
        record = Record.read(path.with_suffix(RECORD))
        if record.layers == layers_of(specs):
            return Found(path, record, list(range(len(specs))))
    return None


@contextmanager
def making(path: Path, backbone: str) -> Iterator[None]:
    """Hold the lock of a network that is to be made, so that whoever else wants it waits, and then finds it."""
    files.make_folder(path.parent)
    with files.locked(path.with_suffix(LOCK)):
        files.commit(path.with_suffix(NAME), backbone.encode())
        try:
            yield
        finally:
            files.remove(path.with_suffix(NAME))


def is_making(specs: Sequence[FeatureSpec]) -> bool:
    """Say whether a process is exporting the network of just these layers now."""
    return files.is_locked(path_of(specs).with_suffix(LOCK))


def being_made() -> list[tuple[str, float]]:
    """Return the backbones that processes are exporting now, and since when (seconds since 1970).

    What a killed process has left is not meant.
    """
    found = []
    for path in sorted(folder().glob(f"*{NAME}")):
        with suppress(FileNotFoundError):  # it is made by now
            if files.is_locked(path.with_suffix(LOCK)):
                found.append((path.read_text("utf-8"), path.stat().st_mtime))
    return found


def add(path: Path, graph: bytes, record: Record) -> None:
    """Keep an exported network, and remove those that were used longest ago where all take too much.

    Raises
    ------
    StorageError
        When the cache folder cannot be written.
    """
    files.commit(path, graph)
    files.commit(path.with_suffix(RECORD), record.encode())
    bound(path)
    _remove_abandoned()


def _remove_abandoned() -> None:
    """Remove what processes that were killed while they wrote have left."""
    for path in folder().glob(f"{files.TEMP_PREFIX}*"):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > ABANDONED:
                files.remove(path)


def add_failure(path: Path, why: str) -> None:
    """Note that a network cannot be exported with these libraries."""
    files.commit(path.with_suffix(FAILED), why.encode())


def has_failed(specs: Sequence[FeatureSpec]) -> bool:
    """Say whether the network of just these layers could not be exported when that was tried."""
    return path_of(specs).with_suffix(FAILED).exists()


def used(path: Path) -> None:
    """Note that a network is used now; a cache that cannot be written keeps its order."""
    with suppress(StorageError):
        files.mark_used(path)


def networks() -> list[tuple[Path, int]]:
    """Return the graph of each exported network and its bytes, the one that was used longest ago first."""
    listed = []
    for path in folder().glob(f"*{GRAPH}"):
        with suppress(FileNotFoundError):  # another process removed it meanwhile
            status, record = path.stat(), path.with_suffix(RECORD)
            listed.append(
                (status.st_mtime_ns, path, status.st_size + (record.stat().st_size if record.exists() else 0))
            )
    return [(path, size) for _, path, size in sorted(listed)]


def bound(kept: Path | None = None, most: int | None = None) -> int:
    """Remove the networks that were used longest ago until the others take at most so many bytes.

    Parameters
    ----------
    kept : Path, optional
        The graph of a network that stays.
    most : int, optional
        By default `MOST_BYTES`.

    Returns
    -------
    int
        Bytes that were freed.
    """
    every, limit = networks(), MOST_BYTES if most is None else most
    left, freed = sum(size for _, size in every), 0
    for path, size in every:
        if left - freed <= limit:
            break
        if path != kept:
            remove(path)
            freed += size
    return freed


def describe() -> dict[str, Any]:
    """Return the folder, the ``bytes`` of all networks and the most that they may take, and each network's facts.

    ``making`` has the names of those that are being exported now, ``making_since`` when that began.
    Of each network its ``backbone``, the digest of its ``weights``, ``layers``, ``bytes``, how far it is ``off`` plain
    PyTorch, and when it was ``used`` last. Times are seconds since 1970.
    """
    listed = []
    for path, size in networks():
        with suppress(EngineError, FileNotFoundError):
            record, used_at = Record.read(path.with_suffix(RECORD)), path.stat().st_mtime
            names = [f"{layer}:{pool}" for layer, _, _, pool in record.layers]
            facts = {"backbone": record.backbone, "weights": record.weights, "layers": names, "bytes": size}
            listed.append({**facts, "off": record.off, "used": used_at})
    making = being_made()
    return {
        "folder": str(folder()),
        "bytes": sum(each["bytes"] for each in listed),
        "most": MOST_BYTES,
        "networks": listed,
        "making": [name for name, _ in making],
        "making_since": [since for _, since in making],
    }


def clear() -> int:
    """Remove every exported network; return the bytes that were freed."""
    for path in folder().glob(f"*{FAILED}"):
        files.remove(path)
    return bound(most=0)


def remove(path: Path) -> None:
    """Remove a network, its record first."""
    for suffix in (RECORD, GRAPH):
        files.remove(path.with_suffix(suffix))
