"""featurebank fit."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from featurebank_cli.options import State, bank_argument, json_option, percent, print_json, print_table


@click.command()
@bank_argument
@click.option(
    "--features", multiple=True, help="A candidate: NAME or NAME+NAME; may be repeated.  [default: every pooled set]"
)
@click.option("--model", "models", multiple=True, help="logreg, svm or mlp; may be repeated.  [default: all three]")
@click.option("--target", help="Column of classes.  [default: label, or the only column]")
@click.option("--groups", help="Column of groups that never straddle folds, or @near-duplicates.")
@click.option("--sample-weight", help="Column of weights, for fitting and scoring.")
@click.option(
    "--folds", type=click.IntRange(min=2), default=5, show_default=True, help="Folds of the cross-validation."
)
@click.option("--nested", is_flag=True, help="Also score the whole procedure, selection included.")
@click.option("--scoring", default="accuracy", show_default=True, help="Any scikit-learn scorer.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the folds and the models.")
@click.option("--jobs", type=int, default=-1, show_default=True, help="Threads; -1 for one a core.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="The predictor.  [default: BANK's stem + .featurebank]"
)
@json_option
@click.pass_obj
def fit(state: State, bank: Path, models: tuple[str, ...], output: Path | None, as_json: bool, **options: Any) -> None:
    """Cross-validate top models over the feature sets of BANK and save the best as a predictor.

    \b
    Example:
        featurebank fit photos.bank --model svm --features resnet18/layer3+resnet18/penultimate
    """
    from featurebank.bank import Bank
    from featurebank.errors import StorageError
    from featurebank.fitting import MODELS, default_output
    from featurebank.fitting import fit as run_fit

    options["features"] = list(options["features"]) or None
    opened = Bank(bank)
    path = output or default_output(opened)
    if not path.parent.is_dir():
        raise StorageError(f"no folder {str(path.parent)!r} for the predictor; make it, or name another with -o")
    result = run_fit(opened, models=list(models) or MODELS, progress=state.progress("fit", "fit"), **options)
    result.save(path)
    report = {**result.report, "predictor": str(path)}
    for note in report["warnings"]:
        state.warn(note)
    if as_json:
        print_json(report)
    else:
        print_candidates(report)
        click.echo(f"predictor: {path}   next: featurebank predict {path} IMAGES...")


def print_candidates(report: dict[str, Any]) -> None:
    """Print the best of each features × model, best first."""
    best: dict[tuple[str, str], dict[str, Any]] = {}
    seconds: dict[tuple[str, str], float] = {}
    for each in report["candidates"]:
        key = ("+".join(each["features"]), each["model"])
        seconds[key] = seconds.get(key, 0.0) + each["seconds"]
        if key not in best or each["mean"] > best[key]["mean"]:
            best[key] = each
    ranked = sorted(best.items(), key=lambda item: -item[1]["mean"])
    common = common_backbone(name for name, _ in best)
    rows = [
        [
            short(name).removeprefix(common),
            model,
            ", ".join(f"{key}={_number(value)}" for key, value in each["params"].items()),
            percent(each["mean"]),
            f"{percent(each['ci95'][0])}..{percent(each['ci95'][1])}",
            f"{seconds[name, model]:.1f}",
        ]
        for (name, model), each in ranked
    ]
    title = (
        f"{report['scoring']}, {report['folds']}-fold, {report['n_samples']} samples, {len(report['classes'])} classes"
        + (f", {common.rstrip('/')}" if common else "")
    )
    print_table(title, ["features", "model", "parameters", "mean %", "95 %", "s"], rows, right=(3, 4, 5))
    click.echo("The first row was selected among these, so its score is a little optimistic.")
    if "nested" in report:
        nested = report["nested"]
        low, high = map(percent, nested["ci95"])
        click.echo(f"Nested, the selection included: {percent(nested['mean'])} % (95 % {low}..{high}).")


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def common_backbone(names: Iterable[str]) -> str:
    """Return ``BACKBONE/`` when all feature sets are of one backbone, else an empty text.

    Examples
    --------
    >>> common_backbone(["resnet18/layer3+resnet18/layer4", "resnet18/penultimate"])
    'resnet18/'
    """
    backbones = {part.rpartition("/")[0] for name in names for part in name.split("+")}
    return f"{backbones.pop()}/" if len(backbones) == 1 else ""


def short(name: str) -> str:
    """Return a concatenation with the backbone named once.

    Examples
    --------
    >>> short("resnet18/layer3+resnet18/penultimate")
    'resnet18/layer3 + penultimate'
    """
    common = common_backbone([name])
    return common + " + ".join(part.removeprefix(common) for part in name.split("+"))
