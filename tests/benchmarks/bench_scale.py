"""Extraction on a Ray cluster: its overhead, how it scales with sleeping workers, and commits of many writers.

    python tests/benchmarks/bench_scale.py [--images 12000] [--seconds 40] [--part overhead|scaling|commits]

Overhead: the same images through the same network, plainly and by one Ray worker that holds the same cores, each in a
process of its own and in turn. Beside the whole time stands that from the first images on, since Ray takes some
seconds to start. Scaling: machines of one core that have no core to themselves, since the network only sleeps; what
is measured is dealing out, reading, writing and committing. The efficiency is the rate of n workers over n times that
of one, from when every worker has its first batch to the end of the last. Commits: processes that write segments, and
the sample rows that point at them, into one bank, with no network.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from featurebank import Bank
from featurebank.backbones.request import Request
from featurebank.bank.spec import FeatureSpec
from featurebank.extraction.extract import run_extraction
from featurebank.extraction.pipeline import Compute
from featurebank.extraction.tracker import Tracker
from featurebank.extraction.writing import Writer
from featurebank.images.scanning import scan
from featurebank.images.sources import Source

TURNS, BATCH, REST = 2, 32, 0.4
"""Runs of each side; images in a batch and the seconds that the sleeping network takes for one."""
WORKERS = (1, 2, 4, 8)
WIDTH, SEGMENT, SEGMENTS = 768, 4096, 8
SPEC = FeatureSpec("net", "", "0" * 64, "layer", "vector", 0, "none", {}, 1, "none", "fp32", "float16")


def save_images(folder: Path, count: int, size: tuple[int, int]) -> Path:
    """Save JPEG files of smoothed noise, all different."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(count):
        small = Image.fromarray(random.integers(0, 256, (12, 16, 3), np.uint8))
        small.resize(size).save(folder / f"{number:06}.jpg", quality=90)
    return folder


# --- overhead ----------------------------------------------------------------------------------------------


def overhead(folder: Path, images: int) -> None:
    """Compare extraction on Ray with the plain one, on the same cores."""
    photos = save_images(folder / "photos", images, (500, 375))
    times: dict[str, list[tuple[float, float]]] = {"local": [], "ray": []}
    for turn in range(TURNS):
        for backend, found in times.items():
            asked = [str(photos), str(folder / f"{backend}{turn}.bank"), backend]
            done = subprocess.run([sys.executable, __file__, "--run", *asked], check=True, capture_output=True)
            found.append(tuple(json.loads(done.stdout.splitlines()[-1])))
    for number, what in enumerate(("in all", "from the first images on")):
        plain, on_ray = (statistics.median(each[number] for each in found) for found in times.values())
        print(f"overhead {what}: plain {plain:.1f} s, on Ray {on_ray:.1f} s, {on_ray / plain - 1:+.1%} (bar +15 %)")


def run(photos: str, bank: str, backend: str) -> None:
    """Extract once, and print the seconds in all, and those a whole job takes at the rate after the first images."""
    marks: list[tuple[float, int]] = []
    start = time.perf_counter()
    report = run_extraction(
        scan(Path(photos)),
        Bank.create(bank),
        Request("efficientnet_lite0", "penultimate"),
        Compute("cpu", backend=backend),
        progress=lambda done, total: marks.append((time.perf_counter(), done)),
    )
    whole = time.perf_counter() - start
    begun = next(mark for mark in marks if mark[1] >= report.samples // 20)
    rate = (marks[-1][1] - begun[1]) / (marks[-1][0] - begun[0])
    print(json.dumps([whole, report.samples / rate]))


# --- scaling -----------------------------------------------------------------------------------------------


def sleeper(meeting: Path, count: int) -> Any:
    """Return a backbone that computes nothing and takes `REST` seconds for a batch, the first once all are there."""
    import torch
    from ray import cloudpickle

    from featurebank.backbones.base import Backbone
    from featurebank.backbones.preprocessing import Preprocessing

    class Sleeper(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = torch.nn.Linear(64, WIDTH)
            self.has_met = False

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            if len(pixels) == BATCH:
                self.meet()
                time.sleep(REST)
            return self.last(pixels.flatten(1)[:, :64])

        def meet(self) -> None:
            if not self.has_met:
                (meeting / str(os.getpid())).touch()
            while not self.has_met:
                time.sleep(0.01)
                self.has_met = len(list(meeting.iterdir())) == count

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    tiny = Preprocessing(32, (32, 32), "bilinear", (0.5,) * 3, (0.5,) * 3)
    return Backbone.from_module(Sleeper(), name="sleeper", version="1", transform=tiny)


@contextmanager
def machines(count: int) -> Iterator[str]:
    """Yield the address of a cluster of machines that say they have one core each."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    for _ in range(count):
        cluster.add_node(num_cpus=1)
    yield cluster.address
    cluster.shutdown()


def scaling(folder: Path, seconds: float) -> None:
    """Print the rate of 1, 2, 4 and 8 workers whose network sleeps."""
    each = int(seconds / REST) * BATCH
    photos = save_images(folder / "tiny", each * max(WORKERS), (32, 32))
    files = sorted(photos.iterdir())
    alone = 0.0
    for count in WORKERS:
        rate = rate_of(folder / f"{count}.bank", files[: each * count], count)
        alone = alone or rate
        print(f"{count} workers: {rate:.0f} images/s, efficiency {rate / alone / count:.2f} (bar 0.9)")


def rate_of(bank: Path, files: list[Path], count: int) -> float:
    """Return images a second from when all workers had their first batch."""
    meeting = bank.with_suffix(".meeting")
    meeting.mkdir()
    ends: list[float] = []
    with machines(count) as address:
        run_extraction(
            scan(files),
            Bank.create(bank),
            Request(sleeper(meeting, count), "logits"),
            Compute("cpu", "eager", BATCH, backend="ray", ray_address=address),
            progress=lambda done, total: ends.append(time.time()),
        )
    return len(files) / (ends[-1] - max(each.stat().st_mtime for each in meeting.iterdir()))


# --- commits -----------------------------------------------------------------------------------------------


def commits(folder: Path) -> None:
    """Print the rows a second that 1, 2, 4 and 8 processes commit to one bank."""
    for count in WORKERS:
        bank = Bank.create(folder / f"commits{count}.bank")
        bank.add_spec(SPEC)
        context = multiprocessing.get_context("spawn")
        ready = context.Barrier(count + 1)
        writers = [context.Process(target=write, args=(str(bank.path), number, ready)) for number in range(count)]
        for writer in writers:
            writer.start()
        ready.wait()
        start = time.perf_counter()
        for writer in writers:
            writer.join()
        seconds, rows = time.perf_counter() - start, len(Bank(bank.path).samples)
        assert rows == count * SEGMENT * SEGMENTS
        size = rows * WIDTH * 2 / seconds / 2**20
        print(f"{count} writers: {rows / seconds:,.0f} rows/s, {size:.0f} MiB/s of {WIDTH} float16")


def write(path: str, writer: int, ready: Any) -> None:
    """Write segments of features, and the samples that they are of, as an extraction does after its network."""
    values = np.random.default_rng(writer).normal(size=(SEGMENT, 1, WIDTH)).astype(np.float32)
    count = SEGMENT * SEGMENTS
    rows = range(1 + writer * count, 1 + (writer + 1) * count)
    ones = np.ones(count, np.int64)
    source = Source(
        "/photos", "/photos", [b"%09d.jpg" % row for row in rows], ones, ones, pd.DataFrame(index=range(count))
    )
    out = Writer(Tracker(source, Bank(path), [SPEC], verify=False), SEGMENT)
    ready.wait()
    for first in range(0, count, SEGMENT):
        digests = [row.to_bytes(32, "big") for row in rows[first : first + SEGMENT]]
        out.add(SPEC, digests, values, {})
        out.settle(list(enumerate(digests, first)))
    out.close()


def main() -> None:
    """Run the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=12000)
    parser.add_argument("--seconds", type=float, default=40)
    parser.add_argument("--part", choices=["overhead", "scaling", "commits"])
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.run:
        run(*asked.run)
        return
    with tempfile.TemporaryDirectory(prefix="featurebank-") as name:
        folder = Path(name)
        if asked.part in (None, "commits"):
            commits(folder)
        if asked.part in (None, "scaling"):
            scaling(folder, asked.seconds)
        if asked.part in (None, "overhead"):
            overhead(folder, asked.images)


if __name__ == "__main__":
    main()
