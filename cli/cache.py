"""featurebank cache."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click
from cloup import command, option

from featurebank.errors import EngineError, FeatureBankError, one_line
from featurebank_cli.exporting import networks_at
from featurebank_cli.options import PLACE, json_option
from featurebank_cli.output import print_json, print_table

if TYPE_CHECKING:
    from featurebank.storage.files import AnyPath


@command()
@option("--clear", is_flag=True, help="Remove the networks; they are made again when they are needed.")
@option("--add", type=PLACE, help="Export the networks of this bank or predictor now, those that are not yet.")
@json_option
def cache(clear: bool, add: AnyPath | None, as_json: bool) -> None:
    """Show the exported networks of this machine, which let commands start without PyTorch, and what they take.

    They lie in the user's cache folder, or in the folder that FEATUREBANK_CACHE names.

    \b
    Example:
        featurebank cache
        featurebank cache --add photos.featurebank
    """
    from featurebank.backbones.exported import cache as networks

    freed = networks.clear() if clear else 0
    if add is not None:
        _add(add)
    facts = networks.describe()
    if as_json:
        print_json({**facts, "freed": freed})
        return
    if clear:
        click.echo(f"{freed / 1e6:.1f} MB removed")
    rows = [
        [
            each["backbone"],
            each["weights"][:8],
            ", ".join(each["layers"]),
            f"{each['bytes'] / 1e6:.1f}",
            time.strftime("%Y-%m-%d %H:%M", time.localtime(each["used"])),
        ]
        for each in reversed(facts["networks"])
    ]
    if rows:
        print_table("exported networks", ["backbone", "weights", "layers", "MB", "last used"], rows, right=(3,))
    for name, since in zip(facts["making"], facts["making_since"], strict=True):
        clock = time.strftime("%H:%M:%S", time.localtime(since))
        click.echo(f"{name} is being exported since {clock}, for {time.time() - since:.0f} s now")
    click.echo(f"{facts['folder']}: {facts['bytes'] / 1e6:.1f} MB of at most {facts['most'] / 1e9:.1f} GB")


def _add(place: AnyPath) -> None:
    """Export every network of a bank or a predictor; what cannot be exported keeps no other from it."""
    from featurebank.backbones.keeping import export_network

    networks = networks_at(place)
    if not networks:
        raise EngineError(
            f"{str(place)!r} has no network to export; expected one in float32 that was asked for by name"
        )
    problems = []
    for network in networks:
        try:
            export_network(network)
        except FeatureBankError as error:
            problems.append(error)
    if problems:
        raise EngineError("; ".join(map(one_line, problems)))
