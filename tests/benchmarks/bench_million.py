"""A bank of a million rows on one machine: what it costs to open, load, merge, compact and fit.

    python tests/benchmarks/bench_million.py [--rows 1000000] [--width 768] [--folder DIR]

The bank is synthetic: float16 rows in segments of 4,096, as `extract` leaves them, ten classes of Gaussian rows. Every
step runs in a process of its own, whose peak memory is printed beside; its time leaves out the imports. Each is
compared with a plain way to do the same, measured in the same run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from featurebank import Bank, TopModelSearchCV, fit
from featurebank.bank import samples
from featurebank.bank.features import encode_stored
from featurebank.bank.segment import new_name
from featurebank.bank.spec import FeatureSpec

SPEC = FeatureSpec(
    "net", "1", "0" * 64, "penultimate", "vector", 0, "none", {"crop": [4, 4]}, 1, "none", "fp32", "float16"
)
NAME, SEGMENT, CLASSES, COMPARED = "net/penultimate", 4096, 10, 200_000


def make(path: Path, start: int, count: int, width: int) -> None:
    """Write the rows from `start` on, and an .npy file of them beside the bank."""
    bank, random = Bank.create(path), np.random.default_rng(start)
    bank.add_spec(SPEC)
    base = random.standard_normal((SEGMENT, width), dtype=np.float32)
    centres = np.random.default_rng(0).standard_normal((CLASSES, width), dtype=np.float32) / 8
    out = np.lib.format.open_memmap(path.with_suffix(".npy"), "w+", np.float16, (count, width))
    for at in range(0, count, SEGMENT):
        rows = min(SEGMENT, count - at)
        label = random.integers(0, CLASSES, rows)
        values = (base[:rows, random.permutation(width)] + centres[label]).astype(np.float16)
        out[at : at + rows] = values
        add(bank, random, start + at, label, values)


def add(bank: Bank, random: np.random.Generator, at: int, label: np.ndarray, values: np.ndarray) -> None:
    """Write one segment of features and one of samples."""
    digests, n = random.integers(0, 256, (len(label), 32), dtype=np.uint8), len(label)
    data = encode_stored(SPEC.fingerprint, digests, values[:, None], [])
    (bank.feature_folder(SPEC) / new_name()).write_bytes(data)
    same = {"source": "/photos", "root": "/photos", "size": 1, "mtime_ns": 1, "status": samples.OK, "error": ""}
    fields: dict[str, Any] = {name: [value] * n for name, value in {**same, "row_hash": 0, "stamp": 0}.items()}
    fields["path"] = [b"%09d.jpg" % number for number in range(at, at + n)]
    fields["digest"] = [each.tobytes() for each in digests]
    columns = pd.DataFrame({"label": pd.Series([f"class{code}" for code in label], dtype=object)})
    bank.add_samples(samples.make_table(fields, columns), newest=0)


# --- steps, each in a process of its own -------------------------------------------------------------------


def again(load: Callable[[], object]) -> dict[str, float]:
    """Load once, then once more: the first load of a process checks every byte, those after it do not."""
    load()
    start, own = time.perf_counter(), time.process_time()
    load()
    return {"seconds": time.perf_counter() - start, "cpu": time.process_time() - own}


def copy(path: Path) -> None:
    """Copy every segment of a bank, with its SHA-256 and a sync."""
    to = path.with_suffix(".copy")
    to.mkdir()
    for file in path.rglob("*.h5"):
        data = file.read_bytes()
        hashlib.sha256(data).digest()
        with open(to / file.name, "wb") as written:
            written.write(data)
            written.flush()
            os.fsync(written.fileno())


def merged(path: Path) -> Bank:
    """Merge a bank into a new one."""
    bank = Bank.create(path.with_suffix(".merged.bank"))
    bank.merge(path)
    return bank


def streamed(model: str) -> Callable[[Path], float]:
    """Return the step that fits one top model without room for the rows, and gives its score."""
    return lambda path: fit(path, target="label", models=[model], memory=0).report["best"]["mean"]


def difference(path: Path) -> float:
    """Return how far the decisions of a ridge read in batches are from those of one in memory, out of fold."""
    bank = Bank(path)
    table = bank.select("label").take(np.arange(min(COMPARED, len(bank.table))))
    X, y = bank.matrix(NAME, table), table.columns["label"].to_numpy(str)
    here, there = (
        TopModelSearchCV({"ridge": {"alpha": [100.0]}}, refit=False).fit(rows, y) for rows in (np.asarray(X), X)
    )
    return float(np.abs(here.oof_.scores - there.oof_.scores).max())


STEPS: dict[str, Callable[[Path], Any]] = {
    "numpy_load": lambda path: again(lambda: np.load(path.with_suffix(".npy")).astype(np.float32)),
    "load": lambda path: again(partial(Bank(path).load, NAME)),
    "info": lambda path: Bank(path).info()["bytes"],
    "select": lambda path: len(Bank(path).select("label")),
    "copy": copy,
    "merge": lambda path: len(list(merged(path).path.rglob("*.h5"))),
    "compact": lambda path: Bank(path).compact(grace=0)["merged"],
    "prune": lambda path: Bank(path).prune(grace=0)["rows"],
    "difference": difference,
    **{model: streamed(model) for model in ("ridge", "lda", "sgd-logreg")},
}


def run(step: str, path: Path) -> dict[str, Any]:
    """Run a step in a new process: seconds, the process's own seconds, peak bytes, what it found."""
    command = [sys.executable, __file__, "--step", step, "--bank", str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def run_here(step: str, path: Path) -> None:
    """Run a step and print what it cost."""
    start, own = time.perf_counter(), time.process_time()
    found = STEPS[step](path)
    facts = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - own, "found": found}
    print(json.dumps({**facts, "peak": peak()}))


def peak() -> int:
    """Return the most bytes that this process had; Linux counts the parent's into ``ru_maxrss``."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) << 10 if found else 0


def show(what: str, ours: dict[str, Any], bar: str, plain: dict[str, Any] | None = None, name: str = "") -> None:
    """Print a line: seconds, CPU seconds and peak memory, and the ratio to a baseline."""
    line = f"{what}: {ours['seconds']:.2f} s ({ours['cpu']:.2f} s of CPU), peak {ours['peak'] / 1e6:.0f} MB"
    if plain:
        cost = f"{plain['seconds']:.2f} s ({plain['cpu']:.2f} s of CPU), peak {plain['peak'] / 1e6:.0f} MB"
        line += f"; {name} {cost}: {plain['seconds'] / ours['seconds']:.2f} of its speed"
    print(f"{line}; bar {bar}", flush=True)


def show_loading(what: str, ours: dict[str, Any], plain: dict[str, Any]) -> None:
    """Print the first load of a process, and the second against NumPy's second."""
    first, numpys = (each["seconds"] - each["found"]["seconds"] for each in (ours, plain))
    print(f"first load, {what}, every byte checked: {first:.2f} s, np.load + astype {numpys:.2f} s")
    second, second_numpys = ({**each, **each["found"]} for each in (ours, plain))
    show(f"load, {what}", second, "0.7", second_numpys, "np.load + astype")


def compare(path: Path, rows: int, width: int) -> None:
    """Make the bank and run every step."""
    start = time.perf_counter()
    make(path, 0, rows, width)
    print(f"{rows} x {width} float16, {rows * width * 2 / 1e9:.2f} GB, made in {time.perf_counter() - start:.0f} s")
    show_loading("segments as written", run("load", path), run("numpy_load", path))
    show("info, segments as written", run("info", path), "none")
    show("merge", run("merge", path), "0.5", baseline := run("copy", path), "copy + SHA-256 + fsync")
    show("compact", run("compact", path), "0.5", baseline, "copy + SHA-256 + fsync")
    show("info", run("info", path), "1 s")
    show("samples joined with rows", run("select", path), "seconds")
    show_loading("compacted", run("load", path), run("numpy_load", path))
    show("prune, nothing to drop", run("prune", path), "seconds")
    print(f"ridge in batches against in memory: {run('difference', path)['found']:.1e}, bar 1e-6", flush=True)
    for model in ("ridge", "lda", "sgd-logreg"):
        found = run(model, path)
        show(f"fit {model} in batches, 5 folds, {found['found']:.3f} right", found, "1 GB of memory")


def main() -> None:
    """Run the comparison in a temporary folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--folder", type=Path, help="Where the bank and its copies go: four times its size.")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--bank", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step:
        run_here(args.step, args.bank)
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        compare(Path(folder, "rows.bank"), args.rows, args.width)


if __name__ == "__main__":
    main()
