"""What each command imports where its network was exported: the start is most of what a short command takes."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

pytestmark = pytest.mark.slow

HEAVY = {"torch", "torchvision", "timm", "sklearn", "skops", "scipy", "scipy.stats", "pandas", "h5py", "onnxruntime"}
HEAVY |= {"onnxscript", "joblib", "matplotlib", "ray", "rich"}
RUN = """
import json, sys
from featurebank_cli import main
main(sys.argv[2:], standalone_mode=False)
with open(sys.argv[1], "w") as file:
    json.dump(sorted(sys.modules), file)
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """The variables of processes that share one cache and export into it."""
    cache = str(tmp_path_factory.mktemp("cache"))
    own = {**os.environ, "FEATUREBANK_CACHE": cache, "CUDA_VISIBLE_DEVICES": ""}
    del own["FEATUREBANK_EXPORT"]
    return own


@pytest.fixture(scope="module")
def run(tmp_path_factory, environment):
    """Run a command in a process of its own: run(*arguments) -> the heavy modules it imported, and what it said."""
    folder = tmp_path_factory.mktemp("start")

    def run(*arguments):
        command = [sys.executable, "-c", RUN, str(folder / "modules"), *map(str, arguments)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return HEAVY & set(json.loads((folder / "modules").read_text())), done

    return run


@pytest.fixture(scope="module")
def made(run, two_classes, tmp_path_factory):
    """A bank whose network was exported after the extraction, and a predictor of it."""
    folder = tmp_path_factory.mktemp("made")
    options = ["--backbone", "timm:test_resnet", "--weights", "random:0", "--size", "32"]
    _, done = run("extract", two_classes, "--bank", folder / "a.bank", *options)
    assert "exporting timm:test_resnet once, so that it starts at once" in done.stderr
    found, _ = run("fit", folder / "a.bank", "--model", "svm", "-o", folder / "a.featurebank")
    assert "torch" not in found
    return folder, options


def test_predict_imports_neither_torch_nor_what_fits_models(run, made, two_classes):
    folder, _ = made
    found, done = run("predict", folder / "a.featurebank", two_classes.parent / "new" / "cat" / "00.png")
    assert found <= {"pandas", "h5py", "onnxruntime", "joblib"}
    assert done.stdout.splitlines()[1].split(",")[1] == "cat"


def test_extract_of_new_images_into_a_new_bank_imports_no_torch(run, made, two_classes):
    folder, options = made
    found, done = run("extract", two_classes.parent / "new", "--bank", folder / "new.bank", *options, "--json")
    assert found <= {"pandas", "h5py", "onnxruntime", "joblib"}
    assert json.loads(done.stdout)["embedded"] == 10


ROWS = """
import sys
from pathlib import Path
import numpy as np
from featurebank import FeatureExtractor
_, folder, file, engine, with_torch = sys.argv
if int(with_torch):
    import featurebank.backbones.opening
    featurebank.backbones.opening.open_exported = lambda *args, **options: None
extractor = FeatureExtractor("timm:test_resnet", weights="random:0", size=32, store="float32", engine=engine)
np.save(file, extractor.transform(sorted(map(str, Path(folder).rglob("*.png")))))
assert ("torch" in sys.modules) == bool(int(with_torch)), sorted(sys.modules)
"""


def test_feature_extractor_has_the_bits_of_torchs_engine_without_importing_torch(
    environment, made, two_classes, tmp_path
):
    rows = []
    for with_torch in (1, 0):
        file = tmp_path / f"{with_torch}.npy"
        command = [sys.executable, "-c", ROWS, two_classes.parent / "new", file, "onnx", with_torch]
        subprocess.run(list(map(str, command)), env=environment, check=True)
        rows.append(np.load(file))
    assert rows[0].shape[0] == 10
    assert np.array_equal(*rows)


def test_evaluate_imports_scikit_learn_for_its_scores_and_no_torch(run, made, two_classes):
    folder, _ = made
    found, _ = run("evaluate", folder / "a.featurebank", two_classes.parent / "new", "--json")
    assert not found & {"torch", "torchvision", "timm", "onnxscript"}


def test_help_and_the_cache_import_nothing_heavy(run, made):
    assert run("--help")[0] == set()
    found, done = run("cache", "--json")
    assert found == set()
    (network,) = json.loads(done.stdout)["networks"]
    assert network["backbone"] == "timm:test_resnet"
    assert network["off"] < 1e-4
    assert json.loads(done.stdout)["bytes"] == network["bytes"] > 100_000
