"""Shared by the tests of trust: a folder in memory."""

import shutil
import tempfile
from pathlib import Path

import pytest

MEMORY, ROOM = Path("/dev/shm"), 200 << 20


@pytest.fixture
def in_memory(tmp_path_factory):
    """An empty folder, in memory where there is room: many small files and the holes of huge ones cost little there."""
    if not MEMORY.is_dir() or shutil.disk_usage(MEMORY).free < ROOM:
        yield tmp_path_factory.mktemp("on_disk")
        return
    with tempfile.TemporaryDirectory(prefix="featurebank-", dir=MEMORY) as folder:
        yield Path(folder)
