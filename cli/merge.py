"""featurebank merge."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from cloup import command

from featurebank.errors import counted
from featurebank_cli.options import PLACE, bank_argument, json_option
from featurebank_cli.output import print_json
from featurebank_cli.state import State

if TYPE_CHECKING:
    from featurebank.storage.files import AnyPath


@command()
@bank_argument
@click.argument("others", nargs=-1, required=True, type=PLACE)
@json_option
@click.pass_obj
def merge(state: State, bank: AnyPath, others: tuple[AnyPath, ...], as_json: bool) -> None:
    """Copy what OTHERS hold into BANK, which is made where there is none: feature sets, samples, columns.

    Nothing is computed, and OTHERS stay as they are. Of a sample that several have, the row that was written last wins.

    \b
    Example:
        featurebank merge all.bank photos.bank more_photos.bank
    """
    from featurebank.bank.bank import Bank
    from featurebank.bank.merging import merge as run_merge

    opened = [Bank(other) for other in others]
    done = run_merge(Bank.create(bank), opened, progress=state.progress("Copying", "file"))
    if as_json:
        print_json(done)
        return
    there = f", {counted(done['there'], 'was', 'were')} there already" if done["there"] else ""
    click.echo(f"{counted(done['copied'], 'file')} copied, {done['bytes'] / 1e6:.1f} MB{there}")
