"""featurebank outliers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from cloup import command, option

from featurebank.bank.spec import short
from featurebank.errors import counted
from featurebank_cli.options import (
    bank_argument,
    features_option,
    json_option,
    output_option,
    seed_option,
    target_option,
)
from featurebank_cli.output import print_json, print_table, records, write_csv
from featurebank_cli.state import State

if TYPE_CHECKING:
    from featurebank.storage.files import AnyPath

SHOWN = 10


@command()
@bank_argument
@features_option(
    "NAME or NAME+NAME.  [default: the middle blocks of one backbone where they are cached, else the penultimate "
    "layer, or the first pooled set]"
)
@option(
    "--method",
    type=click.Choice(["mahalanobis", "knn"]),
    default="mahalanobis",
    help="Distance from what is usual, or from the tenth nearest image.",
)
@target_option("Column of classes: unusual is then what is far from the mean of every class.")
@seed_option
@output_option("Write source, path, distance, unlike as CSV.")
@json_option
@click.pass_obj
def outliers(state: State, bank: AnyPath, output: Path | None, as_json: bool, **options: Any) -> None:
    """Rank the images of BANK by how unlike the others they are, the most unusual first.

    unlike is the share of the images that are less unusual; `featurebank predict` says the same of new images.

    \b
    Example:
        featurebank outliers photos.bank -o outliers.csv
    """
    from featurebank.explore import outliers as find_outliers

    found = find_outliers(bank, random_state=options.pop("seed"), **options)
    if output is not None:
        write_csv(output, found)
        state.say(f"{counted(len(found), 'image')} in {output}")
    if as_json:
        facts = {"method": options["method"], "target": options["target"], "features": found.attrs["features"]}
        print_json({**facts, "images": records(found)})
    elif output is None:
        rows = [[row.path, f"{row.distance:.3g}", f"{row.unlike:.3f}"] for row in found.head(SHOWN).itertuples()]
        names = short("+".join(found.attrs["features"]))
        title = f"{options['method']}, {len(rows)} of {counted(len(found), 'image')}, by {names}"
        print_table(title, ["path", "distance", "unlike"], rows, right=(1, 2))
