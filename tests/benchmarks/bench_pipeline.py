"""What the pipeline costs around the network: Python's share, decoding, batches, writing; each beside the path before.

    python tests/benchmarks/bench_pipeline.py [--only A]... [--small 12000] [--large 600] [--samples 1000000]

Runs on two cores without a GPU. Readers are processes here whatever the machine (`featurebank.extraction.preparing`
takes threads on fewer than four cores); the path before is in `pipeline_baseline.py`.

A. Python's ceiling: JPEG files of 16x16 pixels and a network that does nothing. CPU time an image in this process and
   in all, between 1/4 of the files and all, so that no start counts.
B. Decoding of files of 500x375 pixels by the readers, against as many processes that know nothing of each other.
C. A network that sleeps 10, 25, 80 ms for a batch of 256: images a second over min(reading alone, 256/sleep); the
   longest time in which it had nothing to do, in batches.
D. From a decoded image to the network's input.
E. How long the network waits for a full segment to be written, at 512 and 2,048 columns, 10^4 and 10^6 samples.
F. `FeatureExtractor.transform` and `Predictor.predict_table` against `extract` of the same files.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pipeline_baseline as baseline
from bench_extract import make_images
from PIL import Image

from featurebank import Bank
from featurebank.backbones.base import Backbone
from featurebank.backbones.batches import stacked
from featurebank.backbones.preprocessing import Preprocessing
from featurebank.backbones.request import Request
from featurebank.bank.spec import FeatureSpec
from featurebank.extraction import pipeline, preparing
from featurebank.extraction.preparing import Preparer
from featurebank.extraction.reader import Slots, layout_of
from featurebank.extraction.tracker import Tracker
from featurebank.extraction.writing import Writer
from featurebank.images.decoding import content_digest, decode
from featurebank.images.scanning import scan
from featurebank.images.sources import Source
from featurebank.storage.memory import anonymous_file, map_file

BATCH, WIDTH, WORKERS = 256, 512, 2
TINY = Preprocessing(16, (16, 16), "bilinear", (0.5,) * 3, (0.5,) * 3)
USUAL = Preprocessing(256, (224, 224), "bicubic", (0.5,) * 3, (0.5,) * 3)
SLEEPS = (0.010, 0.025, 0.080)
SPEC = FeatureSpec("net", "", "0" * 64, "layer", "vector", 0, "none", {}, 1, "none", "fp32", "float16")


def save_tiny(folder: Path, count: int) -> Path:
    """Save JPEG files of 16x16 pixels, no two alike."""
    folder.mkdir(parents=True)
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8)).save(file, "JPEG")
    for number in range(count):
        (folder / f"{number:06}.jpg").write_bytes(file.getvalue() + number.to_bytes(4, "big"))
    return folder


class Sleeper:
    """An engine that gives rows of zeros after a rest, and knows how long it was left without work."""

    made_by: dict[str, str] = {}  # noqa: RUF012
    warnings: list[str] = []  # noqa: RUF012
    specs: list[FeatureSpec]

    def __init__(self, rest: float):
        self.rest, self.gaps, self.began, self.ended = rest, [0.0], 0.0, 0.0
        self.rows = np.zeros((BATCH, 1, WIDTH), np.float32)

    def stream(self, batches: Any) -> Iterator[Any]:
        """Give zeros for each batch."""
        for tag, prepared in batches:
            now = time.perf_counter()
            self.began = self.began or now
            self.gaps.append(now - self.ended if self.ended else 0.0)
            if self.rest:
                time.sleep(self.rest)
            self.ended = time.perf_counter()
            yield tag, [self.rows[: len(prepared)]]


def backbone_of(preprocessing: Preprocessing) -> Backbone:
    """Return a backbone of next to nothing."""
    import torch

    net = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 4))
    return Backbone.from_module(net, name="net", version="1", transform=preprocessing)


class Computing(pipeline.Compute):
    """Computing with a `Sleeper`."""

    sleeper: ClassVar[Sleeper]

    def open(self, backbone: Any, specs: Any, **_: Any) -> Any:
        """Return the engine."""
        self.sleeper.specs = list(specs)
        return self.sleeper


def through(which: str, folder: Path, count: int, rest: float) -> dict[str, float]:
    """Send files through a pipeline; return images and CPU seconds in this process and in all, and the gaps."""
    request = Request(backbone_of(TINY), "logits")
    with tempfile.TemporaryDirectory() as place:
        bank = Bank.create(Path(place, "a.bank"))
        specs = request.specs(bank)
        request.register(bank)
        tracker = Tracker(scan(folder).take(range(count)), bank, specs, False)
        compute = Computing("cpu", batch_size=BATCH, workers=WORKERS)
        Computing.sleeper = Sleeper(rest)
        kind = baseline.Pipeline if which == "before" else pipeline.Pipeline
        start, own = time.perf_counter(), time.process_time()
        kind(request, tracker, compute, lambda: None).run(range(count))
        own, children = time.process_time() - own, resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = time.perf_counter() - start
    sleeper = Computing.sleeper
    return {
        "own": own,
        "all": own + children.ru_utime + children.ru_stime,
        "seconds": seconds,
        "rate": (count - BATCH) / (sleeper.ended - sleeper.began),
        "gap": max(sleeper.gaps[8:] or [0.0]),  # the readers' start is no gap of theirs
    }


def reading(folder: Path, count: int, preprocessing: Preprocessing) -> dict[str, float]:
    """Return the images a second that the readers give, once they run."""
    preparations = [(backbone_of(preprocessing), "none")]
    prepare = Preparer(
        scan(folder),
        lambda: preparations,
        batch=lambda: 32,
        workers=WORKERS,
    )
    marks = []
    with prepare:
        for _ in prepare(range(count)):
            marks.append(time.perf_counter())
    first = 4 * 32
    return {"rate": (count - first) / (marks[-1] - marks[first - 1])}


def alone(folder: Path, count: int, preprocessing: Preprocessing, part: int) -> dict[str, float]:
    """Read, hash, decode and prepare every so many-th file, and return how many a second."""
    files = sorted(folder.rglob("*.jpg"))[part:count:WORKERS]
    start = time.perf_counter()
    for path in files:
        data = path.read_bytes()
        content_digest(data)
        preprocessing(decode(data))
    return {"rate": len(files) / (time.perf_counter() - start)}


def stall(which: str, columns: int, samples: int) -> dict[str, float]:
    """Return the longest time that a loop of batches of 5 ms is kept by one, while four segments are filled."""
    count, rest = 4 * 4096, 0.005
    ones = np.ones(samples, np.int64)
    paths = [b"%09d.jpg" % number for number in range(samples)]
    kept = []
    with tempfile.TemporaryDirectory() as place:
        bank = Bank.create(Path(place, "a.bank"))
        bank.add_spec(SPEC, None)
        source = Source("/p", "/p", paths, ones, ones, pd.DataFrame(index=range(samples)))
        tracker = Tracker(source, bank, [SPEC], False)
        writer: Any = baseline.Writer(tracker) if which == "before" else Writer(tracker, 4096)
        rows = np.random.default_rng(0).standard_normal((BATCH, 1, columns), np.float32)
        for first in range(0, min(count, samples // BATCH * BATCH), BATCH):
            start = time.perf_counter()
            digests = [number.to_bytes(32, "big") for number in range(first, first + BATCH)]
            writer.add(SPEC, digests, rows, {})
            writer.settle(list(zip(range(first, first + BATCH), digests, strict=True)))
            kept.append(time.perf_counter() - start)
            time.sleep(rest)
        getattr(writer, "close", writer.flush)()
    return {"longest": max(kept), "usual": float(np.median(kept))}


def to_input(which: str) -> dict[str, float]:
    """Return the seconds from a decoded image to a batch, in the process that decodes and in this one."""
    import torch

    images = [Image.fromarray(np.full((224, 224, 3), number % 255, np.uint8)) for number in range(BATCH)]
    layout = layout_of([(USUAL, 1)], BATCH, 0)
    size = layout["slot"]
    slots = Slots(map_file(anonymous_file(size), size), layout)
    rows = slots.rows(slots.whole(0))[0][:, 0]
    reader, own = [], []
    for _ in range(12):
        start = time.perf_counter()
        if which == "before":
            arrays = [np.asarray(image) for image in images]
            between = start
            torch.from_numpy(np.stack(arrays))
        else:
            for row, image in zip(rows, images, strict=True):
                row[...] = np.asarray(image)
            arrays, between = list(rows), time.perf_counter()
            torch.from_numpy(stacked(arrays))
        end = time.perf_counter()
        reader.append(between - start)
        own.append(end - between)
    return {"reader": min(reader) / BATCH, "own": min(own) / BATCH}


def same_way(folder: Path, count: int) -> dict[str, float]:
    """Return the images a second of `extract`, of an extractor and of a predictor, by the second run of each."""
    from featurebank import FeatureExtractor, extract, fit

    files = sorted(folder.rglob("*.jpg"))[:count]
    net = {"backbone": "resnet18", "weights": "random:0", "size": 64}
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as place:
        labels = pd.DataFrame({"path": [str(path) for path in files], "label": ["ab"[i % 2] for i in range(count)]})
        predictor = fit(extract(labels, f"{place}/fit.bank", **net), models=["logreg"], cv=2).predictor
        extractor = FeatureExtractor(net.pop("backbone"), **net)
        for turn in range(2):
            for name, call in (
                ("extract", lambda: extract(files, f"{place}/{turn}.bank", backbone="resnet18", **net)),  # noqa: B023
                ("transform", lambda: extractor.transform(files)),
                ("predict", lambda: predictor.predict_table(files)),
            ):
                start = time.perf_counter()
                call()
                found[name] = count / (time.perf_counter() - start)
    return found


# --- the table ---------------------------------------------------------------------------------------------


def part_a(args: argparse.Namespace) -> None:
    """Print row A."""
    for which in ("before", "now"):
        few, many = (run("through", which, args.tiny, count, 0.0) for count in (args.small // 4, args.small))
        images = args.small - args.small // 4
        own, whole = (1e6 * (many[name] - few[name]) / images for name in ("own", "all"))
        wall = images / (many["seconds"] - few["seconds"])
        print(f"A {which}: {own:.0f} us an image here, {whole:.0f} in all processes (bar 60; 150), {wall:.0f} images/s")


def part_b(args: argparse.Namespace) -> None:
    """Print row B."""
    apart = sum(each["rate"] for each in at_once([("alone", args.photos, args.large, part) for part in range(WORKERS)]))
    readers = run("reading", args.photos, args.large, "USUAL")["rate"]
    again = sum(each["rate"] for each in at_once([("alone", args.photos, args.large, part) for part in range(WORKERS)]))
    print(f"B: {readers:.0f} images/s, apart {apart:.0f}, {again:.0f}: {readers / max(apart, again):.2f} (bar 0.85)")


def part_c(args: argparse.Namespace) -> None:
    """Print row C."""
    for rest in SLEEPS:
        read = run("reading", args.tiny, args.small, "TINY")["rate"]
        limit = min(read, BATCH / rest)
        for which in ("before", "now"):
            found = run("through", which, args.tiny, args.small, rest)
            gap = found["gap"] / max(rest, BATCH / limit)
            print(
                f"C {which}, {1000 * rest:.0f} ms: {found['rate']:.0f} images/s, reading alone {read:.0f}: "
                f"{found['rate'] / limit:.2f} (bar 0.9); longest gap {gap:.1f} batches"
            )


def part_d(args: argparse.Namespace) -> None:
    """Print row D."""
    for which in ("before", "now"):
        found = run("to_input", which)
        own, reader = 1e6 * found["own"], 1e6 * found["reader"]
        print(f"D {which}: {own + reader:.1f} us an image, {own:.1f} of them in this process (bar 15)")


def part_e(args: argparse.Namespace) -> None:
    """Print row E."""
    for columns in (512, 2048):
        for samples in (4 * 4096, args.samples):
            for which in ("before", "now"):
                found = run("stall", which, columns, samples)
                longest, usual = 1000 * found["longest"], 1000 * found["usual"]
                print(
                    f"E {which}, {columns} columns, {samples} samples: {longest:.0f} ms at most, {usual:.1f} usually "
                    "(bar 20)"
                )


def part_f(args: argparse.Namespace) -> None:
    """Print row F."""
    found = run("same_way", args.photos, min(500, args.large))
    shares = {name: found[name] / found["extract"] for name in ("transform", "predict")}
    said = ", ".join(f"{name} {found[name]:.0f} ({share:.2f} of it)" for name, share in shares.items())
    print(f"F: extract {found['extract']:.0f} images/s, {said} (bar 0.85)")


PARTS = {"A": part_a, "B": part_b, "C": part_c, "D": part_d, "E": part_e, "F": part_f}
SIDES: dict[str, Any] = {"through": through, "alone": alone, "reading": reading, "stall": stall, "to_input": to_input}
SIDES["same_way"] = same_way


def start(side: str, *given: Any) -> subprocess.Popen[str]:
    """Start a side in a process of its own."""
    text = json.dumps([side, *(str(each) if isinstance(each, Path) else each for each in given)])
    return subprocess.Popen([sys.executable, __file__, "--side", text], stdout=subprocess.PIPE, text=True)


def result(process: subprocess.Popen[str]) -> dict[str, float]:
    """Return what a side has measured."""
    said = process.communicate()[0]
    if process.returncode:
        raise SystemExit(f"a side failed: {process.args}")
    return dict(json.loads(said.splitlines()[-1]))


def run(*side: Any) -> dict[str, float]:
    """Run a side alone."""
    return result(start(*side))


def at_once(sides: list[tuple[Any, ...]]) -> list[dict[str, float]]:
    """Run sides beside each other."""
    return [result(process) for process in [start(*side) for side in sides]]


def main_of_side(text: str) -> None:
    """Measure one side; the last line printed is its result."""
    side, *given = json.loads(text)
    if side != "same_way":
        preparing.LEAST_CORES = preparing.LEAST_IMAGES = 1
    if side in ("alone", "reading"):
        kinds = {"TINY": TINY, "USUAL": USUAL}
        given[2:3] = [kinds[given[2]]] if side == "reading" else [USUAL, given[2]]
    given = [Path(each) if isinstance(each, str) and os.sep in each else each for each in given]
    print(json.dumps(SIDES[side](*given)))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=[*PARTS])
    parser.add_argument("--small", type=int, default=12000, help="files of 16x16 pixels")
    parser.add_argument("--large", type=int, default=600, help="files of 500x375 pixels")
    parser.add_argument("--samples", type=int, default=10**6)
    args = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    with tempfile.TemporaryDirectory(prefix="featurebank-") as place:
        args.tiny, args.photos = Path(place, "tiny"), Path(place, "photos")
        save_tiny(args.tiny, args.small)
        make_images(args.photos, args.large)
        for name in args.only or PARTS:
            PARTS[name](args)
            with suppress(OSError):
                sys.stdout.flush()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--side"]:
        main_of_side(sys.argv[2])
    else:
        main()
