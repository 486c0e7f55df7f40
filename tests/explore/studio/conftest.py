"""A studio over a bank of planted kinds."""

import numpy as np
import pytest
from made_bank import planted
from studio_run import picture_bank, start


@pytest.fixture
def planted_run(tmp_path):
    """A studio over 200 pictures of three kinds that lie far apart."""
    X, numbers = planted(np.random.default_rng(0), groups=3, size=67, width=8, away=4.0)
    bank, digests = picture_bank(tmp_path / "pictures", X)
    return start(bank, digests, np.array(["ant", "bee", "cat"])[numbers])
