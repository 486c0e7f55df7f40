"""featurebank report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from cloup import command, option

from featurebank_cli.options import (
    bank_argument,
    check_folder,
    features_option,
    json_option,
    output_option,
    predictor_option,
    seed_option,
    target_option,
)
from featurebank_cli.output import print_json
from featurebank_cli.state import State

if TYPE_CHECKING:
    from featurebank.storage.files import AnyPath


@command()
@bank_argument
@predictor_option("A predictor of `featurebank fit`; without one, data and map only.")
@target_option("Column to count and colour by.  [default: the predictor's, label, or the only one]")
@features_option("NAME or NAME+NAME, for the map.  [default: the predictor's, else penultimate]")
@option(
    "--map",
    "maps",
    multiple=True,
    type=click.Choice(["pca", "tsne", "umap"]),
    help="May be repeated.  [default: tsne and pca; beyond 10,000 images pca]",
)
@seed_option
@output_option("The page.  [default: BANK's stem + .report.html]")
@json_option
@click.pass_obj
def report(
    state: State,
    bank: AnyPath,
    predictor: Path | None,
    target: str | None,
    features: str | None,
    maps: tuple[str, ...],
    seed: int,
    output: Path | None,
    as_json: bool,
) -> None:
    """Write BANK, and what a predictor says of it, as one HTML page that needs no network.

    The page has the data, a map of the embeddings with the pictures, the candidates of the fit, its mistakes, scores
    by class, calibration, suspected label errors, near-duplicates and the commands that make it again.

    \b
    Example:
        featurebank report photos.bank --predictor photos.featurebank -o report.html
    """
    import time

    from featurebank.report import make_report
    from featurebank.storage import files

    started = time.perf_counter()
    path = output or files.beside(bank, ".report.html")
    check_folder(path)
    page = make_report(
        bank, predictor, target=target, features=features, maps=maps, random_state=seed, progress=state.progress
    )
    data = page.encode()
    files.commit(path, data)
    made = {"report": str(path), "bytes": len(data), "seconds": time.perf_counter() - started, **page.counts()}
    if as_json:
        print_json(made)
    else:
        click.echo(f"report: {path}   {len(data) / 1e6:.1f} MB, {made['pictures']} pictures, {made['seconds']:.0f} s")
