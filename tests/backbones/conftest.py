"""Shared by the tests of backbones."""

import pytest


@pytest.fixture(scope="module")
def photos(noise):
    return [noise(320, 240), noise(200, 333, seed=1), noise(90, 61, seed=2)]
