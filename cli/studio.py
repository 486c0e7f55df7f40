"""featurebank studio."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from cloup import command, option

from featurebank_cli.options import PLACE, seed_option
from featurebank_cli.state import State

if TYPE_CHECKING:
    from featurebank.storage.files import AnyPath


@command()
@click.argument("bank", type=PLACE)
@option("--target", default="label", help="Column of classes; made with the first answer where there is none.")
@option("--by", default="", help="Who labels: kept beside each answer, with the time.")
@option("--port", type=click.IntRange(0, 65535), default=0, help="Of the server; 0 is any that is free.")
@option("--no-browser", is_flag=True, help="Print the address and open no browser.")
@option("--host", default="127.0.0.1", help="Address to listen at; any but this machine's own takes --allow-remote.")
@option(
    "--allow-remote",
    is_flag=True,
    help="Let other machines ask: whoever knows the address sees the images and can label, and nothing is encrypted.",
)
@seed_option
@click.pass_obj
def studio(
    state: State,
    bank: AnyPath,
    target: str,
    by: str,
    port: int,
    no_browser: bool,
    host: str,
    allow_remote: bool,
    seed: int,
) -> None:
    """Label the images of BANK in the browser, while a model learns from every answer.

    Each answer is a label of the bank, written before the page says so. Ctrl-C ends the studio.

    \b
    Example:
        featurebank studio photos.bank
    """
    from featurebank.explore.studio.handle import studio as start

    running = start(
        bank,
        target=target,
        by=by,
        port=port,
        random_state=seed,
        host=host,
        allow_remote=allow_remote,
        in_frames=False,
    )
    if allow_remote:
        state.warn("other machines can reach this studio: whoever knows the address sees the images and can label")
    click.echo(f"studio: {running.url}   Ctrl-C ends it")
    if not no_browser:
        click.launch(running.url)
    try:
        running.wait()
    except KeyboardInterrupt:
        state.say("the studio has ended; every answer is in the bank")
    finally:
        running.close()
