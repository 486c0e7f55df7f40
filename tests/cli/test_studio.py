"""featurebank studio: the address that it prints, the end by Ctrl-C, what it refuses."""

import signal
import subprocess
import sys

import httpx
import numpy as np
import pytest
from click.testing import CliRunner
from made_bank import make_bank
from studio_run import until

from featurebank_cli import main


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing.bank"], "'nothing.bank' is not there; expected a bank or a folder of images"),
        (["a.bank", "--host", "0.0.0.0"], "say that you want this (--allow-remote), or leave out --host"),
        (["a.bank", "--bank", "b.bank"], "'a.bank' is a bank itself; leave out the bank 'b.bank'"),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    make_bank("a.bank", np.eye(3))
    done = CliRunner().invoke(main, ["studio", *words, "--no-browser"])
    assert done.exit_code == 1
    assert message in done.output
    assert len(done.output.splitlines()) == 1


@pytest.mark.slow
def test_it_prints_its_address_answers_there_and_ends_by_ctrl_c(tmp_path):
    make_bank(tmp_path / "a.bank", np.eye(6))
    command = [sys.executable, "-m", "featurebank", "studio", str(tmp_path / "a.bank"), "--no-browser", "--by", "anna"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    assert line.startswith("studio: http://127.0.0.1:")
    with httpx.Client(base_url=line.split()[1], trust_env=False, timeout=300) as client:
        state = until(lambda: (found := client.get("api/state").json())["ready"] and found)
    assert (state["images"], state["by"]) == (6, "anna")
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=300)
    assert process.returncode == 0, told
    assert "the studio has ended; every answer is in the bank" in told
