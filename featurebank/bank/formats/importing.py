"""From files of embeddings to a bank: other tools' files, and what `export_bank` wrote, which comes back as it was."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featurebank import __version__
from featurebank.bank import sample_segments
from featurebank.bank import samples as sample_tables
from featurebank.bank.bank import Bank, BankLike
from featurebank.bank.features import as_keys
from featurebank.bank.formats import FORMATS, READERS, clip_retrieval, hdf5, slides, thingsvision
from featurebank.bank.formats.collection import KEY, Collection, Stream, counting
from featurebank.bank.label_paths import meant_paths
from featurebank.bank.samples import GONE, NO_DIGEST, OK, SampleTable
from featurebank.bank.spec import FeatureSpec, digest_of, imported_spec, parse_name
from featurebank.errors import BankError, CorruptError, FeatureSetError, SourceError, counted, near_names
from featurebank.images.columns import overlay, row_hashes
from featurebank.images.matching import near_path
from featurebank.images.reading import Progress

LAYOUTS = {1: "vector", 2: "tokens", 3: "NCHW"}
"""The layout of a row without its views, by its number of sides."""


def import_features(
    path: str | os.PathLike[str],
    bank: BankLike,
    *,
    kind: str | None = None,
    backbone: str | None = None,
    source: str | os.PathLike[str] | None = None,
    samples: str | os.PathLike[str] | None = None,
    path_column: str | None = None,
    separator: str | None = None,
    encoding: str | None = None,
    labels_as: str = "auto",
    features: str | None = None,
    columns: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Put embeddings that are in files into a bank, a batch at a time.

    A file of `export_bank` comes back as it was, under the same fingerprints. What another tool computed becomes a
    feature set of its own, whose spec names the files' URL and digest: nothing here can embed an image for it.
    Importing again writes only what the bank lacks.

    Rows belong to samples by name. A sample that the bank has already, of the `source` that is named, gets the rows
    beside those it has. Others become samples without a file, and are told apart by their names alone, since what their
    images hold is not known.

    Parameters
    ----------
    path : path-like
        A file or folder.
    bank : path-like or Bank
        Made when it does not exist.
    kind : str, optional
        One of `READERS`; by default what the path looks like.
    backbone : str, optional
        What made another tool's features, for their names; by default the path's stem.
    source : str, optional
        The source of another tool's samples: the folder or manifest that was extracted, so that rows go beside those of
        its files; or any name. By default the URL of `path`.
    samples : path-like, optional
        The table that names the rows of a ``.npy`` file.
    path_column : str, optional
        Column of the names, ``"path"`` or clip-retrieval's ``"image_path"`` by default.
    separator, encoding : str, optional
        Of the table of a ``.npy`` file, where it is one of text; by default found.
    labels_as : str, default "auto"
        What the columns of that table become: ``"auto"`` makes numbers of text where that loses nothing, ``"text"``
        never, ``"numbers"`` also where it does.
    features : str, optional
        Column of the features in another tool's Parquet file.
    columns : sequence of str, optional
        Columns to keep of another tool's table; by default all.
    progress : callable, optional
        Called with (rows done, rows in all).

    Returns
    -------
    dict
        ``path``, ``kind``, ``samples``, how many of them are ``new``, and of each of ``feature_sets`` what
        ``featurebank info`` says and how many rows were ``written``.

    Raises
    ------
    FeatureBankError
        A child of it says what was found, what was expected and what to do.

    See Also
    --------
    export_bank : The way out.
    extract : Embed images here.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> np.save(folder / "clip.npy", np.eye(3, dtype="float16"))
    >>> pd.DataFrame({"path": list("abc"), "label": list("xyx")}).to_csv(folder / "clip.csv", index=False)
    >>> import_features(folder / "clip.npy", folder / "a.bank")["feature_sets"][0]["name"]
    'clip/features'
    >>> Bank(folder / "a.bank").load("clip/features", "label")[1].tolist()
    ['x', 'y', 'x']
    """
    file = Path(path)
    kind = kind or kind_of_file(file)
    options = {
        "samples": samples and Path(samples),
        "path_column": path_column,
        "separator": separator,
        "encoding": encoding,
        "labels_as": None if labels_as == "auto" else labels_as,
        "features": features,
        "columns": columns,
    }
    collection = read(file, kind, {name: value for name, value in options.items() if value is not None})
    if collection.sources is not None:
        _refuse_options({**options, "backbone": backbone, "source": source}, file)
    opened = bank if isinstance(bank, Bank) else Bank.create(bank)
    specs = [each.spec or _own_spec(opened, each, collection, file, kind, backbone) for each in collection.streams]
    sources = collection.sources or [_source(opened, source, file)] * len(collection)
    collection = _relative(opened, collection, sources)
    digests = _digests(opened.table, collection, sources)
    advance = counting(progress, len(collection) * len(specs))
    written = [
        _write_rows(opened, spec, stream, digests, collection, kind, advance)
        for spec, stream in zip(specs, collection.streams, strict=True)
    ]
    new = _write_samples(opened, collection, sources, digests)
    names = {each.fingerprint: each for each in opened.feature_sets}
    sets = [{**names[spec.fingerprint].to_dict(), "written": n} for spec, n in zip(specs, written, strict=True)]
    return {"path": str(file), "kind": kind, "samples": len(collection), "new": new, "feature_sets": sets}


# --- reading -----------------------------------------------------------------------------------------------


def kind_of_file(path: Path) -> str:
    """Return which of `READERS` fits a path."""
    if not path.exists():
        raise SourceError(f"{str(path)!r} does not exist; expected a file or folder of features")
    if path.is_dir():
        fitting = {"clip-retrieval": clip_retrieval.is_one(path), "thingsvision": thingsvision.is_one(path)}
        fitting["slides"] = bool(slides.slide_files(path))
        found = next((kind for kind, fits in fitting.items() if fits), None)
    elif path.suffix.lower() in slides.SUFFIXES:
        with hdf5.opened(path) as file:
            found = "hdf5" if KEY in file else "slides"
    else:
        ends = {".npy": "numpy"} | {end: name for name, suffixes in FORMATS.items() for end in suffixes}
        found = ends.get(path.suffix.lower())
    if found is None:
        raise SourceError(
            f"{str(path)!r} looks like no file of features; say what it is with --from {'|'.join(READERS)}"
        )
    return found


def read(path: Path, kind: str, options: Mapping[str, Any]) -> Collection:
    """Return what a file or folder holds; no row is read yet."""
    if kind not in READERS:
        raise BankError(f"no format {kind!r}; {near_names(kind, READERS)}")
    module, takes = READERS[kind]
    strange = sorted(set(options) - takes)
    if strange:
        raise BankError(f"{strange[0].replace('_', ' ')} does not go with {kind}: leave it out")
    found: Collection = import_module(f"featurebank.bank.formats.{module}").read(path, **options)
    if not len(found):
        raise SourceError(f"{str(path)!r} has no row; expected at least one")
    return found


def _refuse_options(options: Mapping[str, Any], path: Path) -> None:
    """Refuse what says how another tool's file is to be read: an export says it itself."""
    strange = [name.replace("_", " ") for name, value in options.items() if value is not None]
    if strange:
        raise BankError(f"{strange[0]} does not go with {str(path)!r}, which featurebank exported: leave it out")


# --- names -------------------------------------------------------------------------------------------------


def _own_spec(
    bank: Bank, stream: Stream, collection: Collection, path: Path, kind: str, backbone: str | None
) -> FeatureSpec:
    """Return the spec of another tool's features; the one that the bank has of the same bytes and name, if any."""
    name = f"{backbone or path.stem or kind}/{stream.name}"
    if not all(name.partition("/")) or "@" in name or parse_name(name).pool or not name.isprintable():
        raise FeatureSetError(f"{name!r} cannot name a feature set; expected letters and digits: name the backbone")
    spec = imported_spec(name, origin_of(kind, path, collection.files), LAYOUTS[len(stream.shape) - 1], stream.dtype)
    assert spec.origin is not None
    for each in bank.feature_sets:
        there = each.spec.origin or {}
        if each.spec.name == spec.name and there.get("sha256") == spec.origin["sha256"]:
            return each.spec
    return spec


def origin_of(kind: str, path: Path, files: Sequence[Path]) -> dict[str, str]:
    """Return the origin that stands in the spec of imported features.

    That is ``format``: what wrote the files; ``url`` of `path`, as fsspec takes it; ``sha256`` of the file, or of the
    names and digests of several in canonical JSON.
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


def _source(bank: Bank, source: Any, path: Path) -> str:
    """Return the key of the source that is meant: one of the bank's, by its name or path, or a new one."""
    if source is None:
        return path.absolute().as_uri()
    name, known = os.fspath(source), set(bank.table.rows["source"])
    return os.path.abspath(name) if name not in known and os.path.abspath(name) in known else name


def _relative(bank: Bank, collection: Collection, sources: Sequence[str]) -> Collection:
    """Return the samples with names relative to the folder of their source, and refuse what is named twice."""
    rows = bank.table.rows
    roots = {source: os.fsencode(root) for source, root in zip(rows["source"], rows["root"], strict=True) if root}
    paths = [_below(path, roots.get(source)) for path, source in zip(collection.paths, sources, strict=True)]
    if collection.digests is None and sources[0] in roots:  # names of another tool, perhaps of another machine
        meant = meant_paths(bank.table, list(map(os.fsdecode, paths)), sources)
        paths = list(map(os.fsencode, meant))
    seen: set[tuple[str, bytes]] = set()
    for key in zip(sources, paths, strict=True):
        if key in seen or not key[1]:
            found = f"names {os.fsdecode(key[1])!r} more than once" if key[1] else "has a row without a name"
            raise BankError(f"the file {found}; expected one row an image, and a name for each")
        seen.add(key)
    if collection.digests is None and sources[0] in roots:
        _refuse_unknown(bank.table, sources[0], paths)
    return replace(collection, paths=paths)


def _below(path: bytes, root: bytes | None) -> bytes:
    return os.path.relpath(path, root) if root and path.startswith(root.rstrip(b"/") + b"/") else path


def _refuse_unknown(table: SampleTable, source: str, paths: Sequence[bytes]) -> None:
    """Refuse names that a source with files does not have: they are mistyped, or relative to another folder."""
    found = table.find(source, paths)
    if (found < 0).any():
        name = os.fsdecode(paths[int(np.argmax(found < 0))])
        near = near_path(name, table.rows["path"])
        hint = f" (near: {near!r})" if near else ""
        raise BankError(
            f"{int((found < 0).sum())} of {len(paths)} names are not in {source!r}, the first {name!r}{hint}; expected "
            "paths as `featurebank info BANK --samples` lists them: extract the source first, or name another --source"
        )


def _digests(table: SampleTable, collection: Collection, sources: Sequence[str]) -> list[bytes]:
    """Return the key of each row: the content that is known for the sample, or else a digest of its name."""
    found = _find(table, sources, collection.paths)
    known = table.rows["digest"].to_numpy()
    if collection.digests is None:
        there = [known[at] if at >= 0 else NO_DIGEST for at in found]
        names = zip(sources, collection.paths, there, strict=True)
        return [digest if digest != NO_DIGEST else name_digest(source, path) for source, path, digest in names]
    for path, digest, at in zip(collection.paths, collection.digests, found, strict=True):
        if at >= 0 and known[at] not in (digest, NO_DIGEST):
            raise BankError(
                f"{os.fsdecode(path)!r} has other content in the bank than in the file; expected the same image: "
                "import into a new bank"
            )
    return collection.digests


def name_digest(source: str, path: bytes) -> bytes:
    """Return what stands for the content of an image that is known by its name alone, 32 bytes long."""
    return hashlib.sha256(b"featurebank name\0" + sample_segments.encode_text(source) + b"\0" + path).digest()


def _find(table: SampleTable, sources: Sequence[str], paths: Sequence[bytes]) -> NDArray[np.int64]:
    """Return the position of each sample in the bank's table, -1 where it has none."""
    found, own = np.full(len(paths), -1), np.array(sources, object)
    for source in dict.fromkeys(sources):
        here = np.flatnonzero(own == source)
        found[here] = table.find(source, [paths[int(row)] for row in here])
    return found


# --- writing -----------------------------------------------------------------------------------------------


def _write_rows(
    bank: Bank,
    spec: FeatureSpec,
    stream: Stream,
    digests: list[bytes],
    collection: Collection,
    kind: str,
    advance: Callable[[int], None],
) -> int:
    """Write the rows that a feature set lacks, each content once; return how many."""
    _check(bank, spec, stream)
    bank.add_spec(spec)
    for request in stream.requests:
        bank.add_spec(spec, request)
    keys = as_keys(digests)
    wanted = np.zeros(len(keys), bool)
    wanted[np.unique(keys, return_index=True)[1]] = True
    wanted &= bank.feature_set_of(spec).find(keys) < 0
    start = 0
    for batch in stream.batches(collection.at_once):
        rows = start + np.flatnonzero(wanted[start : start + len(batch)])
        if len(rows):
            values = batch[rows - start]
            _check_finite(values, rows, collection.paths)
            made_by = {"featurebank": __version__, "imported": kind}
            bank.add_features(spec, [digests[row] for row in rows], values, made_by)
        start += len(batch)
        advance(len(batch))
    if start != len(keys):
        counts = f"{counted(start, 'row')} for {counted(len(keys), 'sample')}"
        raise CorruptError(f"{stream.name!r} has {counts}; expected as many: make it again")
    return int(wanted.sum())


def _check(bank: Bank, spec: FeatureSpec, stream: Stream) -> None:
    """Refuse rows that are not of the feature set they are said to belong to."""
    if spec.store != stream.dtype:
        raise CorruptError(f"{stream.name!r} holds {stream.dtype}, its spec says {spec.store}: make the file again")
    shape = bank.feature_set_of(spec).shape
    if shape and shape != stream.shape:
        raise BankError(f"{stream.name!r} has rows of {stream.shape}, the bank has {shape}: import into a new bank")


def _check_finite(values: NDArray[Any], rows: NDArray[np.int64], paths: Sequence[bytes]) -> None:
    finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
    if not finite.all():
        name = os.fsdecode(paths[int(rows[~finite][0])])
        raise BankError(f"the row of {name!r} holds values that are not finite; expected numbers: leave it out")


def _write_samples(bank: Bank, collection: Collection, sources: Sequence[str], digests: list[bytes]) -> int:
    """Write the samples that the bank lacks, and the columns that differ of those it has; return how many are new."""
    with bank.locked():
        table = bank.table
        found, newest = _find(table, sources, collection.paths), table.newest_stamp
        new = np.flatnonzero(found < 0)
        bank.add_samples(_new_rows(collection, sources, digests, new), newest=newest)
        known = np.flatnonzero(found >= 0)
        if len(known):
            bank.add_samples(_changed(table.take(found[known]), collection.columns.iloc[known]), newest=newest)
    return len(new)


def _new_rows(
    collection: Collection, sources: Sequence[str], digests: list[bytes], which: NDArray[np.int64]
) -> SampleTable:
    columns = collection.columns.iloc[which]
    same = {"root": "", "size": 0, "mtime_ns": 0, "status": OK, "error": "", "stamp": 0}
    fields: dict[str, Sequence[Any]] = {name: [value] * len(which) for name, value in same.items()}
    fields["source"], fields["path"] = (
        [sources[int(row)] for row in which],
        [collection.paths[int(row)] for row in which],
    )
    fields["digest"] = [digests[int(row)] for row in which]
    fields["row_hash"] = row_hashes(columns).tolist()
    return sample_tables.make_table(fields, columns)


def _changed(old: SampleTable, fresh: pd.DataFrame) -> SampleTable:
    """Return the known samples that get other columns, or that are no longer gone since they never had a file."""
    columns = overlay(old.columns, fresh.reset_index(drop=True))
    is_back = ((old.rows["status"] == GONE) & (old.rows["root"] == "")).to_numpy()
    rows = old.rows.assign(status=old.rows["status"].where(~is_back, OK).astype(np.uint8))
    changed = is_back | (row_hashes(columns) != row_hashes(old.columns))
    return SampleTable(rows, columns).take(changed)
