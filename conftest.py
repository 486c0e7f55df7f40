"""Examples in docstrings that speak of the tutorial's files run in the folder that it leaves, with the slow tests."""

import shutil

import pytest
from _pytest.doctest import DoctestItem

FILES = ("photos.bank", "photos.featurebank", '"photos/', "new.jpg")


def _needs_files(item: pytest.Item) -> bool:
    examples = item.dtest.examples if isinstance(item, DoctestItem) and item.dtest else []
    return any(file in example.source for example in examples for file in FILES)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark such examples as slow, before those that are slow are left out."""
    for item in items:
        if _needs_files(item):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def tutorial(tmp_path_factory):
    """The folder that the first tutorial leaves, and a copy to begin from again: a source is known by its path."""
    from doc_pages import begin

    folder, kept = tmp_path_factory.mktemp("tutorial") / "work", tmp_path_factory.mktemp("kept") / "work"
    begin(folder)
    shutil.copytree(folder, kept)
    return folder, kept


@pytest.fixture
def begun(tutorial):
    """That folder as it was."""
    folder, kept = tutorial
    shutil.rmtree(folder)
    return shutil.copytree(kept, folder)


@pytest.fixture(autouse=True)
def _beside_the_files(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if _needs_files(request.node):
        monkeypatch.chdir(request.getfixturevalue("begun"))
