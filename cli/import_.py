"""featurebank import."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from cloup import command, option

from featurebank.bank.formats import READERS
from featurebank.errors import counted, printable
from featurebank_cli.options import FILE, features_option, json_option, new_bank_option, table_options
from featurebank_cli.output import next_command, print_json
from featurebank_cli.state import State

if TYPE_CHECKING:
    from featurebank.storage.files import AnyPath


@command("import")
@click.argument("path", type=FILE)
@new_bank_option
@option("--from", "kind", type=click.Choice(list(READERS)), help="What PATH is.  [default: by its looks]")
@option("--backbone", help="What made another tool's features, for their names.  [default: the stem of PATH]")
@option(
    "--source",
    help="The folder or manifest that was extracted, so that rows go beside those of its files; or a name.  "
    "[default: the URL of PATH]",
)
@option("--samples", type=FILE, help="The table that names the rows of a .npy file.")
@table_options
@features_option("Column of the features in another tool's Parquet file.  [default: the only one]")
@option("--column", "columns", multiple=True, help="Keep this column alone; may be repeated.  [default: all]")
@json_option
@click.pass_context
def import_(
    context: click.Context, path: Path, bank: AnyPath, columns: tuple[str, ...], as_json: bool, **options: Any
) -> None:
    """Put embeddings that are in files into a bank.

    PATH is a file of `featurebank export`, which comes back as it was; a .npy file with a CSV or Parquet table of the
    same stem beside it; a Parquet file with a column of lists; a folder of clip-retrieval (img_emb and metadata) or of
    thingsvision; or a slide's HDF5 file, or a folder of them, as TRIDENT and CLAM write them (`fit --groups slide`).

    What another tool computed can be fitted like any feature set. No image can be embedded for it here, so its
    predictors take rows of a bank.

    \b
    Example:
        featurebank import clip.npy --bank photos.bank --backbone clip --source photos/
    """
    from featurebank.bank.bank import Bank
    from featurebank.bank.formats.importing import import_features

    state: State = context.obj
    facts = import_features(
        path, str(bank), columns=list(columns) or None, progress=state.progress("import", "row"), **options
    )
    if as_json:
        print_json(facts)
        return
    click.echo(f"{counted(facts['samples'], 'sample')} from {facts['kind']}: {facts['new']} new to the bank")
    for each in facts["feature_sets"]:
        shape = "x".join(map(str, each["shape"]))
        written = counted(each["written"], "row")
        click.echo(f"  {printable(each['name'])}  {written} written, {each['rows']} of {shape} {each['dtype']}")
    click.echo(f"bank: {bank}   next: {next_command(Bank(bank))}")
