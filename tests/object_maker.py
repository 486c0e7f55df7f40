"""What tests of object storage share: a store in memory that fails, and banks of rows that no network gave."""

import itertools
import uuid

import fsspec
import numpy as np
import pandas as pd

from featurebank.bank import samples
from featurebank.bank.spec import FeatureSpec

SPEC = FeatureSpec("net", "", "0" * 64, "fc", "vector", 0, "none", {"crop": [4, 4]}, 1, "none", "fp32", "float32")


class FaultyStore:
    """fsspec's memory, every n-th request to which fails: on the way there, on the way back, or half way through.

    With a lag, listings are that many listings old.
    """

    def __init__(self, every=0, lag=0):
        self.store = fsspec.filesystem("memory")
        self.every, self.lag = every, lag
        self.requests, self.failures = itertools.count(1), itertools.count()
        self.failed = 0
        self.listings = []

    def _request(self, call, half=None):
        if not self.every or next(self.requests) % self.every:
            return call()
        self.failed += 1
        kind = next(self.failures) % (2 if half is None else 3)
        if kind == 0:
            raise TimeoutError("no answer")
        (call if kind == 1 else half)()
        raise OSError(5, "503 Slow Down")

    def info(self, path):
        return self._request(lambda: self.store.info(path))

    def find(self, path, detail):
        def find():
            self.listings.append(self.store.find("/", detail=True))
            seen = self.listings[max(0, len(self.listings) - 1 - self.lag)]
            root = self.store._strip_protocol(path)
            return {name: info for name, info in seen.items() if name.startswith(root + "/")}

        return self._request(find)

    def cat_file(self, path, *, start=None, end=None):
        return self._request(lambda: self.store.cat_file(path, start, end))

    def pipe_file(self, path, data, mode="overwrite"):
        half = None if mode == "create" else lambda: self.store.pipe_file(path, data[: len(data) // 2])
        return self._request(lambda: self.store.pipe_file(path, data, mode=mode), half)

    def rm_file(self, path):
        return self._request(lambda: self.store.rm_file(path))


def new_address(name="x.bank"):
    """Return an address in memory that no other test has."""
    return f"memory://{uuid.uuid4().hex}/{name}"


def digest(number):
    return number.to_bytes(32, "big")


def add_rows(bank, numbers, source="/photos", column="label"):
    """Add samples ``1.png``, … whose contents are the numbers, with their rows."""
    count = len(numbers)
    same = {"source": source, "root": source, "size": 1, "mtime_ns": 1, "status": samples.OK, "error": ""}
    fields = {name: [value] * count for name, value in (same | {"row_hash": 0, "stamp": 0}).items()}
    fields |= {"path": [b"%d.png" % number for number in numbers], "digest": [digest(number) for number in numbers]}
    bank.add_spec(SPEC)
    bank.add_features(SPEC, fields["digest"], np.array(numbers, np.float32)[:, None, None])
    columns = pd.DataFrame({column: pd.Series(["odd" if n % 2 else "even" for n in numbers], dtype=object)})
    with bank.locked():
        bank.add_samples(samples.make_table(fields, columns), newest=bank.table.newest_stamp)


def fill(bank):
    """Add 40 samples in five segments, correct two labels, and compact until nothing is left to do."""
    for start in range(0, 40, 8):
        add_rows(bank, list(range(start + 1, start + 9)))
    bank.label(pd.DataFrame({"path": ["1.png", "9.png"], "label": ["new", "newer"]}))
    bank.compact(grace=0)
    bank.compact(grace=0)


def contents(bank):
    """Return everything that a bank says, but for where and when."""
    X, paths = bank.load("net/fc", return_paths=True)
    return X.tolist(), paths, bank.samples.astype(object).where(bank.samples.notna(), None).to_dict("list")
