"""featurebank next."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from cloup import command, option

from featurebank.errors import counted, shell_word
from featurebank_cli.options import POSITIVE, bank_argument, json_option, output_option, predictor_option
from featurebank_cli.output import csv_text, print_json, records, write_csv
from featurebank_cli.state import State

if TYPE_CHECKING:
    from featurebank.storage.files import AnyPath


@command("next")
@bank_argument
@predictor_option("What is known so far, from featurebank fit.", required=True)
@option(
    "--strategy",
    type=click.Choice(["uncertainty", "margin", "coverage"]),
    default="uncertainty",
    help="The least certain first, the closest calls first, or what covers the images best.",
)
@option("-n", "--count", type=POSITIVE, default=100, help="Most images.")
@output_option("Write the CSV here.  [default: stdout]")
@json_option
@click.pass_obj
def next_(
    state: State, bank: AnyPath, predictor: Path, strategy: str, count: int, output: Path | None, as_json: bool
) -> None:
    """Say which images of BANK that have no label yet to label next, as CSV: source, path, score, TARGET.

    Fill in the last column, as many rows as you like, and read it back: `featurebank label BANK next.csv`.

    \b
    Example:
        featurebank next photos.bank --predictor photos.featurebank -n 20 -o next.csv
    """
    from featurebank.explore import next_to_label
    from featurebank.predictor.predictor import Predictor

    known = Predictor.load(predictor)
    found = next_to_label(bank, known, strategy=strategy, count=count, progress=state.progress("next"))
    if as_json:
        print_json({"predictor": str(predictor), "target": known.target, "strategy": strategy, "next": records(found)})
    elif output is None:
        sys.stdout.write(csv_text(found).encode("utf-8", "backslashreplace").decode())
    if output is not None:
        write_csv(output, found)
        then = f"featurebank label {shell_word(bank)} {shell_word(output)}"
        state.say(f"{counted(len(found), 'image')} to label in {output}   then: {then}")
