"""What a GPU can show, checked and measured in under nine minutes on one GPU with 16 cores.

Each step is a process of its own, with a time limit; what it finds is printed at once and appended to a file of JSON
lines, and the last table takes all of that file. A step that failed, or was changed, is run again alone.

    python tests/benchmarks/gpu_day.py [--out gpu_day.jsonl] [--only STEP ...] [--dry]

``--dry`` runs every step on the CPU at toy size: it shows that the script works, and nothing else. Weights are seeded,
images are made; nothing is downloaded. nvJPEG needs torchcodec.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
os.environ["HF_HUB_OFFLINE"] = "1"

from benchmarks import gpu_steps as steps
from benchmarks.gpu_steps import TOY, Record, Size, latest, measured

HERE = Path(__file__).resolve()
STEPS: dict[str, tuple[Callable[[Size, Path, Path], Iterator[Record]], int]] = {
    "machine": (steps.machine, 20),
    "faults": (steps.faults, 60),
    "compiling": (steps.compiling, 120),
    "network": (steps.network, 110),
    "decode": (steps.decode, 60),
    "bank": (steps.bank, 60),
    "finetuning": (steps.finetuning, 40),
    "tests": (steps.tests, 60),
}
"""Each with its limit in seconds: 530 together."""
SLOWER = 6
"""A toy run may share its two cores with others."""


# --- running them ------------------------------------------------------------------------------------------


def shown(record: Record) -> str:
    """Return a record as a line."""
    value = f"{record['value']:,.1f} {record['unit']}" if "value" in record else ""
    bar = f"(bar {record['bar']:,.0f})" if "bar" in record else ""
    verdict = {True: "ok", False: "FAILED", None: ""}[record.get("passed")]
    return " ".join(filter(None, [f"{record['step']:11}{record['what']:44}", value, bar, verdict, record.get("note")]))


def take(out: Path, record: Record) -> None:
    """Print a record, and append it to the file."""
    print(shown(record), flush=True)
    with out.open("a") as file:
        file.write(json.dumps(record) + "\n")


def run_step(name: str, args: argparse.Namespace) -> None:
    """Run one step in a process of its own, which ends with its time."""
    limit = STEPS[name][1] * (SLOWER if args.dry else 1)
    command = [sys.executable, "-u", str(HERE), "--step", name, "--work", str(args.work), "--out", str(args.out)]
    environment = {**os.environ, "FEATUREBANK_CACHE": str(args.work / "cache")}
    started = time.perf_counter()
    process = subprocess.Popen(
        [*command, *["--dry"] * args.dry], stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    ended = threading.Timer(limit, lambda: os.killpg(process.pid, signal.SIGKILL))
    ended.start()
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith('{"what"'):
            take(args.out, {"step": name, **json.loads(line)})
        else:
            print(line, end="", flush=True)
    is_whole = process.wait() == 0
    ended.cancel()
    seconds = time.perf_counter() - started
    note = {} if is_whole else {"note": f"ended before its end; its limit is {limit} s"}
    take(args.out, {"step": name, **measured("the step took", seconds, "s"), "passed": is_whole, **note})


def table(out: Path) -> str:
    """Return all that is known as a table for the documentation."""
    lines = ["| step | what | value | bar | |", "|---|---|---|---|---|"]
    for each in latest(out):
        value = f"{each['value']:,.1f} {each['unit']}" if "value" in each else ""
        bar = f"{each['bar']:,.0f}" if "bar" in each else ""
        verdict = {True: "ok", False: "failed", None: ""}[each.get("passed")]
        told = " ".join(filter(None, [verdict, each.get("note")])).replace("|", "/")
        lines.append(f"| {each['step']} | {each['what'].replace('|', '/')} | {value} | {bar} | {told} |")
    return "\n".join(lines)


def main() -> None:
    """Run the steps, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=STEPS, default=list(STEPS), metavar="STEP", help=", ".join(STEPS))
    parser.add_argument("--dry", action="store_true", help="All at toy size on the CPU.")
    parser.add_argument("--out", type=Path, default=Path("gpu_day.jsonl"))
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir(), "featurebank-gpu-day"))
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.out, args.work = args.out.absolute(), args.work.absolute()
    if args.step:
        for record in STEPS[args.step][0](TOY if args.dry else Size(), args.work, args.out):
            if args.dry and "value" in record:  # no bar is meant for toys
                record = {name: record[name] for name in record if name not in ("bar", "passed")}
            print(json.dumps(record), flush=True)
        return
    args.work.mkdir(parents=True, exist_ok=True)
    for name in args.only:
        run_step(name, args)
    print(table(args.out))
    raise SystemExit(any(each.get("passed") is False for each in latest(args.out)))


if __name__ == "__main__":
    main()
