import os
import stat
import subprocess
import sys

import pytest

from featurebank.errors import StorageError
from featurebank.storage import files


def test_commit_writes_the_bytes_and_leaves_nothing_else(tmp_path):
    files.commit(tmp_path / "a", b"first")
    files.commit(tmp_path / "a", memoryview(b"second"))
    assert (tmp_path / "a").read_bytes() == b"second"
    assert os.listdir(tmp_path) == ["a"]


def test_commit_gives_the_mode_of_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        files.commit(tmp_path / "a", b"")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_commit_into_a_missing_folder_is_one_line_and_names_the_file(tmp_path):
    with pytest.raises(StorageError, match=r"cannot write '.*gone/a': No such file") as caught:
        files.commit(tmp_path / "gone" / "a", b"x")
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, OSError)


@pytest.mark.parametrize("call", ["os.write", "os.fsync", "os.replace"])
def test_a_failing_system_call_leaves_the_old_file_and_no_temporary_one(tmp_path, monkeypatch, call):
    files.commit(tmp_path / "a", b"old")

    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"featurebank.storage.files.{call}", fail)
    with pytest.raises(StorageError, match="No space left"):
        files.commit(tmp_path / "a", b"new")
    monkeypatch.undo()
    assert (tmp_path / "a").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_make_folder_makes_parents_and_accepts_what_is_there(tmp_path):
    files.make_folder(tmp_path / "a" / "b")
    files.make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


def test_make_folder_over_a_file_is_an_error(tmp_path):
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(StorageError):
        files.make_folder(tmp_path / "a" / "b")


def test_remove_is_quiet_about_what_is_gone(tmp_path):
    files.commit(tmp_path / "a", b"")
    files.remove(tmp_path / "a")
    files.remove(tmp_path / "a")
    assert os.listdir(tmp_path) == []


def test_a_killed_holder_frees_the_lock(tmp_path):
    code = (
        "import os, signal, sys; from pathlib import Path; from featurebank.storage import files\n"
        "with files.locked(Path(sys.argv[1])): os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path / "lock")])
    assert killed.returncode == -9
    with files.locked(tmp_path / "lock"):
        pass


def test_the_lock_excludes_other_processes(tmp_path):
    counter = tmp_path / "counter"
    counter.write_text("0")
    code = (
        "import sys; from pathlib import Path; from featurebank.storage import files\n"
        "lock, counter = map(Path, sys.argv[1:])\n"
        "for _ in range(50):\n"
        "    with files.locked(lock): counter.write_text(str(int(counter.read_text()) + 1))\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "lock"), str(counter)]
    processes = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert counter.read_text() == "150"
