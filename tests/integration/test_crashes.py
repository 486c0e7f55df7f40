"""Old or new, never a mix: kill before every system call of a commit; drop and reorder what was not synced."""

import itertools
import os
import shutil
import signal
from pathlib import Path

import pandas as pd
import pytest
from bank_maker import add, contents, expected, make

from featurebank import Bank
from featurebank.storage import files

pytestmark = pytest.mark.slow

CALLS = ("open", "write", "fsync", "close", "replace", "mkdir", "unlink")


def relabel(bank):
    bank.label(pd.DataFrame({"path": ["0001.png", "0002.png"], "label": ["new", "new"]}))


def forget(bank):
    """Drop the samples 4 and 5 by marking them gone, then prune their rows."""
    bank.prune(grace=0)


OLD = expected(range(6))
OPERATIONS = {
    "add rows": (lambda bank: add(bank, [6, 7]), OLD | expected([6, 7])),
    "label": (relabel, OLD | expected([1, 2], "new")),
    "compact": (lambda bank: bank.compact(grace=0), OLD),
    "compact twice": (lambda bank: (bank.compact(grace=0), add(bank, [6]), bank.compact(grace=0)), OLD | expected([6])),
    "prune": (forget, OLD),
}


@pytest.fixture
def tmp_path(in_memory):
    """A kill and a replayed power cut are the same on any file system; the disk's own time is most of theirs."""
    return in_memory


@pytest.fixture
def bank(tmp_path):
    bank = make(tmp_path / "old.bank", [0, 1, 2], [3, 4], [5])
    bank.add_features(*_orphan())  # a row that no sample points at, for prune
    return bank


def _orphan():
    from bank_maker import SPEC, digest, values

    return SPEC, [digest(99)], values([99])


def killed_before(call, work):
    """Run `work` in a fork that is killed before its system call number `call`; return whether it was killed."""
    child = os.fork()
    if child == 0:
        count = itertools.count()

        def counting(function):
            def run(*arguments, **options):
                if next(count) == call:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*arguments, **options)

            return run

        for name in CALLS:
            setattr(os, name, counting(getattr(os, name)))
        work()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_kill_before_any_system_call_leaves_the_old_or_the_new_rows(bank, tmp_path, operation):
    work, new = OPERATIONS[operation]
    seen, call = [], 0
    while True:
        copy = tmp_path / f"{call}.bank"
        shutil.copytree(bank.path, copy)
        killed = killed_before(call, lambda copy=copy: work(Bank(copy)))
        after = Bank(copy)
        assert after.verify() == []
        found = contents(after)
        assert {path: found[path] for path in OLD if path in found}.keys() == OLD.keys()
        assert all(found[path] in (OLD.get(path), new.get(path)) for path in found)
        seen.append(found)
        work(after)  # and the bank goes on working
        assert contents(after) == new
        shutil.rmtree(copy)
        if not killed:
            break
        call += 1
    assert call > 8
    assert seen[0] == OLD
    assert seen[-1] == new


def test_a_kill_while_a_bank_is_made_leaves_nothing_that_cannot_be_made_again(tmp_path):
    call, killed = 0, True
    while killed:
        path = tmp_path / f"{call}.bank"
        killed = killed_before(call, lambda path=path: make(path, [0, 1]))
        assert contents(make(path, [0, 1])) == expected([0, 1])
        call += 1
    assert call > 20


# --- what a power cut may leave ----------------------------------------------------------------------------


class Recorder:
    """Records the writes of storage as (kind, …) so that a power cut can be replayed."""

    def __init__(self, monkeypatch):
        self.log, self.names = [], {}
        real = {name: getattr(os, name) for name in CALLS}

        def opened(path, flags, *mode):
            descriptor = real["open"](path, flags, *mode)
            self.names[descriptor] = str(path)
            if flags & os.O_CREAT:
                self.log.append(("create", str(path)))
            return descriptor

        def written(descriptor, data):
            size = real["write"](descriptor, data)
            self.log.append(("write", self.names[descriptor], bytes(data[:size])))
            return size

        def synced(descriptor):
            real["fsync"](descriptor)
            self.log.append(("sync", self.names[descriptor]))

        def replaced(old, new):
            real["replace"](old, new)
            self.log.append(("rename", str(old), str(new)))

        def removed(path):
            real["unlink"](path)
            self.log.append(("remove", str(path)))

        for name, function in zip(
            ("open", "write", "fsync", "replace", "unlink"), (opened, written, synced, replaced, removed), strict=True
        ):
            monkeypatch.setattr(files.os, name, function)


def unsynced(log):
    """Return the positions of the operations that nothing has made durable yet."""
    loose = set()
    for number, (kind, *names) in enumerate(log):
        if kind == "sync":
            path = names[0]
            loose -= {n for n in loose if log[n][0] == "write" and log[n][1] == path}
            loose -= {n for n in loose if log[n][0] != "write" and os.path.dirname(log[n][1]) == path}
        else:
            loose.add(number)
    return sorted(loose)


def replay(root, copy, log, dropped):
    """Apply a log to a copy of the old bank, leaving out the dropped operations."""
    data = {}
    for number, (kind, *names) in enumerate(log):
        paths = [Path(str(name).replace(str(root), str(copy))) for name in names if isinstance(name, str)]
        if number in dropped:
            continue
        if kind == "create":
            paths[0].touch()
        elif kind == "write":
            data[names[0]] = names[1]
            if paths[0].exists():
                paths[0].write_bytes(names[1])
        elif kind == "rename":
            if paths[0].exists():
                paths[0].replace(paths[1])
            elif names[0] in data:  # its creation was dropped, yet the rename is durable: the inode is the data
                paths[1].write_bytes(data[names[0]])
        elif kind == "remove":
            paths[0].unlink(missing_ok=True)


@pytest.mark.parametrize("operation", ["add rows", "label", "compact", "prune"])
def test_a_power_cut_that_drops_or_reorders_unsynced_writes_leaves_old_or_new(bank, tmp_path, monkeypatch, operation):
    work, new = OPERATIONS[operation]
    work_copy = tmp_path / "work.bank"
    shutil.copytree(bank.path, work_copy)
    with monkeypatch.context() as patch:
        recorder = Recorder(patch)
        work(Bank(work_copy))
    cases = 0
    for end in range(len(recorder.log) + 1):
        log = recorder.log[:end]
        loose = unsynced(log)
        for size in range(len(loose) + 1):
            for dropped in itertools.combinations(loose, size):
                copy = tmp_path / "cut.bank"
                shutil.copytree(bank.path, copy)
                replay(work_copy, copy, log, set(dropped))
                after = Bank(copy)
                assert after.verify() == [], (log, dropped)
                found = contents(after)
                assert found.keys() >= OLD.keys()
                assert all(found[path] in (OLD.get(path), new.get(path)) for path in found)
                shutil.rmtree(copy)
                cases += 1
    assert cases > 10
    assert found == new
