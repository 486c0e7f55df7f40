import numpy as np
import pytest
import torch
from networks import TINY, tiny_net
from torch import nn

from featurebank.backbones import runtimes
from featurebank.backbones.base import Backbone
from featurebank.backbones.devices import MANY, choose_engine
from featurebank.backbones.engine import Engine
from featurebank.backbones.registry import load_backbone
from featurebank.errors import EngineError


class Restless(nn.Module):
    """Gives other numbers in every pass."""

    def forward(self, images):
        return images.flatten(1)[:, :8] + torch.rand_like(images.flatten(1)[:, :8])


class Deciding(nn.Module):
    """Takes a branch that depends on the pixels, which no exporter can follow."""

    def forward(self, images):
        return images.flatten(1)[:, :8] if images.sum() > 0 else -images.flatten(1)[:, :8]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FEATUREBANK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def backbone_of(module, name="tiny"):
    return Backbone.from_module(module, name=name, version="1", transform=TINY)


def pixels(count, size=32):
    return list(np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8))


def engines(backbone, layers, engine, **options):
    specs = [backbone.spec(layer) for layer in layers]
    plain = Engine(backbone, specs, device="cpu", engine="eager", batch_size=8)
    return plain, Engine(backbone, specs, device="cpu", engine=engine, batch_size=8, **options)


@pytest.mark.parametrize("engine", ["onnx", pytest.param("compile", marks=pytest.mark.slow)])
def test_every_engine_gives_what_eager_gives_at_every_layer(engine, distance):
    layers = ["penultimate", "3:none", "0:gem", "0:avgmax", "3:max", "logits"]
    plain, other = engines(backbone_of(tiny_net()), layers, engine)
    for count in (8, 3, 13):
        for found, expected in zip(other(pixels(count)), plain(pixels(count)), strict=True):
            assert found.dtype == np.float32
            assert distance(found, expected) < 1e-5
    assert other.made_by["engine"] == engine


LARGE = [pytest.param(name, marks=pytest.mark.slow) for name in ("efficientnet_lite0", "vit_b_16", "inception_v3")]


@pytest.mark.parametrize("name", ["resnet18", *LARGE])
def test_exported_networks_give_what_eager_gives(name, distance):
    size = {"vit_b_16": 224, "inception_v3": 96}.get(name, 64)
    backbone = load_backbone(name, "random:0", None if name == "vit_b_16" else size)
    plain, onnx = engines(backbone, ["penultimate"], "onnx")
    assert distance(onnx(pixels(3, size))[0], plain(pixels(3, size))[0]) < 1e-4


def test_auto_exports_for_many_images_and_uses_the_export_for_few(cache):
    backbone = backbone_of(tiny_net())
    _, few = engines(backbone, ["logits"], "auto", images=MANY["onnx"] - 1)
    few(pixels(2))
    assert few.engine == "eager"
    assert not cache.exists()
    _, many = engines(backbone, ["logits"], "auto", images=MANY["onnx"])
    many(pixels(2))
    assert many.engine == "onnx"
    assert len(list(cache.glob("onnx/*.onnx"))) == 1
    assert engines(backbone, ["logits"], "auto")[1].engine == "onnx"
    assert engines(backbone, ["penultimate"], "auto")[1].engine == "eager"


@pytest.mark.parametrize("content", [b"", b"no network", "another network"])
def test_an_export_that_is_not_this_networks_is_made_again(content, distance):
    backbone = backbone_of(tiny_net())
    plain, onnx = engines(backbone, ["logits"], "onnx")
    path = onnx._path("onnx")
    if content == "another network":
        _, other = engines(backbone_of(tiny_net(seed=1)), ["logits"], "onnx")
        other(pixels(2))
        content = other._path("onnx").read_bytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    assert distance(onnx(pixels(4))[0], plain(pixels(4))[0]) < 1e-5
    assert path.read_bytes() != content
    assert onnx.warnings == []


@pytest.mark.parametrize(("module", "reason"), [(Restless, "off plain float32 PyTorch"), (Deciding, "cannot run this")])
@pytest.mark.parametrize("engine", ["onnx", pytest.param("compile", marks=pytest.mark.slow)])
def test_an_engine_that_cannot_be_trusted_is_refused_by_name_and_replaced_under_auto(module, reason, engine):
    backbone = backbone_of(module())
    with pytest.raises(EngineError, match=f"engine '{engine}'.*{reason}.*use --engine eager"):
        engines(backbone, ["logits"], engine)[1](pixels(3))
    _, auto = engines(backbone, ["logits"], "auto", images=MANY["onnx"])
    assert auto(pixels(3))[0].shape == (3, 8)
    assert auto.engine == "eager"
    assert len(auto.warnings) == 1
    assert auto.warnings[0].endswith("eager is used instead")


def test_engines_and_precisions_that_do_not_go_together_are_refused():
    with pytest.raises(EngineError, match="no engine 'onxx'; did you mean onnx"):
        choose_engine("onxx", "cpu", "fp32")
    with pytest.raises(EngineError, match="runs fp32 on the cpu, not bf16 on cpu; use eager or compile"):
        choose_engine("onnx", "cpu", "bf16")
    with pytest.raises(EngineError, match="not fp32 on cuda"):
        choose_engine("onnx", "cuda", "fp32")
    best = [choose_engine("auto", "cpu", precision) for precision in ("fp32", "bf16", "fp16")]
    assert best == ["onnx", "compile", "eager"]
    assert choose_engine("auto", "cpu", "fp32", is_worth=lambda engine: False) == "eager"
    assert choose_engine("auto", "cuda", "bf16") == "eager"


@pytest.mark.parametrize(("precision", "least", "most"), [("bf16", 1e-4, 5e-2), ("fp16", 1e-5, 5e-3)])
def test_a_reduced_precision_is_near_float32_and_not_it(precision, least, most, distance):
    backbone = backbone_of(tiny_net())
    exact, reduced = (
        Engine(backbone, [backbone.spec("penultimate", precision=name)], device="cpu")(pixels(5))[0]
        for name in ("fp32", precision)
    )
    assert reduced.dtype == np.float32
    assert least < distance(reduced, exact) < most


@pytest.mark.slow
def test_compiled_bf16_agrees_with_eager_bf16(distance):
    backbone = backbone_of(tiny_net())
    specs = [backbone.spec("penultimate", precision="bf16")]
    plain, compiled = (
        Engine(backbone, specs, device="cpu", engine=name, batch_size=8) for name in ("eager", "compile")
    )
    assert distance(compiled(pixels(5))[0], plain(pixels(5))[0]) < 2e-2
    (again,) = Engine(backbone, specs, device="cpu", batch_size=8)(pixels(5))  # auto takes what was compiled before
    assert distance(again, compiled(pixels(5))[0]) == 0


# --- compiled packages, by a compiler that only writes down ------------------------------------------------


@pytest.fixture
def compiler(monkeypatch):
    """Have "compiled" packages that run eagerly where they were made here, and fail where they were not."""
    made = []

    def export(model, example, path):
        made.append(model)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"made here")

    def open_package(path, device):
        if path.read_bytes() == b"made here":
            return runtimes.run_eagerly(made[-1])

        def fail(pixels):
            raise RuntimeError("API call failed at model_container_runner.cpp, line 145")

        return fail

    monkeypatch.setattr(runtimes, "export_compiled", export)
    monkeypatch.setattr(runtimes, "open_compiled", open_package)
    return made


def test_a_package_that_loads_and_fails_when_it_runs_is_made_again(compiler, distance):
    plain, compiled = engines(backbone_of(tiny_net()), ["logits"], "compile")
    path = compiled._path("compile")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"made elsewhere")
    assert distance(compiled(pixels(4))[0], plain(pixels(4))[0]) < 1e-5
    assert path.read_bytes() == b"made here"
    assert (len(compiler), compiled.warnings) == (1, [])


def test_a_package_that_never_runs_is_refused_by_name_and_replaced_under_auto(compiler, monkeypatch):
    monkeypatch.setattr(runtimes, "open_compiled", lambda path, device: lambda pixels: pixels.no_such_thing)
    backbone = backbone_of(tiny_net())
    with pytest.raises(EngineError, match=r"engine 'compile' fails when it runs .*no_such_thing.*use --engine eager"):
        engines(backbone, ["logits"], "compile")[1](pixels(3))
    spec = backbone.spec("logits", precision="bf16")
    auto = Engine(backbone, [spec], device="cpu", batch_size=8, images=MANY["compile"])
    assert auto(pixels(3))[0].shape == (3, 7)
    assert (auto.engine, len(auto.warnings)) == ("eager", 1)


@pytest.mark.parametrize("what", ["capability", "processor", "driver", "triton"])
def test_packages_are_for_one_processor_driver_and_compiler(what, monkeypatch, tmp_path):
    _, engine = engines(backbone_of(tiny_net()), ["logits"], "compile")
    before, onnx = engine._path("compile"), engine._path("onnx")
    (tmp_path / "said").write_text("flags : none\nNVRM version: 999\n")
    change = {
        "capability": lambda: monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX1024"),
        "processor": lambda: monkeypatch.setattr(runtimes, "_PROCESSOR", tmp_path / "said"),
        "driver": lambda: monkeypatch.setattr(runtimes, "_DRIVER", tmp_path / "said"),
        "triton": lambda: monkeypatch.setattr(runtimes, "_version", lambda library: "999"),
    }
    change[what]()
    assert engine._path("compile") != before
    assert engine._path("onnx") == onnx
