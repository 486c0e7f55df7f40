"""What the benchmarks say of planted faults, on the solar cells: copies among them. Flipped labels: `test_demo`."""

import pytest
from benchmarks.planted_faults import SAME_CELL, planted_copies, solar_cells


@pytest.mark.slow
def test_planted_copies_of_solar_cells_are_found(tmp_path):
    found = planted_copies(solar_cells(), SAME_CELL, tmp_path)
    assert found["recall"] >= 0.95
    assert found["precision"] >= 0.95
