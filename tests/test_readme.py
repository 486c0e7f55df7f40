"""The README is true: its commands run in order, its Python runs, its links lead somewhere."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
FEATUREBANK = Path(sys.executable).with_name("featurebank")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def make_photos(folder: Path, count: int) -> None:
    """Cats are dark and vertical, dogs bright and horizontal."""
    random = np.random.default_rng(count)
    for number in range(count):
        for label, base in (("cat", 60), ("dog", 160)):
            stripes = np.indices((64, 64))[int(label == "dog")] // 8 % 2 * 60 + base
            pixels = (stripes[..., None] + random.integers(0, 30, (64, 64, 3))).astype("uint8")
            path = folder / label / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tour")
    make_photos(folder / "photos", 12)
    make_photos(folder / "test_photos", 3)
    (folder / "new.jpg").write_bytes((folder / "test_photos" / "dog" / "1.jpg").read_bytes())
    rows = [f"cat/{i}.jpg,{'north' if i % 2 else 'south'}" for i in range(12)]
    rows += [f"dog/{i}.jpg,{'north' if i % 2 else 'south'}" for i in range(12)]
    (folder / "labels.csv").write_text("\n".join(["path,site", *rows]) + "\n")
    few = [f"{name}/{i}.jpg,{name}" for name in ("cat", "dog") for i in range(6)]
    (folder / "few.csv").write_text("\n".join(["path,kind", *few]) + "\n")
    return folder


def commands() -> list[str]:
    return [line for block in blocks("sh") for line in block.splitlines() if line.startswith("featurebank ")]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_tour_runs_line_by_line(folder):
    assert len(commands()) == 51
    for line in commands():
        done = subprocess.run([FEATUREBANK, *shlex.split(line)[1:]], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, (line, done.stderr)
        if " new.jpg" in line:
            assert "new.jpg,dog," in done.stdout
    assert (folder / "predictions.csv").read_text().startswith("source,path,label,probability")
    assert (folder / "photos.featurebank").exists()
    assert (folder / "site.featurebank").exists()
    assert (folder / "both.featurebank").exists()


def test_the_label_file_is_the_one_that_the_text_shows(folder):
    header, row = re.search(r"^`(path,.*?)` and `(.*?)`", README, re.MULTILINE).groups()
    lines = (folder / "labels.csv").read_text().splitlines()
    assert lines[0] == header
    assert row.split(",")[0] in [line.split(",")[0] for line in lines]


def test_the_tour_starts_in_its_environment():
    (block,) = [block for block in blocks("sh") if block.startswith("source ")]
    assert block.splitlines()[:2] == ["source .venv/bin/activate", commands()[0]]


def test_the_python_block_runs(folder):
    (code,) = blocks("python")
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_links_and_pictures_exist():
    targets = [target for target in re.findall(r"\]\(([^)]+)\)", README) if "://" not in target]
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_the_set_up_lines_are_the_promised_two():
    lines = [line for block in blocks("sh") for line in block.splitlines() if "venv .venv" in line]
    assert [re.search(r'"(.*?)"', line)[1] for line in lines] == [".[demo]", ".[test]"]
    assert [line.rsplit("/", 1)[1] for line in lines] == ["featurebank demo", "pytest -n 2"]


def test_ci_calls_the_readme_test_line():
    assert "grep -F '\".[test]\"' README.md" in (ROOT / ".ci" / "run").read_text()
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_the_completion_line_completes():
    (line,) = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("eval ")]
    typed = "COMP_WORDS=(featurebank dupl)\nCOMP_CWORD=1\n_featurebank_completion featurebank\n"
    script = f'{line}\ncomplete -p featurebank\n{typed}echo "${{COMPREPLY[@]}}"'
    env = {**os.environ, "PATH": f"{FEATUREBANK.parent}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "-F _featurebank_completion featurebank" in done.stdout
    assert done.stdout.splitlines()[-1] == "duplicates"
