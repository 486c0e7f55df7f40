"""featurebank similar."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from cloup import command, option

from featurebank_cli.options import POSITIVE, bank_argument, check_folder, csv_option, json_option, one_features_option
from featurebank_cli.output import print_json, print_rows, records, write_csv
from featurebank_cli.state import State

if TYPE_CHECKING:
    from featurebank.storage.files import AnyPath


@command()
@bank_argument
@click.argument("image")
@option("-k", type=POSITIVE, default=12, help="How many.")
@one_features_option
@option(
    "--metric",
    type=click.Choice(["cosine", "whitened"]),
    default="cosine",
    help="whitened: rare differences count as much as common ones.",
)
@option("--approximate", is_flag=True, help="Search with an index of faiss: for a million rows and more.")
@csv_option
@json_option
@click.pass_obj
def similar(
    state: State,
    bank: AnyPath,
    image: str,
    k: int,
    features: str | None,
    metric: str,
    approximate: bool,
    output: Path | None,
    as_json: bool,
) -> None:
    """List the samples of BANK that are most similar to IMAGE: a file, or a path of the bank.

    A file whose content the bank does not have is embedded with the bank's backbone.

    \b
    Example:
        featurebank similar photos.bank new.jpg -k 5
    """
    from featurebank.explore import similar as find_similar

    check_folder(output)
    found = find_similar(bank, image, k=k, features=features, metric=metric, approximate=approximate)
    if output is not None:
        write_csv(output, found)
    if as_json:
        print_json({"bank": str(bank), "image": image, "metric": metric, "similar": records(found)})
        return
    print_rows(f"most similar to {image}, {metric}", found, right=(2,), most=k)
