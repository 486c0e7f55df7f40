"""What a bank costs beside plain files: an unchanged tree against a directory walk, loading against NumPy.

    python tests/benchmarks/bench_bank.py [--files 100000] [--rows 200000]

Both sides of a pair run in turn, in one process, from warm caches; the median of each is compared. The first load of
a process also checks every byte against its digest, and is printed by itself.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from featurebank import Bank
from featurebank.backbones.request import Request
from featurebank.bank.samples import OK, make_table
from featurebank.bank.spec import FeatureSpec
from featurebank.extraction.extract import run_extraction
from featurebank.extraction.tracker import Tracker
from featurebank.images.scanning import scan

SPEC = FeatureSpec(
    "efficientnet_lite0", "", "0" * 64, "penultimate", "vector", 0, "none", {}, 1, "none", "fp32", "float16"
)
WIDTH, SEGMENT, BATCH, TURNS = 1280, 4096, 256, 5


def seconds(call: Callable[[], object]) -> float:
    """Return how long a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def in_turn(*calls: Callable[[], object]) -> list[float]:
    """Return the median time of each call, run in turn."""
    times = [[seconds(call) for call in calls] for _ in range(TURNS)]
    return [statistics.median(each) for each in zip(*times, strict=True)]


def walk(folder: str) -> None:
    """List a tree and ask for every file's status, and nothing else."""
    for entry in os.scandir(folder):
        if entry.is_dir():
            walk(entry.path)
        else:
            os.stat(entry.path)


def digest(number: int) -> bytes:
    """Return the digest that a file with this number in it has."""
    return hashlib.sha256(b"%d" % number).digest()


def add_rows(bank: Bank, request: Request, values: np.ndarray) -> None:
    """Write rows whose digests are those of `digest`, under the request that `extract` will look for."""
    bank.add_spec(SPEC, request.to_dict("penultimate"))
    for at in range(0, len(values), SEGMENT):
        part = values[at : at + SEGMENT, None]
        bank.add_features(SPEC, [digest(at + row) for row in range(len(part))], part)


def unchanged_tree(folder: Path, count: int) -> None:
    """Compare a second run over an unchanged tree with a walk."""
    tree, request = folder / "tree", Request("efficientnet_lite0", "penultimate")
    for number in range(count):
        if number % 1000 == 0:
            (tree / f"{number // 1000:04}").mkdir(parents=True)
        (tree / f"{number // 1000:04}" / f"{number:07}.jpg").write_bytes(b"%d" % number)
    bank = Bank.create(folder / "tree.bank")
    add_rows(bank, request, np.zeros((count, WIDTH), np.float16))
    tracker = Tracker(scan(tree), bank, [SPEC], False)
    for position, path in enumerate(tracker.source.paths):
        tracker.settle(position, digest(int(Path(os.fsdecode(path)).stem)), "", embedded=True)
    tracker.commit_samples()

    def again() -> None:
        report = run_extraction(scan(tree), Bank(bank.path), request)
        if (report.reused, report.embedded) != (count, 0):
            raise SystemExit(f"expected {count} reused, got {report}")

    seconds(lambda: walk(str(tree)))
    first = seconds(again)
    plain, ours = in_turn(lambda: walk(str(tree)), again)
    print(
        f"unchanged tree of {count} files: {ours:.2f} s, scandir + stat {plain:.2f} s: {ours / plain:.2f}x, bar 3 "
        f"(the process's first run, which checks the bank's bytes: {first:.2f} s)"
    )


def loading(folder: Path, count: int) -> None:
    """Compare `load` and `iter_batches` with an .npy file of the same float16 rows."""
    values = np.random.default_rng(0).standard_normal((count, WIDTH), dtype=np.float32).astype(np.float16)
    np.save(folder / "rows.npy", values)
    bank = Bank.create(folder / "rows.bank")
    add_rows(bank, Request("efficientnet_lite0", "penultimate"), values)
    fields = {
        **{name: ["/photos"] * count for name in ("source", "root")},
        **{name: [0] * count for name in ("size", "mtime_ns", "row_hash", "stamp")},
        "path": [b"%07d.jpg" % number for number in range(count)],
        "digest": [digest(number) for number in range(count)],
        "status": [OK] * count,
        "error": [""] * count,
    }
    bank.add_samples(make_table(fields, pd.DataFrame(index=range(count))), newest=0)
    if not np.array_equal(bank.load("penultimate")[:100], values[:100].astype(np.float32)):
        raise SystemExit("the bank does not give back what was written")
    _compare_loading(folder, bank.path)


def _compare_loading(folder: Path, path: Path) -> None:
    def numpys() -> None:
        np.load(folder / "rows.npy").astype(np.float32)

    mapped = np.load(folder / "rows.npy", mmap_mode="r")
    order, bank = np.random.default_rng(0).permutation(len(mapped)), Bank(path)

    def numpys_batches() -> None:
        for at in range(0, len(order), BATCH):
            mapped[order[at : at + BATCH]].astype(np.float32)

    def our_batches() -> None:
        for _ in bank.iter_batches("penultimate", batch_size=BATCH, shuffle=True):
            pass

    plain, fresh, opened = in_turn(numpys, lambda: Bank(path).load("penultimate"), lambda: bank.load("penultimate"))
    count = len(mapped)
    print(
        f"load {count} x {WIDTH} float16: bank {fresh:.2f} s, opened before {opened:.2f} s, np.load + astype "
        f"{plain:.2f} s: {plain / fresh:.2f}, {plain / opened:.2f} of its speed, bar 0.7"
    )
    plain, ours = in_turn(numpys_batches, our_batches)
    print(f"random batches of {BATCH}: {ours:.2f} s, memmap {plain:.2f} s: {plain / ours:.2f} of its speed, bar 0.7")


def first_load(path: Path) -> None:
    """Print the time of a process's first load."""
    print(f"first load of a process, every byte checked: {seconds(lambda: Bank(path).load('penultimate')):.2f} s")


def main() -> None:
    """Run both comparisons in a temporary folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--first-load", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.first_load:
        first_load(args.first_load)
        return
    with tempfile.TemporaryDirectory() as folder:
        unchanged_tree(Path(folder), args.files)
        loading(Path(folder), args.rows)
        subprocess.run([sys.executable, __file__, "--first-load", str(Path(folder, "rows.bank"))], check=True)


if __name__ == "__main__":
    main()
