"""featurebank cluster."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from cloup import command, option

from featurebank.bank.spec import common_backbone
from featurebank.errors import counted, printable
from featurebank.topmodels.formatting import percent
from featurebank_cli.options import (
    bank_argument,
    features_option,
    json_option,
    output_option,
    seed_option,
    target_option,
)
from featurebank_cli.output import print_json, print_table, write_csv
from featurebank_cli.state import State

if TYPE_CHECKING:
    from featurebank.storage.files import AnyPath


@command()
@bank_argument
@features_option("NAME or NAME+NAME, may be repeated: a row each.  [default: every pooled set]", multiple=True)
@option(
    "--method",
    type=click.Choice(["kmeans", "hdbscan", "agglomerative"]),
    default="kmeans",
    help="How to cluster.",
)
@option(
    "--clusters",
    type=click.IntRange(min=2),
    help="How many.  [default: the number from 2 to 15 with the highest silhouette; hdbscan finds its own]",
)
@target_option("Column of classes to compare with.  [default: label, where there is one]")
@seed_option
@output_option("Write source, path, cluster, distance as CSV here.")
@json_option
@click.pass_obj
def cluster(
    state: State, bank: AnyPath, output: Path | None, features: tuple[str, ...], as_json: bool, **options: Any
) -> None:
    """Cluster the images of BANK without labels, and say how stable the clusters are.

    NMI and ARI compare them with labels where there are some. The CSV is that of the feature set with the highest
    silhouette, and `featurebank label BANK clusters.csv` takes it as the columns cluster and distance.

    \b
    Example:
        featurebank cluster photos.bank --method kmeans -o clusters.csv
    """
    from featurebank.explore import cluster as find_clusters

    progress = state.progress("cluster", "feature set")
    found = find_clusters(
        bank, features=list(features) or None, random_state=options.pop("seed"), progress=progress, **options
    )
    if output is not None:
        write_csv(output, found.table)
    if as_json:
        print_json(found.report)
        return
    _print(found.report)
    if output is not None:
        state.say(f"{counted(len(found.table), 'image')} in {output}")


def _print(report: dict[str, Any]) -> None:
    sets = report["feature_sets"]
    common = common_backbone(each["features"] for each in sets)
    names = ["silhouette", "stability", *(["nmi", "ari"] if sets[0]["nmi"] is not None else [])]
    rows = [
        [
            each["features"].replace(common, ""),
            str(each["clusters"]),
            *("" if each[name] is None else f"{each[name]:.2f}" for name in names),
            str(each["unclustered"]),
        ]
        for each in sets
    ]
    shown = {"nmi": "NMI", "ari": "ARI"}
    beside = f", compared with {report['target']}" if len(names) > 2 else ""
    title = f"{report['method']}, {counted(report['n_samples'], 'image')}{beside}, {common.rstrip('/')}"
    columns = ["features", "clusters", *(shown.get(name, name) for name in names), "in none"]
    print_table(title, columns, rows, right=range(1, len(columns)))
    named = ["most frequent", "%"] if any("class" in each for each in report["clusters"]) else []
    rows = [
        [
            str(each["cluster"]),
            str(each["size"]),
            *([each.get("class", ""), percent(each["share"]) if "share" in each else ""] if named else []),
            " ".join(map(printable, each["representatives"])),
        ]
        for each in report["clusters"]
    ]
    title = f"clusters of {report['best']['features'].replace(common, '')}"
    print_table(title, ["cluster", "images", *named, "nearest to its mean"], rows, right=(0, 1))
    click.echo(f"{report['note']}.")
