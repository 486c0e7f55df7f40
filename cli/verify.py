"""featurebank verify."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from cloup import command

from featurebank_cli.options import bank_argument, json_option
from featurebank_cli.output import print_json

if TYPE_CHECKING:
    from featurebank.storage.files import AnyPath


@command()
@bank_argument
@json_option
@click.pass_context
def verify(context: click.Context, bank: AnyPath, as_json: bool) -> None:
    """Check every byte of BANK against its digests; exit with 1 when a file is damaged.

    \b
    Example:
        featurebank verify photos.bank
    """
    from featurebank.bank.bank import Bank

    problems = Bank(bank).verify()
    if as_json:
        print_json({"ok": not problems, "problems": problems})
    else:
        for each in problems:
            click.echo(each["problem"])
        click.echo(f"{len(problems)} damaged files" if problems else "every file is whole")
    context.exit(1 if problems else 0)
