"""featurebank layers."""

from __future__ import annotations

from pathlib import Path

import click
from cloup import command, option

from featurebank.errors import printable
from featurebank_cli.options import FILE, PLACE, check_folder, json_option, size_option, weights_option
from featurebank_cli.output import print_json, print_table
from featurebank_cli.state import State


def _numbers(context: click.Context, option: click.Parameter, value: str | None) -> list[int] | None:
    """Parse ``3,17``."""
    try:
        return None if value is None else [int(part) for part in value.split(",")]
    except ValueError as error:
        raise click.BadParameter("expected numbers, e.g. 3,17") from error


@command()
@click.argument("backbone")
@size_option
@option(
    "--show",
    type=PLACE,
    help="Draw what excites the channels of --layer most in the images of this bank or folder instead.",
)
@option("--layer", help="The layer to show.")
@option("--channels", callback=_numbers, help="Channels to show, e.g. 3,17.  [default: the 8 most selective]")
@weights_option
@option("-o", "--output", type=FILE, default="channels.png", help="The picture.")
@json_option
@click.pass_obj
def layers(
    state: State,
    backbone: str,
    size: int | None,
    show: Path | None,
    layer: str | None,
    channels: list[int] | None,
    weights: str,
    output: Path,
    as_json: bool,
) -> None:
    """List every layer of BACKBONE: output shape for one image, depth, default pooling.

    With --show, draw the patches of your own images that excite some channels of a layer most, a row a channel.

    \b
    Example:
        featurebank layers resnet18
        featurebank layers resnet18 --show photos.bank --layer layer2 -o channels.png
    """
    if (show is None) != (layer is None):
        raise click.UsageError("--show and --layer go together")
    if show is not None and layer is not None:
        _show(state, backbone, weights, size, show, layer, channels, output, as_json)
    else:
        _list(backbone, size, as_json)


def _list(backbone: str, size: int | None, as_json: bool) -> None:
    from featurebank.backbones import is_predictor_file, load_backbone

    weights = "DEFAULT" if is_predictor_file(backbone) else "random:0"  # shapes do not depend on them
    found = load_backbone(backbone, weights, size).layers
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


def _show(
    state: State,
    backbone: str,
    weights: str,
    size: int | None,
    show: Path,
    layer: str,
    channels: list[int] | None,
    output: Path,
    as_json: bool,
) -> None:
    from featurebank.backbones import load_backbone
    from featurebank.bank.bank import Bank
    from featurebank.bank.images import source_of
    from featurebank.explore.channels import describe, draw_channels, top_patches
    from featurebank.explore.drawing import check_format, figure_bytes
    from featurebank.images.sources import scan
    from featurebank.storage import files

    check_format(output.suffix)
    check_folder(output)
    source = source_of(Bank(show).select()) if (show / "bank.json").exists() else scan(show)
    found = top_patches(
        source,
        load_backbone(backbone, weights, size),
        layer,
        channels=channels,
        on_error=lambda line: state.warn(printable(line)),
        progress=state.progress("images"),
    )
    files.commit(output, figure_bytes(draw_channels(found, f"{backbone}/{layer}"), output.suffix))
    if as_json:
        print_json({"backbone": backbone, "layer": layer, "channels": describe(found), "output": str(output)})
    else:
        click.echo(f"channels {', '.join(str(each.channel) for each in found)} in {output}")
