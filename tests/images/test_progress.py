"""A bar in a notebook's cell; nothing elsewhere."""

import nbformat
import pytest
from nbclient import NotebookClient

from featurebank.images import progress
from featurebank.images.progress import Bar, shown

CELL = """
import numpy as np
from featurebank import extract
from featurebank.images import progress
progress.PAUSE = 0
pixels = list(np.random.default_rng(0).integers(0, 255, (3, 40, 40, 3), dtype="uint8"))
extract(pixels, "a.bank", ids=list("abc"), backbone="resnet18", weights="random:0", size=32, batch_size=1);
"""


def test_outside_of_a_notebook_there_is_no_bar():
    assert shown(None, "extract") is None


def test_a_callback_is_told_instead():
    assert shown(print, "extract") is print


def test_in_a_notebook_there_is_a_bar(monkeypatch):
    monkeypatch.setattr(progress, "_is_notebook", lambda: True)
    assert isinstance(shown(None, "extract"), Bar)


@pytest.mark.slow
def test_a_cell_shows_a_bar_that_is_gone_at_the_end(tmp_path):
    seen = []
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    client = NotebookClient(notebook, timeout=200, resources={"metadata": {"path": tmp_path}})
    process = client.process_message
    client.process_message = lambda message, *rest: (seen.append(message), process(message, *rest))[1]
    client.execute()
    htmls = [m["content"]["data"].get("text/html", "") for m in seen if "display_data" in m["msg_type"]]
    assert '<progress value="1" max="3"' in htmls[0]
    assert htmls[-1] == ""
