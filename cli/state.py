"""How commands run: what the group's flags say, errors on one line, warnings, progress."""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import click
import cloup

from featurebank.errors import FeatureBankError, one_line, printable

PAUSE = 0.1


class NamedErrors(cloup.Group):
    """A group whose commands end with one line, not a traceback, on an error that featurebank names."""

    def invoke(self, context: click.Context) -> Any:
        """Run the command that was named."""
        try:
            return super().invoke(context)
        except FeatureBankError as error:
            raise click.ClickException(one_line(error)) from error
        except KeyboardInterrupt as error:
            raise click.ClickException(
                "interrupted; what a bank holds by now is kept, and no file is half written: run the same command again"
            ) from error
        finally:
            if isinstance(context.obj, State):
                context.obj.close()


@dataclass
class State:
    """What the group's flags say, and the progress bars that are open."""

    quiet: bool = False
    verbose: bool = False
    _bars: list[Bar] = field(default_factory=list)

    def filter_warnings(self) -> None:
        """Show featurebank's own warnings on one line, those of other libraries only with --verbose."""
        if not self.verbose:
            warnings.simplefilter("ignore")
        warnings.showwarning = lambda message, *args, **kwargs: click.echo(f"Warning: {one_line(message)}", err=True)

    def show_log(self) -> None:
        """Show what the library says while it works or waits, a line each."""
        log = logging.getLogger("featurebank")
        log.handlers = [Lines(self)]
        log.setLevel(logging.INFO)

    def say(self, text: str = "") -> None:
        """Print a line for the reader on stderr, unless --quiet."""
        if not self.quiet:
            click.echo(text, err=True)

    def warn(self, text: str) -> None:
        """Print a warning on stderr, unless --quiet."""
        if self.quiet:
            return
        click.echo(click.style("Warning: ", fg="yellow") + text, err=True)

    def progress(self, title: str, unit: str = "image") -> Callable[[int, int], None] | None:
        """Return a callback that draws a bar with rate and time left, on a terminal only."""
        if self.quiet or not sys.stderr.isatty():
            return None
        bar = Bar(title, unit)
        self._bars.append(bar)
        return bar.show

    def close(self) -> None:
        """Close the bars that are still drawn; what was interrupted leaves them open."""
        for bar in self._bars:
            bar.close()


class Lines(logging.Handler):
    """Prints each record of the library's log as a line, a warning as one."""

    def __init__(self, state: State):
        super().__init__()
        self._state = state

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        show = self._state.warn if record.levelno >= logging.WARNING else self._state.say
        show(printable(record.getMessage()))


class Bar:
    """A bar on stderr with a rate and the time left, drawn where work reports: no thread runs beside it."""

    def __init__(self, title: str, unit: str):
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
        console = Console(stderr=True)
        self._progress = Progress(*columns, TimeRemainingColumn(), console=console, auto_refresh=False)
        self._task = self._progress.add_task(title, total=None, rate="")
        self._unit, self._drawn = unit, 0.0

    def show(self, done: int, total: int) -> None:
        """Draw how much of how much is done, a few times a second at the most."""
        is_done = done >= total
        self._progress.update(self._task, completed=done, total=total)  # a search may find more to do
        now = time.monotonic()
        if not is_done and now - self._drawn < PAUSE:
            return
        self._drawn = now
        self._progress.start()
        speed = self._progress.tasks[0].speed
        rate = f"{speed:.1f} {self._unit}s/s" if speed else ""
        self._progress.update(self._task, rate=rate, refresh=True)
        if is_done:
            self.close()

    def close(self) -> None:
        """Leave the terminal as it was, the cursor too."""
        self._progress.stop()
