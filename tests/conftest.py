"""Shared by all tests: no hub is ever asked, and a few small helpers."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub

from urllib.error import URLError

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def noise():
    """Make an RGB image of seeded noise: noise(width, height, seed=0)."""

    def make(width, height, seed=0):
        pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
        return Image.fromarray(pixels)

    return make


@pytest.fixture(scope="session")
def distance():
    """Return the largest over rows of the relative distance of two arrays: distance(found, expected)."""

    def measure(found, expected):
        found, expected = (np.asarray(values, np.float32).reshape(len(values), -1) for values in (found, expected))
        assert found.shape == expected.shape
        return np.max(np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1))

    return measure


@pytest.fixture
def empty_hub(tmp_path, monkeypatch):
    """A torch hub without files and without a network; returns the folder its files would lie in."""
    import torch

    def refuse(url, *args, **kwargs):
        raise URLError("no network in tests")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder
