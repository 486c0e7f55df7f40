import os
import re
import shutil

import pandas as pd
import pytest
from object_maker import SPEC, FaultyStore, add_rows, contents, digest, fill, new_address

from featurebank import Bank
from featurebank.bank.segment import _open, open_segment
from featurebank.errors import BankError, CorruptError, StorageError
from featurebank.storage import files, retries
from featurebank.storage.objects import ObjectPath


@pytest.fixture
def faulty(monkeypatch):
    """Put a store that fails in the place of memory: faulty(every=3, lag=0); retries wait for next to nothing."""

    def make(**how):
        store = FaultyStore(**how)
        monkeypatch.setattr(retries, "filesystem", lambda protocol, process: store)
        return store

    monkeypatch.setattr(retries, "FIRST_DELAY", 1e-4)
    monkeypatch.setattr("featurebank.storage.leases.PAUSE", 1e-3)
    return make


@pytest.fixture
def folder():
    return files.as_path(new_address("folder"))


# --- addresses ---------------------------------------------------------------------------------------------


def test_an_address_survives_pathlib(tmp_path):
    assert str(files.as_path("s3://bucket/a/x.bank/")) == "s3://bucket/a/x.bank"
    assert str(files.as_path(os.path.join("s3:/bucket", "x.bank"))) == "s3://bucket/x.bank"
    assert files.as_path(f"file://{tmp_path}/x.bank") == tmp_path / "x.bank"
    assert files.as_path("photos.bank").is_absolute() is False


@pytest.mark.parametrize("text", ["ftp://host/x.bank", "s3://", "http://a/b"])
def test_other_addresses_are_refused_in_one_line(text):
    with pytest.raises(StorageError, match="expected") as caught:
        files.as_path(text)
    assert "\n" not in str(caught.value)


def test_a_missing_library_names_the_extra(monkeypatch):
    import fsspec

    def missing(*args, **kwargs):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "filesystem", missing)
    retries.filesystem.cache_clear()
    with pytest.raises(StorageError, match=r"s3:// needs s3fs, .*pip install 'featurebank\[cloud\]'"):
        Bank("s3://bucket/x.bank")


def test_a_file_address_is_the_folder_itself(tmp_path):
    bank = Bank.create(f"file://{tmp_path}/x.bank")
    add_rows(bank, [1, 2])
    assert bank.path == tmp_path / "x.bank"
    assert contents(Bank(tmp_path / "x.bank")) == contents(bank)


# --- objects -----------------------------------------------------------------------------------------------


def test_what_is_put_is_listed_and_read(folder):
    for name in ("a.h5", "b/c.h5", "b/d.json"):
        files.commit(folder / name, name.encode())
    assert [path.name for path in folder.glob("*.h5")] == ["a.h5"]
    assert [str(path) for path in folder.glob("*")] == [f"{folder}/a.h5", f"{folder}/b"]
    assert [path.name for path in folder.glob("*/*.json")] == ["d.json"]
    assert [path.lstat().st_size for path in folder.rglob("*.h5")] == [4, 6]
    assert (folder / "b" / "c.h5").read_bytes() == b"b/c.h5"
    assert (folder / "b" / "c.h5").read_bytes(2, 4) == b"c."
    assert (folder / "b").is_dir()
    assert not (folder / "b").is_file()
    assert not (folder / "e").exists()
    assert list((folder / "e").glob("*")) == []


def test_an_open_object_is_a_file(folder):
    files.commit(folder / "a", bytes(range(200)))
    with (folder / "a").open(buffering=16) as file:
        assert file.read(3) == bytes([0, 1, 2])
        assert file.seek(-2, 2) == 198
        assert file.read() == bytes([198, 199])


def test_setting_aside_and_removing(folder):
    files.commit(folder / "a", b"1")
    files.set_aside(folder / "a")
    files.set_aside(folder / "a")
    assert [path.name for path in folder.glob("*")] == ["a.damaged"]
    files.remove(folder / "a.damaged")
    files.remove(folder / "a.damaged")
    assert not folder.exists()


def test_the_first_to_create_wins_and_knows_it(folder):
    assert (folder / "a").create(b"mine")
    assert not (folder / "a").create(b"yours")
    assert (folder / "a").create(b"mine")
    assert (folder / "a").read_bytes() == b"mine"


def test_who_comes_late_to_an_object_that_is_gone_again_has_not_created_it(faulty, folder, monkeypatch):
    store = faulty()

    def late(path, data, mode):
        raise FileExistsError(path)

    monkeypatch.setattr(store, "pipe_file", late)
    assert not (folder / "a").create(b"mine")


# --- failures ----------------------------------------------------------------------------------------------


def test_a_request_that_fails_is_repeated(faulty, folder):
    store = faulty(every=2)
    for number in range(20):
        files.commit(folder / f"{number:02}", bytes([number]) * 100)
    assert [path.read_bytes() for path in folder.glob("*")] == [bytes([number]) * 100 for number in range(20)]
    assert store.failed >= 20


def test_half_an_object_is_never_left_behind(faulty, folder, monkeypatch):
    store = faulty()
    whole = store.pipe_file
    sizes = iter([3, 5, 10])
    monkeypatch.setattr(store, "pipe_file", lambda path, data: whole(path, data[: next(sizes)]))
    files.commit(folder / "a", b"0123456789")
    assert (folder / "a").read_bytes() == b"0123456789"


def test_an_outage_is_told_after_some_tries_and_ends_in_one_line(faulty, folder, caplog):
    faulty(every=1)
    with pytest.raises(StorageError, match=r"cannot write 'memory://.*/a': .*\(10 tries\); check") as caught:
        files.commit(folder / "a", b"1")
    assert "\n" not in str(caught.value)
    with pytest.raises(StorageError):
        files.commit(folder / "a", b"1")
    told = re.compile(r"requests to memory://\w+ fail \(.*\); they are repeated for up to \d+ seconds")
    assert all(map(told.fullmatch, caplog.messages))
    assert 1 <= len(caplog.messages) == len(set(caplog.messages)) <= 2  # the store fails in two ways


def test_a_hiccup_is_not_told(faulty, folder, caplog):
    store = faulty(every=2)
    files.commit(folder / "a", b"1")
    assert store.failed
    assert not caplog.messages


def test_a_refusal_is_not_repeated(faulty, folder, monkeypatch):
    store, calls = faulty(), []

    def refuse(*args, **kwargs):
        calls.append(args)
        raise PermissionError("Access Denied")

    monkeypatch.setattr(store, "pipe_file", refuse)
    with pytest.raises(StorageError, match="Access Denied; check the address, the credentials"):
        files.commit(folder / "a", b"1")
    assert len(calls) == 1


def test_a_listing_that_lags_shows_our_own_changes(faulty, folder):
    faulty(lag=3)
    for name in "abc":
        files.commit(folder / name, b"1")
        assert name in [path.name for path in folder.glob("*")]
    files.remove(folder / "b")
    assert [path.name for path in folder.glob("*")] == ["a", "c"]


# --- banks -------------------------------------------------------------------------------------------------


@pytest.fixture
def pair(tmp_path):
    """A bank in a folder and one in memory, of the same rows."""
    banks = Bank.create(tmp_path / "x.bank"), Bank.create(new_address())
    for bank in banks:
        add_rows(bank, [1, 2, 3])
        add_rows(bank, [3, 4], source="/more", column="kind")
    return banks


def test_a_bank_in_memory_is_like_one_in_a_folder(pair):
    local, remote = pair
    assert isinstance(remote.path, ObjectPath)
    assert contents(remote) == contents(Bank(str(remote.path))) == contents(local)
    for bank in pair:
        assert bank.label(pd.DataFrame({"path": ["1.png"], "label": ["new"]})) == 1
        assert bank.compact(grace=0) == {"merged": 5, "removed": 5}
        assert bank.prune(grace=0, source="/more") == {"gone": 2, "rows": 1, "removed": 1}
        assert bank.verify() == []
        assert bank.missing(SPEC, map(digest, [1, 4])) == {digest(4)}
    assert contents(remote) == contents(local)
    told = [{**bank.info(), "path": "", "bytes": 0} for bank in pair]
    assert told[0] == told[1]


def test_there_is_no_bank_where_there_is_none():
    with pytest.raises(BankError, match=r"'memory://.*/x.bank' does not exist; expected a folder made by"):
        Bank(new_address())


def test_a_folder_of_other_objects_is_no_bank(folder):
    files.commit(folder / "photo.jpg", b"1")
    with pytest.raises(BankError, match="exists and is no bank"):
        Bank.create(folder)


@pytest.mark.parametrize("how", [{"every": 3}, {"every": 7, "lag": 2}, {"every": 5, "lag": 1}], ids=str)
def test_failures_lose_nothing_and_double_nothing(faulty, tmp_path, how):
    store = faulty(**how)
    local, remote = Bank.create(tmp_path / "x.bank"), Bank.create(new_address())
    for bank in (local, remote):
        fill(bank)
    assert store.failed > 10
    store.every = store.lag = 0
    assert contents(remote) == contents(local)
    assert [len(list(bank.path.glob("features/*/*.h5"))) for bank in (local, remote)] == [1, 1]
    assert remote.verify() == []


def test_a_damaged_copy_in_the_cache_is_fetched_again(pair):
    _, remote = pair
    expected = contents(remote)
    for file in (files.cache_folder() / "objects").iterdir():
        file.write_bytes(b"x" * file.stat().st_size)
    assert contents(Bank(str(remote.path))) == expected


def test_only_what_is_asked_for_of_features_comes_here(monkeypatch, tmp_path):
    bank = Bank.create(new_address())
    add_rows(bank, [1, 2, 3])
    monkeypatch.setenv("FEATUREBANK_CACHE", str(tmp_path))
    assert bank.missing(SPEC, [digest(1), digest(9)]) == {digest(9)}
    assert [file.stat().st_size for file in (tmp_path / "objects").iterdir()] == [3 * 32]


def test_what_comes_here_comes_in_pieces(pair, monkeypatch):
    _, remote = pair
    monkeypatch.setattr(files, "PIECE", 7)
    file = next(remote.path.glob("features/*/*.h5"))
    assert files.cached(file, 3, 100).read_bytes() == file.read_bytes()[3:100]
    files.remove(file)
    with pytest.raises(StorageError, match="was replaced while it was read: try again"):
        files.cached(file, 3, 100, afresh=True)


def test_a_damaged_object_is_found_whatever_the_cache_has(pair):
    _, remote = pair
    contents(remote)
    (file, *_) = remote.path.glob("features/*/*.h5")
    data = file.read_bytes()
    value = data.rindex(b"\x00\x00\x40\x40")  # 3.0, which both files have
    files.commit(file, data[:value] + b"\x01" + data[value + 1 :])
    (found,) = remote.verify()
    assert found["file"] == str(file)
    assert "do not match their digest" in found["problem"]
    shutil.rmtree(files.cache_folder() / "objects")
    with pytest.raises(CorruptError, match="do not match their digest"):
        Bank(str(remote.path)).load("net/fc")


def test_an_outage_while_reading_is_not_told_as_damage(faulty, pair):
    _, remote = pair
    faulty(every=1)
    with pytest.raises(StorageError, match="tries"):
        remote.verify()


def test_an_outage_below_hdf5_is_not_told_as_damage(faulty, pair, monkeypatch):
    _, remote = pair
    store = faulty()

    def fail(*args, **kwargs):
        raise ConnectionResetError("reset by peer")

    monkeypatch.setattr(store, "cat_file", fail)
    path = next(remote.path.glob("samples/*.h5"))
    _open.cache_clear()
    with pytest.raises(StorageError, match="reset by peer"):
        open_segment(path, "samples")


# --- commands ----------------------------------------------------------------------------------------------


def test_commands_take_addresses(run_json, run_cli, memory_commands, pair, tmp_path, monkeypatch):
    _, remote = pair
    monkeypatch.chdir(tmp_path)
    address = str(remote.path)
    assert run_json("info", address)["samples"] == {"ok": 5, "failed": 0, "gone": 0}
    (tmp_path / "labels.csv").write_text("path,label\n1.png,new\n")
    assert run_json("label", address, "labels.csv")["changed"] == 1
    files.commit(remote.path.parent / "labels.csv", b"path,label\n1.png,newer\n")
    assert run_json("label", address, str(remote.path.parent / "labels.csv"))["changed"] == 1
    assert run_json("compact", address)["merged"] == 6
    assert run_json("prune", address, "--source", "/more")["gone"] == 2
    result = run_cli("verify", address)
    assert result.exit_code == 0
    result = run_cli("info", "memory://nothing/x.bank")
    assert result.exit_code == 1
    assert "'memory://nothing/x.bank' does not exist" in result.stderr


def test_commands_refuse_what_ends_with_the_process(run_cli):
    result = run_cli("extract", "photos", "--bank", "memory://b/x.bank")
    assert result.exit_code == 2
    assert "'memory://b/x.bank' would be forgotten when the command ends; expected a folder" in result.stderr


def test_a_fit_writes_its_predictor_here(
    run_json, memory_commands, planted_bank, planted_layers, tmp_path, monkeypatch
):
    layers, y = planted_layers(60, 2, {"layer1": 3.0})
    local = planted_bank(layers, {"label": y})
    remote = files.as_path(new_address("planted.bank"))
    for file in filter(lambda file: file.is_file(), local.rglob("*")):
        files.commit(remote / file.relative_to(local).as_posix(), file.read_bytes())
    monkeypatch.chdir(tmp_path)
    told = [run_json("fit", bank, "--model", "ridge", "-o", tmp_path / "a.featurebank") for bank in (local, remote)]
    assert told[0]["best"]["fold_scores"] == told[1]["best"]["fold_scores"]
    run_json("fit", remote, "--model", "ridge")
    assert (tmp_path / "planted.featurebank").exists()
