"""On real Ray clusters: machines and workers that die, Ctrl-C, an image that kills, and the same fit."""

import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featurebank import Bank, extract, fit
from featurebank.backbones.base import Backbone
from featurebank.backbones.request import Request
from featurebank.errors import BankError, DeviceError
from featurebank.extraction.extract import run_extraction
from featurebank.extraction.pipeline import Compute
from featurebank.images.scanning import scan

ray = pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

IMAGES = 5000
SMALL = {"backbone": "resnet18", "weights": "random:0", "size": 32, "store": "float32"}
FEATUREBANK = [sys.executable, "-c", "from featurebank_cli import main; main()"]


def save_images(folder, count):
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(count):
        Image.fromarray(random.integers(0, 256, (32, 32, 3), np.uint8)).save(folder / f"{number:05}.png")
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return save_images(tmp_path_factory.mktemp("ray") / "photos", IMAGES)


@pytest.fixture
def cluster():
    """Two machines of one core, beside one that only keeps the cluster together."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    for _ in range(2):
        made.add_node(num_cpus=1)
    yield made
    made.shutdown()


@pytest.fixture
def one_machine():
    """A cluster of this machine alone, which the test joins."""
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def workers():
    """Return the ids of the processes that Ray's workers of ours run in."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
        except OSError:  # it has just ended
            continue
        if command.startswith(b"ray::Worker"):
            found.append(int(folder.name))
    return found


def digests(bank, name):
    """Return all digests in the files of a feature set, repeats and all."""
    return np.concatenate([file.read("digest") for file in bank.feature_set(name).segments])


def test_a_worker_and_a_machine_die_and_nothing_is_lost_or_doubled(cluster, photos, tmp_path, distance):
    killed = {}

    def show(done, total):
        if done > total / 5 and "worker" not in killed:
            killed["worker"] = workers()[0]
            os.kill(killed["worker"], signal.SIGKILL)
        elif done > total / 2 and "machine" not in killed:
            killed["machine"] = done
            cluster.remove_node(sorted(cluster.worker_nodes, key=str)[0], allow_graceful=False)

    asked = Request(SMALL["backbone"], "penultimate", **{key: SMALL[key] for key in ("weights", "size", "store")})
    compute = Compute("cpu", "eager", backend="ray", ray_address=cluster.address)
    bank = Bank.create(tmp_path / "ray.bank")
    report = run_extraction(scan(photos), bank, asked, compute, progress=show)
    assert set(killed) == {"worker", "machine"}
    assert killed["machine"] < IMAGES
    assert report.embedded == report.samples == IMAGES
    assert [line for line in report.warnings if "lost; what was under way" in line]
    found = digests(bank, "resnet18/penultimate")
    assert len(found) == len(np.unique(found, axis=0)) == len(bank.samples) == IMAGES
    assert (bank.samples["status"] == "ok").all()
    single = extract(photos, tmp_path / "single.bank", engine="eager", **SMALL)
    assert distance(bank.load("resnet18/penultimate"), single.load("resnet18/penultimate")) < 1e-5


def test_a_run_that_lost_every_machine_says_so_and_goes_on_with_the_next_that_joins(cluster, photos, tmp_path, caplog):
    lost = []

    def show(done, total):
        if done and not lost:
            lost.append(done)
            for machine in list(cluster.worker_nodes):
                cluster.remove_node(machine, allow_graceful=False)
        elif lost and "no machine of the Ray cluster has room" in caplog.text and len(lost) == 1:
            lost.append(done)
            cluster.add_node(num_cpus=1)

    asked = Request(SMALL["backbone"], "penultimate", **{key: SMALL[key] for key in ("weights", "size", "store")})
    compute = Compute("cpu", "eager", backend="ray", ray_address=cluster.address)
    bank = Bank.create(tmp_path / "ray.bank")
    report = run_extraction(scan(photos), bank, asked, compute, progress=show)
    assert len(lost) == 2
    assert caplog.text.count("has room for a worker") == 1
    assert report.embedded == len(bank.samples) == IMAGES
    assert len(np.unique(digests(bank, "resnet18/penultimate"), axis=0)) == IMAGES


def test_ctrl_c_keeps_what_is_finished_and_the_next_run_goes_on(photos, tmp_path):
    bank = tmp_path / "a.bank"
    command = [*FEATUREBANK, "extract", str(photos), "--bank", str(bank), "--engine", "eager", "--device", "cpu"]
    command += ["--backbone", "resnet18", "--weights", "random:0", "--size", "32"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([*command, "--backend", "ray"], start_new_session=True, **pipes)
    while process.poll() is None and not rows(bank):
        time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    out, err = process.communicate()
    assert (process.returncode, out) == (1, "")
    assert err.splitlines()[-1].startswith("Error: interrupted; what a bank holds by now is kept")
    kept = rows(bank)
    assert 0 < kept < IMAGES
    subprocess.run(command, check=True, capture_output=True)
    assert rows(bank) == IMAGES
    assert len(digests(Bank(bank), "resnet18/penultimate")) == IMAGES


def rows(path):
    """Return the samples that a bank has so far."""
    try:
        return len(Bank(path).samples)
    except BankError:
        return 0


def test_an_image_that_kills_its_worker_is_failed_and_the_others_are_embedded(one_machine, tmp_path):
    import torch
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    photos = save_images(tmp_path / "photos", 3)
    Image.new("RGB", (32, 32), "red").save(photos / "00001.png")
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 4))
    bank = Bank.create(tmp_path / "a.bank")
    asked = Request(Backbone.from_module(network, name="net", version="1", transform=deadly), "logits")
    report = run_extraction(scan(photos), bank, asked, Compute("cpu", "eager", 2, backend="ray"))
    assert (report.samples, report.embedded, report.failed) == (3, 2, 1)
    assert report.failures[0]["path"] == "00001.png"
    again = run_extraction(scan(photos), bank, asked, Compute("cpu", "eager", 2, backend="ray"))
    assert (again.reused, again.failed) == (2, 1)


def deadly(image):
    """Prepare an image; of a red one the process dies."""
    import torch

    pixels = torch.from_numpy(np.array(image.resize((32, 32)))).permute(2, 0, 1).float() / 255
    if pixels[0].all() and not pixels[1:].any():
        os.kill(os.getpid(), signal.SIGKILL)
    return pixels


def test_the_process_that_was_started_never_imports_torch(photos, tmp_path):
    """It holds no network, needs none of its weights, and waits for none to load."""
    script = (
        "import sys; from featurebank import Bank, extract\n"
        "bank = extract(sys.argv[1], sys.argv[2], backbone='resnet18', weights='random:0', size=32, backend='ray')\n"
        "print(len(bank.samples), 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", script, str(photos), str(tmp_path / "a.bank")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == f"{IMAGES} False\n", done.stderr


def test_a_gpu_that_the_cluster_lacks_is_refused(one_machine, two_classes, tmp_path):
    if ray.cluster_resources().get("GPU"):
        pytest.skip("this machine has a GPU")
    with pytest.raises(DeviceError, match="'cuda' is on no machine of the Ray cluster"):
        extract(two_classes, tmp_path / "a.bank", device="cuda", backend="ray", **SMALL)


def test_an_error_of_a_worker_is_raised_here_as_it_is(one_machine, two_classes, tmp_path):
    import torch

    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 4))
    torch.nn.init.constant_(network[1].weight, 1e6)
    small = Backbone.from_module(network, name="net", version="1", transform=transform())
    with pytest.raises(BankError, match="more than float16 holds") as raised:
        extract(two_classes, tmp_path / "a.bank", backbone=small, layers="logits", engine="eager", backend="ray")
    assert len(str(raised.value).splitlines()) == 1


def transform():
    from featurebank.backbones.preprocessing import Preprocessing

    return Preprocessing(8, (8, 8), "bilinear", (0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize("target", [["label"], ["label", "number"]])
def test_a_fit_on_ray_is_the_same_fit(one_machine, own_bank, target):
    from featurebank.extraction.ray.jobs import jobs_on_ray

    samples = Bank(own_bank).samples
    frame = samples[["path"]].assign(number=np.random.default_rng(0).normal(size=len(samples)))
    Bank(own_bank).label(frame)
    options = {"target": target, "models": ["ridge", "lda", "knn", "logreg", "svm", "mlp"], "n_jobs": 2}
    if len(target) > 1:
        options["models"] = ["ridge", "mlp"]
    here = fit(own_bank, learning_curve=len(target) == 1, **options)
    with jobs_on_ray():
        there = fit(own_bank, learning_curve=len(target) == 1, **options)
    assert differences(there.report, here.report) == []


def differences(found, expected, where=""):
    """Return what differs between two reports, and where; sums of rows may round by where in memory these lie."""
    found, expected = without_times(found), without_times(expected)
    if isinstance(found, dict) and isinstance(expected, dict) and found.keys() == expected.keys():
        return [line for name in found for line in differences(found[name], expected[name], f"{where}.{name}")]
    if isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        pairs = enumerate(zip(found, expected, strict=True))
        return [line for number, pair in pairs for line in differences(*pair, f"{where}[{number}]")]
    if isinstance(found, float) and isinstance(expected, float) and math.isclose(found, expected, rel_tol=1e-12):
        return []
    return [] if found == expected else [(where, found, expected)]


def without_times(value):
    """Return a report without what a clock says."""
    if isinstance(value, dict):
        return {name: without_times(each) for name, each in value.items() if name != "seconds"}
    return [without_times(each) for each in value] if isinstance(value, list) else value


def test_commands_fit_and_extract_on_ray(two_classes, tmp_path, run_json):
    if shutil.disk_usage("/dev/shm").free < 1 << 30:
        pytest.skip("no room for Ray's object store")
    bank = tmp_path / "a.bank"
    asked = ["--backbone", "resnet18", "--weights", "random:0", "--size", "32", "--backend", "ray"]
    report = run_json("extract", two_classes, "--bank", bank, *asked)
    assert (report["samples"], report["embedded"]) == (40, 40)
    assert "on cpu in batches of" in report["engines"][0] or "cuda" in report["engines"][0]
    fitted = run_json("fit", bank, "--model", "svm", "--backend", "ray")
    plain = run_json("fit", bank, "--model", "svm")
    assert differences(fitted["candidates"], plain["candidates"]) == []
    assert not ray.is_initialized()
