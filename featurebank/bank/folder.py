"""What lies on disk under a bank's name: segments of samples and of features, specs, requests, the lock."""

from __future__ import annotations

import json
import operator
import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from featurebank import __version__
from featurebank.bank import features, sample_segments, samples, segment
from featurebank.bank.features import FeatureSet, as_keys
from featurebank.bank.samples import SampleTable
from featurebank.bank.segment import Segment
from featurebank.bank.spec import FeatureSpec, canonical_json, digest_of, resolve_name, unique_names
from featurebank.errors import BankError, CorruptError, StorageError
from featurebank.images.pixels import PLAIN, Limits, PixelRules
from featurebank.images.table_options import OF_TABLES
from featurebank.storage import files
from featurebank.storage.files import AnyPath
from featurebank.storage.objects import ObjectPath

FORMAT = "featurebank"
VERSION = 1
_MAX_JSON = 1 << 20


class BankFolder:
    """The files of a bank: read as tables and feature sets, added to, never changed.

    Parameters
    ----------
    path : path-like or str
        See `featurebank.Bank`.
    """

    def __init__(self, path: str | os.PathLike[str] | ObjectPath):
        self.path = files.as_path(path)
        self._made: dict[str, tuple[tuple[Segment, ...], Any]] = {}
        file = self.path / "bank.json"
        if not file.is_file():
            found = "exists but is no bank" if self.path.exists() else "does not exist"
            raise BankError(f"{str(self.path)!r} {found}; expected a folder made by `featurebank extract`")
        facts = _read_json(file)
        if not isinstance(facts, dict) or facts.get("format") != FORMAT:
            raise BankError(f"{str(file)!r} does not describe a bank; expected format {FORMAT!r}")
        if facts.get("version") != VERSION:
            raise BankError(
                f"{str(self.path)!r} is a bank of version {facts.get('version')}; this reads {VERSION}: upgrade"
            )

    @classmethod
    def create(cls, path: str | os.PathLike[str] | ObjectPath) -> Self:
        """Open the bank at `path`, making an empty one where there is none.

        Raises
        ------
        BankError
            When `path` is something else already.
        StorageError
            When it cannot be made.
        """
        folder = files.as_path(path)
        if not (folder / "bank.json").exists():
            if folder.exists() and not _is_blank(folder):
                raise BankError(f"{str(folder)!r} exists and is no bank; name a new folder")
            files.make_folder(folder)
            facts = {"format": FORMAT, "version": VERSION, "written_by": f"featurebank {__version__}"}
            files.commit(folder / "bank.json", json.dumps(facts, indent=2).encode())
        files.make_folder(folder / "samples")
        files.make_folder(folder / "features")
        return cls(folder)

    # --- samples -------------------------------------------------------------------------------------------

    @property
    def table(self) -> SampleTable:
        """Every sample with its columns, sorted by (source, path bytes); not to be changed."""
        return self.table_of(self.sample_segments())

    def sample_segments(self) -> tuple[Segment, ...]:
        """The files that the sample table is read from."""
        return tuple(segment.list_segments(self.path / "samples", "samples"))

    def table_of(self, segments: tuple[Segment, ...]) -> SampleTable:
        """Return the sample table that is read from some files; see `table`."""
        return self._kept("samples", segments, lambda: samples.merge(map(sample_segments.decode_table, segments)))

    def _kept(self, key: str, segments: tuple[Segment, ...], make: Callable[[], Any]) -> Any:
        """Return what was made of segment files the last time, as long as they are the same; else make it."""
        before, made = self._made.get(key, ((), None))
        if made is None or len(before) != len(segments) or not all(map(operator.is_, before, segments)):
            made = make()
            self._made[key] = segments, made
        return made

    def add_samples(self, table: SampleTable, *, newest: int) -> list[str]:
        """Write rows of samples as one segment, stamped above `newest`; return its name, none where there are no rows.

        The caller holds `locked` from reading the table to here, so that no other update is lost.
        """
        if not len(table):
            return []
        rows, name = table.rows.assign(stamp=np.uint64(samples.next_stamp(newest))), segment.new_name()
        files.commit(self.path / "samples" / name, sample_segments.encode_table(SampleTable(rows, table.columns)))
        return [name]

    def locked(self) -> Any:
        """Return a context that holds the bank's lock; needed to update samples and to compact, not to add features."""
        return files.locked(self.path / ".lock")

    # --- sources -------------------------------------------------------------------------------------------

    def keep_named_options(self, source: str, options: Mapping[str, str]) -> None:
        """Keep what the user had to name so that a source is read (`named_options`), as the next reading needs it."""
        file = self._source_file(source)
        if options != self.named_options(source):
            files.make_folder(file.parent)
            files.commit(file, canonical_json({"source": source, "options": dict(options)}))

    def named_options(self, source: str) -> dict[str, str]:
        """Return the options of tables that a source was last read with, by option of ``featurebank extract``."""
        try:
            found = _read_json(file) if (file := self._source_file(source)).exists() else {}
            options = found["options"] if found else {}
            return {name: options[name] for name in OF_TABLES if isinstance(options.get(name), str)}
        except (CorruptError, KeyError, TypeError, AttributeError):  # a hint that lacks them is better than none
            return {}

    def _source_file(self, source: str) -> AnyPath:
        return self.path / "sources" / f"{digest_of({'source': source})}.json"

    # --- features ------------------------------------------------------------------------------------------

    @property
    def feature_sets(self) -> list[FeatureSet]:
        """The feature sets, sorted by name."""
        specs = self._specs()
        return [self._open_set(spec, name) for spec, name in zip(specs, unique_names(specs), strict=True)]

    def feature_set(self, name: str) -> FeatureSet:
        """Return the feature set of a name (`featurebank.bank.spec.parse_name`).

        Raises
        ------
        FeatureSetError
            When no set has this name, or several do.
        """
        specs = self._specs()
        spec = resolve_name(name, specs)
        return self._open_set(spec, unique_names(specs)[specs.index(spec)])

    def feature_set_of(self, spec: FeatureSpec) -> FeatureSet:
        """Return the feature set of a spec, empty when the bank has none."""
        return self._open_set(spec, spec.name)

    def _open_set(self, spec: FeatureSpec, name: str) -> FeatureSet:
        segments = tuple(segment.list_segments(self.feature_folder(spec), "features"))
        features.check_segments(segments, spec.fingerprint)
        found: FeatureSet = self._kept(spec.fingerprint, segments, lambda: FeatureSet(spec, name, segments))
        return found if found.name == name else replace(found, name=name)

    def feature_folder(self, spec: FeatureSpec) -> AnyPath:
        """Return the folder of a spec's segments."""
        return self.path / "features" / spec.fingerprint

    @property
    def pixels(self) -> PixelRules:
        """The pixel rules that pictures of samples are shown by: the first of a set that are not the default."""
        return next((spec.pixels for spec in self._specs() if spec.pixels), PLAIN)

    @property
    def ranges(self) -> list[Limits | None]:
        """The ranges of the feature sets that were extracted, None for the full one."""
        return [spec.pixels.limits for spec in self._specs() if spec.origin is None]

    def missing(self, spec: FeatureSpec, digests: Iterable[bytes]) -> set[bytes]:
        """Return those of `digests` that the feature set of a spec has no row for."""
        wanted = sorted(set(digests))
        if not wanted:
            return set()
        found = self.feature_set_of(spec).find(as_keys(wanted))
        return {digest for digest, position in zip(wanted, found, strict=True) if position < 0}

    def add_spec(self, spec: FeatureSpec, request: Mapping[str, Any] | None = None) -> None:
        """Make the folder of a feature set, and keep the request that led to it."""
        folder = self.feature_folder(spec)
        if not (folder / "spec.json").exists():
            files.make_folder(folder / "requests")
            files.commit(folder / "spec.json", canonical_json(spec.to_dict()))
        if request is not None:
            file = folder / "requests" / f"{digest_of(request)}.json"
            if not file.exists():
                files.commit(file, canonical_json(request))

    def find_spec(self, request: Mapping[str, Any]) -> FeatureSpec | None:
        """Return the spec that an earlier request of the same content led to, without loading torch."""
        name = f"{digest_of(request)}.json"
        return next((spec for spec in self._specs() if (self.feature_folder(spec) / "requests" / name).is_file()), None)

    def requests_of(self, spec: FeatureSpec) -> list[dict[str, Any]]:
        """Return the requests that led to a spec, the last one last; empty for a custom module."""
        paths: list[AnyPath] = [*(self.feature_folder(spec) / "requests").glob("*.json")]
        return [_read_json(file) for file in sorted(paths, key=lambda file: file.stat().st_mtime_ns)]

    def add_features(
        self,
        spec: FeatureSpec,
        digests: Sequence[bytes],
        values: NDArray[Any],
        made_by: Mapping[str, str] | None = None,
    ) -> None:
        """Write rows of a feature set as one segment; no lock is needed.

        Parameters
        ----------
        spec : FeatureSpec
            The set; `add_spec` comes first.
        digests : sequence of n bytes of length 32
            Content digests.
        values : ndarray of float, shape (n, views, …)
            Embeddings.
        made_by : mapping, optional
            Library versions and device that computed them.

        Raises
        ------
        BankError
            When float16 cannot hold a value.
        StorageError
            When the file system refuses.
        """
        self.add_stored(spec, digests, features.to_stored(values, spec), made_by)

    def add_stored(
        self,
        spec: FeatureSpec,
        digests: Sequence[bytes],
        stored: NDArray[Any],
        made_by: Mapping[str, str] | None = None,
    ) -> None:
        """Write rows that are in their stored dtype (`features.to_stored`) as one segment; see `add_features`."""
        files.commit(
            self.feature_folder(spec) / segment.new_name(), features.encode_rows(spec, digests, stored, made_by)
        )

    def _specs(self) -> list[FeatureSpec]:
        paths: list[AnyPath] = [*self.path.glob("features/*/spec.json")]
        return sorted((self.read_spec(file) for file in paths), key=lambda spec: (spec.name, spec.fingerprint))

    def read_spec(self, file: AnyPath) -> FeatureSpec:
        """Return the spec that a feature set's folder holds as ``spec.json``.

        Raises
        ------
        CorruptError
            When it is damaged, or of another feature set.
        """
        spec = FeatureSpec.from_dict(_read_json(file))
        if spec.fingerprint != file.parent.name:
            raise CorruptError(f"{str(file.parent)!r} holds the spec of another feature set: {segment.REPAIR_HINT}")
        return spec


def _is_blank(folder: AnyPath) -> bool:
    """Say whether a folder holds nothing, or just what a killed maker of a bank left."""
    return folder.is_dir() and all(path.name.startswith(files.TEMP_PREFIX) for path in folder.iterdir())


def _read_json(file: AnyPath) -> Any:
    try:
        status = file.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_JSON:
            raise CorruptError(f"{str(file)!r} is a link, a special file or too large; expected a small JSON file")
        return json.loads(file.read_bytes())
    except (CorruptError, StorageError):
        raise
    except (OSError, ValueError) as error:
        raise CorruptError(f"{str(file)!r} cannot be read as JSON; restore it, or extract into a new bank") from error
