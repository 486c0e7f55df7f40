"""Shared by all tests: no hub is ever asked, and a few small helpers."""

import atexit
import json
import os
import shutil
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub

from urllib.error import URLError

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

settings.register_profile("repeatable", derandomize=True)  # the same cases in every run; fuzz.py looks further
settings.load_profile("repeatable")

os.environ["FEATUREBANK_CACHE"] = tempfile.mkdtemp(prefix="featurebank-tests-")  # exports; child processes inherit it
atexit.register(shutil.rmtree, os.environ["FEATUREBANK_CACHE"], ignore_errors=True)


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


def save_two_classes(folder, count, seed=0):
    """Save `count` PNGs under cat/ (dark, upright stripes) and under dog/ (brighter, level stripes), in noise."""
    random = np.random.default_rng(seed)
    for label, axis, base in (("cat", 1, 60), ("dog", 0, 100)):
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            stripes = np.indices((64, 64))[axis] // 8 % 2 * 60 + base
            pixels = stripes[..., None] + random.integers(0, 60, (64, 64, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(folder / label / f"{number:02}.png")
    return folder


@pytest.fixture(scope="session")
def two_classes(tmp_path_factory):
    """A folder of 20 cats and 20 dogs, and beside it `new/` with 5 of each that nothing is trained on."""
    folder = tmp_path_factory.mktemp("two_classes")
    save_two_classes(folder / "new", 5, seed=1)
    return save_two_classes(folder / "photos", 20)


@pytest.fixture(scope="session")
def two_class_bank(two_classes):
    """The bank of `two_classes`: resnet18 with random weights, two layers. Read it only; see `own_bank`."""
    from featurebank import extract

    path = two_classes.parent / "photos.bank"
    extract(two_classes, path, backbone="resnet18", weights="random:0", size=64, layers=["layer3", "penultimate"])
    return path


@pytest.fixture(scope="session")
def two_class_predictor(two_class_bank):
    """The file of an SVM with its calibrator over the penultimate layer of `two_class_bank`."""
    from featurebank import fit

    path = two_class_bank.with_suffix(".featurebank")
    fit(two_class_bank, features="resnet18/penultimate", models={"svm": {"C": 1.0}}).save(path)
    return path


@pytest.fixture
def own_bank(two_class_bank, tmp_path):
    """A copy of `two_class_bank` that the test may change."""
    return shutil.copytree(two_class_bank, tmp_path / "own.bank")


@pytest.fixture
def run_cli():
    """Run the command line in this process: run_cli("fit", path, "--json") -> click's result."""
    from click.testing import CliRunner

    from featurebank_cli import main

    def run(*arguments):
        return CliRunner().invoke(main, [str(argument) for argument in arguments])

    return run


@pytest.fixture
def run_json(run_cli):
    """Run a command that must succeed and return the one JSON object that it prints on stdout."""

    def run(*arguments):
        result = run_cli(*arguments, "--json")
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)

    return run
