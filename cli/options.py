"""What commands share: flags, errors on one line, progress, tables, JSON."""

from __future__ import annotations

import json
import logging
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from featurebank.errors import FeatureBankError, one_line, printable

ROWS_SHOWN = 20
ROWS_WRITTEN = 8192


class PlaceType(click.ParamType):
    """A path, or an address on object storage such as s3://bucket/photos.bank."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> Any:
        """Return a Path, or the address."""
        from featurebank.storage import files
        from featurebank.storage.requests import FORGOTTEN

        place = files.place(value)
        if getattr(place, "protocol", "") in FORGOTTEN:
            self.fail(f"{value!r} would be forgotten when the command ends; expected a folder, s3:// or gs://", param)
        return place


PLACE = PlaceType()
bank_argument = click.argument("bank", type=PLACE)
csv_option = click.option("-o", "--output", type=click.Path(path_type=Path), help="Write a CSV file with all rows.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
root_option = click.option(
    "--root",
    type=PLACE,
    help="Folder that a manifest's paths start from, or where a source's files are now.",
)
path_column_option = click.option("--path-column", help="The manifest's column of paths.  [default: path]")
weights_option = click.option(
    "--weights",
    default="DEFAULT",
    show_default=True,
    help="DEFAULT, a weight enum's name, a checkpoint file, or random:SEED.",
)
brought_weights_option = click.option(
    "--weights",
    "weights_file",
    type=click.Path(path_type=Path),
    help="A checkpoint file with the backbone's weights.",
)
allow_download_option = click.option(
    "--allow-download", is_flag=True, help="Fetch the backbone's weights from their hub when they are not here."
)
size_option = click.option(
    "--size", type=click.IntRange(min=1), help="Input size in pixels, in place of the weights' own."
)
seed_option = click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of everything that is drawn."
)
strict_option = click.option("--strict", is_flag=True, help="Exit with 1 when an image could not be read.")


def backend_options(what: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the decorator that lets a command work on a Ray cluster; `what` says in its help what that does."""
    address = click.option(
        "--ray-address",
        envvar="RAY_ADDRESS",
        callback=_only_with_ray,
        help="With --backend ray: HOST:PORT of a running cluster, or auto.  [default: this machine alone]",
    )
    backend = click.option(
        "--backend",
        type=click.Choice(["local", "ray"]),
        default="local",
        show_default=True,
        is_eager=True,  # the address asks for it
        help=what,
    )
    return lambda command: backend(address(command))


def _only_with_ray(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    """Refuse an address on the command line that nothing would use; the environment may hold one all the same."""
    is_given = context.get_parameter_source("ray_address") is click.core.ParameterSource.COMMANDLINE
    if is_given and context.params["backend"] != "ray":
        raise click.UsageError("--ray-address goes with --backend ray")
    return value


class NamedErrors(click.Group):
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


@dataclass
class State:
    """What the group's flags say, and the progress bars that are open."""

    quiet: bool = False
    verbose: bool = False
    _bars: list[Any] = field(default_factory=list)

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
        return _bar(title, unit)


class Lines(logging.Handler):
    """Prints each record of the library's log as a line, a warning as one."""

    def __init__(self, state: State):
        super().__init__()
        self._state = state

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        show = self._state.warn if record.levelno >= logging.WARNING else self._state.say
        show(printable(record.getMessage()))


def _bar(title: str, unit: str) -> Callable[[int, int], None]:
    from tqdm import tqdm

    bar: Any = None

    def show(done: int, total: int) -> None:
        nonlocal bar
        if bar is None:
            bar = tqdm(total=total, desc=title, unit=f" {unit}s", file=sys.stderr, dynamic_ncols=True)
        bar.total = total  # a search may find more to do
        bar.update(done - bar.n)
        if done >= total:
            bar.close()

    return show


def print_json(value: Any) -> None:
    """Print one JSON object on stdout."""
    click.echo(json.dumps(value, indent=2, allow_nan=False, default=str))


def records(frame: Any) -> list[dict[str, Any]]:
    """Return a DataFrame's rows as JSON can hold them, missing values as None."""
    return list(frame.astype(object).where(frame.notna(), None).to_dict("records"))


FOLDED = 12
"""The width below which no column of text is folded."""


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> None:
    """Print a table that stays readable at 80 columns and in a log.

    Parameters
    ----------
    title : str
    columns : sequence of str
    rows : sequence of sequences of str
    right : sequence of int
        Numbers of the columns that are aligned to the right.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), box=SIMPLE_HEAD, title_justify="left", pad_edge=False, padding=(0, 1))
    widths = [max(len(cell) for cell in column) for column in zip(columns, *rows, strict=True)]
    for number, name in enumerate(columns):
        least = widths[number] if number in right else min(widths[number], max(FOLDED, len(name)))
        justify: Any = "right" if number in right else "left"
        table.add_column(name, justify=justify, overflow="fold", min_width=least)
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    console = Console(width=None if sys.stdout.isatty() else 100)
    needed = sum(column.min_width or 0 for column in table.columns) + 2 * len(columns)
    console.width = max(console.width, needed)  # wider than a narrow terminal rather than with numbers broken in two
    console.print(table)


def csv_text(frame: Any, header: bool = True) -> str:
    """Return a DataFrame as CSV in which no cell of text is taken for a formula by a spreadsheet; see `undefused`."""
    safe = _each_text(frame, _defuse)
    safe.columns = [_defuse(str(name)) for name in safe.columns]
    return str(safe.to_csv(index=False, header=header))


def undefused(frame: Any) -> Any:
    """Return a DataFrame that was read from the CSV of `csv_text` as it was before."""
    return _each_text(frame, lambda value: value[1:] if re.match(f"'{_FORMULA}", value) else value).rename(
        columns=lambda name: name[1:] if re.match(f"'{_FORMULA}", name) else name
    )


def write_csv(path: Path, frame: Any) -> None:
    """Write a DataFrame as CSV, some rows at a time; a name that is not UTF-8 keeps its own bytes."""
    from featurebank.storage import files

    with files.committing(path) as file:
        for start in range(0, max(len(frame), 1), ROWS_WRITTEN):
            part = csv_text(frame.iloc[start : start + ROWS_WRITTEN], header=start == 0)
            file.write(part.encode("utf-8", "surrogateescape"))


def check_folder(path: Path | None) -> None:
    """Refuse a file whose folder does not exist before any work is done.

    Raises
    ------
    StorageError
        When there is no such folder.
    """
    from featurebank.errors import StorageError

    if path is not None and not path.parent.is_dir():
        raise StorageError(f"no folder {str(path.parent)!r}; make it, or name another with -o")


def print_rows(title: str, frame: Any, right: Sequence[int] = (), most: int = ROWS_SHOWN) -> None:
    """Print the first rows of a DataFrame as a table, its numbers with three digits; of none just the title."""
    if frame.empty:
        click.echo(title)
        return
    shown = [
        [f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row]
        for row in frame.head(most).itertuples(index=False)
    ]
    print_table(title, list(map(str, frame.columns)), shown, right)
    if len(frame) > most:
        click.echo(f"and {len(frame) - most} more: -o FILE.csv has them all")


_FORMULA = r"'*[=+\-@\t\r]"


def _defuse(value: str) -> str:
    return f"'{value}" if re.match(_FORMULA, value) else value


def _each_text(frame: Any, change: Callable[[str], str]) -> Any:
    """Return a copy of a DataFrame with all its text changed."""
    texts = [name for name in frame.columns if frame[name].dtype == object or str(frame[name].dtype) == "str"]
    whole = frame.astype(dict.fromkeys(texts, object))  # pandas' own text refuses names that are not UTF-8
    for name in texts:
        cells = [change(value) if isinstance(value, str) else value for value in whole[name]]
        whole[name] = type(whole[name])(cells, whole.index, dtype=object)
    return whole


def how_made(each: dict[str, Any]) -> str:
    """Return what tells a feature set from one that is made with the defaults.

    Examples
    --------
    >>> how_made({"views": "hflip", "precision": "bf16", "decoder": "pil"})
    'hflip, bf16'
    """
    if each.get("origin"):
        return "imported"
    usual = {"views": "none", "precision": "fp32", "decoder": "pil"}
    return ", ".join(each[name] for name, value in usual.items() if each[name] != value)


def percent(fraction: float) -> str:
    """Return a fraction as percent with one decimal.

    Examples
    --------
    >>> percent(0.8666)
    '86.7'
    """
    return f"{100 * fraction:.1f}"
