"""What commands do at their end: networks that will be used again are exported, and nobody waits at a prompt for it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from featurebank_cli.state import State

if TYPE_CHECKING:
    from featurebank.backbones.keeping import Network
    from featurebank.storage.files import AnyPath

_MAIN = """import json, os, sys
sys.path[:] = json.loads(sys.argv.pop(1))
if hasattr(os, "nice"):
    os.nice(10)
from featurebank_cli import main
main(prog_name="featurebank")
"""
"""It finds the modules that this process finds, and gives way to what the user does meanwhile."""


def keep_networks(
    state: State, networks: Sequence[Network], place: AnyPath | None, *, device: str = "auto", engine: str = "auto"
) -> None:
    """Export the networks that are not yet: behind a terminal's back, or here, where no prompt waits.

    A script, a batch job or a container may end its processes with this one: nothing would be exported there, ever.

    Parameters
    ----------
    state : State
    networks : sequence of Network
    place : path, optional
        The bank or the predictor that has them; without it they are exported here.
    device, engine : str, default "auto"
        What they are run with.
    """
    from featurebank.backbones.keeping import is_lacking, keep

    if place is None or not sys.stderr.isatty():
        for network in networks:
            keep(network, device=device, engine=engine)
    elif lacking := [each for each in networks if is_lacking(each, device=device, engine=engine)]:
        names = ", ".join(each.specs[0].backbone for each in lacking)
        start(place)
        state.say(
            f"{names}: being exported in the background, to start at once from now on (`featurebank cache` shows it)"
        )


def start(place: AnyPath) -> None:
    """Start a process that exports the networks of a bank or a predictor, in a session of its own and without output.

    It takes the lock of each network. If it is killed, nothing is lost: the next command starts it again.
    """
    command = [sys.executable, "-P", "-c", _MAIN, json.dumps(list(map(str, sys.path))), "cache", "--add", str(place)]
    nowhere = subprocess.DEVNULL
    subprocess.Popen(command, stdin=nowhere, stdout=nowhere, stderr=nowhere, start_new_session=True)


def networks_at(place: AnyPath) -> list[Network]:
    """Return the networks of a bank, or of a predictor's file."""
    from featurebank.backbones.keeping import networks_of
    from featurebank.bank.bank import Bank

    if isinstance(place, Path) and place.is_file():
        from featurebank.predictor.predictor import Predictor

        return Predictor.load(place, device="cpu", allow_download=False).networks()
    return networks_of(Bank(place))
