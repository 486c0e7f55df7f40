"""The demonstration's edges; the whole of it is in integration/test_demo.py."""

import sys

import pytest

from featurebank_cli.solar_cells import cells_folder, write_manifest


def test_without_the_extra_it_says_what_to_install_and_leaves_nothing(run_cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "elpv_dataset", None)  # as if it were not installed
    result = run_cli("demo", "--json")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "Error: the solar cells are not installed; expected the extra demo: pip install 'featurebank[demo]' "
        "(in a checkout: pip install -e '.[demo]')\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_the_protocols_are_the_published_ones(tmp_path):
    import pandas as pd

    table = pd.read_csv(write_manifest(cells_folder(), tmp_path / "cells.csv"))
    assert len(table) == 2624
    p = table["probability"]
    assert (table["A"] == "functional").sum() == (p == 0).sum() == 1508
    assert table["A_weight"].to_numpy() == pytest.approx(p.where(p > 0, 1).to_numpy())
    assert (table["B"] == "functional").mean() == pytest.approx(0.687, abs=5e-4)
    assert table["C"].notna().sum() == 2223
    assert (table["C"] == "functional").sum() / 2223 == pytest.approx(0.678, abs=5e-4)
    assert set(table["C"].dropna()) == {"defective", "functional"}
