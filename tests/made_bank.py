"""Banks of given embeddings, made without a network or images."""

from dataclasses import replace

import numpy as np
import pandas as pd

from featurebank import Bank
from featurebank.bank import samples
from featurebank.bank.spec import FeatureSpec
from featurebank.images.columns import tidy


def make_bank(path, layers, contents=None, **columns):
    """Make a bank: row i is the image ``i.png`` whose content is the number contents[i], by default i.

    `layers` maps names of layers to embeddings of shape (n, d); an array alone is the layer ``penultimate`` of ``net``.
    """
    layers = layers if isinstance(layers, dict) else {"penultimate": layers}
    n = len(next(iter(layers.values())))
    digests = [int(content).to_bytes(32, "big") for content in (range(n) if contents is None else contents)]
    first = {digest: row for row, digest in reversed(list(enumerate(digests)))}
    bank = Bank.create(path)
    for layer, X in layers.items():
        spec = FeatureSpec(
            "net", "1", "0" * 64, layer, "vector", 0, "none", {"crop": [4, 4]}, 1, "none", "fp32", "float32"
        )
        bank.add_spec(spec)
        bank.add_features(spec, list(first), np.asarray(X)[list(first.values())][:, None].astype(np.float32))
    plain = {"source": "/s", "root": "/s", "size": 1, "mtime_ns": 1, "status": samples.OK, "error": ""}
    fields = {name: [value] * n for name, value in {**plain, "row_hash": 0, "stamp": 0}.items()}
    fields |= {"path": [b"%03d.png" % i for i in range(n)], "digest": digests}
    frame = tidy(pd.DataFrame(columns, index=range(n)))
    bank.add_samples(samples.make_table(fields, frame), newest=0)
    return bank


def planted(random, groups=4, size=30, width=20, away=8.0):
    """Rows around axes of their own, and the number of each row's axis."""
    names = random.permutation(np.repeat(np.arange(groups), size))
    return random.normal(size=(len(names), width)) + away * np.eye(width)[names], names


def make_views_bank(path, random, n=60, count=4):
    """A bank of `count` views of each of n images, of two classes."""
    y = np.arange(n) % 2
    X = random.normal(size=(n, count, 8)) + y[:, None, None]
    bank = make_bank(path, X[:, 0], np.arange(n), label=np.where(y, "b", "a"))
    spec = replace(bank.feature_sets[0].spec, views="augment:4")
    bank.add_spec(spec)
    bank.add_features(spec, [int(i).to_bytes(32, "big") for i in range(n)], X.astype(np.float32))
    return bank, next(each.name for each in bank.feature_sets if each.spec == spec), X, y
