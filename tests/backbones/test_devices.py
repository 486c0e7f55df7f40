"""Devices and their memory, as torch would tell of them on a machine with a GPU."""

import pytest
import torch

from featurebank.backbones import devices
from featurebank.backbones.devices import choose_device, is_out_of_memory
from featurebank.errors import DeviceError

CUDA = torch.device("cuda", 0)
GIB = 1 << 30


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


def test_a_number_that_no_gpu_has_is_refused(two_gpus, monkeypatch):
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    assert choose_device("auto") == torch.device("cuda")
    with pytest.raises(DeviceError, match=r"device 'cuda:7' is not on this machine, which has cuda:0 to cuda:1"):
        choose_device("cuda:7")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(
        DeviceError, match=r"'cuda:1' is not on this machine, which has cuda:0; use one of these or auto"
    ):
        choose_device("cuda:1")
    with pytest.raises(DeviceError, match="'cpu:3' is not on this machine, which has cpu:0"):
        choose_device("cpu:3")


def test_what_torch_keeps_unused_is_free_memory(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 * GIB, 80 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 50 * GIB)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 10 * GIB)
    assert devices._memory(CUDA) == 42 * GIB


CLEAR = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB"),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
]
UNCLEAR = [
    RuntimeError("GET was unable to find an engine to execute this computation"),
    RuntimeError("FIND was unable to find an engine to execute this computation"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    RuntimeError("run_func_(...) API call failed at /torch/csrc/inductor/model_container_runner.cpp, line 145"),
]
OTHER = [
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
]


@pytest.mark.parametrize("error", [*CLEAR, *UNCLEAR, *OTHER], ids=lambda error: str(error)[:40])
def test_libraries_that_find_no_memory_are_understood(error, monkeypatch):
    is_clear, is_unclear = error in CLEAR, error in UNCLEAR
    for free, is_meant in ((GIB, is_clear or is_unclear), (40 * GIB, is_clear)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 80 * GIB))
        assert is_out_of_memory(error, CUDA) == is_meant
    assert is_out_of_memory(error, torch.device("cpu")) == is_clear
