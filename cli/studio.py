"""featurebank studio."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from cloup import command, option, option_group

from featurebank_cli.options import PLACE, features_option, seed_option, size_option, weights_option
from featurebank_cli.state import State

if TYPE_CHECKING:
    from featurebank.storage.files import AnyPath


@command()
@click.argument("source", metavar="SOURCE|BANK", type=PLACE)
@option_group(
    "What is labelled",
    option("--target", default="label", help="Column of classes; made with the first answer where there is none."),
    option("--by", help="Who labels: kept beside each answer, with the time."),
    features_option(
        "NAME or NAME+NAME that the model sees.  [default: the penultimate layer, or the first pooled set; later the "
        "one that does best]"
    ),
    seed_option,
)
@option_group(
    "How a folder becomes a bank",
    option("--bank", type=PLACE, help="The bank.  [default: SOURCE's name with .bank, beside it]"),
    option("--backbone", default="efficientnet_lite0", help="See `featurebank backbones`."),
    option("--layer", "layers", multiple=True, default=["penultimate"], help="LAYER[:POOL]; may be repeated."),
    weights_option,
    size_option,
)
@option_group(
    "How it is served",
    option("--port", type=click.IntRange(0, 65535), default=0, help="0 is any that is free."),
    option("--no-browser", is_flag=True, help="Print the address and open no browser."),
    option(
        "--host", default="127.0.0.1", help="Address to listen at; any but this machine's own takes --allow-remote."
    ),
    option(
        "--allow-remote",
        is_flag=True,
        help="Let other machines ask: whoever knows the address sees the images and can label, and nothing is "
        "encrypted.",
    ),
)
@click.pass_obj
def studio(state: State, source: AnyPath, layers: tuple[str, ...], seed: int, no_browser: bool, **options: Any) -> None:
    """Label images in the browser, while a model learns from every answer.

    A folder of images, or another SOURCE of `featurebank extract`, becomes a bank first, while its first images are
    labelled already. Each answer is a label of the bank, written before the page says so. Ctrl-C ends the studio.

    \b
    Example:
        featurebank studio photos/
    """
    from featurebank.explore.studio.handle import studio as start

    options["by"] = options["by"] or ""
    running = start(source, layers=layers, random_state=seed, in_frames=False, **options)
    if options["allow_remote"]:
        state.warn(
            "other machines can reach this studio: whoever knows the address, with this machine's own in place of "
            f"{options['host']}, sees the images and can label"
        )
    click.echo(f"studio: {running.url}   Ctrl-C ends it")
    if not no_browser:
        click.launch(running.url)
    try:
        running.wait()
    except KeyboardInterrupt:
        left = f"; {count} images are not embedded yet: start it again to go on" if (count := running.left()) else ""
        state.say(f"the studio has ended; every answer is in the bank{left}")
    finally:
        running.close()
