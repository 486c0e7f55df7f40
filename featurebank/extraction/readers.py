"""Reader processes: started when they are needed, given tasks of images, and replaced when one dies.

The memory that they share has no name, and they end when their input does: whatever ends this process, nothing is left.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featurebank.errors import FeatureBankError, one_line
from featurebank.extraction.reader import Answer, Slots, layout_of, say
from featurebank.images.views import count_views
from featurebank.storage.memory import anonymous_file, map_file

if TYPE_CHECKING:
    from featurebank.backbones.base import Backbone

TASK = 16
"""Most images in a task."""
TASK_VIEWS = 64
"""Most views in a task that has more than one image."""
PATIENCE = 5.0
"""Seconds that a reader has to end."""
_MAIN = """import json, sys
sys.path[:] = json.loads(sys.argv[1])
from featurebank.extraction.reader import main
main()
"""
"""It finds the modules that this process finds, and never imports the one that the user runs."""
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
Views = list[NDArray[np.uint8]]
"""The views of an image, for each preparation an array (views, height, width, 3)."""


class ReaderError(FeatureBankError):
    """A reader process ended, or did not start."""


class Readers:
    """Processes that prepare images into shared memory, no more than there are threads that ask.

    Parameters
    ----------
    preparations : sequence of (Backbone, str)
        What prepares images, each with its views.
    images : int
        How many images the memory is to hold.
    known : ndarray of S32, shape (n,)
        Sorted digests of the contents that are not to be decoded.

    Raises
    ------
    OSError
        When there is no room for the memory.
    """

    def __init__(self, preparations: Sequence[tuple[Backbone, str]], images: int, known: NDArray[np.bytes_]):
        how: list[tuple[Any, int]] = [(each.preprocessing, count_views(views)) for each, views in preparations]
        self.task = task_size(preparations)
        layout = layout_of(how, self.task, len(known))
        count = -(-images // self.task)
        size = layout["start"] + count * layout["slot"]
        opening = preparations[0][0].opening
        self._file = anonymous_file(size)
        self.memory = map_file(self._file, size)
        self._slots = Slots(self.memory, layout)
        self._slots.known[:] = known
        self._setup = {
            "file": self._file,
            "bytes": size,
            "layout": layout,
            "least": opening["least"],
            "pixels": asdict(opening["pixels"]),
            "preparations": [
                {"preprocessing": preprocessing.to_dict(), "views": views}
                for (preprocessing, _), (_, views) in zip(how, preparations, strict=True)
            ],
        }
        self._free: SimpleQueue[int] = SimpleQueue()
        for number in range(count):
            self._free.put(number)
        self._idle: SimpleQueue[_Reader] = SimpleQueue()
        self._lock = threading.Lock()
        self._running: list[_Reader] = []
        self._is_closed = False

    def prepare(self, places: Sequence[str]) -> list[tuple[Answer, Views]] | None:
        """Have a reader prepare a task of images; None where all memory is in use, and the caller does it itself.

        A reader that dies costs its images a second try, one by one; the one that ends a reader again has an error.

        Raises
        ------
        ReaderError
            When no reader can be started.
        """
        try:
            slot = self._free.get_nowait()
        except Empty:
            return None
        whole = self._slots.whole(slot)
        weakref.finalize(whole, self._free.put, slot).atexit = False  # free again once no array refers to its rows
        rows = self._slots.rows(whole)
        return [(each, [part[i] for part in rows]) for i, each in enumerate(self._answers(slot, places))]

    def _answers(self, slot: int, places: Sequence[str]) -> list[Answer]:
        with self._borrowed() as reader:
            try:
                answers: list[Answer] = reader.ask({"slot": slot, "places": dict(enumerate(places))})
                return answers
            except ReaderError:
                pass
        return [self._alone(slot, number, place) for number, place in enumerate(places)]

    def _alone(self, slot: int, number: int, place: str) -> Answer:
        """Try an image again, in a task of its own."""
        with self._borrowed() as reader:
            try:
                answer: Answer = reader.ask({"slot": slot, "places": {number: place}})[0]
            except ReaderError as error:
                answer = {"digest": "", "error": str(error)}
        return answer

    @contextmanager
    def _borrowed(self) -> Iterator[_Reader]:
        """Yield a reader that waits for a task, or a new one; it waits again if it is alive after that."""
        reader = None
        with suppress(Empty):
            while reader is None or not reader.is_alive:  # whatever ended it while it waited, no image did
                reader = self._idle.get_nowait()
        if reader is None or not reader.is_alive:
            reader = self._start()
        yield reader
        if reader.is_alive:
            self._idle.put(reader)

    def _start(self) -> _Reader:
        """Start a reader; whatever ends it before it is ready costs a second try."""
        with suppress(ReaderError):
            return self._started()
        return self._started()

    def _started(self) -> _Reader:
        with self._lock:
            if self._is_closed:
                raise ReaderError("stopped before it was read")
            try:
                reader = _Reader(self._file)
            except OSError as error:
                raise ReaderError(f"no process can be started: {one_line(error)}") from error
            self._running.append(reader)
        if reader.ask(self._setup) != "ready":
            raise ReaderError("a reader process did not start")
        return reader

    def close(self) -> None:
        """End the readers; the memory goes with the last array that refers to it."""
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                os.close(self._file)
        for reader in self._running:
            reader.dismiss()
        for reader in self._running:
            reader.end()
        self._running.clear()


class _Reader:
    """One process, and the two pipes to it."""

    def __init__(self, file: int):
        self._process = subprocess.Popen(
            [sys.executable, "-c", _MAIN, json.dumps(list(map(str, sys.path)))],
            env={**os.environ, **_ONE_THREAD},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[file],
            start_new_session=True,  # Ctrl-C is for the parent, which ends its readers
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._tasks, self._answers = self._process.stdin, self._process.stdout

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def ask(self, what: Any) -> Any:
        """Send a line and return the answer.

        Raises
        ------
        ReaderError
            When the process ends instead.
        """
        try:
            say(self._tasks, what)
            return json.loads(self._answers.readline())
        except (OSError, ValueError) as error:
            code = self.end()
            how = f"by signal {-code}" if code < 0 else f"with code {code}"
            raise ReaderError(f"the process that read it ended {how}") from error

    def dismiss(self) -> None:
        """Close the input of the process, which then ends."""
        with suppress(OSError):
            self._tasks.close()

    def end(self) -> int:
        """End the process, by force where it does not by itself, and return its exit code."""
        self.dismiss()
        try:
            code = self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._answers.close()
        return code


def task_size(preparations: Sequence[tuple[Backbone, str]]) -> int:
    """Return how many images make a task: enough that handing it over costs nothing beside them."""
    views = sum(count_views(each) for _, each in preparations)
    return max(1, min(TASK, TASK_VIEWS // views))
