"""Banks of known embeddings in two domains, made without a network; shared by the tests of domain adaptation."""

import numpy as np
import pandas as pd

from featurebank import Bank
from featurebank.bank import samples
from featurebank.bank.spec import FeatureSpec
from featurebank.images.columns import tidy

SPEC = FeatureSpec("net", "1", "0" * 64, "layer", "vector", 0, "none", {"crop": [4, 4]}, 1, "none", "fp32", "float32")
MODEL = {"logreg": {"C": [1.0]}}


def make_bank(path, X, contents=None, **columns):
    """A bank of given embeddings: row i is the image ``iii.png`` whose content is the number contents[i]."""
    bank, n = Bank.create(path), len(X)
    digests = [int(content).to_bytes(32, "big") for content in (range(n) if contents is None else contents)]
    first = {digest: row for row, digest in reversed(list(enumerate(digests)))}
    bank.add_spec(SPEC, {"backbone": "net", "weights": "random:0", "size": None, "file": None})
    bank.add_features(SPEC, list(first), X[list(first.values())][:, None].astype(np.float32))
    plain = {"source": "/s", "root": "/s", "size": 1, "mtime_ns": 1, "status": samples.OK}
    plain |= {"error": "", "row_hash": 0, "stamp": 0}
    fields = {name: [value] * n for name, value in plain.items()}
    fields |= {"path": [b"%03d.png" % i for i in range(n)], "digest": digests}
    bank.add_samples(samples.make_table(fields, tidy(pd.DataFrame(columns))), newest=0)
    return bank


def two_classes(n, random, width=4, apart=5.0):
    """Rows of two classes that lie apart on the first axis, with noise of deviation 1 on all of them."""
    y = np.arange(n) % 2
    X = random.normal(size=(n, width))
    X[:, 0] += apart * (y - 0.5)
    return X, y


def two_domains(n_source, n_target, seed=0, move=None, **how):
    """Rows of a source and a target of one distribution, the target's moved: X, y, is_source."""
    random = np.random.default_rng(seed)
    (Xs, ys), (Xt, yt) = (two_classes(n, random, **how) for n in (n_source, n_target))
    X = np.concatenate([Xs, Xt if move is None else move(Xt)])
    return X, np.concatenate([ys, yt]), np.arange(n_source + n_target) < n_source


def moved(X):
    return X + np.array([4.0, 0.0, 0.0, 0.0])


def domain_bank(path, X, y, is_source, **columns):
    """The bank of such rows, with the columns ``label`` (cat, dog) and ``site`` (A, B)."""
    label = np.where(y == 1, "dog", "cat").astype(object)
    label[y < 0] = None
    return make_bank(path, X, label=label, site=np.where(is_source, "A", "B"), **columns)
