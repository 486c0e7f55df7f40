"""featurebank layers."""

from __future__ import annotations

from pathlib import Path

import click
from cloup import command, option, option_group

from featurebank_cli.options import FILE, check_folder, framing_option, json_option, output_option, size_option
from featurebank_cli.output import print_json, print_table


@command()
@click.argument("backbone")
@size_option
@option_group(
    "What the network sees",
    option("--preview", type=FILE, help="An image: draw what BACKBONE sees of it, and list nothing."),
    framing_option,
    output_option("The drawing, a PNG file.  [default: seen.png]"),
)
@json_option
def layers(
    backbone: str, size: int | None, preview: Path | None, framing: str | None, output: Path | None, as_json: bool
) -> None:
    """List every layer of BACKBONE: output shape for one image, depth, default pooling.

    With --preview it draws what BACKBONE sees of an image instead.

    \b
    Example:
        featurebank layers resnet18
        featurebank layers resnet18 --preview photo.jpg --fit pad -o seen.png
    """
    if preview is not None:
        _preview(backbone, size, preview, framing, output or Path("seen.png"), as_json)
        return
    if framing is not None or output is not None:
        raise click.UsageError("--fit and -o go with --preview IMAGE")
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


def _preview(backbone: str, size: int | None, path: Path, framing: str | None, output: Path, as_json: bool) -> None:
    """Draw what a backbone sees of an image."""
    from featurebank.backbones.preview import preview
    from featurebank.backbones.registry import load_untrained
    from featurebank.images.reading import open_image
    from featurebank.storage import files

    check_folder(output)
    image, _ = open_image(path)
    framed = load_untrained(backbone, size).with_framing(framing)
    files.commit(output, preview(framed, image))
    facts = {"backbone": backbone, "fit": framed.framing, "unseen": framed.unseen(image.size), "file": str(output)}
    if as_json:
        print_json(facts)
        return
    click.echo(f"{output}: {backbone} with --fit {framed.framing} never sees {facts['unseen']:.0%} of the image")
