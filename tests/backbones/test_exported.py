import json
import os
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from networks import TINY, tiny_net

from featurebank.backbones import keeping, opening
from featurebank.backbones.base import Backbone
from featurebank.backbones.engine import Engine
from featurebank.backbones.exported import cache
from featurebank.backbones.exported.engine import ExportedEngine
from featurebank.backbones.exported.making import export
from featurebank.backbones.exported.network import ExportedNetwork, distance
from featurebank.backbones.exported.record import Record
from featurebank.backbones.request import Request
from featurebank.backbones.unloaded import UnloadedBackbone
from featurebank.bank.bank import Bank
from featurebank.errors import BackboneError, EngineError
from featurebank.storage import files

LAYERS = ["3", "penultimate"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def backbone():
    return Backbone.from_module(tiny_net(), name="tiny", version="1", transform=TINY)


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch, folder):
    monkeypatch.setenv("FEATUREBANK_CACHE", str(folder))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.fixture
def specs(backbone):
    return [backbone.spec(layer) for layer in LAYERS]


@pytest.fixture
def network(backbone, specs):
    """The exported network, made by whichever test comes first."""
    return export(backbone, specs)


@pytest.fixture
def prepared():
    return list(np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3), np.uint8))


def test_an_exported_network_gives_what_plain_pytorch_gives(network, backbone, specs, prepared):
    plain = Engine(backbone, specs, device="cpu", engine="eager")(prepared)
    found = ExportedEngine(network, backbone, specs)(prepared)
    assert max(map(distance, found, plain)) < 1e-5
    assert network.record.off < 1e-5
    assert network.record.weights == backbone.weights


def test_torchs_engine_and_the_one_without_torch_give_the_same_bits(network, backbone, specs, prepared):
    with_torch = Engine(backbone, specs, device="cpu", engine="onnx", batch_size=4)
    without = ExportedEngine(network, backbone, specs, batch_size=4)
    assert all(map(np.array_equal, with_torch(prepared), without(prepared)))
    assert (without.engine, with_torch.engine) == ("onnx", "onnx")
    assert {**with_torch.made_by, "onnxruntime": ""}.keys() == without.made_by.keys()


def test_one_image_is_not_padded_where_its_bits_do_not_depend_on_its_neighbours(network, backbone, specs, prepared):
    sizes = []
    engine, run = ExportedEngine(network, backbone, specs, batch_size=8), network.run
    network.run = lambda pixels: (sizes.append(len(pixels)), run(pixels))[1]
    assert network.is_apart
    together = engine(prepared)
    assert all(np.array_equal(one, many[:1]) for one, many in zip(engine(prepared[:1]), together, strict=True))
    assert sizes == [8, 1, 1]
    padded = ExportedEngine(network, backbone, specs, batch_size=8)
    padded.pad = True
    assert all(map(np.array_equal, padded(prepared), together))
    assert sizes[3:] == [8, 8]


def test_an_exported_network_serves_some_of_its_layers(network, backbone, specs, prepared):
    last = opening.open_exported(backbone, specs[1:])
    assert np.array_equal(last.run(np.stack(prepared))[0], network.run(np.stack(prepared))[1])
    assert cache.find(specs[1:], no_deeper=True) is not None
    assert cache.find(specs[:1]) is not None
    assert cache.find(specs[:1], no_deeper=True) is None  # many images want a network that ends with that layer
    assert cache.find([backbone.spec("0")]) is None


@pytest.mark.slow
def test_the_input_of_a_module_is_exported_and_lies_before_its_output(backbone, prepared):
    """What fine-tuning keeps: the activations before the first block that it trains."""
    specs = [backbone.spec(name) for name in ("3.input", "3", "2")]
    (found,) = export(backbone, specs[:1]).run(np.stack(prepared))
    (expected,) = Engine(backbone, specs[:1], device="cpu", engine="eager")(prepared)
    assert distance(found, expected) < 1e-6
    export(backbone, specs)
    assert cache.read(specs).record.deepest == 1
    export(backbone, [specs[2], specs[0]])
    assert cache.find(specs[:1], no_deeper=True).record.layers == cache.layers_of(specs[:1])


@pytest.mark.parametrize("damage", ["graph", "record", "outputs", "gone"])
def test_what_does_not_fit_falls_back_to_torch_and_says_so(network, backbone, specs, damage, caplog):
    path, record = network.path, network.record
    graph, kept = path.read_bytes(), record.encode()
    if damage == "graph":
        files.commit(path, graph[:-1] + b"\0")
    elif damage == "record":
        files.commit(path.with_suffix(".npz"), b"no record")
    elif damage == "outputs":
        outputs = [each + 1 for each in record.outputs]
        files.commit(path.with_suffix(".npz"), Record(**{**vars(record), "outputs": outputs}).encode())
    else:
        files.remove(path)
    try:
        assert isinstance(opening.open_engine(backbone, specs), Engine)
        said = [each for each in caplog.messages if each.endswith("PyTorch computes instead")]
        assert len(said) == (damage in ("graph", "outputs"))
    finally:
        files.commit(path, graph)
        files.commit(path.with_suffix(".npz"), kept)
    assert isinstance(opening.open_engine(backbone, specs), ExportedEngine)


def test_torch_computes_what_is_asked_for_by_name_or_may_be_on_a_gpu(network, backbone, specs, monkeypatch):
    assert opening.open_exported(backbone, specs, engine="eager") is None
    assert opening.open_exported(backbone, specs, device="cuda") is None
    assert opening.open_exported(backbone, [backbone.spec("penultimate", precision="bf16")]) is None
    assert opening.open_exported(backbone, specs, device="cpu", engine="onnx") is not None
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(opening, "_DRIVERS", ("/",))
    assert opening.open_exported(backbone, specs) is None


def test_a_backbone_is_loaded_when_its_network_is_asked_for(backbone, specs):
    loads = []
    unloaded = UnloadedBackbone(specs[0], lambda: loads.append(1) or backbone)
    assert unloaded.weights == backbone.weights
    assert unloaded.input_size == (32, 32)
    assert unloaded.opening == backbone.opening
    assert loads == []
    assert unloaded.spec("penultimate") == specs[1]
    assert unloaded.model is backbone.model
    assert loads == [1]


def test_a_new_bank_knows_a_spec_that_was_asked_for_before_without_a_network(tmp_path, monkeypatch):
    monkeypatch.setenv("FEATUREBANK_CACHE", str(tmp_path))
    asked = {"weights": "random:3", "size": 32}
    first = Request("resnet18", ["layer2", "penultimate"], **asked)
    specs = first.specs()
    again = Request("resnet18", ["layer2", "penultimate"], views="hflip", store="float32", **asked)
    assert again.specs() == [replace(spec, views="hflip", store="float32") for spec in specs]
    assert (first.loaded is None, again.loaded) == (False, None)
    assert again.known_by(specs[0]).weights == first.load().weights
    assert again.loaded is None
    monkeypatch.setattr("featurebank.backbones.remembered.PIXEL_POLICY", 99)  # images are seen otherwise now
    third = Request("resnet18", "layer2", **asked)
    assert third.specs() == specs[:1]
    assert third.loaded is not None


def test_networks_are_removed_that_were_used_longest_ago(tmp_path, monkeypatch):
    monkeypatch.setenv("FEATUREBANK_CACHE", str(tmp_path))
    files.make_folder(cache.folder())
    for number in range(4):
        path = cache.folder() / f"{number}.onnx"
        files.commit(path, bytes(100))
        files.commit(path.with_suffix(".npz"), bytes(10))
        os.utime(path, ns=(number, number))
    cache.used(cache.folder() / "0.onnx")
    assert [path.stem for path, _ in cache.networks()] == ["1", "2", "3", "0"]
    assert {size for _, size in cache.networks()} == {110}
    assert cache.bound(cache.folder() / "1.onnx", most=250) == 220
    assert sorted(path.name for path in cache.folder().iterdir()) == ["0.npz", "0.onnx", "1.npz", "1.onnx"]
    assert cache.bound() == 0


def test_keep_exports_once_and_notes_what_cannot_be(tmp_path, monkeypatch, backbone, specs, caplog):
    monkeypatch.setenv("FEATUREBANK_CACHE", str(tmp_path))
    tried = []

    def refuse(*args):
        tried.append(args)
        raise EngineError("no")

    monkeypatch.setattr("featurebank.backbones.exported.making._made", refuse)
    network = keeping.Network(lambda: backbone, specs)
    keeping.keep(network)
    assert (tried, cache.networks()) == ([], [])  # FEATUREBANK_EXPORT=never, as in all tests
    monkeypatch.delenv("FEATUREBANK_EXPORT")
    with caplog.at_level("INFO"):
        keeping.keep(network)
        keeping.keep(network)
    assert len(tried) == 1
    assert [each.split(" once")[0] for each in caplog.messages] == [
        "exporting tiny",
        "tiny is not exported: no",
    ]


def test_a_network_that_is_being_exported_is_shown_and_left_to_whoever_does_it(tmp_path, monkeypatch, backbone, specs):
    monkeypatch.setenv("FEATUREBANK_CACHE", str(tmp_path))
    monkeypatch.delenv("FEATUREBANK_EXPORT")
    network, path = keeping.Network(lambda: backbone, specs), cache.path_of(specs)
    assert keeping.is_lacking(network)
    with cache.making(path, "tiny"):
        facts = cache.describe()
        assert facts["making"] == ["tiny"]
        assert facts["making_since"] == pytest.approx([time.time()], abs=60)
        assert not keeping.is_lacking(network)
    assert cache.describe()["making"] == []
    files.commit(path.with_suffix(cache.NAME), b"tiny")  # as one that was killed leaves it
    assert cache.describe()["making"] == []
    assert keeping.is_lacking(network)


def test_what_a_killed_process_left_is_removed_in_time(tmp_path, monkeypatch, network):
    monkeypatch.setenv("FEATUREBANK_CACHE", str(tmp_path))
    files.make_folder(cache.folder())
    for name, age in {"old": cache.ABANDONED + 60, "new": 0.0}.items():
        left = cache.folder() / f"{files.TEMP_PREFIX}{name}"
        left.write_bytes(b"half")
        os.utime(left, (left.stat().st_mtime - age,) * 2)
    cache.add(cache.folder() / "a.onnx", b"graph", network.record)
    assert sorted(each.name for each in cache.folder().iterdir()) == [f"{files.TEMP_PREFIX}new", "a.npz", "a.onnx"]


def test_the_networks_of_a_bank_are_those_that_were_asked_for_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("FEATUREBANK_CACHE", str(tmp_path / "cache"))
    bank = Bank.create(tmp_path / "a.bank")
    asked = {"weights": "random:3", "size": 32}
    Request("resnet18", ["layer1", "penultimate"], **asked).register(bank)
    Request("resnet18", "layer1", store="float32", **asked).register(bank)
    Request("resnet18", "layer1", precision="bf16", **asked).register(bank)
    (network,) = keeping.networks_of(bank)
    assert sorted(spec.layer_name for spec in network.specs) == ["layer1", "penultimate"]
    assert network.load().weights == network.specs[0].weights
    with pytest.raises(BackboneError, match="no longer the network"):
        keeping._load(bank, [*network.specs, replace(network.specs[0], weights="0" * 64)])


WRITER = """
import json, sys
from featurebank.backbones.registry import load_backbone
from featurebank.backbones.exported import making
made, spec = [], making._made
making._made = lambda *args: made.append(1) or spec(*args)
backbone = load_backbone("resnet18", "random:3", 32)
network = making.export(backbone, [backbone.spec("layer1")])
print(json.dumps([len(made), network.path.name]))
"""


@pytest.mark.slow
def test_of_two_processes_one_exports_and_both_use_it(tmp_path):
    environment = {**os.environ, "FEATUREBANK_CACHE": str(tmp_path)}
    running = [
        subprocess.Popen([sys.executable, "-c", WRITER], env=environment, stdout=subprocess.PIPE) for _ in range(2)
    ]
    found = [json.loads(each.communicate()[0]) for each in running]
    assert sorted(count for count, _ in found) == [0, 1]
    assert found[0][1] == found[1][1]


def test_networks_do_not_open_without_their_record(network):
    with pytest.raises(FileNotFoundError):
        Record.read(network.path.with_suffix(".nothing"))
    with pytest.raises(EngineError, match="does not fit"):
        ExportedNetwork(cache.Found(network.path.with_suffix(".npz"), network.record, [0]))
