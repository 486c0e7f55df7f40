"""What the benchmarks say of planted faults, on the solar cells: copies among them, and flipped labels."""

import pytest
from benchmarks.planted_faults import SAME_CELL, flipped_labels, planted_copies, solar_cells

from featurebank.extraction.extract import extract
from featurebank_cli.solar_cells import BLOCKS, cells_folder, write_manifest


@pytest.mark.slow
def test_planted_copies_of_solar_cells_are_found(tmp_path):
    found = planted_copies(solar_cells(), SAME_CELL, tmp_path)
    assert found["recall"] >= 0.95
    assert found["precision"] >= 0.95


@pytest.mark.slow
def test_flipped_labels_of_certain_solar_cells_are_found(tmp_path):
    cells = cells_folder()
    manifest = write_manifest(cells, tmp_path / "cells.csv")
    bank = extract(manifest, tmp_path / "a.bank", root=cells, layers=[f"{block}:avgmax" for block in BLOCKS])
    for seed in range(2):
        assert flipped_labels(bank, seed)["recall at that budget"] >= 0.5
