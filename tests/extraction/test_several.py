"""Several backbones in one run: the rows of separate runs, each image decoded once."""

import numpy as np
import pytest
from PIL import Image

from featurebank import Bank, extract
from featurebank.errors import BankError
from featurebank.extraction.several import requests_for
from featurebank.images import decoding

BOTH = ["resnet18", "mobilenet_v2"]
LAYERS = ["resnet18/layer2", "mobilenet_v2/features.3:max"]
SEEDED = {"weights": "random:0", "size": 32, "store": "float32"}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for number in range(9):
        Image.fromarray(random.integers(0, 255, (40, 36, 3), "uint8")).save(folder / f"{number}.png")
    (folder / "torn.png").write_bytes((folder / "0.png").read_bytes()[:200])
    return folder


@pytest.mark.filterwarnings("ignore:1 of 10 images")
def test_several_backbones_read_and_decode_once(photos, tmp_path, monkeypatch):
    opened = []
    real = decoding.decode_or_leave
    monkeypatch.setattr(decoding, "decode_or_leave", lambda *given, **named: opened.append(1) or real(*given, **named))
    together = extract(photos, tmp_path / "both.bank", backbone=BOTH, layers=LAYERS, **SEEDED)
    once = len(opened)
    for name, layer in zip(BOTH, ("layer2", "features.3:max"), strict=True):
        apart = extract(photos, tmp_path / "apart.bank", backbone=name, layers=layer, **SEEDED)
    for each in apart.feature_sets:
        assert np.abs(together.load(each.name) - apart.load(each.name)).max() < 1e-5
        assert together.load(each.name).shape[0] == 9
    assert (once, len(opened) - once) == (10, 19)  # the torn one is not tried again
    assert [len(bank.samples) for bank in (together, apart)] == [10, 10]
    again = extract(photos, tmp_path / "both.bank", backbone=BOTH, layers=[*LAYERS, "resnet18/layer1"], **SEEDED)
    assert again.load("resnet18/layer1").shape == (9, 64)
    assert len(Bank(tmp_path / "both.bank").feature_sets) == 3


def test_layers_of_each_backbone():
    first, second = requests_for(BOTH, ["resnet18/layer2"], weights="random:0")
    assert (first.layers, second.layers) == (["layer2"], ["penultimate"])
    assert requests_for(["resnet18"], "layer2")[0].layers == ["layer2"]
    with pytest.raises(BankError, match="expected each once"):
        requests_for(["resnet18", "resnet18"], "layer2")
