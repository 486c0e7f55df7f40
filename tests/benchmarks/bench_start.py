"""How soon a command is done where a network has been exported: one prediction, and the extraction of 300 images.

    python tests/benchmarks/bench_start.py [--base COMMIT] [--backbone efficientnet_lite0] [--runs 3] [--only predict]

Every figure is of a whole process, its start included, as wall and as CPU seconds of it and its children; the sides
take turns, so that a busy machine burdens them alike, and the median of each is printed.

(G) `featurebank predict` of one image against the same command of an earlier commit (`--base`), which is taken out of
    this repository into a temporary folder and finds a cache of its own.
(H) `featurebank extract` of 300 new images of 500x375 pixels into a new bank against the plain loop of
    `bench_extract.py`: ImageFolder, PIL transforms, DataLoader with two workers, eager float32.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
BASE = "36ef0f4"
"""The last commit whose `predict` imported torch each time."""
TRAINED, NEW = 30, 300
BARS = {"G": 4.0, "H": 5.0}
Times = tuple[float, float]


def save_images(folder: Path, count: int, seed: int) -> Path:
    """Save JPEG files of 500x375 pixels in two class folders."""
    random = np.random.default_rng(seed)
    for number in range(count):
        place = folder / ("cat", "dog")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray(random.integers(0, 120 + 120 * (number % 2), (12, 16, 3), np.uint8))
        grain = random.integers(-8, 8, (375, 500, 3))
        pixels = np.asarray(small.resize((500, 375), Image.Resampling.BICUBIC), np.int16) + grain
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(place / f"{number:04}.jpg", quality=90)
    return folder


def checkout(commit: str | None, folder: Path) -> Path:
    """Return a folder for PYTHONPATH with featurebank and its command line, of a commit or of this checkout."""
    source = ROOT
    if commit is not None:
        data = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, capture_output=True).stdout
        source = folder / "source"
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            archive.extractall(source, filter="data")
    path = folder / "path"
    path.mkdir(parents=True)
    (path / "featurebank").symlink_to(source / "featurebank")
    (path / "featurebank_cli").symlink_to(source / "cli")
    return path


def timed(command: list[str], path: Path, cache: Path) -> Times:
    """Run a command with one checkout and one cache; return its wall and CPU seconds."""
    environment = {**os.environ, "PYTHONPATH": str(path), "FEATUREBANK_CACHE": str(cache)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # each side finds its bytecode, as an installation does
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def compare(row: str, ours: Callable[[], Times], other: Callable[[], Times], runs: int) -> None:
    """Time two sides in turn and print the medians."""
    pairs = [(other(), ours()) for _ in range(runs)]
    (wall, cpu), (own_wall, own_cpu) = (
        [statistics.median(pair[side][kind] for pair in pairs) for kind in (0, 1)] for side in (0, 1)
    )
    print(
        f"{row}: {own_wall:.2f} s against {wall:.2f} ({wall / own_wall:.1f}x, bar {BARS[row]:g}x); "
        f"CPU {own_cpu:.2f} s against {cpu:.2f} ({cpu / own_cpu:.1f}x); load {os.getloadavg()[0]:.1f}",
        flush=True,
    )


def main() -> None:
    """Make what is needed, and measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--base", default=BASE)
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", choices=["predict", "extract"])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        here, base = checkout(None, folder / "here"), checkout(args.base, folder / "base")
        cache, base_cache = folder / "cache", folder / "base-cache"
        run = [sys.executable, "-m", "featurebank"]
        trained = save_images(folder / "trained", TRAINED, seed=0)
        bank, predictor = folder / "trained.bank", folder / "trained.featurebank"
        backbone = ["--backbone", args.backbone]
        timed([*run, "extract", str(trained), "--bank", str(bank), *backbone], here, cache)
        if args.only != "extract":
            timed([*run, "fit", str(bank), "--model", "svm", "-o", str(predictor)], here, cache)
            image = str(next(trained.rglob("*.jpg")))
            predict = [*run, "predict", str(predictor), image]
            compare("G", lambda: timed(predict, here, cache), lambda: timed(predict, base, base_cache), args.runs)
        if args.only != "predict":
            _extract(args, folder, [*run, "extract"], here, cache)


def _extract(args: argparse.Namespace, folder: Path, run: list[str], here: Path, cache: Path) -> None:
    new, bank = save_images(folder / "new", NEW, seed=1), folder / "new.bank"
    side = {"side": "plain", "images": str(new), "backbone": args.backbone, "count": NEW, "device": "cpu"}
    side["rows"] = str(folder / "rows.npy")
    loop = [sys.executable, str(ROOT / "tests/benchmarks/bench_extract.py"), "--side", json.dumps(side)]

    def ours() -> Times:
        shutil.rmtree(bank, ignore_errors=True)
        return timed([*run, str(new), "--bank", str(bank), "--backbone", args.backbone], here, cache)

    compare("H", ours, lambda: timed(loop, here, cache), args.runs)


if __name__ == "__main__":
    main()
