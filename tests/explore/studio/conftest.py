"""A studio over a bank of planted kinds."""

import numpy as np
import pytest
from made_bank import planted
from studio_run import picture_bank, start
from studio_walks import make_bank, running


@pytest.fixture
def planted_run(tmp_path):
    """A studio over pictures of three kinds that lie far apart."""
    return planted_studio(tmp_path)


@pytest.fixture(scope="module")
def annotated_run(tmp_path_factory):
    """Such a studio with 60 labels, to look at; and why each image was asked for."""
    run = planted_studio(tmp_path_factory.mktemp("annotated"))
    whys = run.annotate(60, every=10)
    run.work.step()
    run.work.look(run.work.now)
    return run, whys


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    """The bank of photos without labels that a page is walked over."""
    return make_bank(tmp_path_factory.mktemp("photos"))


@pytest.fixture
def studio(bank, tmp_path):
    """A studio that serves a copy of it."""
    with running(bank, tmp_path) as started:
        yield started


def planted_studio(folder):
    X, numbers = planted(np.random.default_rng(0), groups=3, size=50, width=8, away=7.0)
    bank, digests = picture_bank(folder / "pictures", X)
    return start(bank, digests, np.array(["ant", "bee", "cat"])[numbers])
