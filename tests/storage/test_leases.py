import threading
import time

import pytest
from object_maker import FaultyStore, new_address

from featurebank.errors import StorageError
from featurebank.storage import files, leases, retries


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(leases, "PAUSE", 2e-3)
    monkeypatch.setattr(retries, "FIRST_DELAY", 1e-4)


@pytest.fixture
def lock():
    return files.as_path(new_address(".lock"))


def names(lock):
    return [path.name for path in lock.iterdir()]


def test_only_one_at_a_time(lock, monkeypatch):
    store = FaultyStore(every=9)
    monkeypatch.setattr(retries, "filesystem", lambda protocol, process: store)
    inside, most, count = [], [], []

    def work():
        for _ in range(5):
            with files.locked(lock):
                inside.append(1)
                most.append(len(inside))
                seen = len(count)
                time.sleep(1e-3)
                count[seen:] = [seen]
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert len(count) == 20


def test_the_highest_number_stays_and_says_that_it_is_free(lock):
    for number in (1, 2, 3):
        with files.locked(lock):
            assert names(lock) == [f"{number:012}"]
    assert [path.read_bytes() for path in lock.iterdir()] == [b"free"]


def test_a_dead_holder_is_waited_for_and_then_passed(lock, monkeypatch):
    monkeypatch.setattr(leases, "SILENCE", 0.3)
    files.commit(lock / f"{7:012}", b"someone")
    since = time.monotonic()
    with files.locked(lock):
        assert time.monotonic() - since > 0.3
        assert names(lock) == [f"{8:012}"]


def test_a_living_holder_is_not_passed(lock, monkeypatch):
    monkeypatch.setattr(leases, "SILENCE", 1.5)
    order = []

    def second():
        with files.locked(lock):
            order.append("second")

    with files.locked(lock):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(2.5)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_a_lock_that_was_taken_over_is_an_error_afterwards(lock, monkeypatch):
    monkeypatch.setattr(leases, "SILENCE", 0.06)

    def lose():
        with files.locked(lock):
            files.commit(lock / f"{2:012}", b"someone else")
            time.sleep(0.2)

    with pytest.raises(StorageError, match="was taken over"):
        lose()


def test_an_error_inside_frees_the_lock(lock):
    with pytest.raises(ZeroDivisionError), files.locked(lock):
        raise ZeroDivisionError
    with files.locked(lock):
        pass


def test_a_store_without_conditional_puts_is_refused(lock, monkeypatch):
    store = FaultyStore()
    put = store.pipe_file
    monkeypatch.setattr(store, "pipe_file", lambda path, data, mode="": put(path, data))
    monkeypatch.setattr(retries, "filesystem", lambda protocol, process: store)
    with pytest.raises(StorageError, match="a store without conditional puts") as caught, files.locked(lock):
        pass
    assert "\n" not in str(caught.value)
