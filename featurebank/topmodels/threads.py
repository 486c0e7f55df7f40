"""Tasks in threads, for which the interpreter's end waits.

When a search ends with an error, or with Ctrl-C, some tasks are still in libsvm or another library in C++. Python ends
its threads when it ends itself, and one that is ended inside C++ aborts the whole process (SIGABRT) after the message.
So no task begins once the interpreter ends, and those that run are waited for; a second Ctrl-C ends the waiting.
"""

from __future__ import annotations

import atexit
import functools
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import joblib


class _Tasks:
    """The tasks that run now."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = 0
        self._is_over = False

    def run(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Run a task, unless the interpreter ends."""
        with self._changed:
            if self._is_over:
                raise RuntimeError("the interpreter ends")
            self._running += 1
        try:
            return function(*args, **options)
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def end(self) -> None:
        """Let no task begin any more and wait for those that run."""
        with suppress(KeyboardInterrupt), self._changed:
            self._is_over = True
            self._changed.wait_for(lambda: not self._running)


_tasks = _Tasks()
atexit.register(_tasks.end)


def delayed(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return what `joblib.delayed` does, for a task in a thread that the interpreter's end waits for.

    Examples
    --------
    >>> joblib.Parallel(2, prefer="threads")(delayed(abs)(number) for number in (-1, -2))
    [1, 2]
    """
    made: Callable[..., Any] = joblib.delayed(functools.partial(_run, function))
    return made


def _run(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Run a task among those of this process, which may be another one than where it was made (Ray)."""
    return _tasks.run(function, *args, **options)
