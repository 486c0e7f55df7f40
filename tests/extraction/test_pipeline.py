import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from featurebank import Bank, extract
from featurebank.backbones import devices, engine
from featurebank.backbones.base import Backbone
from featurebank.backbones.engine import Engine
from featurebank.backbones.preprocessing import Preprocessing
from featurebank.backbones.request import Request
from featurebank.bank.features import as_keys
from featurebank.bank.spec import FeatureSpec
from featurebank.errors import BankError, DeviceError, EngineError
from featurebank.extraction.drift import AGREEMENT, compare_with_stored
from featurebank.extraction.extract import run_extraction
from featurebank.extraction.pipeline import Compute
from featurebank.images.scanning import scan

SMALL = {"backbone": "resnet18", "weights": "random:0", "size": 64}


@pytest.fixture
def photos(tmp_path):
    random = np.random.default_rng(0)
    for number in range(12):
        path = tmp_path / "photos" / "ab"[number % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (50, 40, 3), "uint8")).save(path)
    return tmp_path / "photos"


def run(photos, bank, compute=None, **options):
    request = Request("resnet18", options.pop("layers", "penultimate"), weights="random:0", size=64, **options)
    return run_extraction(scan(photos), Bank.create(bank), request, compute)


def linear(name, weight=0.1):
    """A network of one layer, all of whose weights are the same."""
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 4))
    torch.nn.init.constant_(network[1].weight, weight)
    half = Preprocessing(8, (8, 8), "bilinear", (0.5,) * 3, (0.5,) * 3)
    return Backbone.from_module(network, name=name, version="1", transform=half)


TOUCHED = """
import sys
from featurebank import Bank
from featurebank.extraction.extract import run_extraction
from featurebank.backbones.request import Request
from featurebank.images.scanning import scan
request = Request("resnet18", "penultimate", weights="random:0", size=64)
report = run_extraction(scan(sys.argv[1]), Bank(sys.argv[2]), request)
print(report.reused, report.embedded, "torch" in sys.modules)
"""


def test_touched_files_are_hashed_again_without_torch(photos, tmp_path):
    run(photos, tmp_path / "a.bank")
    for path in photos.rglob("*.png"):
        os.utime(path, ns=(1, 1))
    (photos / "a" / "00.png").rename(photos / "b" / "again.png")
    done = subprocess.run(
        [sys.executable, "-c", TOUCHED, str(photos), str(tmp_path / "a.bank")], capture_output=True, text=True
    )
    assert done.stdout.split() == ["12", "0", "False"], done.stderr


def test_a_network_that_cannot_be_had_does_not_hang_or_lose_the_bank(photos, tmp_path):
    run(photos, tmp_path / "a.bank")
    before = Bank(tmp_path / "a.bank").load("resnet18/penultimate")
    with pytest.raises(EngineError, match="runs fp32 on the cpu, not bf16"):
        run(photos, tmp_path / "a.bank", Compute(device="cpu", engine="onnx"), precision="bf16")
    with pytest.raises(EngineError, match="no engine 'fast'"):
        run(photos, tmp_path / "a.bank", Compute(engine="fast"))
    with pytest.raises(DeviceError, match="expected one of auto, cpu, cuda, mps"):
        run(photos, tmp_path / "a.bank", Compute(device="tpu"))
    assert np.array_equal(Bank(tmp_path / "a.bank").load("resnet18/penultimate"), before)


def test_reduced_precision_is_a_feature_set_of_its_own_with_its_drift_reported(photos, tmp_path):
    assert run(photos, tmp_path / "a.bank").drift == []
    report = run(photos, tmp_path / "a.bank", layers=["penultimate", "layer2"], precision="bf16")
    assert report.embedded == 12
    assert [each["feature_set"] for each in report.drift] == ["resnet18/penultimate", "resnet18/layer2"]
    for each in report.drift:
        assert each["images"] == 12
        assert 0 < each["mean"] <= each["largest"] < 0.05
        assert 0 <= each["score"] <= 1
    names = [each.name for each in Bank(tmp_path / "a.bank").feature_sets]
    assert len(names) == 3
    assert sum(name.startswith("resnet18/penultimate@") for name in names) == 2
    assert run(photos, tmp_path / "a.bank", precision="bf16").embedded == 0


def test_images_that_lack_different_layers_get_just_those(photos, tmp_path, distance):
    run(photos / "a", tmp_path / "a.bank")
    report = run(photos, tmp_path / "a.bank", Compute(batch_size=4), layers=["penultimate", "layer1"])
    assert report.embedded == 12
    whole = extract(photos, tmp_path / "b.bank", layers=["penultimate", "layer1"], **SMALL)
    part = Bank(tmp_path / "a.bank")
    for name in ("resnet18/penultimate", "resnet18/layer1"):
        assert part.feature_set(name).rows == 12
        digests = whole.samples["digest"]
        keys = np.array([bytes.fromhex(digest) for digest in digests], "S32")
        assert distance(part.feature_set(name).read(keys), whole.feature_set(name).read(keys)) < 2e-3


@pytest.mark.parametrize("engine", ["eager", "onnx"])
def test_the_engine_is_named_in_the_report_and_beside_the_rows(photos, tmp_path, engine):
    request = Request(linear("small"), "logits")
    report = run_extraction(scan(photos), Bank.create(tmp_path / "a.bank"), request, Compute("cpu", engine, 8))
    assert report.engines == [f"{engine} on cpu in batches of 8"]
    (features,) = Bank(tmp_path / "a.bank").feature_sets
    assert [each["engine"] for each in features.made_by] == [engine]


def test_rows_that_float16_cannot_hold_are_named_though_none_were_written_before(photos, tmp_path):
    with pytest.raises(BankError, match="more than float16 holds"):
        extract(photos, tmp_path / "a.bank", backbone=linear("loud", 1e6), layers="logits", engine="eager")


# --- rows of before, and the memory ------------------------------------------------------------------------


CLOSE = [("fp32", 3e-3, 8e-3), ("fp16", 1e-2, 3e-2), ("bf16", 5e-2, 0.2)]


@pytest.mark.parametrize(("precision", "near", "far"), CLOSE)
def test_stored_rows_may_differ_as_far_as_their_precision_lets_them(tmp_path, precision, near, far):
    layer = FeatureSpec("net", "", "00", "fc", "vector", 0, "none", {}, 1, "none", precision, "float32")
    bank, keys, rows = Bank.create(tmp_path / "a.bank"), [bytes(32)], np.ones((1, 1, 4), np.float32)
    bank.add_spec(layer, None)
    bank.add_features(layer, keys, rows)
    assert compare_with_stored(bank, layer, as_keys(keys), rows * (1 + near)) == []
    (warning,) = compare_with_stored(bank, layer, as_keys(keys), rows * (1 + far))
    assert f"expected below {AGREEMENT[precision]:g}" in warning


def test_the_runs_own_engine_is_compared_and_memory_is_looked_at_once(photos, tmp_path, monkeypatch):
    opened, sizes = [], iter([4, 2, 1])
    monkeypatch.setattr(devices, "choose_batch_size", lambda backbone, device: next(sizes))
    monkeypatch.setattr(engine, "choose_batch_size", lambda backbone, device: next(sizes))
    make = Engine.__init__

    def counted(self, *args, **options):
        make(self, *args, **options)
        opened.append((self.batch_size, self.pad))

    monkeypatch.setattr(Engine, "__init__", counted)
    run(photos / "a", tmp_path / "a.bank", Compute(engine="eager"))
    assert opened == [(4, True)]
    sizes = iter([4, 2, 1])
    (photos / "a" / "more.png").write_bytes((photos / "b" / "01.png").read_bytes())
    report = run(photos / "a", tmp_path / "a.bank", Compute(engine="eager"))
    assert (report.embedded, report.warnings) == (1, [])
    assert opened == [(4, True)] * 2  # four images of before went through the one that computes the new one
