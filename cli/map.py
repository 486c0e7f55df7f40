"""featurebank map."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from cloup import command, option

from featurebank.errors import counted
from featurebank_cli.options import (
    bank_argument,
    check_folder,
    json_option,
    one_features_option,
    output_option,
    seed_option,
)
from featurebank_cli.output import print_json, write_csv
from featurebank_cli.state import State

if TYPE_CHECKING:
    from featurebank.storage.files import AnyPath

PAGE, TABLE = ".html", ".csv"


@command("map")
@bank_argument
@one_features_option
@option(
    "--method",
    type=click.Choice(["pca", "tsne", "umap"]),
    default="pca",
    help="tsne takes a minute for 3,000 samples; umap needs the extra explore.",
)
@option("--color", help="Column that colours the samples.  [default: label, where there is one]")
@seed_option
@output_option("A .png, .svg or .pdf, a page (.html), or the points (.csv).  [default: BANK's stem + .map.png]")
@json_option
@click.pass_obj
def draw_map(
    state: State,
    bank: AnyPath,
    features: str | None,
    method: str,
    color: str | None,
    seed: int,
    output: Path | None,
    as_json: bool,
) -> None:
    """Draw a map of the samples of BANK: embeddings that are alike lie near each other.

    \b
    Example:
        featurebank map photos.bank --method tsne --color label -o map.html
    """
    from featurebank.bank.bank import Bank
    from featurebank.explore import map_page, plot_map, project
    from featurebank.explore.plots import FORMATS, check_format, figure_bytes
    from featurebank.storage import files

    opened = Bank(bank)
    path = output or files.beside(opened.path, ".map.png")
    suffix = path.suffix.lower()
    check_format(suffix, (*FORMATS, PAGE, TABLE))
    check_folder(path)
    chosen = color or ("label" if "label" in opened.table.columns else None)
    if method != "pca":
        state.say(f"{method} of {counted(len(opened.select()), 'sample')} …")
    points = project(opened, features, method, columns=[chosen] if chosen else [], random_state=seed)
    if suffix == TABLE:
        write_csv(path, points)
    elif suffix == PAGE:
        files.commit(path, map_page(points, color=chosen, title=f"{opened.path.name}, {method}").encode())
    else:
        files.commit(path, figure_bytes(plot_map(points, color=chosen).get_figure(), suffix))
    if as_json:
        facts = {"bank": str(bank), "method": method, "color": chosen, "samples": len(points), "output": str(path)}
        print_json(facts)
    else:
        click.echo(f"{counted(len(points), 'sample')} in {path}")
