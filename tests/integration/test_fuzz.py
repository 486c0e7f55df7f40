from collections import Counter

import pytest
from fuzz import FUZZERS


@pytest.mark.slow
@pytest.mark.parametrize(("name", "cases"), [("bank", 1500), ("predictor", 400)])
def test_mutated_files_are_refused_or_read_the_same(name, cases, tmp_path):
    found = Counter(FUZZERS[name](cases, seed=1, folder=tmp_path))
    assert set(found) <= {"same", "refused"}, found
    assert found["refused"] > cases / 2
