"""What an extraction will take, and the guide on sizing, recomputed."""

import math
import re
import shutil
from pathlib import Path

import pytest

from featurebank import Bank, extract, scan
from featurebank.backbones.engine import Engine
from featurebank.backbones.request import Request
from featurebank.errors import BankError
from featurebank.extraction.pipeline import Compute
from featurebank.extraction.planning import DIGEST_BYTES, SAMPLE_BYTES, Estimate, estimate

GUIDE = (Path(__file__).parents[2] / "docs" / "guides" / "sizing.md").read_text()
RESNET = {"weights": "random:0", "size": 64}


def test_a_sample_is_timed_and_nothing_is_written(two_classes, tmp_path):
    request = Request("resnet18", ["penultimate", "layer2:avgmax"], **RESNET, views="hflip", store="float32")
    steps = []
    found = estimate(
        scan(two_classes),
        tmp_path / "none.bank",
        request,
        Compute("cpu", "eager", batch_size=8, workers=2),
        sample=12,
        progress=lambda done, total: steps.append((done, total)),
    )
    assert isinstance(found, Estimate)
    assert not (tmp_path / "none.bank").exists()
    assert (found.images, found.samples, found.failed) == (40, 40, 0)
    assert found.timed == 12  # the first batch of 4 images, two views each, warms up
    assert steps[-1] == (16, 16)
    row = 2 * DIGEST_BYTES + 2 * 4 * (512 + 256) + SAMPLE_BYTES + len("cat/00.png")
    assert found.row_bytes == row
    assert found.gigabytes == pytest.approx(40 * row / 1e9)
    assert found.hours == pytest.approx(40 / found.images_per_second / 3600)
    assert found.engine == "eager on cpu in batches of 8"


def test_what_the_bank_has_costs_nothing(two_classes, tmp_path):
    extract(two_classes / "cat", tmp_path / "a.bank", backbone="resnet18", **RESNET)
    before = sorted(path.stat().st_mtime_ns for path in tmp_path.rglob("*"))
    request, compute = Request("resnet18", "penultimate", **RESNET), Compute("cpu", "eager")
    with pytest.raises(BankError, match="nothing is left to embed"):
        estimate(scan(two_classes / "cat"), tmp_path / "a.bank", request, compute)
    assert estimate(scan(two_classes / "dog"), tmp_path / "a.bank", request, compute).images == 20
    assert sorted(path.stat().st_mtime_ns for path in tmp_path.rglob("*")) == before
    assert len(Bank(tmp_path / "a.bank").samples) == 20


def test_images_that_cannot_be_read_are_counted_not_timed(two_classes, tmp_path):
    (tmp_path / "a.png").write_bytes((two_classes / "cat" / "00.png").read_bytes())
    (tmp_path / "b.png").write_bytes(b"no image")
    request, compute = Request("resnet18", "penultimate", **RESNET), Compute("cpu", "eager")
    found = estimate(scan(tmp_path), tmp_path / "a.bank", request, compute)
    assert (found.timed, found.failed) == (1, 1)
    (tmp_path / "a.png").unlink()
    with pytest.raises(BankError, match="none of 1 image could be read"):
        estimate(scan(tmp_path), tmp_path / "a.bank", request, compute)


# --- the guide ---------------------------------------------------------------------------------------------

ROW = re.compile(r"^\| ([0-9.]+) (million|billion) \| (.*) \|$", re.MULTILINE)


def number(text):
    return float(re.search(r"[0-9][0-9,.]*", text)[0].replace(",", ""))


def test_the_page_on_sizing_adds_up():
    speed = number(re.search(r"([0-9,]+) images a second", GUIDE)[1])
    price = number(re.search(r"at ([0-9.]+) an hour", GUIDE)[1])
    deadline = number(re.search(r"within ([0-9]+) hours", GUIDE)[1])
    width, per_sample, row = map(
        number, re.search(r"2 × ([0-9,]+) \+ 32 \+ ([0-9,]+) = ([0-9,]+) bytes", GUIDE).groups()
    )
    assert row == 2 * width + DIGEST_BYTES + per_sample
    assert per_sample == SAMPLE_BYTES + 30
    rows = ROW.findall(GUIDE)
    assert len(rows) == 2
    for count, unit, cells in rows:
        images = float(count) * {"million": 1e6, "billion": 1e9}[unit]
        hours, space, machines, cost = cells.split(" | ")
        assert number(hours) == pytest.approx(images / speed / 3600, rel=0.005)
        assert number(space) * (1000 if "TB" in space else 1) == pytest.approx(images * row / 1e9, rel=0.005)
        assert number(machines) == math.ceil(images / speed / 3600 / deadline)
        assert number(cost) == pytest.approx(images / speed / 3600 * price, rel=0.005)
    assert number(re.search(r"([0-9.]+) a million", GUIDE)[1]) == pytest.approx(1e6 / speed / 3600 * price, rel=0.005)


def test_no_batch_that_is_timed_is_padded(two_classes, tmp_path, monkeypatch):
    shutil.copytree(two_classes, tmp_path / "photos")
    (tmp_path / "photos" / "cat" / "00.png").write_bytes(b"no image")
    request, sizes, embed = Request("resnet18", "penultimate", **RESNET), [], Engine.embed_views

    def counted(self, prepared):
        prepared = list(prepared)
        sizes.append(len(prepared))
        return embed(self, prepared)

    monkeypatch.setattr(Engine, "embed_views", counted)
    found = estimate(
        scan(tmp_path / "photos"), tmp_path / "a.bank", request, Compute("cpu", "eager", batch_size=16), sample=20
    )
    assert (found.images, found.timed, found.failed) == (40, 16, 1)
    assert sizes == [8, 16]  # what is over warms up; the last 15 would have been filled up
