"""The options that commands share, each declared once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from cloup import option

from featurebank.errors import TopModelError
from featurebank.topmodels.class_weights import ClassWeight, parse_class_weight

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
POSITIVE = click.IntRange(min=1)


class PlaceType(click.ParamType):
    """A path, or an address on object storage such as s3://bucket/photos.bank."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> Any:
        """Return a Path, or the address."""
        from featurebank.storage import files
        from featurebank.storage.retries import FORGOTTEN

        place = files.as_path(value)
        if getattr(place, "protocol", "") in FORGOTTEN:
            self.fail(f"{value!r} would be forgotten when the command ends; expected a folder, s3:// or gs://", param)
        return place


PLACE = PlaceType()
FILE = click.Path(path_type=Path)
bank_argument = click.argument("bank", type=PLACE)

# --- what is read and written ------------------------------------------------------------------------------

json_option = option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
new_bank_option = option("--bank", required=True, type=PLACE, help="The bank; made when it does not exist.")
root_option = option(
    "--root", type=PLACE, help="Folder that a manifest's paths start from, or where a source's files are now."
)
path_column_option = option(
    "--path-column", help="A table's column of paths.  [default: path, else file_name, image, id or the like]"
)
_table_options = (
    path_column_option,
    option("--separator", help="Between a table's cells: comma, semicolon, tab, pipe or space.  [default: found]"),
    option("--encoding", help="Of a table, such as utf-8 or cp1252.  [default: found]"),
    option(
        "--labels-as",
        type=click.Choice(["auto", "text", "numbers"]),
        default="auto",
        help="What a table's columns become; auto: numbers where every value is one and nothing is lost.",
    ),
)


def table_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say how a table is to be read."""
    for each in reversed(_table_options):
        command = each(command)
    return command


strict_option = option("--strict", is_flag=True, help="Exit with 1 when an image could not be read.")


def output_option(what: str) -> Decorator:
    """Return ``-o``; `what` says in its help what is written."""
    return option("-o", "--output", type=FILE, help=what)


def predictor_option(what: str, *, required: bool = False) -> Decorator:
    """Return ``--predictor``; `what` says in its help what for."""
    return option("--predictor", type=FILE, required=required, help=what)


csv_option = output_option("Write a CSV file with all rows.")

# --- the network -------------------------------------------------------------------------------------------

weights_option = option(
    "--weights",
    default="DEFAULT",
    help="DEFAULT, a weight enum's name, a checkpoint file (FILE#ENTRY: one of the networks in it), or random:SEED.",
)
brought_weights_option = option(
    "--weights", "weights_file", type=FILE, help="A checkpoint file with the backbone's weights."
)
allow_download_option = option(
    "--allow-download", is_flag=True, help="Fetch the backbone's weights from their hub when they are not here."
)
size_option = option("--size", type=POSITIVE, help="Input size in pixels, in place of the weights' own.")
framing_option = option(
    "--fit",
    "framing",
    type=click.Choice(["crop", "squash", "pad", "tiles"]),
    help="Which part of an image the network sees: crop (the middle), squash (all of it, without its proportions), pad "
    "(all, with a margin), tiles (overlapping pieces of all, averaged).  [default: crop, or a tuned predictor's own]",
)
device_option = option("--device", default="auto", help="auto, cpu, cuda or mps.")
workers_option = option("--workers", type=POSITIVE, help="Threads that read and decode.  [default: one a core]")


def store_option(what: str) -> Decorator:
    """Return ``--store``; `what` says in its help what has that dtype."""
    return option("--store", type=click.Choice(["float16", "float32"]), default="float16", help=what)


def precision_option(what: str) -> Decorator:
    """Return ``--precision``; `what` says in its help what the narrow dtypes do."""
    return option("--precision", type=click.Choice(["fp32", "bf16", "fp16"]), default="fp32", help=what)


# --- learning ----------------------------------------------------------------------------------------------


def features_option(what: str, *, multiple: bool = False) -> Decorator:
    """Return ``--features``; `what` says in its help what for."""
    return option("--features", multiple=multiple, help=what)


def target_option(what: str, *, multiple: bool = False) -> Decorator:
    """Return ``--target``; `what` says in its help what it may hold."""
    return option("--target", multiple=multiple, help=what)


def folds_option(what: str = "Folds of the cross-validation.", default: int | None = 5) -> Decorator:
    """Return ``--folds``; `what` says in its help of what."""
    return option("--folds", type=click.IntRange(min=2), default=default, help=what)


def class_weight(context: click.Context, option: click.Parameter, value: str | None) -> ClassWeight:
    """Parse ``balanced`` or ``cat=2,dog=1``; the classes become the column's own kind later."""
    try:
        return parse_class_weight(value)
    except TopModelError as error:
        raise click.BadParameter(str(error)) from error


one_target_option = target_option("Column of classes or numbers.  [default: label, or the only column]")
one_features_option = features_option("NAME or NAME+NAME.  [default: the penultimate layer, or the first pooled set]")
task_option = option(
    "--task", type=click.Choice(["classification", "regression"]), help="[default: what the target holds]"
)
groups_option = option("--groups", help="Column of groups that never straddle folds, or @near-duplicates.")
sample_weight_option = option("--sample-weight", help="Column of weights, for fitting and scoring.")
class_weight_option = option("--class-weight", callback=class_weight, help="balanced, or CLASS=WEIGHT,CLASS=WEIGHT.")
repeats_option = option("--repeats", type=POSITIVE, default=1, help="Draw the folds so often.")
scoring_option = option("--scoring", help="Any scikit-learn scorer.  [default: accuracy, or r2]")
seed_option = option("--seed", type=click.IntRange(min=0), default=0, help="Of everything that is drawn.")
jobs_option = option("--jobs", type=int, default=-1, help="Threads; -1 for one a core.")


range_option = option(
    "--range",
    default="auto",
    metavar="auto|full|LOW..HIGH",
    help="What is black and white in images of more than 8 bits: full is 0 and 65535; auto keeps the bank's range, or "
    "measures it over SOURCE.",
)
pages_option = option(
    "--pages",
    type=click.Choice(["first", "mean", "max", "each"]),
    help="Of a stack of pages; each makes a sample of every page.  [default: the first, with a warning]",
)
channels_option = option(
    "--channels",
    metavar="0,1,2|mean",
    help="One to three channels that are seen as grey, red and green, or red, green and blue; or the mean of all.",
)


def backend_options(what: str) -> tuple[Decorator, Decorator]:
    """Return the options that let a command work on a Ray cluster; `what` says in its help what that does."""
    backend = option(
        "--backend",
        type=click.Choice(["local", "ray"]),
        default="local",
        is_eager=True,  # the address asks for it
        help=what,
    )
    address = option(
        "--ray-address",
        envvar="RAY_ADDRESS",
        callback=_only_with_ray,
        help="With --backend ray: HOST:PORT of a running cluster, or auto.  [default: this machine alone]",
    )
    return backend, address


def _only_with_ray(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    """Refuse an address on the command line that nothing would use; the environment may hold one all the same."""
    is_given = context.get_parameter_source("ray_address") is click.core.ParameterSource.COMMANDLINE
    if is_given and context.params["backend"] != "ray":
        raise click.UsageError("--ray-address goes with --backend ray")
    return value


def check_folder(path: Path | None, option: str = "-o") -> None:
    """Refuse the file of an option whose folder does not exist before any work is done.

    Raises
    ------
    StorageError
        When there is no such folder.
    """
    from featurebank.errors import StorageError

    if path is not None and not path.parent.is_dir():
        raise StorageError(f"no folder {str(path.parent)!r}; make it, or name another with {option}")


split_option = option(
    "--split",
    metavar="COLUMN|none",
    help="Column of train, val and test: learned from, compared on, held out to the end; none takes all samples "
    "alike.  [default: the column split, where it has such words alone]",
)


def one_value(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> str | None:
    """Return the value of an option that is taken once; of two the first would be forgotten."""
    if len(values) > 1:
        raise click.BadParameter(
            f"{', '.join(values)}: expected one value; where several are normal, give them one in another column "
            "(`featurebank label`)"
        )
    return values[0] if values else None
