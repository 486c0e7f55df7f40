"""Banks whose labels an earlier release read of the folders get today's at the next extract; corrections stay."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from featurebank import Bank, extract
from featurebank.images import folders
from featurebank.images.layout import top_folders

NET = {"backbone": "resnet18", "weights": "random:0", "layers": "layer1", "size": 32, "engine": "eager"}
NAMES = [f"{part}/{name}/0.png" for part in ("Test", "Train") for name in ("cat", "dog")]


@pytest.fixture
def data(tmp_path):
    """A split with class folders, and a picture in no class."""
    random = np.random.default_rng(0)
    for name in [*NAMES, "Test/cover.png"]:
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (32, 32, 3), np.uint8)).save(tmp_path / "data" / name)
    return tmp_path / "data"


def told(bank):
    """Return the label and the part of each sample."""
    columns = Bank(bank).select().columns
    return [tuple(None if pd.isna(cell) else cell for cell in row) for row in columns[["label", "split"]].to_numpy()]


def test_labels_of_an_earlier_release_are_replaced_and_corrected_ones_stay(data, tmp_path, monkeypatch):
    bank = tmp_path / "a.bank"
    with monkeypatch.context() as earlier:
        earlier.setattr(folders, "read_layout", lambda paths: (top_folders(paths), []))
        extract(data, bank, **NET)
    assert Bank(bank).select().columns["label"].tolist() == ["Test"] * 3 + ["Train"] * 2
    Bank(bank).label(pd.DataFrame({"path": ["Train/cat/0.png"], "label": ["lion"]}))
    extract(data, bank, **NET)
    want = [("cat", "test"), (None, "test"), ("dog", "test"), ("lion", "train"), ("dog", "train")]
    assert told(bank) == want
    segments = len(Bank(bank).sample_segments())
    moved = data.rename(tmp_path / "moved")
    extract(data, bank, root=moved, **NET)
    assert told(bank) == want
    extract(data, bank, root=moved, **NET)
    assert len(Bank(bank).sample_segments()) == segments + 1  # for the new root alone


def test_what_an_earlier_release_took_for_a_sample_is_gone(data, tmp_path, monkeypatch):
    (data / "Train" / "@eaDir").mkdir()
    Image.new("RGB", (32, 32)).save(data / "Train" / "@eaDir" / "thumb.png")
    with monkeypatch.context() as earlier:
        earlier.setattr("featurebank.images.clutter.is_system", lambda name: False)
        assert len(extract(data, tmp_path / "a.bank", **NET).select()) == 6
    assert extract(data, tmp_path / "a.bank", **NET).select().paths == sorted([*NAMES, "Test/cover.png"])
