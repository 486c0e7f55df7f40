import numpy as np
import pytest
from made_bank import planted

from featurebank.explore.partitions import choose_number, partitions, reduced, silhouette, stability


@pytest.fixture
def random():
    return np.random.default_rng(0)


def test_the_number_has_the_highest_silhouette(random):
    Z = reduced(planted(random, groups=5)[0])
    partition = partitions(Z, "kmeans")
    scores = {k: silhouette(Z, partition(k)) for k in range(2, 16)}
    assert choose_number(Z, partition) == max(scores, key=scores.get) == 5


def test_unstable_clusters_are_told_from_stable_ones(random):
    Z, flat = reduced(planted(random)[0]), reduced(random.normal(size=(120, 20)))
    assert stability(Z, partitions(Z, "agglomerative")(4), "agglomerative", 4) == 1.0
    assert stability(flat, partitions(flat, "kmeans")(4), "kmeans", 4) < 0.5


def test_reduced_rows_keep_the_distances_of_rows_of_length_1(random):
    X = random.normal(size=(12, 8)) * random.uniform(1, 9, size=(12, 1))
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    Z = reduced(X)
    np.testing.assert_allclose(
        np.linalg.norm(Z[:, None] - Z, axis=2), np.linalg.norm(unit[:, None] - unit, axis=2), atol=1e-6
    )
