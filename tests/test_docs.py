"""The pages of the documentation are true: their commands and their Python run, their links lead somewhere."""

import inspect
import pkgutil
import re
import subprocess

import pytest
from doc_pages import DOCS, ENVIRONMENT, FIRST, PAGES, README, anchors, blocks, links, make_folder, run

import featurebank
from featurebank import errors, explore


def name_of(page):
    return page.relative_to(DOCS.parent).with_suffix("").as_posix()


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=name_of)
def test_a_page_runs(page, begun, monkeypatch):
    monkeypatch.chdir(begun)
    run(page)


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


def public_names():
    """The names on the page of the Python reference, each with a page of its own."""
    text = (DOCS / "reference" / "api.md").read_text()
    return re.findall(r"^   ([\w.]+)$", text, re.MULTILINE)


def found(name):
    return pkgutil.resolve_name(f"featurebank.{name}")


def test_every_public_name_has_a_page():
    listed = public_names()
    assert len(listed) == len(set(listed))
    children = {f"errors.{name}" for name, each in vars(errors).items() if is_error(each)} - {"errors.FeatureBankError"}
    wanted = {*featurebank.__all__, *children} - {"__version__"}
    assert wanted - set(listed) == set()
    assert {found(name) for name in listed} >= {getattr(explore, name) for name in explore.__all__}


def is_error(each):
    return isinstance(each, type) and issubclass(each, featurebank.FeatureBankError)


@pytest.mark.parametrize("name", [name for name in public_names() if not name.startswith("errors.")])
def test_a_public_name_has_an_example_that_runs_and_says_what_to_see_also(name):
    text = found(name).__doc__
    assert "\nSee Also\n" in inspect.cleandoc(text)
    assert ">>> " in text.split("Examples\n")[1]
    assert "SKIP" not in text


@pytest.mark.slow
def test_the_fields_of_json_are_those_of_the_page(run_json, two_classes, two_class_predictor, own_bank, tmp_path):
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", (DOCS / "reference" / "json.md").read_text(), re.MULTILINE)
    promised = {command: set(re.findall(r"`(\w+)`", text)) for command, text in rows}
    shown = {
        "extract": run_json(
            "extract", two_classes, "--bank", own_bank, "--backbone", "resnet18", "--weights", "random:0"
        ),
        "fit": run_json(
            "fit", own_bank, "--model", "ridge", "--groups", "path", "--nested", "-o", tmp_path / "a.featurebank"
        ),
        "evaluate": run_json("evaluate", two_class_predictor, two_classes.parent / "new"),
    }
    missing = {command: promised[command] - set(found) for command, found in shown.items()}
    assert missing == {command: set() for command in shown}
