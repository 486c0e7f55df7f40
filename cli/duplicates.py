"""featurebank duplicates."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from cloup import command

from featurebank.errors import counted
from featurebank_cli.options import bank_argument, check_folder, csv_option, features_option, json_option
from featurebank_cli.output import print_json, print_rows, records, write_csv
from featurebank_cli.state import State

if TYPE_CHECKING:
    from featurebank.storage.files import AnyPath


@command()
@bank_argument
@features_option("Also list images whose embeddings in this feature set are nearly parallel, as alike.")
@csv_option
@json_option
@click.pass_obj
def duplicates(state: State, bank: AnyPath, features: str | None, output: Path | None, as_json: bool) -> None:
    """List the samples of BANK that show the same picture: group, kind, source, path, similarity.

    Exact duplicates have the same content; near ones were resized, re-compressed, mirrored or turned by right angles.
    Every image is read once and compared as a small thumbnail. Nothing is removed.

    \b
    Example:
        featurebank duplicates photos.bank -o duplicates.csv
    """
    from featurebank.explore import duplicates as find_duplicates

    check_folder(output)
    found = find_duplicates(bank, features=features, progress=state.progress("duplicates"))
    groups, kinds = int(found["group"].nunique()), {str(k): int(n) for k, n in found["kind"].value_counts().items()}
    if output is not None:
        write_csv(output, found)
    if as_json:
        print_json({"bank": str(bank), "groups": groups, "kinds": kinds, "duplicates": records(found)})
        return
    counts = ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "no duplicates"
    print_rows(f"{counted(groups, 'group')}: {counts}", found, right=(0, 4))
