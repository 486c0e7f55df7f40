"""Annotators who know the truth: what the studio asks for is never worse than a random order."""

import numpy as np
import pytest
from benchmarks.bench_studio import SIZES, annotated, textures
from sklearn.datasets import load_digits


@pytest.mark.slow
@pytest.mark.parametrize("task", ["digits", "textures"])
def test_what_is_asked_for_teaches_no_less_than_random_images(task):
    X, y = load_digits(return_X_y=True) if task == "digits" else textures()
    found = {
        way: [annotated(X.astype(np.float32), y.astype(str), seed, way) for seed in range(2)]
        for way in ("studio", "random")
    }
    for size in SIZES:
        chosen, random = (np.mean([each[size] for each in found[way]]) for way in ("studio", "random"))
        assert chosen >= random - 1, size
    assert np.median([each["needed"] for each in found["studio"]]) <= np.median(
        [each["needed"] for each in found["random"]]
    )
