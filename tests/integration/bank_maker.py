"""A small bank with known rows, made without a network; shared by the tests of trust."""

import numpy as np
import pandas as pd

from featurebank import Bank
from featurebank.bank import samples
from featurebank.bank.spec import FeatureSpec
from featurebank.images.columns import tidy

SPEC = FeatureSpec("net", "", "0" * 64, "layer", "vector", 0, "none", {"crop": [4, 4]}, 1, "none", "fp32", "float16")
NAME = "net/layer"
WIDTH = 6


def digest(number):
    return int(number).to_bytes(32, "big")


def values(numbers):
    """The embedding of content i is i, i + 0.25, i + 0.5, …"""
    return (np.array(numbers, np.float32)[:, None] + np.arange(WIDTH, dtype=np.float32) / 4)[:, None]


def table(numbers, label="old"):
    n = len(numbers)
    fields = {
        "source": ["/photos"] * n,
        "root": ["/photos"] * n,
        "path": [b"%04d.png" % number for number in numbers],
        "digest": [digest(number) for number in numbers],
        "size": [1] * n,
        "mtime_ns": [1] * n,
        "status": [samples.OK] * n,
        "error": [""] * n,
        "row_hash": [0] * n,
        "stamp": [0] * n,
    }
    return samples.make_table(fields, tidy(pd.DataFrame({"label": [label] * n})))


def add(bank, numbers, label="old"):
    """Commit rows the way an extraction does: features, then the samples that point at them."""
    bank.add_features(SPEC, [digest(number) for number in numbers], values(numbers))
    with bank.locked():
        bank.add_samples(table(numbers, label), newest=bank.table.newest_stamp)


def make(path, *batches):
    bank = Bank.create(path)
    bank.add_spec(SPEC, {"asked": "for"})
    for numbers in batches:
        add(bank, numbers)
    return bank


def contents(bank):
    """Everything a reader can see: path -> (label, embedding)."""
    X, y, paths = bank.load(NAME, "label", return_paths=True)
    return {path: (str(label), tuple(row.tolist())) for path, label, row in zip(paths, y, X, strict=True)}


def expected(numbers, label="old"):
    return {f"{n:04d}.png": (label, tuple(values([n])[0, 0].tolist())) for n in numbers}
