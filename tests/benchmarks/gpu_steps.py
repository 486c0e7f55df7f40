"""The steps of `gpu_day.py`: each yields what it finds, for a GPU or at toy size on the CPU."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
Record = dict[str, Any]
"""``what`` was measured: its ``value`` with ``unit``, ``bar`` and whether it ``passed``; ``note`` says what else."""


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    device: str = "cuda"
    nets: tuple[str, ...] = ("resnet50", "resnet18", "efficientnet_lite0", "vit_b_16")
    side: int = 224
    precisions: tuple[str, ...] = ("bf16", "fp32")
    batch: int = 256
    seconds: float = 1.0
    photos: int = 8192
    ragged: int = 1024
    large: int = 64
    large_size: tuple[int, int] = (4000, 3000)
    tuned: int = 1024

    @property
    def cores(self) -> int:
        """Cores of this process."""
        from featurebank.storage.cores import usable_cores

        return usable_cores()


TOY = Size("cpu", ("resnet18",), 32, ("bf16",), 8, 0.1, 48, 16, 2, (400, 300), 24)
MAIN_NET = {Size(): "resnet50", TOY: "resnet18"}
"""The network of the steps that take one."""
DECODERS = ("pil", "tensor", "reduced", "nvjpeg")
ENGINES = ("eager", "compile")
BAR = 0.8
MOST_STALL = 0.020


# --- what the steps share ----------------------------------------------------------------------------------


def measured(what: str, value: float, unit: str = "images/s", *, least: float | None = None) -> Record:
    """Return a figure, with the least that it must be where there is one."""
    bar = {} if least is None else {"bar": least, "passed": bool(value >= least)}
    return {"what": what, "value": float(value), "unit": unit, **bar}


def checked(what: str, check: Callable[[], Any]) -> Record:
    """Return whether a check holds, and what it said if not."""
    try:
        return {"what": what, "passed": check() is not False}
    except Exception as error:  # the next check is made whatever this one met
        return {"what": what, "passed": False, "note": f"{type(error).__name__}: {error}"[:300]}


def attempted(what: str, measure: Callable[[], Iterator[Record]]) -> Iterator[Record]:
    """Yield what a part of a step measures; why it cannot, where it fails."""
    try:
        yield from measure()
    except Exception as error:  # the other parts go on
        yield {"what": what, "passed": False, "note": f"{type(error).__name__}: {error}"[:300]}


def rate_of(count: int, call: Callable[[], Any], size: Size) -> float:
    """Return how many a second, from calls until the time is over; the device has done all at both ends."""
    import torch

    from featurebank.backbones.placing import synchronize

    device, calls = torch.device(size.device), 0
    synchronize(device)
    started = time.perf_counter()
    while calls == 0 or time.perf_counter() - started < size.seconds:
        call()
        calls += 1
    synchronize(device)
    return calls * count / (time.perf_counter() - started)


def backbone_of(name: str, size: Size, decoder: str = "pil") -> Any:
    """Return a network with seeded weights."""
    from featurebank.backbones.registry import load_backbone

    return load_backbone(name, "random:0", size.side).with_decoder(decoder)


def open_engine(name: str, size: Size, precision: str = "fp32", engine: str = "eager", **options: Any) -> Any:
    """Return an engine for the penultimate layer."""
    from featurebank.backbones.engine import Engine

    backbone = backbone_of(name, size)
    how = {"device": size.device, "engine": engine, "batch_size": size.batch, **options}
    return Engine(backbone, [backbone.spec("penultimate", precision=precision)], **how)


def batch_of(size: Size, seed: int = 0) -> list[Any]:
    """Return a batch of prepared images: noise."""
    import numpy as np

    noise = np.random.default_rng(seed).integers(0, 256, (size.batch, size.side, size.side, 3), dtype=np.uint8)
    return list(noise)


def photo_folder(work: Path, kind: str, size: Size) -> Path:
    """Return the folder of one kind of photographs, made where there is none."""
    folder = work / f"{kind}-{size.photos}"
    if not (folder / "whole").exists():
        count = {"photos": size.photos, "ragged": size.ragged, "large": size.large}[kind]
        with ProcessPoolExecutor(size.cores, get_context("spawn")) as pool:
            list(pool.map(partial(make_photo, folder, kind, size.large_size), range(count), chunksize=8))
        (folder / "whole").write_text("")
    return folder


def make_photo(folder: Path, kind: str, large: tuple[int, int], number: int) -> None:
    """Save a JPEG of smooth noise and stripes whose direction is its class."""
    import numpy as np
    from PIL import Image

    random, label = np.random.default_rng(number), number % 2
    ragged = (int(random.integers(300, 700)), int(random.integers(300, 700)))
    width, height = {"photos": (500, 375), "ragged": ragged, "large": large}[kind]
    smooth = Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize((width, height))
    stripes = np.indices((height, width))[label] // 12 % 2 * random.integers(5, 40)
    pixels = np.clip(np.asarray(smooth, np.int64) + stripes[..., None], 0, 255).astype(np.uint8)
    path = folder / "ab"[label] / f"{number:05}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=90)


def latest(out: Path) -> list[Record]:
    """Return the last record of each thing in a file of JSON lines."""
    records = [json.loads(line) for line in out.read_text().splitlines()] if out.is_file() else []
    return list({(each["step"], each["what"]): each for each in records}.values())


def known(out: Path, step: str, what: str) -> float | None:
    """Return a figure of an earlier step; None where it was not measured."""
    return next((each.get("value") for each in latest(out) if (each["step"], each["what"]) == (step, what)), None)


# --- the steps ---------------------------------------------------------------------------------------------


def machine(size: Size, work: Path, out: Path) -> Iterator[Record]:
    """Name the machine: its figures mean nothing without it."""
    import platform

    import torch
    import torchvision

    gpu = torch.cuda.get_device_name() if size.device == "cuda" else platform.machine()
    driver = Path("/proc/driver/nvidia/version")
    yield {"what": "device", "note": f"{gpu}, {size.cores} cores"}
    yield {"what": "torch", "note": f"{torch.__version__}, torchvision {torchvision.__version__}"}
    yield {"what": "driver", "note": driver.read_text().splitlines()[0] if driver.is_file() else "none"}


def tests(size: Size, work: Path, out: Path) -> Iterator[Record]:
    """Run the tests that need a GPU; without one all are skipped."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-n0", "-p", "no:cacheprovider"]
    files = ["tests/test_gpu.py", "tests/backbones/test_engine.py"]
    done = subprocess.run([*command, *files], cwd=ROOT, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    for line in lines:
        yield {"what": line[:160], "passed": False}
    yield {
        "what": "tests",
        "passed": done.returncode == 0,
        "note": (done.stdout.splitlines() or [done.stderr])[-1][:160],
    }


def faults(size: Size, work: Path, out: Path) -> Iterator[Record]:
    """Check what a review of the path found, each where it would show."""
    from benchmarks import gpu_faults

    yield from (checked(what, partial(check, size)) for what, check in gpu_faults.CHECKS.items())


def compiling(size: Size, work: Path, out: Path) -> Iterator[Record]:
    """Compile all networks beside each other; the next steps take those that are done by then."""
    wanted = [(name, precision) for precision in size.precisions for name in size.nets]
    with ProcessPoolExecutor(4, get_context("spawn")) as pool:
        for (name, precision), seconds in zip(wanted, pool.map(partial(compile_one, size), wanted), strict=True):
            yield measured(f"{name} {precision} compiled in", seconds, "s")


def compile_one(size: Size, wanted: tuple[str, str]) -> float:
    """Compile one network into the cache and return the seconds."""
    started = time.perf_counter()
    with suppress(Exception):  # the step that uses it says why
        open_engine(wanted[0], size, wanted[1], "compile")(batch_of(size))
    return time.perf_counter() - started


def network(size: Size, work: Path, out: Path) -> Iterator[Record]:
    """Measure the forward pass alone, and the engine's stream from arrays against it."""
    for engine in ENGINES:
        for precision in size.precisions:
            for name in size.nets:
                what = f"{name} {precision} {engine}"
                yield from attempted(what, partial(_forward_and_stream, name, precision, engine, size, what))


def _forward_and_stream(name: str, precision: str, engine: str, size: Size, what: str) -> Iterator[Record]:
    running, batch = open_engine(name, size, precision, engine), batch_of(size)
    if engine == "compile" and not running._path(engine).is_file():
        yield {"what": what, "note": "not compiled in the time of that step"}
        return
    running(batch)
    pixels = running._pixels(batch)
    forward = rate_of(size.batch, lambda: running._runtime(pixels), size)
    yield measured(f"{what} forward", forward)
    batches = [batch, batch_of(size, 1)]
    many = max(4, int(forward * size.seconds / size.batch))
    streamed = rate_of(
        many * size.batch,
        lambda: [None for _ in running.stream((None, each) for each in islice(cycle(batches), many))],
        size,
    )
    yield measured(f"{what} stream", streamed, least=BAR * forward)


def decode(size: Size, work: Path, out: Path) -> Iterator[Record]:
    """Measure reading, hashing, decoding and preparing alone: in threads, in processes, by nvJPEG."""
    files = sorted(photo_folder(work, "photos", size).rglob("*.jpg"))
    few = files[: max(64, len(files) // 4)]
    for decoder in DECODERS[:-1]:
        yield from attempted(decoder, partial(_decode_on_cpu, decoder, few, size))
    for kind in ("photos", "ragged", "large"):
        folder = photo_folder(work, kind, size)
        yield from attempted(f"nvjpeg {kind}", partial(_decode_on_gpu, kind, sorted(folder.rglob("*.jpg")), size))


def read_photo(backbone: Any, path: Path) -> Any:
    """Read, hash, decode and prepare one file."""
    from featurebank.images import decoding

    data = path.read_bytes()
    decoding.content_digest(data)
    return backbone.prepare(decoding.decode(data, **backbone.opening_on_cpu))


def _read_some(name: str, decoder: str, size: Size, paths: list[Path]) -> int:
    backbone = backbone_of(name, size, decoder)
    return len([read_photo(backbone, path) for path in paths])


def _decode_on_cpu(decoder: str, files: list[Path], size: Size) -> Iterator[Record]:
    from featurebank.images.reading import read_ahead

    name = MAIN_NET[size]
    backbone = backbone_of(name, size, decoder)
    read = partial(read_photo, backbone)
    started = time.perf_counter()
    sum(1 for _ in read_ahead(read, files))
    yield measured(f"{decoder} in threads", len(files) / (time.perf_counter() - started))
    parts = [files[start :: size.cores] for start in range(size.cores)]
    with ProcessPoolExecutor(size.cores, get_context("spawn")) as pool:
        work_on = partial(_read_some, name, decoder, size)
        list(pool.map(work_on, [part[:1] for part in parts]))  # the processes have loaded all that they need
        started = time.perf_counter()
        done = sum(pool.map(work_on, parts))
        yield measured(f"{decoder} in processes", done / (time.perf_counter() - started))


def _decode_on_gpu(kind: str, files: list[Path], size: Size) -> Iterator[Record]:
    from featurebank.backbones.devices import choose_device
    from featurebank.backbones.nvjpeg import JpegDecoder
    from featurebank.images.decoding import find_jpeg

    if size.device != "cuda":
        yield {"what": f"nvjpeg {kind}", "note": "needs a CUDA GPU"}
        return
    decoder = JpegDecoder(backbone_of(MAIN_NET[size], size, "nvjpeg").preprocessing, choose_device(size.device))
    prepared = [find_jpeg(path.read_bytes()) for path in files[: 4 * size.batch]]
    batches = [prepared[start : start + size.batch] for start in range(0, len(prepared), size.batch)]
    decoder(batches[0])
    rate = rate_of(len(prepared), lambda: [decoder(each) for each in batches], size)
    yield {**measured(f"nvjpeg {kind}", rate), "note": f"{decoder.refused} files left to the CPU"}


def bank(size: Size, work: Path, out: Path) -> Iterator[Record]:
    """Go from JPEG files to a bank with each decoder: the rate, the GPU's busy share, how long a flush stalls it."""
    folder = photo_folder(work, "photos", size)
    for decoder in DECODERS if size.device == "cuda" else DECODERS[:-1]:
        yield from attempted(decoder, partial(_to_bank, decoder, folder, size, out))


def _to_bank(decoder: str, folder: Path, size: Size, out: Path) -> Iterator[Record]:
    from featurebank import Bank, scan
    from featurebank.backbones.request import Request
    from featurebank.extraction.extract import run_extraction
    from featurebank.extraction.pipeline import Compute
    from featurebank.extraction.writing import Writer

    name, stalls, flush = MAIN_NET[size], [0.0], Writer.flush

    def timed(writer: Writer) -> None:
        started = time.perf_counter()
        flush(writer)
        stalls.append(time.perf_counter() - started)

    request = Request(name, "penultimate", weights="random:0", size=size.side, decoder=decoder, precision="bf16")
    request.load()
    Writer.flush = timed  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as place, Busy() as busy:
        compute = Compute(size.device, "eager", size.batch)
        report = run_extraction(scan(folder), Bank.create(f"{place}/a.bank"), request, compute)
    Writer.flush = flush  # type: ignore[method-assign]
    forward = known(out, "network", f"{name} bf16 eager forward")
    decoded = [known(out, "decode", f"{decoder} in {how}") for how in ("threads", "processes")]
    limits = [each for each in (forward, max(filter(None, decoded), default=None)) if each]
    yield measured(
        f"{decoder} to a bank", report.embedded / report.seconds, least=BAR * min(limits) if limits else None
    )
    if busy.shares:
        yield measured(f"{decoder} GPU busy", 100 * sum(busy.shares) / len(busy.shares), "%")
    longest = max(stalls)
    yield {**measured(f"{decoder} longest flush", 1000 * longest, "ms"), "passed": longest <= MOST_STALL}


class Busy:
    """Asks nvidia-smi in which share of the time the GPU computes."""

    def __init__(self) -> None:
        self.shares: list[float] = []
        self._asked: subprocess.Popen[str] | None = None

    def __enter__(self) -> Busy:
        command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "200"]
        with suppress(OSError):
            self._asked = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            threading.Thread(target=self._listen, daemon=True).start()
        return self

    def _listen(self) -> None:
        assert self._asked is not None
        assert self._asked.stdout is not None
        for line in self._asked.stdout:
            with suppress(ValueError):
                self.shares.append(float(line))

    def __exit__(self, *error: object) -> None:
        if self._asked is not None:
            self._asked.terminate()


def finetuning(size: Size, work: Path, out: Path) -> Iterator[Record]:
    """Time an epoch of fine-tuning from the cache and from live images; resume one, against one that went through."""
    from featurebank import extract
    from featurebank.finetuning.finetune import finetune
    from featurebank.finetuning.recipe import Recipe

    photos = photo_folder(work, "photos", size).rglob("*.jpg")
    files = sorted(photos, key=lambda path: path.name)[: size.tuned]  # of both classes
    with tempfile.TemporaryDirectory() as place:
        labels = {"path": list(map(str, files)), "label": [path.parent.name for path in files]}
        common = {"weights": "random:0", "size": size.side, "device": size.device}
        made = extract(labels, f"{place}/a.bank", backbone="resnet18", batch_size=size.batch, **common)
        how = {"backbone": "resnet18", **common}
        for augment in ("cached:2", "live"):
            result = finetune(made, Recipe("layer4", epochs=2, lr=1e-3, augment=augment), **how)
            last = result.report["history"][-1]
            yield measured(f"an epoch {augment}", last["images_per_second"])
        yield resumed(finetune, made, how, Path(place, "checkpoint"))


def resumed(finetune: Any, made: Any, how: dict[str, Any], checkpoint: Path) -> Record:
    """Return how far the losses of a training that was stopped and resumed are from those of one that was not."""
    from featurebank.finetuning.finetune import Callbacks
    from featurebank.finetuning.recipe import Recipe

    recipe = Recipe("layer4", epochs=2, lr=1e-3, augment="cached:2")
    through = finetune(made, recipe, **how)

    def stop(done: int, total: int) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    finetune(made, recipe, checkpoint=checkpoint, callbacks=Callbacks(on_step=stop), **how)
    again = finetune(made, recipe, checkpoint=checkpoint, resume=True, **how)
    pairs = zip(through.report["history"], again.report["history"], strict=True)
    away = max(abs(one["loss"] - other["loss"]) for one, other in pairs)
    same = through.report["weights"] == again.report["weights"]
    note = f"losses at most {away:.1e} apart; the weights are {'the same bits' if same else 'not the same bits'}"
    return {"what": "resumed as if never stopped", "passed": away < 1e-3, "note": note}
