"""The options that commands share, each declared once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from cloup import option


class PlaceType(click.ParamType):
    """A path, or an address on object storage such as s3://bucket/photos.bank."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> Any:
        """Return a Path, or the address."""
        from featurebank.storage import files
        from featurebank.storage.requests import FORGOTTEN

        place = files.place(value)
        if getattr(place, "protocol", "") in FORGOTTEN:
            self.fail(f"{value!r} would be forgotten when the command ends; expected a folder, s3:// or gs://", param)
        return place


PLACE = PlaceType()
bank_argument = click.argument("bank", type=PLACE)
csv_option = option("-o", "--output", type=click.Path(path_type=Path), help="Write a CSV file with all rows.")
json_option = option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
root_option = option(
    "--root",
    type=PLACE,
    help="Folder that a manifest's paths start from, or where a source's files are now.",
)
path_column_option = option("--path-column", help="The manifest's column of paths.  [default: path]")
weights_option = option(
    "--weights",
    default="DEFAULT",
    show_default=True,
    help="DEFAULT, a weight enum's name, a checkpoint file, or random:SEED.",
)
brought_weights_option = option(
    "--weights",
    "weights_file",
    type=click.Path(path_type=Path),
    help="A checkpoint file with the backbone's weights.",
)
allow_download_option = option(
    "--allow-download", is_flag=True, help="Fetch the backbone's weights from their hub when they are not here."
)
size_option = option("--size", type=click.IntRange(min=1), help="Input size in pixels, in place of the weights' own.")
seed_option = option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of everything that is drawn."
)
strict_option = option("--strict", is_flag=True, help="Exit with 1 when an image could not be read.")


def backend_options(what: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the decorator that lets a command work on a Ray cluster; `what` says in its help what that does."""
    address = option(
        "--ray-address",
        envvar="RAY_ADDRESS",
        callback=_only_with_ray,
        help="With --backend ray: HOST:PORT of a running cluster, or auto.  [default: this machine alone]",
    )
    backend = option(
        "--backend",
        type=click.Choice(["local", "ray"]),
        default="local",
        show_default=True,
        is_eager=True,  # the address asks for it
        help=what,
    )
    return lambda command: backend(address(command))


def _only_with_ray(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    """Refuse an address on the command line that nothing would use; the environment may hold one all the same."""
    is_given = context.get_parameter_source("ray_address") is click.core.ParameterSource.COMMANDLINE
    if is_given and context.params["backend"] != "ray":
        raise click.UsageError("--ray-address goes with --backend ray")
    return value


def check_folder(path: Path | None) -> None:
    """Refuse a file whose folder does not exist before any work is done.

    Raises
    ------
    StorageError
        When there is no such folder.
    """
    from featurebank.errors import StorageError

    if path is not None and not path.parent.is_dir():
        raise StorageError(f"no folder {str(path.parent)!r}; make it, or name another with -o")
