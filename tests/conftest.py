"""Shared by all tests: no hub is ever asked, and a few small helpers."""

import atexit
import contextlib
import json
import os
import shutil
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"  # the other cores are the other workers'

from urllib.error import URLError

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

# The same cases in every run, however slow; fuzz.py looks further.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

os.environ["FEATUREBANK_CACHE"] = tempfile.mkdtemp(prefix="featurebank-tests-")  # exports; child processes inherit it
os.environ["FEATUREBANK_EXPORT"] = "never"  # a few seconds for each network; the tests of it ask for it
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # child processes find bytecode, as those of an installation do
atexit.register(shutil.rmtree, os.environ["FEATUREBANK_CACHE"], ignore_errors=True)


@pytest.fixture(scope="session")
def noise():
    """Make an RGB image of seeded noise: noise(width, height, seed=0)."""

    def make(width, height, seed=0):
        pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
        return Image.fromarray(pixels)

    return make


@pytest.fixture
def random():
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def photo():
    """A photograph, 640 x 427."""
    from sklearn.datasets import load_sample_images

    return Image.fromarray(load_sample_images().images[0])


@pytest.fixture(scope="session")
def launch():
    """Return what opens a headless Chromium with flags, driven by playwright; skipped where either is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install 'featurebank[test]'")
    found = filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome")))
    chromium = next(found, None) or pytest.skip("no Chromium on this machine: apt-get install chromium")
    with playwright.sync_playwright() as started, contextlib.ExitStack() as stack:

        def opened(*flags):
            browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox", *flags])
            stack.callback(browser.close)
            return browser

        yield opened


@pytest.fixture(scope="session")
def browser(launch):
    """A headless Chromium; a test that asks for it is skipped where there is none."""
    return launch()


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
def memory_commands(monkeypatch):
    """Let commands take memory://, which ends with the process: here many commands share one."""
    monkeypatch.setattr("featurebank.storage.retries.FORGOTTEN", ())


@pytest.fixture
def run_json(run_cli):
    """Run a command that must succeed and return the one JSON object that it prints on stdout."""

    def run(*arguments):
        result = run_cli(*arguments, "--json")
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)

    return run


@pytest.fixture
def planted_bank(tmp_path):
    """Make a bank of rows that no network gave: planted_bank({"layer1": X, …}, {"label": y}) -> its path.

    The layers are said to be those of a resnet18 with random weights, whose images are grey 32x32 files; with
    backbone="net" they are those of a module of one's own. Rows that are NaN in a layer are missing from it.
    """
    import pandas as pd

    from featurebank import Bank
    from featurebank.bank import samples
    from featurebank.bank.spec import FeatureSpec
    from featurebank.images.columns import tidy

    def make(features, columns, backbone="resnet18", name="planted.bank"):
        count = len(next(iter(features.values())))
        folder = tmp_path / f"{name}-images"
        folder.mkdir()
        for number in range(min(count, 8)):
            Image.new("RGB", (32, 32), (number * 30, 0, 0)).save(folder / f"{number:05}.png")
        digests = [number.to_bytes(32, "big") for number in range(1, count + 1)]
        same = {"source": str(folder), "root": str(folder), "size": 1, "mtime_ns": 1}
        same |= {"status": samples.OK, "error": "", "row_hash": 0, "stamp": 0}
        fields = {key: [value] * count for key, value in same.items()} | {"digest": digests}
        fields["path"] = [f"{number:05}.png".encode() for number in range(count)]
        bank = Bank.create(tmp_path / name)
        bank.add_samples(samples.make_table(fields, tidy(pd.DataFrame(columns))), newest=0)
        for layer, X in features.items():
            preprocessing = {"crop": [32, 32]}
            spec = FeatureSpec(
                backbone, "", "0" * 64, layer, "vector", 0, "none", preprocessing, 1, "none", "fp32", "float32"
            )
            asked = {"backbone": backbone, "layer": layer, "weights": "random:0", "size": 32, "file": None}
            bank.add_spec(spec, None if backbone == "net" else asked)
            there = np.isfinite(X).all(axis=1)
            rows = np.asarray(X, np.float32)[there, None]
            bank.add_features(spec, [digest for digest, is_there in zip(digests, there, strict=True) if is_there], rows)
        return bank.path

    return make


@pytest.fixture(scope="session")
def planted_layers():
    """Make layers of 12 columns in which k classes lie apart as told: planted_layers(n, k, {"layer1": 1.0, …})."""

    def make(n, k, signals, seed=0):
        random = np.random.default_rng(seed)
        codes = random.permutation(np.arange(n) % k)
        layers = {}
        for layer, signal in signals.items():
            centres = np.linalg.qr(random.normal(size=(12, 12)))[0][:k] * signal
            layers[layer] = centres[codes] + random.normal(size=(n, 12))
        return layers, np.array([f"class{code}" for code in codes])

    return make
