import subprocess
import sys
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from networks import TINY, specs_of
from torch import nn

from featurebank.backbones import devices
from featurebank.backbones.base import Backbone
from featurebank.backbones.devices import choose_batch_size, choose_device
from featurebank.backbones.engine import Engine
from featurebank.backbones.registry import load_backbone
from featurebank.errors import DeviceError, ImageError, LayerError


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU(inplace=True), nn.Conv2d(16, 32, 3),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 24), nn.Dropout(), nn.Linear(24, 7),
    )  # fmt: skip


@pytest.fixture
def backbone():
    return Backbone.from_module(net(), name="tiny", version="1", transform=TINY)


@pytest.fixture
def prepared(backbone, noise):
    return [backbone.prepare(noise(50 + number, 40, seed=number)) for number in range(5)]


def plain(model, prepared):
    """Normalise and embed with nothing but torch."""
    images = torch.stack([torch.from_numpy(image.copy()).permute(2, 0, 1) for image in prepared]).float() / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (TINY.mean, TINY.std))
    with torch.no_grad():
        return model.eval()((images - mean) / std)


def test_logits_equal_the_plain_models_output(backbone, prepared, distance):
    expected = plain(net(), prepared)
    (found,) = Engine(backbone, specs_of(backbone, "logits"), device="cpu")(prepared)
    assert found.dtype == np.float32
    assert distance(found, expected) < 1e-5


def test_one_array_for_each_spec_in_their_order(backbone, prepared, distance):
    layers = specs_of(backbone, "penultimate", "3:none", "0:gem", "logits")
    outputs = Engine(backbone, layers, device="cpu", batch_size=8)(prepared)
    assert [output.shape for output in outputs] == [(5, 24), (5, 32, 13, 13), (5, 16), (5, 7)]
    assert distance(outputs[1], plain(net()[:4], prepared)) < 1e-5


def test_a_rows_bits_do_not_depend_on_its_neighbours_when_batches_are_padded(backbone, prepared):
    engine = Engine(backbone, specs_of(backbone, "penultimate", "3"), device="cpu", batch_size=8)
    together = engine(prepared)
    for count in (1, 2, 5):
        apart = engine(prepared[:count])
        assert all(np.array_equal(part, whole[:count]) for part, whole in zip(apart, together, strict=True))


def test_a_callable_transforms_float_tensors_go_in_as_they_are(prepared, noise, distance):
    def transform(image):
        return torch.from_numpy(np.asarray(image)[:32, :32].copy()).permute(2, 0, 1).double() / 255

    backbone = Backbone.from_module(net(), name="tiny", version="1", transform=transform)
    images = [noise(50, 40, seed=number) for number in range(3)]
    (found,) = Engine(backbone, specs_of(backbone, "logits"), device="cpu", batch_size=4)(
        [backbone.prepare(image) for image in images]
    )
    with torch.no_grad():
        expected = net().eval()(torch.stack([transform(image) for image in images]).float())
    assert distance(found, expected) < 1e-5


def test_the_engine_puts_the_model_in_eval_mode_again(backbone, prepared):
    engine = Engine(backbone, specs_of(backbone, "logits"), device="cpu")
    first = engine(prepared)[0]
    backbone.model.train()
    again = Engine(backbone, specs_of(backbone, "logits"), device="cpu")(prepared)[0]
    assert not backbone.model.training
    assert np.array_equal(first, again)


def test_an_engine_names_the_libraries_and_the_device_behind_its_features(backbone):
    made_by = Engine(backbone, specs_of(backbone, "logits"), device="cpu").made_by
    assert made_by["torch"] == torch.__version__
    assert made_by["device"].startswith("cpu ")


def test_a_spec_whose_layer_the_backbone_lacks_is_refused(backbone):
    other = Backbone.from_module(nn.Sequential(nn.Flatten(), nn.Linear(3072, 2)), name="o", version="1", transform=TINY)
    with pytest.raises(LayerError, match="no layer '3'"):
        Engine(other, specs_of(backbone, "3"), device="cpu")


def test_a_stream_gives_each_batch_with_its_tag_in_order(backbone, prepared, distance):
    engine = Engine(backbone, specs_of(backbone, "penultimate"), device="cpu", batch_size=4)
    batches = [("a", prepared[:3]), ("b", prepared[3:]), ("c", prepared)]
    found = list(engine.stream(batches))
    assert [tag for tag, _ in found] == ["a", "b", "c"]
    for (_, (rows,)), (_, batch) in zip(found, batches, strict=True):
        assert rows.shape == (len(batch), 1, 24)
        assert distance(rows, engine(batch)[0]) == 0


def test_views_that_do_not_fill_a_batch_evenly_stay_with_their_image(backbone, prepared):
    views = [replace(spec, views="dihedral") for spec in specs_of(backbone, "logits")]
    for batch_size in (1, 3, 8, 32):
        engine = Engine(backbone, views, device="cpu", batch_size=batch_size)
        (rows,) = engine.embed_views(prepared[number // 8] for number in range(40))
        assert rows.shape == (5, 8, 7)
        assert np.ptp(rows, axis=1).max() < 1e-5
        assert np.ptp(rows, axis=0).max() > 1e-3


SHORT_OF_MEMORY = """
import resource, numpy as np
from featurebank.backbones.registry import load_backbone
from featurebank.backbones.engine import Engine
backbone = load_backbone("resnet18", "random:0", 160)
pixels = list(np.random.default_rng(0).integers(0, 256, (64, 160, 160, 3), dtype=np.uint8))
specs = [backbone.spec("penultimate")]
expected = Engine(backbone, specs, device="cpu", engine="eager", batch_size=4)(pixels)[0]
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (200 << 20),) * 2)
engine = Engine(backbone, specs, device="cpu", engine="eager", batch_size=64)
found = engine(pixels)[0]
print(engine.batch_size, np.abs(found - expected).max() < 1e-5, *engine.warnings, sep="; ")
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits memory as Linux does")
def test_when_memory_runs_out_batches_are_halved_and_no_row_is_lost():
    done = subprocess.run([sys.executable, "-c", SHORT_OF_MEMORY], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    size, same, *warnings = done.stdout.strip().split("; ")
    assert int(size) < 64
    assert same == "True"
    assert warnings[0] == "memory ran out: batches of 32 from here on"


@pytest.mark.parametrize(("size", "gib", "batch"), [(224, 24, 32), (64, 1, 32), (224, 1, 8), (224, 0.01, 1)])
def test_the_batch_size_is_what_a_quarter_of_the_memory_holds(monkeypatch, size, gib, batch):
    # the largest layer of resnet18 at 224 pixels, 64 x 112 x 112 floats, six times: 18.4 MiB
    monkeypatch.setattr(devices, "_memory", lambda device: int(gib * 2**30))
    assert choose_batch_size(load_backbone("resnet18", "random:0", size), torch.device("cpu")) == batch


def test_auto_takes_a_gpu_when_there_is_one():
    name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert choose_device("auto").type == name
    assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_missing_gpu_is_an_error_that_says_what_to_do(device):
    with pytest.raises(DeviceError, match=f"device '{device}' is not on this machine; use --device cpu or auto"):
        choose_device(device)


def test_an_unknown_device_lists_the_known_ones():
    with pytest.raises(DeviceError, match="expected one of auto, cpu, cuda, mps"):
        choose_device("tpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpus_features_equal_the_cpus(backbone, prepared, distance):
    wanted = specs_of(backbone, "penultimate", "3")
    on_cpu = Engine(backbone, wanted, device="cpu", batch_size=8)(prepared)
    on_gpu = Engine(backbone, wanted, device="cuda", batch_size=8)(prepared)
    assert max(map(distance, on_gpu, on_cpu)) < 1e-5


# --- when something fails ----------------------------------------------------------------------------------


def test_the_tensors_of_a_pass_that_failed_are_gone_before_the_next(backbone, prepared, monkeypatch):
    engine = Engine(backbone, specs_of(backbone, "penultimate"), device="cpu", engine="eager", batch_size=4)
    run, left = engine._eager, []

    def short_of_memory(pixels):
        activations = torch.empty(len(pixels))
        assert all(each() is None for each in left)
        left.append(weakref.ref(activations))
        if len(pixels) > 1:
            raise RuntimeError("CUDA out of memory. Tried to allocate 1.00 GiB")
        return run(pixels)

    monkeypatch.setattr(engine, "_eager", short_of_memory)
    assert engine(prepared)[0].shape == (5, 24)
    assert engine.warnings == [f"memory ran out: batches of {size} from here on" for size in (2, 1)]


@pytest.mark.parametrize("kind", [ImageError, KeyboardInterrupt])
def test_the_batch_in_flight_is_given_before_the_next_ones_error(backbone, monkeypatch, kind):
    engine = Engine(backbone, specs_of(backbone, "penultimate"), device="cpu", engine="eager", batch_size=1)
    launched = lambda prepared: (None, [(1, [torch.full((1, 2), float(prepared[0]))], None)])  # noqa: E731
    monkeypatch.setattr(engine, "_launch", launched)
    engine.device = torch.device("cuda")  # where one batch is computed while the next is put together

    def batches():
        yield "a", [1]
        yield "b", [2]
        raise kind("the third")

    stream = engine.stream(batches())
    found = [(tag, rows[0][0, 0].tolist()) for tag, rows in (next(stream), next(stream))]
    assert found == [("a", [1.0, 1.0]), ("b", [2.0, 2.0])]
    with pytest.raises(kind, match="the third"):
        next(stream)
