"""featurebank predict."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from cloup import command, option

from featurebank.errors import PredictorError, SourceError, counted, printable
from featurebank_cli.exporting import keep_networks
from featurebank_cli.options import (
    FILE,
    PLACE,
    allow_download_option,
    brought_weights_option,
    device_option,
    json_option,
    output_option,
    root_option,
    strict_option,
    table_options,
)
from featurebank_cli.output import as_columns, csv_text, print_json, write_csv
from featurebank_cli.state import State

if TYPE_CHECKING:
    from featurebank.storage.files import AnyPath


@command()
@click.argument("predictor", type=FILE)
@click.argument("images", nargs=-1, type=PLACE)
@option("--bank", type=PLACE, help="Predict the rows that are already embedded in this bank.")
@table_options
@root_option
@output_option("Write the CSV here.  [default: stdout]")
@option("--proba", is_flag=True, help="One more column for the probability of each class.")
@option(
    "--maps", type=FILE, help="Of a predictor that learned from normal images: write a mask of each image here, as PNG."
)
@strict_option
@device_option
@brought_weights_option
@allow_download_option
@json_option
@click.pass_context
def predict(
    context: click.Context,
    predictor: Path,
    images: tuple[AnyPath, ...],
    bank: AnyPath | None,
    output: Path | None,
    proba: bool,
    maps: Path | None,
    strict: bool,
    device: str,
    weights_file: Path | None,
    allow_download: bool,
    as_json: bool,
    **table_options: Any,
) -> None:
    """Label IMAGES, or the rows of a bank, as CSV: path, label, probability, unlike, error.

    IMAGES are files, folders, tar shards or Parquet files with images inside, tables with a column of paths (CSV,
    Parquet or JSON Lines), quoted patterns ('photos/*.jpg'; ** goes into folders), or - for paths on standard input,
    one a line.

    unlike is the share of the training images that are less unusual than the image; is_unlike says that it is above
    0.99, so that the label is a guess.

    A predictor that learned from normal images gives path, label, score, anomaly (a p-value: the share of the normal
    images that are at least as unusual), is_anomaly (at the promised rate of false alarms), error. --maps DIR marks
    where: white places of the mask PATH.mask.png are unlike any on normal images.

    A predictor of several tasks gives label_TASK and probability_TASK for each.

    \b
    Example:
        featurebank predict photos.featurebank new.jpg more/ -o predictions.csv
        featurebank predict photos.featurebank test.csv --path-column file --root photos/
        find more -name "*.jpg" | featurebank predict photos.featurebank - -o predictions.csv
    """
    state: State = context.obj
    if bool(images) == (bank is not None):
        raise click.UsageError("give either images or --bank")
    if bank is not None and maps is not None:
        raise click.UsageError("--maps looks at images; name them in place of --bank")
    items = _listed([place for each in images for place in _named(each)], table_options)

    from featurebank.images.stacks import pages_of
    from featurebank.predictor.predictor import Predictor

    brought = {"weights_file": weights_file, "allow_download": allow_download}
    loaded = Predictor.load(predictor, device=device, **brought)
    if loaded.is_of_pages:
        items = [page for item in items for page in (pages_of(item) if isinstance(item, str) else [item])]
    if bank is None:
        table = as_columns(loaded.predict_columns(items, state.progress("predict")))
    else:
        table = as_columns(loaded.predict_bank(bank))
    if maps is not None:
        _add_masks(state, loaded, list(map(str, items)), table, maps)
    shown = {name: cells for name, cells in table.items() if proba or not name.startswith("proba_")}
    count = len(table["path"])
    if as_json:
        rows = [dict(zip(shown, row, strict=True)) for row in zip(*shown.values(), strict=True)]
        print_json({"predictor": str(predictor), "target": loaded.target, "predictions": rows})
    elif output is None:
        sys.stdout.write(csv_text(shown).encode("utf-8", "backslashreplace").decode())
    if output is not None:
        write_csv(output, shown)
        state.say(f"{counted(count, 'prediction')} in {output}")
    if strange := table.get("is_anomaly", []).count(True):
        what = "is an anomaly" if strange == 1 else "are anomalies"
        state.say(f"{strange} of {counted(count, 'image')} {what}: column is_anomaly")
    if unlike := table.get("is_unlike", []).count(True):
        verb = "is" if unlike == 1 else "are"
        state.warn(f"{unlike} of {counted(count, 'image')} {verb} unlike those it learned from: column is_unlike")
    failed = [each for each in zip(table["path"], table["error"], strict=True) if each[1]]
    for path, error in failed:
        state.warn(f"{printable(path)}: {printable(error)}")
    if bank is None:
        keep_networks(state, loaded.networks(), predictor if weights_file is None else None)
    context.exit(1 if len(failed) and (strict or len(failed) == count) else 0)


def _add_masks(state: State, predictor: Any, paths: list[str], table: dict[str, list[Any]], folder: Path) -> None:
    """Write the masks of readable images into a folder, and add their names to the table."""
    from featurebank.explore.anomaly_maps import NO_MAPS, mask_names, masks
    from featurebank.storage import files

    if predictor.task != "anomaly" or predictor.single.patches is None:
        raise PredictorError(NO_MAPS)
    places = [folder / name for name in mask_names(paths)]
    read = [number for number, error in enumerate(table["error"]) if not error]
    progress = state.progress("maps")
    for done, (number, mask) in enumerate(zip(read, masks(predictor, [paths[i] for i in read]), strict=True), 1):
        files.make_folder(places[number].parent)
        files.commit(places[number], mask)
        if progress is not None:
            progress(done, len(read))
    state.say(f"{counted(len(read), 'mask')} in {folder}")
    table["mask"] = [str(place) if not error else "" for place, error in zip(places, table["error"], strict=True)]


def _named(image: AnyPath) -> list[AnyPath]:
    """Return what an argument names: itself, the lines of standard input, or the files that fit a pattern."""
    import glob
    import os

    from featurebank.images.listing import is_there

    if str(image) == "-":
        lines = click.get_binary_stream("stdin").read().splitlines()
        found = [os.fsdecode(line) for line in lines if line.strip()]
        problem = "no path on standard input; expected one a line"
    elif isinstance(image, Path) and glob.has_magic(str(image)) and not is_there(image):
        found = sorted(glob.glob(str(image), recursive=True))
        problem = f"no file or folder fits {str(image)!r}; check the pattern"
    else:
        return [image]
    if not found:
        raise SourceError(problem)
    return [PLACE.convert(each, None, None) for each in found]


def _listed(images: list[AnyPath], table_options: dict[str, Any]) -> list[Any]:
    """Return the files that are named, and those in folders and tables; a sample that is no file keeps its reason.

    A name of nothing is refused before a model loads.
    """
    from featurebank.images.listing import holds_many, is_there
    from featurebank.images.tables import is_table

    absent = [str(each) for each in images if not is_there(each)]
    if absent:
        raise SourceError(f"no file or folder {absent[0]!r} ({len(absent)} of {len(images)}); check the path")
    given = {name: value for name, value in table_options.items() if value not in (None, "auto")}
    if given and not any(map(is_table, images)):
        raise click.UsageError(f"--{next(iter(given)).replace('_', '-')} goes with a table of paths, and none is named")
    items: list[Any] = []
    for each in images:
        if is_table(each) or holds_many(each):
            items += _samples(each, table_options if is_table(each) else {})
        else:
            items.append(str(each))
    return items


def _samples(place: AnyPath, table_options: dict[str, Any]) -> list[Any]:
    """Return the samples of a source as paths; one that cannot be read as a sample, which knows why."""
    from featurebank.images.scanning import scan
    from featurebank.images.sources import key_of
    from featurebank.predictor.embedding import Item

    found = scan(place, **table_options)
    start = table_options.get("root") or (place if place.is_dir() else place.parent)
    if key_of(start) == found.root:
        here = start == Path(".") and not place.is_dir()  # a table's paths stay joinable with the table
        found = replace(found, root="" if here else str(start))  # paths begin as the user wrote it
    samples = [Item(found, position) for position in range(len(found.paths))]
    return [each if each.position in found.problems else str(each) for each in samples]
