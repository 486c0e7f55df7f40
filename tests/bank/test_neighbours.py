import numpy as np

from featurebank.bank import neighbours
from featurebank.bank.neighbours import near_duplicate_groups, near_duplicate_pairs


def test_pairs_are_those_of_all_cosines_whatever_the_block(monkeypatch):
    random = np.random.default_rng(0)
    X = random.normal(size=(150, 8)).astype(np.float32)
    X[100:] = X[:50] * 3 + random.normal(size=(50, 8)) * 0.01
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    expected = [(i, j) for i in range(150) for j in range(i + 1, 150) if 1 - unit[i] @ unit[j] < 0.01]
    assert len(expected) >= 50
    for block in (7, 64, 2048):
        monkeypatch.setattr(neighbours, "_BLOCK", block)
        assert sorted(map(tuple, near_duplicate_pairs(X).tolist())) == expected


def test_groups_hold_chains_together():
    angles = np.array([0.0, 0.1, 0.2, 1.5])  # neighbours 0.005 apart, the ends of the chain 0.02
    X = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    assert near_duplicate_groups(X).tolist() == [0, 0, 0, 1]


def test_rows_of_zeros_are_no_duplicates_of_anything():
    assert near_duplicate_pairs(np.zeros((3, 4))).shape == (0, 2)
