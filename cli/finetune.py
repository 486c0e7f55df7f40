"""featurebank finetune."""

from __future__ import annotations

import math
import re
from dataclasses import MISSING, fields
from inspect import cleandoc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from cloup import command, option, option_group

from featurebank.errors import counted
from featurebank.finetuning.recipe import Recipe
from featurebank.topmodels.formatting import percent
from featurebank_cli.exporting import keep_networks
from featurebank_cli.fitted import checked_predictor, save_predictor
from featurebank_cli.options import (
    FILE,
    Decorator,
    bank_argument,
    check_folder,
    class_weight_option,
    device_option,
    folds_option,
    json_option,
    output_option,
    predictor_option,
    sample_weight_option,
    size_option,
    split_option,
    target_option,
    weights_option,
    workers_option,
)
from featurebank_cli.output import print_json, print_table
from featurebank_cli.state import State

if TYPE_CHECKING:
    from featurebank.storage.files import AnyPath


def _rate(context: click.Context, option: click.Parameter, value: str | None) -> float | str | None:
    """Parse ``auto`` or a number."""
    try:
        return value if value in (None, "auto") else float(value)
    except ValueError as error:
        raise click.BadParameter("expected auto, or a number such as 1e-3") from error


def _described() -> dict[str, str]:
    """Return the text of each option of `Recipe`, from its docstring."""
    section = cleandoc(Recipe.__doc__ or "").partition("Parameters\n")[2].partition("\n\n")[0]
    texts = re.split(r"^(\w+) : .*$", section, flags=re.MULTILINE)
    return {name: " ".join(text.split()).replace("``", "") for name, text in zip(texts[1::2], texts[2::2], strict=True)}


FROZEN = (
    "Frozen is a logistic regression on the penultimate layer, its strength chosen inside each fold; featurebank fit "
    "tells the best of all that it tried."
)
TEXTS, FIELDS = _described(), {each.name: each for each in fields(Recipe)}


def recipe_option(name: str, *spelled: str, **more: Any) -> Decorator:
    """Return the option of a field of `Recipe`: its default, its limits and its text."""
    declared = FIELDS[name]
    limits = declared.metadata
    default = None if declared.default is MISSING else declared.default
    found: dict[str, Any] = {"help": TEXTS[name], **more} | ({} if default is None else {"default": default})
    if isinstance(default, bool):
        found["is_flag"] = True
    elif "choices" in limits:
        found["type"] = click.Choice(limits["choices"])
    elif "least" in limits:
        kind = click.IntRange if isinstance(default, int) else click.FloatRange
        most = None if limits["most"] == math.inf else limits["most"]
        found["type"] = kind(limits["least"], most, max_open=limits["open"])
    return option(*(spelled or [f"--{name.replace('_', '-')}"]), name, **found)


@command()
@bank_argument
@option_group(
    "What is trained",
    recipe_option("cut", "--from", required=True),
    predictor_option(
        "A predictor of `featurebank fit`: its backbone is trained, from its logistic regression where it is one."
    ),
    option("--backbone", help="See `featurebank backbones`.  [default: the predictor's, or the bank's only one]"),
    weights_option,
    size_option,
    target_option("Column of classes.  [default: the predictor's, label, or the only column]"),
    output_option("The predictor; an older one there is replaced.  [default: BANK's stem + .tuned.featurebank]"),
)
@option_group(
    "How it is trained",
    recipe_option("epochs"),
    recipe_option("lr", callback=_rate),
    *map(recipe_option, ("augment", "batch_size", "lr_decay", "optimizer", "weight_decay", "patience", "refit")),
    *map(recipe_option, ("average", "label_smoothing", "mixup")),
)
@option_group("What the network is", *map(recipe_option, ("head", "init", "unfreeze", "batchnorm", "views")))
@option_group(
    "How it is scored",
    recipe_option("validation"),
    folds_option("Also cross-validate the fine-tuning against the frozen features on so many folds.", default=None),
    option("--groups", help="Column of groups that never straddle a split."),
    sample_weight_option,
    split_option,
    class_weight_option,
    option("--plot", type=FILE, help="Draw the learning curve into this PNG or SVG file."),
)
@option_group(
    "How it is computed",
    recipe_option("random_state", "--seed", type=click.IntRange(min=0)),
    device_option,
    *map(recipe_option, ("precision", "store")),
    workers_option,
    option("--resume", is_flag=True, help="Go on where the same command was stopped."),
)
@json_option
@click.pass_obj
def finetune(
    state: State, bank: AnyPath, output: Path | None, plot: Path | None, resume: bool, as_json: bool, **options: Any
) -> None:
    """Train the upper blocks of a backbone on the images of BANK and save them as a predictor.

    What lies before --from stays frozen: its activations are computed once, kept in the bank, and used again in every
    epoch and every run. Ctrl-C keeps the best epoch so far; --resume goes on from there.

    \b
    Example:
        featurebank finetune photos.bank --from blocks.5 --predictor photos.featurebank --folds 5
    """
    from featurebank.bank.bank import Bank
    from featurebank.explore.plots import check_format, figure_bytes, plot_training
    from featurebank.finetuning.finetune import Callbacks, default_output
    from featurebank.finetuning.finetune import finetune as run_finetune
    from featurebank.storage import files

    opened = Bank(bank)
    path = checked_predictor(output or default_output(opened))
    if plot is not None:
        check_folder(plot, "--plot")
        check_format(plot.suffix)
    recipe = Recipe(**{field.name: options.pop(field.name) for field in fields(Recipe)})
    checkpoint = path.with_suffix(".checkpoint")
    callbacks = Callbacks(
        on_estimate=lambda found: state.say(f"estimate: {found}"),
        on_cached=state.progress("activations"),
        on_fold=state.progress("folds", "fold"),
        on_step=state.progress("train", "step"),
        on_epoch=_epoch_printer(state, recipe.epochs),
    )
    options |= {"folds": options["folds"] or 0, "checkpoint": checkpoint, "resume": resume, "callbacks": callbacks}
    result = run_finetune(opened, recipe, **options)
    save_predictor(state, result, path)
    if plot is not None:
        files.commit(plot, figure_bytes(plot_training(result.report), plot.suffix))
    if not result.report["interrupted"]:
        files.remove(checkpoint)
    report = {**result.report, "predictor": str(path)}
    for note in report["warnings"]:
        state.warn(note)
    if as_json:
        print_json(report)
    else:
        _print(report)
    keep_networks(state, result.predictor.networks(), path)


def _epoch_printer(state: State, epochs: int) -> Any:
    def tell(epoch: Any) -> None:
        score = "" if epoch.score is None else f"validation {percent(epoch.score)} %, log loss {epoch.loss:.4f}"
        if not epoch.number:
            state.say(f"epoch 0/{epochs}  the new head on frozen features  {score}")
            return
        state.say(
            f"epoch {epoch.number}/{epochs}  loss {epoch.train_loss:.4f}  {score}  "
            f"{epoch.images_per_second:.0f} images/s, {epoch.seconds_left:.0f} s left"
        )

    return tell


def _print(report: dict[str, Any]) -> None:
    rows = [[each["name"], f"{each['parameters']:,}", f"{each['lr']:.2g}"] for each in report["blocks"]]
    images = counted(report["n_train"], "image")
    title = f"{report['backbone']} from {report['cut']}: {images}, {len(report['classes'])} classes"
    print_table(title, ["block", "parameters", "learning rate"], rows, right=(1, 2))
    best, start = report["best"], report["start"]
    if best["score"] is not None:
        images = counted(report["n_validation"], "image")
        click.echo(
            f"Best epoch {best['number']}: validation {percent(best['score'])} % of {images}; "
            f"the head alone {percent(start['score'])} %."
        )
        if best["score"] <= start["score"] and not report["diverged"]:
            more = "" if "comparison" in report else "; --folds tells whether fine-tuning pays"
            click.echo(f"No better than the frozen features on these few{more}.")
    last = report["history"][-1]["number"]
    if last < report["recipe"]["epochs"] and not report["interrupted"]:
        since = last - report["recipe"]["patience"]
        click.echo(f"Stopped after epoch {last}: no better one since epoch {since} (--patience).")
    if report["interrupted"]:
        click.echo("Interrupted: the best epoch so far is kept; --resume goes on.")
    if "comparison" in report:
        click.echo(f"{report['comparison']['sentence']} {report['comparison']['seconds']:.0f} s.")
        if report["comparison"]["is_anew"]:
            click.echo(FROZEN)
    click.echo(f"predictor: {report['predictor']}   in {report['seconds']:.0f} s")
