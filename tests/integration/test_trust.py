"""What a bank survives: many writers, damaged bytes, hostile files, a full disk, sizes beyond memory."""

import os
import resource
import shutil
import stat
import subprocess
import sys
import time
import traceback

import h5py
import numpy as np
import pandas as pd
import pytest
from bank_maker import NAME, SPEC, add, contents, digest, expected, make, table, values

from featurebank import Bank
from featurebank.bank import sample_segments, samples, segment
from featurebank.bank.upkeep import set_damaged_features_aside, set_damaged_tables_aside
from featurebank.errors import BankError, FeatureBankError, StorageError
from featurebank.storage import files


@pytest.fixture
def bank(tmp_path):
    return make(tmp_path / "a.bank", [0, 1, 2], [3, 4], [5])


def forked(work):
    """Run `work` in a child process and return its pid."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return child


def wait(children):
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * len(children)


# --- writers at once ---------------------------------------------------------------------------------------

WRITERS, COMMITS = 4, 40


@pytest.mark.slow
def test_four_writers_with_compaction_lose_nothing_and_readers_see_one_state(tmp_path):
    bank = make(tmp_path / "a.bank", [0])
    stop = tmp_path / "stop"

    def write(writer):
        own = Bank(bank.path)
        for commit in range(COMMITS):
            add(own, [1 + writer * COMMITS + commit, 300 + commit])  # 300… are written by all four

    def compact():
        while not stop.exists():
            Bank(bank.path).compact(grace=0.5)

    def read():
        last = 0
        while not stop.exists():
            found = contents(Bank(bank.path))
            assert len(found) >= last
            assert all(found[path] == expected([int(path[:4])])[path] for path in found)
            last = len(found)

    helpers = [forked(compact), forked(read), forked(read)]
    wait([forked(lambda writer=writer: write(writer)) for writer in range(WRITERS)])
    stop.touch()
    wait(helpers)
    numbers = [0, *range(1, 1 + WRITERS * COMMITS), *range(300, 300 + COMMITS)]
    assert contents(bank) == expected(numbers)
    assert bank.feature_set(NAME).rows == len(numbers)
    bank.compact(grace=0)
    bank.compact(grace=0)
    assert len(list(bank.path.glob("features/*/*.h5"))) == 1
    assert contents(bank) == expected(numbers)
    assert bank.verify() == []


def test_a_label_is_not_buried_by_a_compaction_or_by_a_clock_that_is_behind(bank, monkeypatch):
    monkeypatch.setattr(samples.time, "time_ns", lambda: 1_000_000)  # 1970
    bank.label(pd.DataFrame({"path": ["0003.png"], "label": ["mended"]}))
    assert contents(bank)["0003.png"][0] == "mended"
    bank.compact(grace=0)
    assert contents(bank)["0003.png"][0] == "mended"
    with bank.locked():
        bank.add_samples(table([3], "again"), newest=bank.table.newest_stamp)
    assert contents(bank)["0003.png"][0] == "again"


@pytest.mark.slow
def test_labels_written_by_many_at_once_all_stay(tmp_path):
    bank = make(tmp_path / "a.bank", list(range(20)))

    def label(number):
        Bank(bank.path).label(pd.DataFrame({"path": [f"{number:04d}.png"], f"by{number % 4}": [number]}))

    wait([forked(lambda number=number: label(number)) for number in range(20)])
    frame = bank.samples
    assert [frame[f"by{number % 4}"][number] for number in range(20)] == list(range(20))


def test_prune_drops_what_no_sample_points_at_and_spares_what_is_young(bank):
    bank.add_features(SPEC, [digest(99), digest(0)], values([99, 0]))
    assert bank.prune() == {"rows": 0, "removed": 0}
    assert bank.prune(grace=0)["rows"] == 1
    assert bank.missing(SPEC, [digest(99), digest(0)]) == {digest(99)}
    assert contents(bank) == expected(range(6))


def test_replaced_files_stay_for_the_grace_period(bank):
    assert bank.compact() == {"merged": 6, "removed": 0}
    assert len(list(bank.path.glob("features/*/*.h5"))) == 4
    assert contents(bank) == expected(range(6))
    add(bank, [6])
    bank.compact()  # supersedes the merged file and, still there, what that one superseded
    assert contents(bank) == expected(range(7))
    assert bank.compact(grace=0)["removed"] == 10
    assert contents(bank) == expected(range(7))


# --- damage ------------------------------------------------------------------------------------------------


def segment_paths(bank):
    return sorted(bank.path.rglob("*.h5"))


def damaged_or_equal(bank, before):
    """Load everything: either an error that featurebank names, or exactly what was written."""
    try:
        return "equal" if contents(Bank(bank.path)) == before else "wrong"
    except FeatureBankError:
        return "found"


@pytest.mark.slow
def test_bit_flips_are_found_and_never_returned(bank):
    random = np.random.default_rng(0)
    before, paths = contents(bank), segment_paths(bank)
    results = []
    for _ in range(1000):
        file = paths[random.integers(len(paths))]
        data = bytearray(file.read_bytes())
        whole = bytes(data)
        data[random.integers(len(data))] ^= 1 << random.integers(8)
        file.write_bytes(data)
        results.append(damaged_or_equal(bank, before))
        if results[-1] == "found":
            assert [each["file"] for each in bank.verify()] == [str(file)]
        file.write_bytes(whole)
    assert results.count("wrong") == 0
    assert results.count("found") > 300  # the rest hit unused bytes of the container
    assert contents(bank) == before


@pytest.mark.slow
def test_truncations_are_found_and_never_returned(bank):
    random = np.random.default_rng(1)
    before, paths = contents(bank), segment_paths(bank)
    for _ in range(300):
        file = paths[random.integers(len(paths))]
        whole = file.read_bytes()
        file.write_bytes(whole[: random.integers(len(whole))])
        assert damaged_or_equal(bank, before) in ("found", "equal")
        (problem,) = bank.verify() or [{"file": "", "problem": "delete it and run extract again"}]
        assert "delete it and run extract again" in problem["problem"]
        file.write_bytes(whole)
    assert contents(bank) == before


def test_damaged_rows_are_set_aside_and_only_they_are_missing(bank):
    file = next(file for file in segment_paths(bank) if "features" in str(file) and digest(3) in file.read_bytes())
    data = bytearray(file.read_bytes())
    data[data.index(digest(4))] ^= 1
    file.write_bytes(data)
    assert set_damaged_tables_aside(bank) == []
    (line,) = set_damaged_features_aside(bank, [SPEC])
    assert file.name in line
    assert file.with_name(file.name + ".damaged").exists()
    assert bank.missing(SPEC, [digest(number) for number in range(6)]) == {digest(3), digest(4)}
    assert bank.verify() == []


# --- hostile banks -----------------------------------------------------------------------------------------


def rewrite(bank, change):
    """Let `change` tamper with one feature segment through raw HDF5."""
    file = next(bank.path.glob("features/*/*.h5"))
    with h5py.File(file, "r+") as raw:
        change(raw, file)
    return file


def external_storage(raw, file):
    del raw["values"]
    raw.create_dataset("values", (3, 1, 6), "<f2", external=[("/etc/passwd", 0, 36)])


def external_link(raw, file):
    del raw["values"]
    raw["values"] = h5py.ExternalLink("/etc/passwd", "/values")


def deep_external_link(raw, file):
    raw.create_group("columns/0")["data"] = h5py.ExternalLink(str(file), "/values")


def external_group(raw, file):
    raw["columns"] = h5py.ExternalLink(str(file), "/")


def soft_link(raw, file):
    raw.move("values", "other")
    raw["values"] = h5py.SoftLink("/other")


def virtual(raw, file):
    del raw["values"]
    layout = h5py.VirtualLayout((3, 1, 6), "<f2")
    layout[:] = h5py.VirtualSource("/etc/passwd", "values", (3, 1, 6))
    raw.create_virtual_dataset("values", layout)


def object_type(raw, file):
    del raw["values"]
    raw.create_dataset("values", (3,), h5py.string_dtype())


def reference_type(raw, file):
    del raw["values"]
    raw.create_dataset("values", (3,), h5py.ref_dtype)


def filter_bomb(raw, file):
    del raw["values"]
    raw.create_dataset("values", (1 << 14, 1 << 15), "<f2", chunks=(1 << 10, 1 << 15), compression="gzip")


def huge_shape(raw, file):
    del raw["values"]
    raw.create_dataset("values", (1 << 40, 1, 6), "<f2")  # allocated late: 12 TB in a few bytes


def overflowing_shape(raw, file):
    del raw["values"]
    raw.create_dataset("values", (1 << 33, 1 << 31, 2), "<f2")


def huge_header(raw, file):
    del raw["header"]
    raw.create_dataset("header", (1 << 40,), "u1")


def a_group_in_a_loop(raw, file):
    raw["columns"] = raw["/"]


HOSTILE = [
    external_storage,
    external_link,
    deep_external_link,
    external_group,
    soft_link,
    virtual,
    object_type,
    reference_type,
    filter_bomb,
    huge_shape,
    overflowing_shape,
    huge_header,
    a_group_in_a_loop,
]


@pytest.mark.parametrize("attack", HOSTILE, ids=lambda attack: attack.__name__)
def test_a_hostile_segment_is_refused_with_the_reason(bank, attack):
    file = rewrite(bank, attack)
    with pytest.raises(BankError, match="is damaged or not a segment: ") as caught:
        contents(bank)
    assert str(file) in str(caught.value)
    assert "HDF5 cannot read it" not in str(caught.value)
    assert len(bank.verify()) == 1


def test_symbolic_links_out_of_the_bank_are_refused(bank, tmp_path):
    folder = bank.feature_folder(SPEC)
    shutil.move(folder, tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BankError, match="is a link"):
        contents(bank)
    folder.unlink()
    shutil.move(tmp_path / "elsewhere", folder)
    spec = folder / "spec.json"
    spec.rename(tmp_path / "spec.json")
    spec.symlink_to(tmp_path / "spec.json")
    with pytest.raises(BankError, match="is a link"):
        contents(bank)


@pytest.mark.parametrize("path", [b"/etc/passwd", b"../../etc/passwd", b"a/../../b", b""])
def test_a_sample_table_with_paths_that_leave_the_root_is_refused(bank, path):
    hostile = table([7])
    hostile.rows["path"] = [path]
    files.commit(bank.path / "samples" / "evil.h5", sample_segments.encode_table(hostile))
    with pytest.raises(BankError, match="its arrays do not make a sample table"):
        contents(bank)


def test_superseded_names_cannot_point_elsewhere(bank, tmp_path):
    victim = tmp_path / "victim.h5"
    victim.touch()
    data = sample_segments.encode_table(table([7]), ["../../victim.h5", str(victim)])
    files.commit(bank.path / "samples" / "evil.h5", data)
    bank.compact(grace=0)
    bank.compact(grace=0)
    assert victim.exists()


def test_a_fifo_in_the_place_of_a_segment_does_not_block(bank):
    os.mkfifo(bank.feature_folder(SPEC) / "pipe.h5")
    with pytest.raises(BankError, match="link or special file"):
        contents(bank)


# --- disks -------------------------------------------------------------------------------------------------


def test_a_full_disk_is_one_line_and_leaves_the_bank_intact(bank):
    before = sorted(bank.path.rglob("*"))

    def fill():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        with pytest.raises(StorageError, match=r"cannot write .*: File too large; free the disk") as caught:
            add(bank, list(range(100, 200)))
        assert "\n" not in str(caught.value)

    wait([forked(fill)])
    assert sorted(bank.path.rglob("*")) == before
    assert contents(bank) == expected(range(6))


@pytest.mark.slow
def test_the_command_ends_with_one_line_on_a_full_disk(tmp_path):
    from PIL import Image

    (tmp_path / "photos").mkdir()
    for number in range(3):
        Image.new("RGB", (16, 16), (number * 50, 0, 0)).save(tmp_path / "photos" / f"{number}.png")
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))\n"
        "from featurebank_cli import main; main()"
    )
    arguments = ["extract", str(tmp_path / "photos"), "--bank", str(tmp_path / "a.bank")]
    command = [sys.executable, "-c", code, *arguments, "--backbone", "resnet18", "--weights", "random:0"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("Error: cannot write")
    assert not list((tmp_path / "a.bank").rglob(".tmp-*"))
    assert Bank(tmp_path / "a.bank").verify() == []


@pytest.mark.parametrize("code", [13, 30, 28, 5])
@pytest.mark.parametrize("call", ["open", "write", "fsync", "replace"])
def test_a_refused_system_call_is_one_line_and_leaves_the_bank_intact(bank, monkeypatch, call, code):
    def refuse(*arguments, **options):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(files.os, call, refuse)
        with pytest.raises(StorageError, match=os.strerror(code)):
            bank.add_features(SPEC, [digest(7)], values([7]))
    assert not list(bank.path.rglob(".tmp-*"))
    assert contents(bank) == expected(range(6))


def test_a_bank_that_cannot_be_written_can_still_be_read(bank):
    for path in bank.path.rglob("*"):
        path.chmod(stat.S_IRUSR | (stat.S_IXUSR if path.is_dir() else 0))
    try:
        assert contents(Bank(bank.path)) == expected(range(6))
        assert bank.verify() == []
    finally:
        for path in bank.path.rglob("*"):
            path.chmod(0o755)


# --- memory ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_opening_and_verifying_a_20_gb_bank_stays_below_500_mb(in_memory):
    """A sparse segment of 20 GB of zeros, all of which are read and hashed."""
    bank = make(in_memory / "a.bank", [0])
    rows, width = 1 << 20, 10240
    _sparse_segment(bank, rows, width)
    code = (
        "import re, sys; from featurebank import Bank\n"
        "bank = Bank(sys.argv[1]); problems = bank.verify(); info = bank.info()\n"
        "assert problems == [], problems\n"
        "peak = re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())\n"  # ru_maxrss counts the parent's
        "print(info['bytes'], int(peak[1]) // 1024)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(bank.path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    size, megabytes = map(int, done.stdout.split())
    assert size > 20e9
    assert megabytes < 500


ZEROS = 20 << 30
SHA256_OF_ZEROS = "6cb118a8f8b3c19385874297e291dcbcdf3a9837ba1ca7b00ace2491adbff551"
"""What ``head -c 20G /dev/zero | sha256sum`` prints."""


def _sparse_segment(bank, rows, width):
    import hashlib
    from dataclasses import replace

    assert rows * width * 2 == ZEROS
    spec = replace(SPEC, layer="huge")
    bank.add_spec(spec)
    keys = np.zeros((rows, 32), "u1")
    keys[:, :8] = np.arange(rows, dtype=">u8")[:, None].view("u1")
    path = bank.feature_folder(spec) / "huge.h5"
    described = {
        "digest": {"dtype": "|u1", "shape": [rows, 32], "sha256": hashlib.sha256(keys.data).hexdigest()},
        "values": {"dtype": "<f2", "shape": [rows, 1, width], "sha256": SHA256_OF_ZEROS},
    }
    meta = {"fingerprint": spec.fingerprint, "supersedes": []}
    text = segment.canonical_json({"kind": "features", "meta": meta, "arrays": described})
    with h5py.File(path, "w") as raw:
        raw.attrs["format"], raw.attrs["version"] = np.bytes_(segment.FORMAT), np.int64(segment.VERSION)
        raw.attrs["sha256"] = np.frombuffer(hashlib.sha256(text).digest(), "u1")
        raw.create_dataset("header", data=np.frombuffer(text, "u1"))
        raw.create_dataset("digest", data=keys)
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        space = h5py.h5s.create_simple((rows, 1, width))
        h5py.h5d.create(raw.id, b"values", h5py.h5t.IEEE_F16LE, space, plist)
    assert path.stat().st_size > 20e9
    assert path.stat().st_blocks * 512 < 1e9


def test_a_killed_writer_leaves_nothing_that_stays_for_ever(bank):
    leftover = bank.path / "samples" / f"{files.TEMP_PREFIX}abc"
    leftover.write_bytes(b"half")
    bank.compact(grace=0)
    assert leftover.exists()  # it may still be written
    os.utime(leftover, (time.time() - 7200,) * 2)
    bank.compact(grace=0)
    assert not leftover.exists()
