"""The day with a GPU, rehearsed without one: every step at toy size, limits that hold, figures that are kept."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks import gpu_day
from benchmarks.gpu_steps import known, latest, measured


def test_a_figure_that_is_measured_again_takes_the_place_of_the_first(tmp_path):
    out = tmp_path / "day.jsonl"
    for value in (10.0, 20.0):
        gpu_day.take(out, {"step": "network", **measured("resnet50 stream", value, least=15.0)})
    gpu_day.take(out, {"step": "decode", "what": "nvjpeg|large", "note": "needs a CUDA GPU"})
    assert len(out.read_text().splitlines()) == 3
    assert [each.get("value") for each in latest(out)] == [20.0, None]
    assert (known(out, "network", "resnet50 stream"), known(out, "network", "resnet18 stream")) == (20.0, None)
    assert gpu_day.table(out).splitlines()[2:] == [
        "| network | resnet50 stream | 20.0 images/s | 15 | ok |",
        "| decode | nvjpeg/large |  |  | needs a CUDA GPU |",
    ]


def test_a_step_ends_with_its_time_and_that_is_a_failure(tmp_path, monkeypatch):
    monkeypatch.setitem(gpu_day.STEPS, "machine", (gpu_day.STEPS["machine"][0], 0.01))
    args = argparse.Namespace(dry=False, work=tmp_path, out=tmp_path / "day.jsonl")
    gpu_day.run_step("machine", args)
    (last,) = latest(args.out)
    assert (last["what"], last["passed"], last["note"]) == (
        "the step took", False, "ended before its end; its limit is 0.01 s",
    )  # fmt: skip


def test_all_steps_together_take_less_than_nine_minutes():
    assert sum(limit for _, limit in gpu_day.STEPS.values()) < 540


@pytest.mark.slow
def test_every_step_runs_at_toy_size(tmp_path):
    out = tmp_path / "day.jsonl"
    script = Path(gpu_day.__file__)
    command = [sys.executable, script, "--dry", "--out", out, "--work", tmp_path / "work"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert [each["step"] for each in records if each["what"] == "the step took"] == list(gpu_day.STEPS)
    assert [each for each in records if each.get("passed") is False] == []
    assert done.stdout.count("\n| ") == len(records) + 1
    assert "the weights are the same bits" in done.stdout
