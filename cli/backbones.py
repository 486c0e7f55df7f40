"""featurebank backbones."""

from __future__ import annotations

import click
from cloup import command

from featurebank_cli.options import json_option
from featurebank_cli.output import print_json, print_table


@command()
@click.argument("pattern", required=False)
@json_option
def backbones(pattern: str | None, as_json: bool) -> None:
    """List backbones: parameters, input size, licence of the weights where known, whether they are here.

    PATTERN is a glob; timm's models are listed with 'timm:PATTERN'.

    \b
    Example:
        featurebank backbones 'resnet*'
        featurebank backbones 'timm:vit_small*'
    """
    from featurebank.backbones.registry import list_backbones
    from featurebank.errors import BackboneError

    found = list_backbones(pattern)
    if not found:
        raise BackboneError(f"no backbone fits {pattern!r}; `featurebank backbones` lists all but timm's")
    if as_json:
        print_json({"backbones": found})
        return
    rows = [
        [
            each["name"],
            f"{each['parameters'] / 1e6:.1f} M",
            str(each["input_size"]),
            each["license"] or "not stated",
            "here" if each["weights_here"] else "to fetch",
        ]
        for each in found
    ]
    print_table(f"{len(found)} backbones", ["name", "parameters", "input", "licence", "weights"], rows, right=(1, 2))
    if pattern is None:
        click.echo("timm's models: featurebank backbones 'timm:*vit*'")
