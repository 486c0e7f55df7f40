"""featurebank compact and prune."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from cloup import command, option

from featurebank.errors import counted
from featurebank_cli.options import bank_argument, json_option
from featurebank_cli.output import print_json

if TYPE_CHECKING:
    from featurebank.storage.files import AnyPath

grace_option = option(
    "--grace",
    type=click.FloatRange(min=0),
    default=3600.0,
    help="Seconds that replaced files stay for those who still read them.",
)


@command()
@bank_argument
@grace_option
@json_option
def compact(bank: AnyPath, grace: float, as_json: bool) -> None:
    """Merge the small segments of BANK; others may go on reading and writing.

    \b
    Example:
        featurebank compact photos.bank
    """
    from featurebank.bank.bank import Bank

    done = Bank(bank).compact(grace=grace)
    if as_json:
        print_json(done)
    else:
        click.echo(f"{counted(done['merged'], 'file')} merged, {counted(done['removed'], 'replaced file')} removed")


@command()
@bank_argument
@option("--source", help="Mark the samples of this source gone before, as `featurebank info` names it.")
@grace_option
@json_option
def prune(bank: AnyPath, source: str | None, grace: float, as_json: bool) -> None:
    """Drop the embeddings of BANK that no present sample points at.

    A folder or manifest that is gone for good is forgotten with --source; extracting it again brings it back.

    \b
    Example:
        featurebank prune photos.bank
        featurebank prune photos.bank --source old_photos/
    """
    from featurebank.bank.bank import Bank

    done = Bank(bank).prune(grace=grace, source=source)
    if as_json:
        print_json(done)
        return
    gone = f"{counted(done['gone'], 'sample')} marked gone, " if "gone" in done else ""
    click.echo(f"{gone}{counted(done['rows'], 'row')} dropped, {counted(done['removed'], 'replaced file')} removed")
