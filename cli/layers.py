"""featurebank layers."""

from __future__ import annotations

import click
from cloup import command

from featurebank_cli.options import json_option, size_option
from featurebank_cli.output import print_json, print_table


@command()
@click.argument("backbone")
@size_option
@json_option
def layers(backbone: str, size: int | None, as_json: bool) -> None:
    """List every layer of BACKBONE: output shape for one image, depth, default pooling.

    \b
    Example:
        featurebank layers resnet18
    """
    from featurebank.backbones.registry import layers_of

    found = layers_of(backbone, size)
    facts = [
        {
            "name": layer.name,
            "shape": list(layer.shape),
            "depth": layer.depth,
            "layout": layer.layout,
            "pool": layer.default_pool,
        }
        for layer in found.values()
    ]
    if as_json:
        print_json({"backbone": backbone, "layers": facts})
        return
    rows = [
        [each["name"], "x".join(map(str, each["shape"])), str(each["depth"]), each["layout"], each["pool"]]
        for each in facts
    ]
    print_table(f"{len(rows)} layers of {backbone}", ["layer", "shape", "depth", "layout", "pool"], rows, right=(1, 2))
