"""featurebank label."""

from __future__ import annotations

from pathlib import Path

import click

from featurebank_cli.options import bank_argument, json_option, print_json


@click.command()
@bank_argument
@click.argument("labels", type=click.Path(path_type=Path))
@click.option("--path-column", default="path", show_default=True, help="The column of paths.")
@json_option
def label(bank: Path, labels: Path, path_column: str, as_json: bool) -> None:
    """Attach the columns of LABELS (CSV or Parquet) to the samples of BANK, or correct them.

    Paths are relative, as `featurebank info BANK --samples` lists them; an empty cell changes nothing.

    \b
    Example:
        featurebank label photos.bank labels.csv
    """
    from featurebank.bank import Bank
    from featurebank.sources import read_table

    table = read_table(labels)
    changed = Bank(bank).label(table, path_column=path_column)
    columns = [name for name in table.columns if name not in (path_column, "source")]
    if as_json:
        print_json({"rows": len(table), "changed": changed, "columns": columns})
    else:
        click.echo(f"{changed} of {len(table)} samples changed: {', '.join(columns)}")
