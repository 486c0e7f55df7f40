"""What each command imports where its network was exported: the start is most of what a short command takes."""

import json
import os
import shutil
import subprocess
import sys
import time

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
    assert found <= {"h5py", "onnxruntime", "joblib"}
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


STUDIO = """
import sys, time
import httpx
from featurebank import studio
_, photos, bank = sys.argv
with httpx.Client(trust_env=False, timeout=100) as client:
    running = studio(photos, bank=bank, backbone="timm:test_resnet", weights="random:0", size=32)
    client.base_url = running.url
    while not (state := client.get("api/state").json())["ready"] or state["extracting"] or not state["model_revision"]:
        assert not state["message"], state
        time.sleep(0.1)
    for number in range(6):
        (item,) = client.get("api/next", params={"count": 1}).json()["items"]
        answer = {"digest": item["digest"], "label": "ab"[number % 2], "seen": None, "why": None}
        assert client.post("api/labels", json={"tab": "one", "answers": [answer]}).status_code == 200
    while client.get("api/state").json()["model_revision"] <= state["model_revision"]:
        time.sleep(0.1)
    running.close()
assert "onnxruntime" in sys.modules
assert not {"torch", "torchvision", "timm"} & set(sys.modules)
"""


def test_the_studio_embeds_a_folder_and_learns_without_torch(environment, made, two_classes, tmp_path):
    pytest.importorskip("uvicorn")
    folder = tmp_path / "photos"
    shutil.copytree(two_classes / "cat", folder)
    command = [sys.executable, "-c", STUDIO, str(folder), str(tmp_path / "a.bank")]
    subprocess.run(command, env=environment, check=True, timeout=300)


@pytest.mark.skipif(os.name != "posix", reason="a terminal of POSIX")
def test_at_a_terminal_a_network_is_exported_in_the_background(environment, two_classes, tmp_path):
    own = {**environment, "FEATUREBANK_CACHE": str(tmp_path / "cache"), "TMPDIR": str(tmp_path / "tmp")}
    (tmp_path / "tmp").mkdir()
    command = [sys.executable, "-m", "featurebank", "extract", str(two_classes), "--bank", str(tmp_path / "a.bank")]
    command += ["--backbone", "timm:test_resnet", "--weights", "random:0", "--size", "32"]
    here, there = os.openpty()
    subprocess.run(command, env=own, stdout=subprocess.DEVNULL, stderr=there, check=True)
    os.close(there)
    assert b"timm:test_resnet: being exported in the background" in os.read(here, 1 << 16)
    os.close(here)
    facts = wait_for(lambda: shown(own), lambda facts: facts["networks"] and not facts["making"])
    assert [each["backbone"] for each in facts["networks"]] == ["timm:test_resnet"]
    left = sorted(path.suffix for path in (tmp_path / "cache" / "onnx").iterdir())
    assert left == [".lock", ".npz", ".onnx"]
    own_of_libraries = {".ses", "torchinductor"}  # ONNX Runtime and torch leave them wherever they run
    assert {path.name.partition("_")[0] for path in (tmp_path / "tmp").iterdir()} <= own_of_libraries


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_an_export_that_is_killed_loses_nothing_and_is_made_next_time(environment, made, tmp_path):
    own = {**environment, "FEATUREBANK_CACHE": str(tmp_path)}
    command = [sys.executable, "-m", "featurebank", "cache", "--add", str(made[0] / "a.bank"), "--json"]
    killed = subprocess.Popen(command, env=own, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: shown(own), lambda facts: facts["making"])
    killed.kill()
    killed.wait()
    facts = shown(own)
    assert (facts["making"], facts["networks"]) == ([], [])
    done = subprocess.run(command, env=own, check=True, capture_output=True)
    assert [each["backbone"] for each in json.loads(done.stdout)["networks"]] == ["timm:test_resnet"]
    command[5] = str(made[0] / "a.featurebank")  # whose network is there now
    assert b"exporting" not in subprocess.run(command, env=own, check=True, capture_output=True).stderr


def shown(environment):
    """What `featurebank cache` says."""
    command = [sys.executable, "-m", "featurebank", "cache", "--json"]
    return json.loads(subprocess.run(command, env=environment, check=True, capture_output=True).stdout)


def wait_for(look, is_there):
    """Look until something is there, for two minutes at most."""
    for _ in range(240):
        if is_there(found := look()):
            return found
        time.sleep(0.5)
    raise AssertionError(found)


def test_help_and_the_cache_import_nothing_heavy(run, made):
    assert run("--help")[0] == set()
    found, done = run("cache", "--json")
    assert found == set()
    (network,) = json.loads(done.stdout)["networks"]
    assert network["backbone"] == "timm:test_resnet"
    assert network["off"] < 1e-4
    assert json.loads(done.stdout)["bytes"] == network["bytes"] > 100_000
