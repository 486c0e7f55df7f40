"""featurebank layers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from cloup import command, option, option_group

from featurebank.errors import counted, printable
from featurebank_cli.options import (
    FILE,
    PLACE,
    channels_option,
    check_folder,
    framing_option,
    json_option,
    output_option,
    pages_option,
    range_option,
    size_option,
)
from featurebank_cli.output import print_json, print_table
from featurebank_cli.state import State

if TYPE_CHECKING:
    from featurebank.storage.files import AnyPath


@command()
@click.argument("backbone")
@size_option
@option_group(
    "What the network sees",
    option("--preview", type=FILE, help="An image: draw what BACKBONE sees of it, and list nothing."),
    framing_option,
    range_option,
    pages_option,
    channels_option,
    option("--bank", type=PLACE, help="Open it with the range, pages and channels that this bank was read with."),
    output_option("The drawing, a PNG file.  [default: seen.png]"),
)
@json_option
@click.pass_obj
def layers(
    state: State,
    backbone: str,
    size: int | None,
    preview: Path | None,
    framing: str | None,
    bank: AnyPath | None,
    output: Path | None,
    as_json: bool,
    **pixels: Any,
) -> None:
    """List every layer of BACKBONE: output shape for one image, depth, default pooling.

    With --preview it draws what BACKBONE sees of an image instead, opened as extract opens it.

    \b
    Example:
        featurebank layers resnet18
        featurebank layers resnet18 --preview photo.jpg --fit pad -o seen.png
        featurebank layers resnet18 --preview cells.tif --range 0..4095 --pages max
        featurebank layers resnet18 --preview cells.tif --bank cells.bank
    """
    is_plain = pixels == {"range": "auto", "pages": None, "channels": None}
    if bank is not None and not is_plain:
        raise click.UsageError("give --bank, or --range, --pages and --channels, not both")
    if preview is not None:
        image = _open(state, preview, bank, **pixels)
        _preview(backbone, size, image, framing, output or Path("seen.png"), as_json)
        return
    if framing is not None or output is not None or bank is not None or not is_plain:
        raise click.UsageError("--fit, --range, --pages, --channels, --bank and -o go with --preview IMAGE")
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
    print_table(
        f"{counted(len(rows), 'layer')} of {backbone}",
        ["layer", "shape", "depth", "layout", "pool"],
        rows,
        right=(1, 2),
    )


def _open(state: State, path: Path, bank: AnyPath | None, **pixels: Any) -> Any:
    """Open an image as `featurebank extract` would open it alone, or in a bank, and say so; of all pages the first."""
    import os

    from featurebank.bank.bank import Bank
    from featurebank.extraction.pixel_range import settle_image
    from featurebank.images.notes import DecodingNotes
    from featurebank.images.pixels import PixelRules, as_text
    from featurebank.images.reading import open_image
    from featurebank.images.stacks import pages_of
    from featurebank.images.values import note_of

    place, *others = pages_of(str(path)) if pixels["pages"] == "each" else [str(path)]
    rules, said = settle_image(place, PixelRules.parse(**pixels) if bank is None else Bank(bank).pixels)
    said = said or (f"range: {as_text(rules.limits)}, as in the bank" if bank is not None else "")
    image, _ = open_image(place, pixels=rules)
    notes = DecodingNotes()
    notes.take(note_of(image), os.fsencode(path))
    shown = f"page 1 of {len(others) + 1}; --preview '{others[0]}' shows the next" if others else ""
    for line in filter(None, [said, shown]):
        state.say(printable(line))
    for line in notes.lines(rules):
        state.warn(printable(line))
    return image


def _preview(backbone: str, size: int | None, image: Any, framing: str | None, output: Path, as_json: bool) -> None:
    """Draw what a backbone sees of an image."""
    from featurebank.backbones.preview import preview
    from featurebank.backbones.registry import load_untrained
    from featurebank.storage import files

    check_folder(output)
    framed = load_untrained(backbone, size).with_framing(framing)
    files.commit(output, preview(framed, image))
    facts = {"backbone": backbone, "fit": framed.framing, "unseen": framed.unseen(image.size), "file": str(output)}
    if as_json:
        print_json(facts)
        return
    click.echo(f"{output}: {backbone} with --fit {framed.framing} never sees {facts['unseen']:.0%} of the image")
