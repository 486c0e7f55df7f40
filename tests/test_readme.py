"""The README is true and short: its commands run in order, its Python runs, its two lines are the promised ones."""

import os
import re
import shlex
import subprocess

import pytest
from doc_pages import FEATUREBANK, README, ROOT, blocks, make_folder


def blocks_of(language: str) -> list[str]:
    return [text for found, text in blocks(README) if found == language]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tour")
    make_folder(folder)
    return folder


def commands() -> list[str]:
    return [line for block in blocks_of("sh") for line in block.splitlines() if line.startswith("featurebank ")]


@pytest.mark.slow
def test_the_tour_runs_line_by_line(folder):
    assert len(commands()) == 5
    for line in commands():
        done = subprocess.run([FEATUREBANK, *shlex.split(line)[1:]], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, (line, done.stderr)
        if " new.jpg" in line:
            assert "new.jpg,dog," in done.stdout
    assert (folder / "photos.featurebank").exists()
    assert (folder / "report.html").exists()


def test_the_tour_starts_in_its_environment():
    (block,) = [block for block in blocks_of("sh") if block.startswith("source ")]
    assert block.splitlines()[:2] == ["source .venv/bin/activate", commands()[0]]


def test_the_python_block_runs(folder, monkeypatch):
    (code,) = blocks_of("python")
    monkeypatch.chdir(folder)
    exec(compile(code, str(README), "exec"), {"__name__": "__main__"})


def test_the_set_up_lines_are_the_promised_two():
    lines = [line for block in blocks_of("sh") for line in block.splitlines() if "venv .venv" in line]
    assert [re.search(r'"(.*?)"', line)[1] for line in lines] == [".[demo]", ".[test]"]
    assert [line.rsplit("/", 1)[1] for line in lines] == ["featurebank demo", "pytest -n 2"]


def test_ci_calls_the_readme_test_line():
    assert "grep -F '\".[test]\"' README.md" in (ROOT / ".ci" / "run").read_text()
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_the_readme_is_short():
    text = README.read_text()
    assert len(text.splitlines()) <= 150
    assert len(text.split()) <= 1200
