"""Banks and sources on a real S3-compatible server that fails on purpose: nothing lost, nothing doubled."""

import os
import signal
import subprocess
import sys
import urllib.request
import uuid
from pathlib import Path

import fsspec
import numpy as np
import pytest
from object_maker import SPEC, contents, digest, fill

from featurebank import Bank
from featurebank.errors import StorageError
from featurebank.storage import files, leases, retries

pytestmark = pytest.mark.slow
TESTS = Path(__file__).parents[1]
WRITE = """
import sys
import pandas as pd
from object_maker import add_rows
from featurebank import Bank
from featurebank.storage import leases, retries
leases.PAUSE = retries.FIRST_DELAY = 0.02
address, source, column = sys.argv[1:]
bank = Bank.create(address)
for start in range(0, 40, 8):
    add_rows(bank, list(range(start + 1, start + 9)), source, column)
    bank.label(pd.DataFrame({"path": [f"{start + 1}.png"], "source": source, column: ["corrected"]}))
    bank.compact()
"""
HOLD = """
import sys, time
from featurebank.storage import files
with files.locked(files.as_path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def server():
    """An S3 server, and the environment in which s3:// leads to it."""
    command = [sys.executable, str(Path(__file__).with_name("s3_server.py"))]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    url = f"http://127.0.0.1:{process.stdout.readline().strip()}"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"ENDPOINT_URL": url, "ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b"}.items():
            patch.setenv(f"AWS_{name}", value)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("NO_PROXY", "127.0.0.1")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]))
        patch.setitem(fsspec.config.conf, "s3", {"config_kwargs": {"read_timeout": 4}})
        patch.setattr(retries, "FIRST_DELAY", 0.01)
        patch.setattr(leases, "PAUSE", 0.02)
        retries.filesystem.cache_clear()
        yield url
    process.kill()
    process.wait()
    retries.filesystem.cache_clear()


@pytest.fixture
def failing(server):
    """Make every n-th request fail: failing(5); failing(0) ends it. Returns how many have failed."""

    def make(every):
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        return int(opener.open(f"{server}/-/{every}").read())

    yield make
    make(0)


@pytest.fixture
def bucket(server):
    name = uuid.uuid4().hex
    retries.filesystem("s3", os.getpid()).mkdir(name)
    return f"s3://{name}"


def test_a_bank_is_like_one_in_a_folder_whatever_fails(failing, bucket, tmp_path):
    before = failing(4)
    local, remote = Bank.create(tmp_path / "x.bank"), Bank.create(f"{bucket}/x.bank")
    for bank in (local, remote):
        fill(bank)
    assert failing(0) - before > 20
    assert contents(remote) == contents(Bank(f"{bucket}/x.bank")) == contents(local)
    assert [len(list(bank.path.glob("features/*/*.h5"))) for bank in (local, remote)] == [1, 1]
    assert [len(list(bank.path.glob("samples/*.h5"))) for bank in (local, remote)] == [1, 1]
    assert remote.verify() == []


def test_two_writers_at_once_lose_nothing_and_double_nothing(failing, bucket):
    before = failing(7)
    address = f"{bucket}/x.bank"
    Bank.create(address)
    runs = [("/first", "label"), ("/second", "kind")]
    writers = [subprocess.Popen([sys.executable, "-c", WRITE, address, *run]) for run in runs]
    assert [writer.wait(timeout=500) for writer in writers] == [0, 0]
    assert failing(0) - before > 20
    bank = Bank(address)
    assert bank.feature_set("net/fc").rows == 40
    assert bank.missing(SPEC, map(digest, range(1, 41))) == set()
    assert not bank.samples.duplicated(["source", "path"]).any()
    for source, column in runs:
        rows = bank.samples[bank.samples["source"] == source]
        expected = {f"{n}.png": "corrected" if n % 8 == 1 else "odd" if n % 2 else "even" for n in range(1, 41)}
        assert dict(zip(rows["path"], rows[column], strict=True)) == expected
    bank.compact(grace=0)
    bank.compact(grace=0)
    assert len(list(bank.path.glob("samples/*.h5"))) == 1
    assert bank.verify() == []


def test_extraction_from_photos_and_from_shards(failing, bucket, tmp_path, two_classes, run_json):
    import tarfile

    folder = files.as_path(f"{bucket}/photos")
    paths = sorted(path for path in two_classes.glob("[cd]*/*.png"))
    with tarfile.open(tmp_path / "all.tar", "w") as tar:
        for path in paths:
            files.commit(folder / path.relative_to(two_classes).as_posix(), path.read_bytes())
            tar.add(path, path.relative_to(two_classes).as_posix())
    files.commit(files.as_path(f"{bucket}/photo-000.tar"), (tmp_path / "all.tar").read_bytes())
    how = ["--backbone", "resnet18", "--weights", "random:0", "--size", "64", "--json"]
    run_json("extract", two_classes, "--bank", tmp_path / "x.bank", *how)
    expected, y = Bank(tmp_path / "x.bank").load("resnet18/penultimate", "label")
    before = failing(5)
    first = run_json("extract", folder, "--bank", f"{bucket}/x.bank", *how)
    again = run_json("extract", folder, "--bank", f"{bucket}/x.bank", *how)
    shards = run_json("extract", f"{bucket}/photo-{{000..000}}.tar", "--bank", f"{bucket}/y.bank", *how)
    assert failing(0) - before > 10
    assert [(each["embedded"], each["failed"]) for each in (first, again, shards)] == [(40, 0), (0, 0), (40, 0)]
    found, labels = Bank(f"{bucket}/x.bank").load("resnet18/penultimate", "label")
    assert np.array_equal(found, expected)
    assert labels.tolist() == y.tolist()
    assert np.array_equal(Bank(f"{bucket}/y.bank").load("resnet18/penultimate"), expected)


def test_workers_on_ray_read_from_the_store_and_write_into_it(
    failing, bucket, tmp_path, two_classes, run_json, distance
):
    pytest.importorskip("ray")
    folder = files.as_path(f"{bucket}/photos")
    for path in two_classes.glob("[cd]*/*.png"):
        files.commit(folder / path.relative_to(two_classes).as_posix(), path.read_bytes())
    how = ["--backbone", "resnet18", "--weights", "random:0", "--size", "64", "--store", "float32", "--json"]
    run_json("extract", two_classes, "--bank", tmp_path / "x.bank", *how)
    before = failing(5)
    report = run_json("extract", folder, "--bank", f"{bucket}/x.bank", "--backend", "ray", *how)
    assert failing(0) - before > 10
    assert (report["embedded"], report["failed"]) == (40, 0)
    there, here = Bank(f"{bucket}/x.bank"), Bank(tmp_path / "x.bank")
    assert there.samples["label"].tolist() == here.samples["label"].tolist()
    assert distance(there.load("resnet18/penultimate"), here.load("resnet18/penultimate")) < 1e-5


def test_a_killed_holder_frees_the_lock(server, bucket, monkeypatch):
    lock = files.as_path(f"{bucket}/.lock")
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    monkeypatch.setattr(leases, "SILENCE", 1.0)
    with files.locked(lock):
        assert [path.name for path in lock.iterdir()] == [f"{2:012}"]


def test_a_missing_bucket_and_an_unknown_server_end_in_one_line(server, monkeypatch):
    with pytest.raises(StorageError, match="no such bucket; make it"):
        Bank.create("s3://no-such-bucket-here/x.bank")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(retries, "TRIES", 2)
    retries.filesystem.cache_clear()
    with pytest.raises(StorageError, match=r"cannot read 's3://bucket/x.bank/bank.json': .* \(2 tries\)") as caught:
        Bank("s3://bucket/x.bank")
    assert "\n" not in str(caught.value)
    retries.filesystem.cache_clear()
