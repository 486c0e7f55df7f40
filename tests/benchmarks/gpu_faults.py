"""What a review of the GPU's path found, checked where it would show; a step of `gpu_day.py`."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from featurebank.backbones.devices import choose_batch_size, choose_device
from featurebank.backbones.engine import Engine
from featurebank.backbones.exported.making import trace
from featurebank.backbones.placing import configure_torch, seeded
from featurebank.backbones.registry import load_backbone
from featurebank.backbones.runtimes import CapturedModel
from featurebank.errors import DeviceError

Check = Callable[[Any], Any]
"""Takes the size of a run, whose device it is made on; wrong is what is False, or raises."""


def backbone() -> Any:
    return load_backbone("resnet18", "random:0", 64)


def pixels(count: int) -> list[Any]:
    return list(np.random.default_rng(0).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8))


def embed(device: str, own: Any, count: int = 6, precision: str = "fp32", **options: Any) -> Any:
    how = {"engine": "eager", "batch_size": 8, **options}
    return Engine(own, [own.spec("penultimate", precision=precision)], device=device, **how)(pixels(count))[0]


def distance(found: Any, expected: Any) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def a_missing_gpu_is_refused(size: Any) -> bool:
    try:
        choose_device(f"{size.device}:99")
    except DeviceError:
        return True
    return False


def float32_is_float32(size: Any) -> bool:
    """A product whose TF32 result is 1e-3 off, after the user has asked for TF32."""
    torch.backends.fp32_precision = "tf32"
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    backbone().network_on(torch.device(size.device))
    x = torch.rand(256, 256, generator=torch.Generator().manual_seed(0))
    there = x.to(size.device)
    return distance((there @ there).cpu().numpy(), (x.double() @ x.double()).numpy()) < 1e-5


def compiled_and_plain_rows_agree(size: Any) -> bool:
    """What a bank's next run says of bf16 rows that another engine made."""
    from featurebank import Bank, scan
    from featurebank.backbones.request import Request
    from featurebank.extraction.extract import run_extraction
    from featurebank.extraction.pipeline import Compute

    with tempfile.TemporaryDirectory() as folder:
        request = Request("resnet18", "penultimate", weights="random:0", size=64, precision="bf16")
        made = Bank.create(Path(folder, "a.bank"))
        for engine, count in (("compile", 16), ("eager", 24)):
            source = scan(pixels(count), ids=[str(number) for number in range(count)])
            report = run_extraction(source, made, request, Compute(size.device, engine, 8))
            if any("differ from stored" in line for line in report.warnings):
                return False
    return True


def a_network_on_a_gpu_is_exported(size: Any) -> bool:
    own = backbone()
    embed(size.device, own)
    model = CapturedModel(own, [own.spec("penultimate")], stop=False).eval()
    return bool(trace(model, torch.from_numpy(np.stack(pixels(2)))).model_proto.ByteSize())


def two_engines_on_two_devices_stay_apart(size: Any) -> bool:
    own = backbone()
    specs = [own.spec("penultimate")]
    first, second = (Engine(own, specs, device=each, engine="eager", batch_size=8) for each in (size.device, "cpu"))
    before = first(pixels(6))[0]
    return distance(second(pixels(6))[0], before) < 1e-4 and np.array_equal(first(pixels(6))[0], before)


def a_backbone_from_a_gpu_is_pickled_for_the_cpu(size: Any) -> bool:
    own = backbone()
    own.model.to(size.device)
    again = pickle.loads(pickle.dumps(own))  # noqa: S301
    return (
        next(again.model.parameters()).device.type == "cpu" and distance(embed("cpu", again), embed("cpu", own)) < 1e-6
    )


def seeds_touch_one_device(size: Any) -> bool:
    used = torch.cuda.is_initialized()
    with seeded(3, torch.device("cpu")):
        torch.rand(2)
    if torch.cuda.is_initialized() != used:
        return False
    drawn = []
    for _ in range(2):
        with seeded(3, torch.device(size.device)):
            drawn.append(torch.rand(4, device=size.device).tolist())
    return drawn[0] == drawn[1]


def torchs_own_cache_counts_as_free(size: Any) -> bool:
    """A batch size is the same before and after torch has kept a third of the GPU's memory for itself."""
    device, own = choose_device(size.device), backbone()
    before = choose_batch_size(own, device)
    if device.type == "cuda":
        kept = torch.empty(torch.cuda.mem_get_info(device)[0] // 3, dtype=torch.uint8, device=device)
        del kept
    return choose_batch_size(own, device) == before


def memory_that_runs_out_halves_the_batch(size: Any) -> bool:
    if size.device != "cuda":
        return True
    own = load_backbone("resnet18", "random:0", 224)
    some = list(np.zeros((256, 224, 224, 3), np.uint8))
    torch.cuda.empty_cache()
    whole = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + (500 << 20)) / whole)
    try:
        running = Engine(own, [own.spec("penultimate")], device="cuda", engine="eager", batch_size=256)
        return len(running(some)[0]) == 256 and running.batch_size < 256
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def nvjpeg_works_or_is_refused(size: Any) -> bool:
    from featurebank.backbones import nvjpeg

    nvjpeg.check_decoding(torch.device(size.device))
    return True


def the_batch_in_flight_is_kept(size: Any) -> bool:
    own = backbone()
    running = Engine(own, [own.spec("penultimate")], device=size.device, engine="eager", batch_size=8)

    def batches() -> Any:
        yield 1, pixels(8)
        yield 2, pixels(8)
        raise ValueError("the third")

    stream, found = running.stream(batches()), []
    try:
        for tag, _ in stream:
            found.append(tag)
    except ValueError:
        return found == [1, 2]
    return False


def precision_flags_can_still_be_read(size: Any) -> bool:
    configure_torch()
    return not torch.backends.cuda.matmul.allow_tf32 and not torch.backends.cudnn.allow_tf32


CHECKS: dict[str, Check] = {
    check.__name__.replace("_", " "): check
    for check in (
        seeds_touch_one_device,
        a_missing_gpu_is_refused,
        float32_is_float32,
        precision_flags_can_still_be_read,
        a_network_on_a_gpu_is_exported,
        two_engines_on_two_devices_stay_apart,
        a_backbone_from_a_gpu_is_pickled_for_the_cpu,
        torchs_own_cache_counts_as_free,
        the_batch_in_flight_is_kept,
        memory_that_runs_out_halves_the_batch,
        nvjpeg_works_or_is_refused,
        compiled_and_plain_rows_agree,
    )
}
