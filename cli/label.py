"""featurebank label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click
from cloup import command, option

from featurebank.errors import counted
from featurebank_cli.options import PLACE, bank_argument, json_option, table_options
from featurebank_cli.output import print_json, undefused
from featurebank_cli.state import State

if TYPE_CHECKING:
    from featurebank.storage.files import AnyPath


TO_FILL_IN = (["source", "path", "score"], ["source", "path", "given", "suggested", "quality"])
"""How the tables of `featurebank next` and `featurebank label-issues` begin; the columns after that are the user's."""


@command()
@bank_argument
@click.argument("labels", type=PLACE)
@table_options
@option("--column", "chosen", multiple=True, help="Take this column alone; may be repeated.  [default: all]")
@json_option
@click.pass_obj
def label(
    state: State,
    bank: AnyPath,
    labels: AnyPath,
    path_column: str | None,
    chosen: tuple[str, ...],
    as_json: bool,
    **options: Any,
) -> None:
    """Attach the columns of LABELS (a CSV file, Parquet or JSON Lines) to the samples of BANK, or correct them.

    Paths are relative, as `featurebank info BANK --samples` lists them; an empty cell changes nothing.
    Of the tables of `featurebank next` and `featurebank label-issues` just what you filled in is taken.

    \b
    Example:
        featurebank label photos.bank labels.csv
    """
    from featurebank.bank.bank import Bank
    from featurebank.bank.label_paths import is_sample
    from featurebank.images.cells import notes_on_cells
    from featurebank.images.path_columns import find_path_column
    from featurebank.images.table_options import TableOptions
    from featurebank.images.tables import read_table

    opened = Bank(bank)
    is_name = is_sample(opened.table)
    table = undefused(read_table(labels, TableOptions(**options), path_column=path_column, is_name=is_name))
    paths = find_path_column(table, path_column) or path_column or "path"
    table = _take(table, paths, chosen)
    if paths in table:
        for note in notes_on_cells(table.drop(columns=paths), list(map(str, table[paths])), options["labels_as"]):
            state.warn(note)
    changed = opened.label(table, path_column=paths)
    columns = [name for name in table.columns if name not in (paths, "source")]
    if as_json:
        print_json({"rows": len(table), "changed": changed, "columns": columns})
    else:
        click.echo(f"{changed:,} of {counted(len(table), 'sample')} changed: {', '.join(columns)}")


def _take(table: Any, path_column: str, chosen: Sequence[str]) -> Any:
    """Return the paths and the chosen columns of a table; where none is chosen all that a user can have filled in."""
    from featurebank.errors import ColumnError, no_column

    absent = [name for name in chosen if name not in table]
    if absent:
        raise ColumnError(f"{no_column('the labels have', absent[0], table.columns)}: name one of them")
    columns = list(table.columns)
    about = [name for header in TO_FILL_IN if columns[: len(header)] == header for name in header[2:]]
    kept = [name for name in columns if (name in (path_column, "source", *chosen) if chosen else name not in about)]
    return table[kept]
