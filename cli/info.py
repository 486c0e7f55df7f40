"""featurebank info."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from cloup import command, option

from featurebank.errors import printable
from featurebank_cli.options import bank_argument, json_option
from featurebank_cli.output import csv_text, how_made, print_json, print_table, records

if TYPE_CHECKING:
    from featurebank.storage.files import AnyPath


@command()
@bank_argument
@option("--samples", is_flag=True, help="List the samples instead, as CSV.")
@option("--failures", is_flag=True, help="List the images that could not be read instead, as CSV.")
@json_option
def info(bank: AnyPath, samples: bool, failures: bool, as_json: bool) -> None:
    """Show what BANK holds: samples, columns, feature sets, bytes on disk.

    \b
    Example:
        featurebank info photos.bank
    """
    from featurebank.bank.bank import Bank

    opened = Bank(bank)
    if samples or failures:
        frame = opened.samples
        chosen = frame[frame["status"] == "failed"][["source", "path", "error"]] if failures else frame
        if as_json:
            print_json({"failures" if failures else "samples": records(chosen)})
            return
        click.echo(csv_text(chosen).encode("utf-8", "backslashreplace"), nl=False)
    elif as_json:
        print_json(opened.info())
    else:
        _print(opened.info())


def _print(facts: dict[str, Any]) -> None:
    counts = ", ".join(f"{count} {word}" for word, count in facts["samples"].items())
    click.echo(f"{facts['path']}: {facts['bytes'] / 1e6:.1f} MB; samples: {counts}")
    for source in facts["sources"]:
        click.echo(f"  from {printable(source)}")
    rows = [[name, each["kind"], str(each["missing"])] for name, each in facts["columns"].items()]
    if rows:
        print_table("columns", ["column", "kind", "missing"], rows, right=(2,))
    sets = [
        [each["name"], str(each["rows"]), "x".join(map(str, each["shape"])), each["dtype"], how_made(each)]
        for each in facts["feature_sets"]
    ]
    print_table("feature sets", ["name", "rows", "shape", "dtype", "made with"], sets, right=(1, 2))
    for line in facts["incomplete"]:
        click.echo(printable(line))
