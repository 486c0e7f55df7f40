"""The command line installs as featurebank_cli, from a wheel and in an editable install, and `cli` never does."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from featurebank.explore.page import SCRIPTS

ROOT = Path(__file__).parents[2]
CHECK = """
import importlib.util, sys
import featurebank, featurebank_cli
assert importlib.util.find_spec("cli") is None
print(featurebank.__version__, featurebank.__file__)
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the project's files, so that building leaves nothing in the checkout."""
    copy = tmp_path_factory.mktemp("tree") / "featurebank"
    ignore = shutil.ignore_patterns(".git", ".venv", "*.egg-info", "build", "__pycache__", "tests", "*.bank")
    shutil.copytree(ROOT, copy, ignore=ignore)
    return copy


def pip(*arguments):
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True)


def new_environment(folder):
    """Make an environment that sees this one's libraries, but not this one's featurebank."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    found = subprocess.run([str(python), "-c", "import site; print(site.getsitepackages()[0])"], capture_output=True)
    libraries = folder / "libraries"
    libraries.mkdir()
    here = Path(next(path for path in sys.path if path.endswith("site-packages")))
    for each in here.iterdir():
        if "featurebank" not in each.name and each.suffix != ".pth":
            (libraries / each.name).symlink_to(each)
    Path(found.stdout.decode().strip(), "libraries.pth").write_text(str(libraries))
    return python


def run(python, *arguments, **options):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run([str(python), *arguments], cwd=python.parent, env=environment, capture_output=True, **options)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wheel", "editable"])
def test_an_install_has_both_packages_and_the_command(tree, tmp_path, kind):
    python = new_environment(tmp_path / "venv")
    options = ["--python", python, "install", "--no-deps", "--no-build-isolation", "--no-index"]
    if kind == "wheel":
        pip("wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", tmp_path, tree)
        (wheel,) = tmp_path.glob("*.whl")
        names = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
        assert {name for name in names if not name.endswith(".dist-info")} == {"featurebank", "featurebank_cli"}
        data = [
            "py.typed",
            "report/templates/report.html",
            "explore/studio/page/index.html",
            "explore/studio/page/main.js",
        ]
        data += [f"explore/templates/{name}" for name in ("map.html", "map_section.html", "page.css", *SCRIPTS)]
        assert {f"featurebank/{name}" for name in data} <= set(zipfile.ZipFile(wheel).namelist())
        pip(*options, wheel)
    else:
        pip(*options, "-e", tree)
    checked = run(python, "-c", CHECK)
    assert checked.returncode == 0, checked.stderr.decode()
    assert (str(tree) in checked.stdout.decode()) == (kind == "editable")
    helped = run(python.parent / "featurebank", "--help")
    assert helped.returncode == 0, helped.stderr.decode()
    assert b"extract" in helped.stdout
