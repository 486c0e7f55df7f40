"""featurebank cache."""

from __future__ import annotations

import time

import click
from cloup import command, option

from featurebank_cli.options import json_option
from featurebank_cli.output import print_json, print_table


@command()
@option("--clear", is_flag=True, help="Remove the networks; they are made again when they are needed.")
@json_option
def cache(clear: bool, as_json: bool) -> None:
    """Show the exported networks of this machine, which let commands start without PyTorch, and what they take.

    They lie in the user's cache folder, or in the folder that FEATUREBANK_CACHE names.

    \b
    Example:
        featurebank cache
    """
    from featurebank.backbones.exported import cache as networks

    freed = networks.clear() if clear else 0
    facts = networks.describe()
    if as_json:
        print_json({**facts, "freed": freed})
        return
    if clear:
        click.echo(f"{freed / 1e6:.1f} MB removed")
    rows = [
        [
            each["backbone"],
            ", ".join(each["layers"]),
            f"{each['bytes'] / 1e6:.1f}",
            time.strftime("%Y-%m-%d %H:%M", time.localtime(each["used"])),
        ]
        for each in reversed(facts["networks"])
    ]
    if rows:
        print_table("exported networks", ["backbone", "layers", "MB", "last used"], rows, right=(2,))
    click.echo(f"{facts['folder']}: {facts['bytes'] / 1e6:.1f} MB of at most {facts['most'] / 1e9:.1f} GB")
