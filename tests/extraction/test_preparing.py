"""Images are read ahead in threads or in processes: the same bits in the same order, whatever dies meanwhile."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featurebank.backbones.base import Backbone
from featurebank.backbones.preprocessing import Preprocessing
from featurebank.bank.samples import NO_DIGEST
from featurebank.extraction import preparing, readers
from featurebank.extraction.preparing import Preparer, why_threads
from featurebank.images.decoding import content_digest
from featurebank.images.pixels import PixelRules
from featurebank.images.scanning import scan

COUNT = 40
PLAIN = Preprocessing(20, (16, 16), "bicubic", (0.5,) * 3, (0.5,) * 3)


def backbone(preprocessing=PLAIN, pixels=None):
    import torch

    return Backbone("net", torch.nn.Identity(), preprocessing, pixels=pixels or PixelRules())


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Files of every orientation and several formats; one is cut short, one is another's copy, one is deep."""
    folder, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for number in range(COUNT):
        image = Image.fromarray(random.integers(0, 255, (24 + number % 7, 22, 3), "uint8"))
        tag = Image.Exif()
        tag[0x0112] = number % 9
        image.save(folder / f"{number:02}{('.jpg', '.png', '.webp')[number % 3]}", exif=tag)
    (folder / "cut.jpg").write_bytes((folder / "00.jpg").read_bytes()[:300])
    (folder / "copy.jpg").write_bytes((folder / "03.jpg").read_bytes())
    Image.fromarray(random.integers(0, 9000, (30, 30), "uint16")).save(folder / "deep.png")
    return folder


@pytest.fixture
def with_processes(monkeypatch):
    monkeypatch.setattr(preparing, "LEAST_CORES", 1)
    monkeypatch.setattr(preparing, "LEAST_IMAGES", 1)


def preparer(folder, *, views="none", known=(), batch=8, **options):
    """Return what prepares a folder's images as if no batch had to be waited for."""
    preparations = [(backbone(**options), views)]
    return Preparer(
        scan(folder),
        lambda: preparations,
        lacking=lambda digests: [() if digest in known else ("it",) for digest in digests],
        known=lambda: np.array(sorted(known), "S32"),
        batch=lambda: batch,
        workers=2,
    )


def read(prepare, keep=lambda item: item):
    with prepare:
        return [keep(item) for item in prepare(range(len(prepare.images.paths)))]


def facts(item):
    """Return all that is known of an item, its pixels as bytes: they are another's once it is let go."""
    pixels = [np.stack(views).tobytes() for views in item.views]
    return item.position, item.digest, item.lacking, pixels, item.unseen, item.error, item.noted


@pytest.mark.parametrize(
    ("views", "options"),
    [
        ("none", {}),
        ("augment:3", {"pixels": PixelRules(range=(0, 9000))}),
        (
            "hflip",
            {"preprocessing": Preprocessing(16, (16, 12), "bilinear", (0.5,) * 3, (0.5,) * 3, decoder="reduced")},
        ),
    ],
    ids=["none", "augment", "hflip"],
)
def test_processes_give_what_threads_give(photos, monkeypatch, views, options):
    in_threads = preparer(photos, views=views, **options)
    expected = read(in_threads, facts)
    assert str(in_threads).startswith("2 threads (fewer than ")
    monkeypatch.setattr(preparing, "LEAST_CORES", 1)
    monkeypatch.setattr(preparing, "LEAST_IMAGES", 1)
    in_processes = preparer(photos, views=views, **options)
    assert read(in_processes, facts) == expected
    assert str(in_processes) == "2 reader processes"
    assert in_processes.notes.lines(PixelRules()) == in_threads.notes.lines(PixelRules())
    assert sum(bool(each[5]) for each in expected) == 1


def test_contents_that_are_known_are_hashed_and_not_decoded(photos, with_processes):
    paths = [photos / name for name in ("00.jpg", "03.jpg", "05.webp")]
    known = {content_digest(path.read_bytes()) for path in paths}
    items = read(preparer(photos, known=known))
    assert {item.digest for item in items if not item.lacking and not item.error} == known
    assert all(not item.views for item in items if item.digest in known)


def test_rows_that_are_still_used_are_never_written_over(photos, with_processes, monkeypatch):
    expected = [facts(item) for item in read(preparer(photos))]
    monkeypatch.setattr(preparing, "AHEAD", 0)
    monkeypatch.setattr(preparing, "HELD", 0)
    monkeypatch.setattr(readers, "TASK", 2)
    held = read(preparer(photos))  # every item, which the little memory that is shared cannot hold
    assert [facts(item) for item in held] == expected


def test_rows_of_a_batch_lie_in_one_piece(photos, with_processes):
    items = read(preparer(photos))
    first, second = (item.views[0][0] for item in items[:2])
    assert first.shape == (16, 16, 3)
    assert second.ctypes.data - first.ctypes.data == first.nbytes


def test_readers_that_are_killed_cost_their_images_a_second_try(photos, with_processes, monkeypatch):
    expected = read(preparer(photos), facts)
    monkeypatch.setattr(readers, "TASK", 4)
    prepare, found, killed = preparer(photos, batch=1), [], 0
    with prepare:
        for item in prepare(range(len(expected))):
            found.append(facts(item))
            if len(found) == 2:
                killed = kill_all(prepare)
        assert 0 < killed < len(prepare._readers._running)
    assert found == expected


def kill_all(prepare):
    running = list(prepare._readers._running)
    for reader in running:
        reader._process.kill()
    return len(running)


def test_a_reader_that_is_killed_before_it_is_ready_is_started_again(photos, with_processes, monkeypatch):
    expected, started, start = read(preparer(photos), facts), [], readers._Reader.__init__

    def start_and_kill_the_first(self, file):
        start(self, file)
        started.append(self)
        if len(started) == 1:
            self._process.kill()

    monkeypatch.setattr(readers._Reader, "__init__", start_and_kill_the_first)
    prepare = preparer(photos)
    assert read(prepare, facts) == expected
    assert str(prepare) == "2 reader processes"
    assert len(started) > 1


DEADLY = """
import os, sys
from featurebank.extraction import reader
read = reader.read_file
reader.read_file = lambda place: os.kill(os.getpid(), 9) if place.endswith("05.webp") else read(place)
"""


def test_an_image_that_ends_its_reader_twice_has_an_error_and_no_other_has(photos, with_processes, monkeypatch):
    expected = read(preparer(photos), facts)
    monkeypatch.setattr(readers, "_MAIN", readers._MAIN.replace("from featurebank", DEADLY + "from featurebank"))
    found = read(preparer(photos), facts)
    (deadly,) = [each for each, right in zip(found, expected, strict=True) if each != right]
    assert deadly[1] == NO_DIGEST  # so that the next run tries it again
    assert deadly[5] == "the process that read it ended by signal 9"


@pytest.mark.parametrize("executable", ["/bin/false", "/nowhere/python"])
def test_where_no_process_starts_threads_read(photos, with_processes, monkeypatch, executable):
    expected = read(preparer(photos), facts)
    monkeypatch.setattr(sys, "executable", executable)
    prepare = preparer(photos)
    assert read(prepare, facts) == expected
    assert str(prepare).startswith("2 threads (")


def test_an_error_or_an_interrupt_ends_the_readers(photos, with_processes):
    processes = []

    def interrupt(item):
        running = prepare._readers._running if prepare._readers else []
        processes.extend(each._process for each in running)
        if processes:
            raise KeyboardInterrupt

    prepare = preparer(photos)
    with pytest.raises(KeyboardInterrupt):
        read(prepare, interrupt)
    assert all(process.poll() is not None for process in processes)


def test_what_reads_is_chosen_by_what_is_there(monkeypatch):
    tensor = Preprocessing(20, (16, 16), "bicubic", (0.5,) * 3, (0.5,) * 3, decoder="tensor")
    tiles = Preprocessing(20, (16, 16), "bicubic", (0.5,) * 3, (0.5,) * 3, framing="tiles")
    huge = Preprocessing(8192, (8192, 8192), "bicubic", (0.5,) * 3, (0.5,) * 3)

    def why(preprocessing=PLAIN, images=10**6, workers=16):
        return why_threads([(backbone(preprocessing), "none")], images, workers, 1000)

    assert why() == ""
    assert why(workers=2) == "fewer than 4 cores or workers"
    assert why(images=999) == "fewer than 1000 images"
    assert "decoder" in why(tensor)
    assert "transform" in why(lambda image: image)
    assert "tiles" in why(tiles)
    assert "memory" in why(huge)
    monkeypatch.setattr(sys, "executable", "")
    assert "cannot start another" in why()


SCRIPT = """
import sys, time
from featurebank import extract
from featurebank.extraction import preparing
from featurebank.extraction.preparing import Preparer
preparing.LEAST_CORES = preparing.LEAST_IMAGES = 1
call = Preparer.__call__
def slowly(self, positions):
    for item in call(self, positions):
        time.sleep(0.05)
        if self._readers is not None and self._readers._running:
            print(*[each._process.pid for each in self._readers._running], flush=True)
        yield item
Preparer.__call__ = slowly
extract(sys.argv[1], sys.argv[2], backbone="resnet18", weights="random:0", size=32, batch_size=4, workers=2)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda how: how.name)
def test_whatever_ends_a_script_leaves_no_process_and_no_memory(photos, tmp_path, how):
    script = tmp_path / "script.py"  # without `if __name__ == "__main__"`
    script.write_text(SCRIPT)
    before = set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()
    command = [sys.executable, str(script), str(photos), str(tmp_path / "a.bank")]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert pids
    os.killpg(parent.pid, how)  # as a terminal does it: the whole group
    assert parent.wait(60) != 0
    until = time.monotonic() + 30
    while any(map(is_running, pids)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(is_running, pids))
    assert before >= {name for name in os.listdir("/dev/shm") if "featurebank" in name}


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
