"""Networks on devices, without any but the CPU: `FakeTensorMode` has shapes and devices, and no numbers."""

import pickle

import numpy as np
import pytest
import torch
from networks import TINY, specs_of
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from featurebank.backbones import placing
from featurebank.backbones.base import Backbone
from featurebank.backbones.engine import Engine
from featurebank.backbones.placing import configure_torch, network_on, seeded
from featurebank.backbones.runtimes import CapturedModel
from featurebank.errors import BackboneError
from featurebank.explore.advice.costs import extraction_cost
from featurebank.finetuning import estimate
from featurebank.finetuning.network import Network
from featurebank.finetuning.optimization import Mix, mixed_loss
from featurebank.predictor import onnx
from featurebank.predictor.features import PredictorFeature

CUDA, CPU, META = torch.device("cuda"), torch.device("cpu"), torch.device("meta")
PRECISIONS = [
    (torch.backends.cuda, "matmul"), (torch.backends.cudnn, "conv"), (torch.backends.cudnn, "rnn"),
    (torch.backends.mkldnn, "matmul"), (torch.backends.mkldnn, "conv"), (torch.backends.mkldnn, "rnn"),
]  # fmt: skip


class Blocks(nn.Module):
    """A network whose second half is called by keyword alone, and adds what the first half gave to a parameter."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, stride=2), nn.Conv2d(8, 8, 3, stride=2)
        self.shift = nn.Parameter(torch.zeros(8, 1, 1))
        self.fc = nn.Linear(8, 5)

    def forward(self, images):
        early = self.first(input=images) + self.shift
        return self.fc(self.second(input=early).mean((2, 3)))


@pytest.fixture
def backbone():
    torch.manual_seed(0)
    return Backbone.from_module(Blocks(), name="tiny", version="1", transform=TINY)


def pixels(count=3):
    return list(np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8))


def devices_of(module):
    return {str(tensor.device) for tensor in [*module.parameters(), *module.buffers()]}


def move_to_fake_gpu(module):
    """Put tensors of a GPU that is not there in the place of a module's own, inside a `FakeTensorMode`."""
    for each in module.modules():
        for name, value in each._parameters.items():
            each._parameters[name] = None if value is None else nn.Parameter(torch.empty(value.shape, device=CUDA))
        for name, value in each._buffers.items():
            each._buffers[name] = torch.empty(value.shape, device=CUDA)


# --- one network, several devices --------------------------------------------------------------------------


def test_an_engine_on_another_device_leaves_the_first_as_it_is(backbone):
    first = Engine(backbone, specs_of(backbone, "penultimate"), device="cpu", engine="eager", batch_size=4)
    expected = first(pixels())[0]
    weights = backbone.weights
    there = backbone.network_on(META)
    assert devices_of(there) == {"meta"}
    assert backbone.network_on(META) is there
    assert backbone.network_on(CPU) is backbone.model
    assert np.array_equal(first(pixels())[0], expected)
    assert backbone.weights == weights


def test_a_copy_shares_no_tensor_and_keeps_what_is_tied():
    net = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3)).double()
    net[2].weight = net[0].weight
    with FakeTensorMode(allow_non_fake_inputs=True):
        there = network_on(net, CUDA)
        assert there[2].weight is there[0].weight
        assert devices_of(there) == {"cuda:0"}
    assert devices_of(net) == {"cpu"}


def test_a_network_that_cannot_be_copied_is_to_be_moved_by_its_owner():
    class Stubborn(nn.Linear):
        def __deepcopy__(self, memo):
            raise TypeError("not me")

    net = Stubborn(2, 2)
    assert network_on(net, CPU) is net
    with pytest.raises(BackboneError, match=r"cannot be copied to meta \(not me\): move it there yourself"):
        network_on(net, META)


def test_a_backbone_goes_to_other_processes_on_the_cpu(backbone):
    expected = backbone.weights
    backbone.network_on(META)
    again = pickle.loads(pickle.dumps(backbone))  # noqa: S301
    assert "_copies" not in vars(again)
    assert again.weights == expected
    with FakeTensorMode(allow_non_fake_inputs=True):
        move_to_fake_gpu(backbone.model)
        assert devices_of(backbone.__getstate__()["model"]) == {"cpu"}


# --- where devices can mix ---------------------------------------------------------------------------------


def test_a_captured_model_lies_on_one_device(backbone):
    wanted = specs_of(backbone, "penultimate", "first:none")
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = CapturedModel(backbone, wanted, CUDA)
        outputs = model(torch.zeros(2, 32, 32, 3, dtype=torch.uint8, device=CUDA))
        assert devices_of(model) == {"cuda:0"}
        assert [str(output.device) for output in outputs] == ["cuda:0", "cuda:0"]


class Fitted:
    """What the export needs of a predictor whose network lies on a GPU."""

    def __init__(self, backbone):
        self.features = [PredictorFeature(backbone.spec("penultimate"), "", None)]
        self.backbone = backbone

    def backbone_of(self, feature):
        return self.backbone


def test_a_predictor_is_exported_from_the_cpu_wherever_its_network_lies(backbone):
    predictor, _ = Fitted(backbone), backbone.layers
    with FakeTensorMode(allow_non_fake_inputs=True):
        move_to_fake_gpu(backbone.model)
        whole, _ = onnx._whole(predictor, nn.Linear(8, 2))
        assert devices_of(whole) == {"cpu"}
        assert devices_of(backbone.model) == {"cuda:0"}
        assert str(whole(torch.zeros(2, 32, 32, 3, dtype=torch.uint8)).device) == "cpu"


@pytest.mark.parametrize("cut", ["second", "head", "input"])
def test_a_step_of_fine_tuning_stays_on_one_device(backbone, cut):
    network = Network(backbone, cut, CPU)
    x, order = torch.zeros(2, *network.shape), np.random.default_rng(0)
    with FakeTensorMode(allow_non_fake_inputs=True):
        move_to_fake_gpu(network.tail)
        network.device = CUDA
        y, weight = torch.zeros(2, dtype=torch.long, device=CUDA), torch.ones(2, device=CUDA)
        mix = Mix(order, 2, 0.4)
        loss = mixed_loss(network.tail(mix(network.place(x))), y, weight, mix)
        assert str(loss.device) == "cuda:0"


# --- numbers and threads -----------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [lambda each: Network(each, "second", CPU), lambda each: each.network_on(META)])
def test_wherever_a_network_is_built_float32_is_float32(backbone, build):
    torch.set_float32_matmul_precision("medium")
    torch.backends.fp32_precision = "tf32"
    for library, operation in PRECISIONS:
        getattr(library, operation).fp32_precision = "tf32"
    build(backbone)
    assert [getattr(library, operation).fp32_precision for library, operation in PRECISIONS] == ["ieee"] * 6
    assert not torch.backends.cuda.matmul.allow_tf32  # reading it is an error where the two ways to set it disagree
    assert not torch.backends.cudnn.allow_tf32
    assert torch.get_float32_matmul_precision() == "highest"


def test_torch_takes_no_more_threads_than_the_process_has_cores(monkeypatch):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        monkeypatch.setattr(placing, "usable_cores", lambda: 2)
        configure_torch()
        assert torch.get_num_threads() == 2
        torch.set_num_threads(1)
        configure_torch()
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_seeded_draws_are_repeated_and_touch_no_gpu(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a GPU was touched")

    for name in ("get_rng_state", "set_rng_state", "manual_seed", "manual_seed_all", "device_count"):
        monkeypatch.setattr(torch.cuda, name, refuse)
    state = torch.get_rng_state()
    drawn = []
    for _ in range(2):
        with seeded(7, CPU):
            drawn.append(torch.rand(3).tolist())
    assert drawn[0] == drawn[1] == torch.rand(3, generator=torch.Generator().manual_seed(7)).tolist()
    assert torch.equal(torch.get_rng_state(), state)


def test_times_begin_and_end_when_the_device_has_done_all(monkeypatch, backbone):
    done = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: done.append("wait"))
    estimate._timed(lambda: done.append("run"), CUDA)
    assert done == ["run", "wait", "run", "run", "wait"]
    assert extraction_cost(backbone, ["penultimate"], backbone.spec("penultimate"), 10)[1] == 10 * 8 * 2
