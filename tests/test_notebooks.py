"""The notebooks run from top to bottom, find what their text says, and keep small outputs.

They are made anew with ``PYTHONWARNINGS='ignore:IProgress' jupyter execute --inplace notebooks/*.ipynb``.
"""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
PUBLIC = {"featurebank", "featurebank.explore"}
FOUND = {
    "01_first_bank": """
assert name == "efficientnet_lite0/blocks.4", name
assert result.report["best"]["mean"] > 0.85
""",
    "02_solar_cells": """
assert result.report["best"]["mean"] > larger_class["B"] + 0.15
assert len(result.report["best"]["features"]) > 1 or "blocks" in result.report["best"]["features"][0]
assert certain["mean"] > 0.88 and weighted.mean > 0.83
assert pictures["group"].nunique() >= 12
assert doubt.groupby("p")["wrong"].mean().idxmax() == 0.67
""",
    "03_layers_and_distance": """
median = {name: float(np.median(values)) for name, values in surest.items()}
assert median["photographs"] > 3 * median["cells"] > 9 * median["digits"], median
assert table["digits label"].idxmax() in ("blocks.4", "blocks.5")
assert table["digits label"].max() > table["digits label"]["penultimate"] + 0.05
assert table["cells type"]["blocks.2"] > 0.98 > 0.9 > table["cells type"]["blocks.0"]
assert advice["digits", "label"].verdict.similarity == "different"
assert best["mean"].max() > table["digits label"]["penultimate"] + 0.05
assert where["share kept"].idxmax() in ("blocks.3", "blocks.4", "blocks.5")
""",
    "04_fine_tuning": """
assert gains["penultimate"][0] > gains["penultimate"][1], gains
assert gains["blocks.4"][0] < gains["penultimate"][0], gains
assert run.report["best"]["number"] > 0
""",
    "05_finding_bad_labels_and_duplicates": """
assert copies_recall >= 0.95 and copies_precision >= 0.95
assert torn.report["best"]["mean"] > kept.report["best"]["mean"]
assert recall >= 0.5
assert after > before
""",
    "06_domain_shift": """
assert found.report["shift"][0]["is_shift"] and not null.report["shift"][0]["is_shift"]
assert chosen["adapt"] != "none" and null.report["chosen"]["adapt"] == "none"
assert reached > scores["none"] + 0.05
assert own > reached
""",
}
"""What must hold in a notebook's own variables when it has run."""


def cells_of(file: Path) -> list:
    return [cell for cell in nbformat.read(file, as_version=4).cells if cell.cell_type == "code"]


@pytest.mark.slow
@pytest.mark.timeout(1500)  # of the notebook, whichever cell takes it
@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_runs_and_finds_what_it_says(file, tmp_path):
    notebook = nbformat.read(file, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(FOUND[file.stem]))
    NotebookClient(notebook, timeout=None, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_keeps_its_outputs(file):
    cells = cells_of(file)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    images = [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    assert images
    assert max(map(len, images)) * 3 / 4 < 60_000
    assert file.stat().st_size < 400_000


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_uses_the_public_interface_only(file):
    code = "\n".join(cell.source for cell in cells_of(file))
    assert set(re.findall(r"^\s*(?:from|import) (featurebank[\w.]*)", code, re.MULTILINE)) <= PUBLIC


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_the_links_of_a_notebook_lead_somewhere(file):
    text = "\n".join(cell.source for cell in nbformat.read(file, as_version=4).cells if cell.cell_type == "markdown")
    targets = [target for target in re.findall(r"\]\(([^)]+)\)", text) if "://" not in target]
    assert [target for target in targets if not (file.parent / target).exists()] == []
