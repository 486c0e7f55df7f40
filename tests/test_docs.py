"""The pages of the documentation are true: their commands and their Python run, their links lead somewhere."""

import re
import shutil
import subprocess
import sys

import pytest
from doc_pages import DOCS, ENVIRONMENT, FEATUREBANK, PAGES, README, anchors, blocks, links, make_folder

FIRST = (
    "extract photos/ --bank photos.bank --layer penultimate --layer blocks.4:avgmax",
    "fit photos.bank",
)
"""What the first tutorial leaves to the guides."""


def name_of(page):
    return page.relative_to(DOCS.parent).with_suffix("").as_posix()


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A folder, and a copy of what the first tutorial leaves in it; a source of images is known by its path."""
    folder, kept = tmp_path_factory.mktemp("pages") / "work", tmp_path_factory.mktemp("kept") / "work"
    make_folder(folder)
    for line in FIRST:
        subprocess.run([FEATUREBANK, "--quiet", *line.split()], cwd=folder, check=True)
    shutil.copytree(folder, kept)
    return folder, kept


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=name_of)
def test_a_page_runs(page, begun):
    folder, kept = begun
    shutil.rmtree(folder)
    shutil.copytree(kept, folder)
    line = [sys.executable, DOCS.parent / "tests" / "doc_pages.py", page]
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.mark.parametrize("page", [README, DOCS.parent / "CONTRIBUTING.md", *PAGES], ids=name_of)
def test_links_lead_somewhere(page):
    for target in links(page):
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def test_every_command_that_a_page_begins_with_is_the_tutorial_s():
    lines = [line for _, text in blocks(DOCS / "tutorials" / "first-ten-minutes.md") for line in text.splitlines()]
    assert [f"featurebank {line}" for line in FIRST] == [line for line in lines if "extract" in line or "fit" in line][
        :2
    ]


def test_the_label_file_is_the_one_that_the_text_shows(tmp_path):
    make_folder(tmp_path)
    header, row = re.search(
        r"^`(path,.*?)` and `(.*?)`", (DOCS / "guides" / "csv-from-excel.md").read_text(), re.M
    ).groups()
    assert (tmp_path / "labels.csv").read_text().splitlines()[0] == header
    assert row in (tmp_path / "labels.csv").read_text().splitlines()


def test_the_completion_line_completes():
    (line,) = [
        line for _, text in blocks(DOCS / "guides" / "shell.md") for line in text.splitlines() if "eval " in line
    ]
    typed = "COMP_WORDS=(featurebank dupl)\nCOMP_CWORD=1\n_featurebank_completion featurebank\n"
    script = f'{line}\ncomplete -p featurebank\n{typed}echo "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", script], env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "-F _featurebank_completion featurebank" in done.stdout
    assert done.stdout.splitlines()[-1] == "duplicates"
