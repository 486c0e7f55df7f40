"""Pages of the documentation: their blocks, the folder that they speak of, and how they are run.

``python tests/doc_pages.py PAGE`` runs the blocks of a page in the working folder, in order: those of ``sh`` in bash,
or, where they are nothing but featurebank's commands, in this process, which imports torch once; those of ``python``
in one namespace. Blocks of other languages (``console``, ``text``) need what a test does not have.
"""

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from featurebank_cli import main

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGES = sorted(page for page in DOCS.rglob("*.md") if "_build" not in page.parts)
FEATUREBANK = Path(sys.executable).with_name("featurebank")
ENVIRONMENT = {**os.environ, "PATH": f"{FEATUREBANK.parent}:{os.environ['PATH']}"}
FIRST = (
    "extract photos/ --bank photos.bank --layer penultimate --layer blocks.4:avgmax",
    "fit photos.bank",
)
"""The commands of the first tutorial whose files the guides begin with."""
_BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```", re.DOTALL | re.MULTILINE)
_PLAIN = re.compile(r"featurebank [^|<>$&;`\\]*$")
"""A line that a shell would change nothing in: no pipe, no variable, no second command."""
_TARGET = re.compile(r"\]\(([^)\s]+)\)")


def blocks(page: Path) -> list[tuple[str, str]]:
    """Return language and text of the blocks that run, in order."""
    return _BLOCK.findall(page.read_text())


def links(page: Path) -> list[str]:
    """Return the targets of a page's links and pictures that lie in this repository."""
    return [target for target in _TARGET.findall(page.read_text()) if "://" not in target]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and MyST name them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def make_photos(folder: Path, count: int) -> None:
    """Cats are dark and vertical, dogs bright and horizontal."""
    random = np.random.default_rng(count)
    for number in range(count):
        for label in ("cat", "dog"):
            _save(folder / label / f"{number}.jpg", _stripes(label == "dog", random))


def make_folder(folder: Path) -> None:
    """Make the files that the README and the pages speak of."""
    make_photos(folder / "photos", 12)
    make_photos(folder / "test_photos", 3)
    for part, count in (("train", 8), ("val", 5), ("test", 4)):
        make_photos(folder / "split" / part, count)
    (folder / "new.jpg").write_bytes((folder / "test_photos" / "dog" / "1.jpg").read_bytes())
    _make_tiles(folder / "tiles")
    _make_tables(folder)
    _make_microscope(folder)
    with tarfile.open(folder / "shard.tar", "w") as archive:
        for image in sorted((folder / "photos").glob("*/*.jpg")):
            archive.add(image, f"{image.parent.name}-{image.name}")


def begin(folder: Path) -> None:
    """Make the folder that the first tutorial leaves."""
    make_folder(folder)
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
        for line in FIRST:
            run_command(f"featurebank --quiet {line}")


def run(page: Path) -> None:
    """Run the blocks of a page in the working folder."""
    names = {"__name__": "__main__"}
    for language, text in blocks(page):
        if language == "python":
            exec(compile(text, str(page), "exec"), names)
        elif all(_PLAIN.match(line) for line in text.splitlines()):
            for line in text.splitlines():
                run_command(line)
        else:
            subprocess.run(["bash", "-ec", text], check=True, env=ENVIRONMENT)
        sys.stdout.flush()


def run_command(line: str) -> None:
    """Run a command of featurebank in this process."""
    code = main(shlex.split(line)[1:], prog_name="featurebank", standalone_mode=False)
    assert not code, f"{line} ended with {code}"


def _stripes(is_dog: bool, random: np.random.Generator) -> np.ndarray:
    stripes = np.indices((64, 64))[int(is_dog)] // 8 % 2 * 60 + (160 if is_dog else 60)
    return (stripes[..., None] + random.integers(0, 30, (64, 64, 3))).astype("uint8")


def _save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def _make_tiles(folder: Path) -> None:
    """Write 24 good tiles with level stripes, and four whose stripes stand upright."""
    random = np.random.default_rng(1)
    for number in range(24):
        _save(folder / "good" / f"{number}.jpg", _stripes(True, random))
    for number in range(4):
        _save(folder / "bad" / f"{number}.jpg", _stripes(False, random))


def _make_tables(folder: Path) -> None:
    names = [f"{kind}/{number}.jpg" for kind in ("cat", "dog") for number in range(12)]
    sites = [f"{name},{'AB'[number % 12 % 2 == 0]}" for number, name in enumerate(names)]
    (folder / "labels.csv").write_text("\n".join(["path,site", *sites]) + "\n")
    few = [f"{name},{name[:3]}" for name in names if int(name[4:-4]) < 6]
    (folder / "few.csv").write_text("\n".join(["path,kind", *few]) + "\n")
    kinds = ("gesund", "krank")
    patients = [f"scans\\{n}.tif;{7 + (n - 1) // 3:03};{kinds[n % 2]};{54 + n / 2:.1f}" for n in range(1, 25)]
    text = "\r\n".join(["image;patient;finding;age", *patients]).replace(".0", ",0").replace(".5", ",5")
    (folder / "patients.csv").write_text(text + "\r\n")


def _make_microscope(folder: Path) -> None:
    """Write 12-bit values in 16 bits: pictures of two kinds, scans of a table, and stacks of three pages."""
    random = np.random.default_rng(0)
    deep = [_stripes(number % 2 == 1, random)[..., 0].astype("uint16") * 12 + 90 for number in range(25)]
    for number, pixels in enumerate(deep):
        _save(folder / "microscope" / ("still", "moving")[number % 2] / f"{number}.tif", pixels)
        _save(folder / "scans" / f"{number}.tif", pixels)
    for number in range(12):
        path = folder / "stacks" / ("still", "moving")[number % 2] / f"{number}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        first, *others = [Image.fromarray(deep[number] + page) for page in range(3)]
        first.save(path, save_all=True, append_images=others)


if __name__ == "__main__":
    run(Path(sys.argv[1]).resolve())
