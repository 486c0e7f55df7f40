"""featurebank evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from cloup import command, option

from featurebank.errors import counted, printable
from featurebank.topmodels.formatting import interval_text, is_share, score_text
from featurebank_cli.exporting import keep_networks
from featurebank_cli.options import (
    FILE,
    PLACE,
    allow_download_option,
    brought_weights_option,
    device_option,
    json_option,
    root_option,
    sample_weight_option,
    table_options,
    target_option,
)
from featurebank_cli.output import print_json, print_table
from featurebank_cli.state import State

if TYPE_CHECKING:
    from featurebank.storage.files import AnyPath


@command()
@click.argument("predictor", type=FILE)
@click.argument("source", type=PLACE)
@target_option("Column of labels, or the one task to score.  [default: what the predictor learned]")
@sample_weight_option
@option("--groups", help="Column of what belongs together, e.g. patients: intervals rest on these, not on the images.")
@table_options
@root_option
@device_option
@brought_weights_option
@allow_download_option
@json_option
@click.pass_obj
def evaluate(
    state: State,
    predictor: Path,
    source: AnyPath,
    target: str | None,
    sample_weight: str | None,
    groups: str | None,
    root: Path | None,
    device: str,
    weights_file: Path | None,
    allow_download: bool,
    as_json: bool,
    **table: Any,
) -> None:
    """Score PREDICTOR on the labelled images of SOURCE, which it must not have been trained on.

    \b
    Example:
        featurebank evaluate photos.featurebank test_photos/
    """
    from featurebank.images.scanning import scan
    from featurebank.predictor.predictor import Predictor

    found = scan(source, root=root, **table)
    loaded = Predictor.load(predictor, device=device, weights_file=weights_file, allow_download=allow_download)
    report = loaded.evaluate(
        found, target=target, sample_weight=sample_weight, groups=groups, progress=state.progress("evaluate")
    )
    for note in found.notes:
        state.say(printable(note))
    for failure in report["failures"]:
        state.warn(f"{printable(failure['path'])}: {printable(failure['error'])}")
    if report["seen_in_training"]:
        state.warn(
            f"{report['seen_in_training']} of these images were among those the predictor learned from: "
            "the score says nothing about new ones"
        )
    if as_json:
        print_json(report)
    else:
        for name, each in report.get("tasks", {"": report}).items():
            _print(each, f"{printable(name)}: " if name else "")
    keep_networks(state, loaded.networks(), predictor if weights_file is None else None)


def _print(report: dict[str, Any], title: str) -> None:
    names = [name for name in report["intervals"] if name in report]
    ends = {name: interval_text(report["intervals"][name], name) for name in names}
    rows = [[_named(name), score_text(report[name], name, unit=""), ends[name]] for name in names]
    print_table(f"{title}{counted(report['n_samples'], 'image')}", ["score", "value", "95 %"], rows, right=(1, 2))
    if "confusion" in report:
        _print_confusion(report)
    if "per_label" in report:
        labels = [[each["label"], str(each["n"]), f"{each['f1']:.3f}"] for each in report["per_label"]]
        print_table("labels", ["label", "images", "F1"], labels, right=(1, 2))


def _named(score: str) -> str:
    """Return a score as the table calls it: shares are in percent."""
    return score.replace("_", " ") + (" %" if is_share(score) else "")


def _print_confusion(report: dict[str, Any]) -> None:
    classes = [str(name) for name in report["classes"]]
    confusion = [[name, *(f"{cell:g}" for cell in row)] for name, row in zip(classes, report["confusion"], strict=True)]
    print_table("confusion (rows true, columns predicted)", ["", *classes], confusion, right=range(1, len(classes) + 1))
